"""Put a trained network on many chips and measure it there, without training: `eqprop deploy`."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from eqprop.run.compose import compose, own_folder
from eqprop.run.errors import UsageError
from eqprop.run.overrides import check_overrides, repaired
from eqprop.run.record import checkpoint_of, recorded
from eqprop.run.tables import markdown, spread

USAGE = """
usage: eqprop deploy RUN substrate=CHOICE [chips=10] [split=validation|test] [checkpoint=NAME] [KEY=VALUE ...]

  eqprop deploy outputs/digits-0123456789 substrate=rram_crossbar chips=20
  eqprop deploy outputs/digits-0123456789 substrate=cmos_ota substrate.mismatch.sigma=0.2 split=test

RUN is the folder of a trained network. Every chip draws its own fixed patterns. Nothing is trained, and the run is not
changed; the results go to RUN/deployed/. Choose devices on validation images, and measure the chosen one on the test.
"""
FOLDER = "deployed"
_OWN = {"chips": "10", "split": "", "checkpoint": ""}


def main(arguments: Sequence[str]) -> None:
    """The command line of `eqprop deploy`."""
    words = [word for word in arguments if word not in ("-h", "--help")]
    if not words or len(words) < len(arguments):
        print(USAGE.strip())
        return
    run, *rest = words
    given = _OWN | dict(word.split("=", 1) for word in rest if word.partition("=")[0] in _OWN)
    others = repaired([word for word in rest if word.partition("=")[0] not in _OWN])
    if not given["chips"].isdigit() or int(given["chips"]) < 1:
        raise UsageError(f"chips={given['chips']}: expected a whole number of at least 1.")
    check_overrides(others, "train", own_folder())
    wrong = [word for word in others if not word.lstrip("+~").startswith(("substrate", "data.root", "runtime"))]
    if wrong or not any(word.startswith("substrate=") for word in others):
        what = f"{wrong[0]} is not of the device" if wrong else "no device is named"
        raise UsageError(
            f"{what}: give substrate=CHOICE and settings substrate.KEY=VALUE; the network is that of the run."
        )
    cfg = configuration(Path(run).expanduser(), others, own_folder())
    print(deploy(Path(run).expanduser(), cfg, int(given["chips"]), given["split"] or None, given["checkpoint"] or None))


def configuration(folder: Path, words: Sequence[str], own: Path | None = None) -> DictConfig:
    """The configuration of a run with another device, and where its data lies.

    **Raises:** `FileNotFoundError` if the folder holds no run.
    """
    cfg = recorded(folder)
    device = compose(words, "train", own)
    cfg.run = device.run
    cfg.substrate = device.substrate
    if any(word.startswith("data.root=") for word in words):
        cfg.data.root = cfg.data.load.root = device.data.root
    return cfg


def deploy(folder: Path, cfg: DictConfig, chips: int, split: str | None = None, checkpoint: str | None = None) -> str:
    """A table of every chip, the worst values and the mean; the results are written to `folder/deployed`.

    **Arguments:** `split`, `validation` (the default where the run has any) or `test`; `checkpoint`, a name in the
    run's folder of checkpoints, by default the last.

    **Raises:** `ValueError` for a device that does not go with the network, a split that is not there, or a checkpoint
    that is missing or of another model.
    """
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from eqprop.run import runtime
    from eqprop.run.build import build, instantiate
    from eqprop.run.checkpoint import DamagedCheckpoint, write_atomically
    from eqprop.run.loop import model_of
    from eqprop.run.provenance import environment
    from eqprop.run.record import to_json

    runtime.configure(cfg)
    if cfg.population > 1:
        raise ValueError(f"population is {cfg.population}; one network goes on chips, train with population=1.")
    task = build(OmegaConf.merge(cfg, {"substrate": None}))  # pyright: ignore[reportArgumentType]
    path = checkpoint_of(folder, checkpoint)
    try:
        model, _ = model_of(cfg, task, path)
    except DamagedCheckpoint as error:
        raise ValueError(str(error)) from error
    device = instantiate(cfg.substrate)
    task.trainer.on(device).init(model, key=jax.random.key(0))  # refuses what does not go together
    split = split or ("validation" if task.dataset.validation is not None else "test")
    part = getattr(task.dataset, split) if split in ("validation", "test") else None
    if part is None:
        raise ValueError(f"split={split}: expected test, or validation where the run held images out.")
    x, y = task.preprocess(part.images), task.target(jnp.asarray(part.labels))
    few = min(len(part), cfg.evaluation.alignment_examples)

    @eqx.filter_jit
    def measured(trainer: Any, model: Any, key: Any) -> dict[str, Any]:
        aligned = trainer.alignment(model, (x[:few], y[:few]), key=key)
        return {**trainer.evaluate(model, (x, y)), **aligned}

    chosen = ("accuracy", "unsettled_fraction", "cosine_hidden", "functional_asymmetry")
    found: dict[str, list[float]] = {name: [] for name in chosen}
    device_of = instantiate(OmegaConf.merge(cfg.substrate, {"_partial_": True}))  # pyright: ignore[reportArgumentType]
    for chip in range(chips):
        # The number is an array, so that one program serves all chips.
        values = measured(task.trainer.on(device_of(chip=jnp.asarray(chip))), model, jax.random.key(chip))
        for name in chosen:
            found[name].append(float(np.asarray(values[name])))
    described = OmegaConf.to_container(cfg.substrate, resolve=True)
    record = {
        "checkpoint": path.name, "split": split, "images": len(part), "substrate": described, "chips": chips,
        "results": found, "environment": environment(cfg, task.dataset.checksums),
    }  # fmt: skip
    digest = hashlib.sha256(json.dumps([described, split, path.name, chips], sort_keys=True).encode()).hexdigest()[:10]
    written = folder / FOLDER / f"{digest}.json"
    written.parent.mkdir(exist_ok=True)
    write_atomically(written, lambda file: file.write((to_json(record, indent=2) + "\n").encode()))
    titles = {"accuracy": (f"{split} accuracy (%)", 100, 2), "unsettled_fraction": ("unsettled (%)", 100, 2)}
    titles |= {"cosine_hidden": ("hidden cosine", 1, 3), "functional_asymmetry": ("functional asymmetry", 1, 3)}
    lines = [[str(chip), *(f"{f * found[k][chip]:.{d}f}" for k, (_, f, d) in titles.items())] for chip in range(chips)]
    worst = {"accuracy": min, "unsettled_fraction": max, "cosine_hidden": min, "functional_asymmetry": max}
    lines.append(["worst", *(f"{f * worst[k](found[k]):.{d}f}" for k, (_, f, d) in titles.items())])
    lines.append([f"mean (n = {chips})", *(spread(found[k], d, f) for k, (_, f, d) in titles.items())])
    table = markdown(["chip", *(title for title, *_ in titles.values())], lines)
    return f"{device.describe() if device else ''}\n{table}{written}"
