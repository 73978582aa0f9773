"""Put a trained network on many chips, measure it there, and train it on if asked: `eqprop deploy`."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from eqprop.run.compose import compose, own_folder
from eqprop.run.errors import UsageError
from eqprop.run.overrides import check_overrides, repaired
from eqprop.run.record import checkpoint_of, recorded
from eqprop.run.tables import markdown, spread

USAGE = """
usage: eqprop deploy RUN substrate=CHOICE [chips=10] [epochs=0] [calibrate=0] [split=validation|test] [checkpoint=NAME]
                     [KEY=VALUE]

  eqprop deploy outputs/digits-0123456789 substrate=rram_crossbar chips=20
  eqprop deploy outputs/digits-0123456789 substrate=cmos_ota substrate.mismatch.sigma=0.2 split=test
  eqprop deploy outputs/digits-0123456789 substrate=cmos_ota epochs=2
  eqprop deploy outputs/digits-0123456789 substrate=oim_like calibrate=100

RUN is the folder of a trained network. Every chip draws its own fixed patterns. With epochs=K each chip is trained for
K epochs more, as the run was but without a warm start, and measured again. With calibrate=N the range of every
converter is set, chip by chip and layer by layer, by its readings of N training images. The run is not changed; results
and a figure go to RUN/deployed/. Choose devices on validation images, and measure the chosen one on the test.
"""
FOLDER = "deployed"
_OWN = {"chips": "10", "epochs": "0", "calibrate": "0", "split": "", "checkpoint": ""}
_SHOWN = {
    "accuracy": ("{split} accuracy (%)", 100, 2, min),
    "unsettled_fraction": ("unsettled (%)", 100, 2, max),
    "cosine_hidden": ("hidden cosine", 1, 3, min),
    "functional_asymmetry": ("functional asymmetry", 1, 3, max),
}
"""What is measured of a chip: its title, factor, digits, and which of two values is the worse."""


def main(arguments: Sequence[str]) -> None:
    """The command line of `eqprop deploy`."""
    words = [word for word in arguments if word not in ("-h", "--help")]
    if not words or len(words) < len(arguments):
        print(USAGE.strip())
        return
    run, *rest = words
    given = _OWN | dict(word.split("=", 1) for word in rest if word.partition("=")[0] in _OWN)
    others = repaired([word for word in rest if word.partition("=")[0] not in _OWN])
    for name, least in (("chips", 1), ("epochs", 0), ("calibrate", 0)):
        if not given[name].isdigit() or int(given[name]) < least:
            raise UsageError(f"{name}={given[name]}: expected a whole number of at least {least}.")
    check_overrides(others, "train", own_folder())
    wrong = [word for word in others if not word.lstrip("+~").startswith(("substrate", "data.root", "runtime"))]
    if wrong or not any(word.startswith("substrate=") for word in others):
        what = f"{wrong[0]} is not of the device" if wrong else "no device is named"
        raise UsageError(
            f"{what}: give substrate=CHOICE and settings substrate.KEY=VALUE; the network is that of the run."
        )
    cfg = configuration(Path(run).expanduser(), others, own_folder())
    chips, epochs, calibrate = (int(given[name]) for name in ("chips", "epochs", "calibrate"))
    names = given["split"] or None, given["checkpoint"] or None
    print(deploy(Path(run).expanduser(), cfg, chips, *names, epochs, calibrate))


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


def deploy(
    folder: Path,
    cfg: DictConfig,
    chips: int,
    split: str | None = None,
    checkpoint: str | None = None,
    epochs: int = 0,
    calibrate: int = 0,
) -> str:
    """A table of every chip, the worst values and the mean; results and figure are written to `folder/deployed`.

    **Arguments:** `split`, `validation` (the default where the run has any) or `test`; `checkpoint`, a name in the
    run's folder of checkpoints, by default the last; `epochs` of training on every chip; `calibrate`, so many training
    images set the ranges of converters.

    **Raises:** `ValueError` for a device that does not go with the network, or has no converter to calibrate, a split
    that is not there, or a checkpoint that is missing or of another model.
    """
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    from eqprop import Substrate
    from eqprop.data.augment import batch_key
    from eqprop.run import runtime
    from eqprop.run.build import build, device_of
    from eqprop.run.checkpoint import DamagedCheckpoint, write_atomically
    from eqprop.run.loop import model_of
    from eqprop.run.provenance import environment
    from eqprop.run.record import to_json
    from eqprop.substrate import calibrate_range

    runtime.configure(cfg)
    if cfg.population > 1:
        raise ValueError(f"population is {cfg.population}; one network goes on chips, train with population=1.")
    # A schedule of the learning rate spans the training on the chip, and not that of the run.
    changes = {"substrate": None, **({"epochs": epochs, "warm_start": 0} if epochs else {})}
    task = build(OmegaConf.merge(cfg, changes))  # pyright: ignore[reportArgumentType]
    path = checkpoint_of(folder, checkpoint)
    try:
        model, _ = model_of(cfg, task, path)
    except DamagedCheckpoint as error:
        raise ValueError(str(error)) from error
    device = device_of(cfg)
    if not isinstance(device, Substrate):
        raise ValueError(f"A network is deployed on chips of an eqprop.Substrate, not on a {type(device).__name__}.")
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

    @eqx.filter_jit
    def step(trainer: Any, state: Any, images: Any, labels: Any, key: Any) -> Any:
        return trainer.step(state, (task.preprocess(images, key=key), task.target(labels)))[0]

    @eqx.filter_jit
    def calibrated(device: Substrate, model: Any, key: Any) -> Substrate:
        shown = task.dataset.train[:calibrate]
        batch = task.preprocess(shown.images), task.target(jnp.asarray(shown.labels))
        return calibrate_range(device, task.trainer, model, batch, key=key)

    found, tuned = ({name: [] for name in _SHOWN} for _ in range(2))

    def measure(into: dict[str, list[float]], trainer: Any, model: Any, chip: int) -> None:
        values = measured(trainer, model, jax.random.key(chip))
        for name, column in into.items():
            column.append(float(np.asarray(values[name])))

    for chip in range(chips):
        # The number is an array, so that one program serves all chips.
        on_chip = device.with_chip(jnp.asarray(chip))

        def trainer_for(model: Any, on_chip: Substrate = on_chip, chip: int = chip) -> Any:
            return task.trainer.on(calibrated(on_chip, model, jax.random.key(chip)) if calibrate else on_chip)

        trainer = trainer_for(model)
        measure(found, trainer, model, chip)
        if epochs:
            state = trainer.init(model, key=jax.random.key(chip))
            for epoch in range(epochs):
                for number, (images, labels) in enumerate(task.batches.epoch(epoch)):
                    key = batch_key(cfg.data.seed, epoch, number + 1)
                    state = step(trainer, state, jnp.asarray(images), jnp.asarray(labels), key)
            measure(tuned, trainer_for(state.model), state.model, chip)
    described = OmegaConf.to_container(cfg.substrate, resolve=True)
    record = {
        "checkpoint": path.name, "split": split, "images": len(part), "substrate": described, "chips": chips,
        "results": found, "environment": environment(cfg, task.dataset.checksums),
    }  # fmt: skip
    record |= {"epochs": epochs, "trained": tuned} if epochs else {}
    record |= {"calibrate": calibrate} if calibrate else {}
    identity = [
        described,
        split,
        path.name,
        chips,
        *([epochs] if epochs else []),
        *(["ranges", calibrate] * bool(calibrate)),
    ]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
    written = folder / FOLDER / f"{digest}.json"
    written.parent.mkdir(exist_ok=True)
    write_atomically(written, lambda file: file.write((to_json(record, indent=2) + "\n").encode()))
    drawn = {f"after {epochs} epochs on the chip": tuned["accuracy"]} if epochs else {}
    _draw({"as programmed": found["accuracy"], **drawn}, f"{split} accuracy (%)", written.with_suffix(".png"))
    tables = [_table(found, split)] + (
        [f"\nAfter {epochs} epochs on each chip:\n\n{_table(tuned, split)}"] if epochs else []
    )
    return f"{device.describe() if device else ''}\n{''.join(tables)}{written}"


def _table(found: Mapping[str, Sequence[float]], split: str) -> str:
    """One line a chip, then the worst and the mean."""
    chips = len(found["accuracy"])

    def line(title: str, values: Mapping[str, float]) -> list[str]:
        return [title, *(f"{factor * values[k]:.{digits}f}" for k, (_, factor, digits, _) in _SHOWN.items())]

    lines = [line(str(chip), {name: column[chip] for name, column in found.items()}) for chip in range(chips)]
    lines.append(line("worst", {name: worse(found[name]) for name, (*_, worse) in _SHOWN.items()}))
    means = [spread(found[name], digits, factor) for name, (_, factor, digits, _) in _SHOWN.items()]
    lines.append([f"mean (n = {chips})", *means])
    return markdown(["chip", *(title.format(split=split) for title, *_ in _SHOWN.values())], lines)


def _draw(columns: Mapping[str, Sequence[float]], label: str, path: Path) -> None:
    """Which share of the chips has at most an accuracy, a line for each of the columns."""
    try:
        from matplotlib.figure import Figure

        from eqprop.run.study.style import BLUE, ORANGE
    except ImportError:
        print("note: no figure, as matplotlib is not installed: pip install matplotlib", file=sys.stderr)
        return
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    axis = figure.subplots()
    for (title, values), colour in zip(columns.items(), (ORANGE, BLUE), strict=False):
        axis.ecdf([100 * value for value in values], color=colour, label=title)
    axis.set(xlabel=label, ylabel="share of the chips with at most that")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
