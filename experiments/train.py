"""Train a network by relaxation.

    python -m experiments.train                                   # the default: digits, N-point circle, homeostasis
    python -m experiments.train homeostasis=none seed=1
    python -m experiments.train -m estimator=finite_nudge,rbp seed=0,1,2

A run is a folder named by its configuration. A finished one is not run again; an interrupted one goes on.
"""

import signal
import sys
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.cli import CONFIGS, UsageError, check_overrides, fail


def run(cfg: DictConfig) -> dict[str, Any]:
    """One run, from a configuration to its summary.

    **Raises:** `ValueError`, `OSError` for what cannot be run; `Unsettled`, `Interrupted` for what stopped.
    """
    # Imported here: the command line answers at once, and each job of a launcher starts its own JAX.
    from experiments import figures, record, runtime
    from experiments.build import build
    from experiments.loop import train

    runtime.configure(cfg)
    task = build(cfg)
    folder = record.RunFolder(cfg, writer=runtime.is_writer())
    try:
        summary = folder.summary
        if summary is not None:
            print(f"{folder.path} is finished already; run.overwrite=true starts it again.")
        else:
            print(f"{folder.path}")
            summary = train(cfg, task, folder)
            if runtime.is_writer():
                figures.learning_curve(folder.path)
            folder.write_json(record.SUMMARY, summary)
        print(table(summary))
        return summary
    finally:
        folder.close()


def table(summary: dict[str, Any]) -> str:
    """The summary as a short table."""
    rows = [("test accuracy", f"{summary['test_accuracy']:.2%}"), ("test loss", f"{summary['test_loss']:.4f}")]
    for name, title in (
        ("cosine_hidden", "hidden cosine to the true gradient"),
        ("functional_asymmetry", "functional asymmetry"),
    ):
        if name in summary:
            rows.append((title, f"{summary[name]['start']:.3f} at the start, {summary[name]['end']:.3f} at the end"))
    rows += [
        (
            "unsettled examples",
            f"{summary['unsettled_fraction']:.2%} in training, {summary['test_unsettled_fraction']:.2%} in the test",
        ),
        ("error vectors shortened", f"{summary['bounded_fraction']:.2%}"),
        ("time", f"{summary['seconds']:.1f} s"),
    ]
    width = max(len(title) for title, _ in rows)
    return "\n".join(f"  {title.ljust(width)}  {value}" for title, value in rows)


@hydra.main(config_path=str(CONFIGS), config_name="train", version_base="1.3")
def _main(cfg: DictConfig) -> float:
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run(cfg)["test_accuracy"]
    from experiments.loop import Interrupted, Unsettled

    try:
        return run(cfg)["test_accuracy"]
    except Interrupted as stop:
        print(stop)
        sys.exit(0 if stop.number == signal.SIGUSR1 else 128 + stop.number)
    except (ValueError, OSError, Unsettled) as error:
        fail(error)
        raise AssertionError from None  # not reached


def main() -> None:
    """The command line."""
    try:
        check_overrides(sys.argv[1:], "train")
    except UsageError as error:
        fail(error, code=2)
    _main()


if __name__ == "__main__":
    main()
