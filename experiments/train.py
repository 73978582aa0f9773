"""Train a network by relaxation.

    python -m experiments.train                                   # the default: digits, N-point circle, homeostasis
    python -m experiments.train homeostasis=none seed=1
    python -m experiments.train -m estimator=finite_nudge,rbp seed=0,1,2

A run is a folder named by its configuration. A finished one is not run again; an interrupted one goes on.
"""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.cli import CONFIGS, check_command_line, fail
from experiments.sweep import job

if TYPE_CHECKING:
    from experiments.loggers import Logger


def run(cfg: DictConfig, logger: Logger | None = None) -> dict[str, Any]:
    """One run, from a configuration to its summary. Metrics also go to `logger`, by default that of `run.logger`.

    **Raises:** `ValueError`, `OSError` for what cannot be run; `Unsettled`, `Interrupted` for what stopped.
    """
    # Imported here: the command line answers at once, and each job of a launcher starts its own JAX.
    from experiments import figures, record, runtime
    from experiments.build import build
    from experiments.loggers import find_logger
    from experiments.loop import train

    summary = record.finished(cfg)
    if summary is not None:
        print(f"{record.run_path(cfg)} is finished already; run.overwrite=true starts it again.")
        print(table(summary))
        return summary
    runtime.configure(cfg)
    task = build(cfg)
    writer = runtime.is_writer()
    make = find_logger(cfg.run.logger if writer else None)
    with record.RunFolder(cfg, writer=writer) as folder, closing(logger or make(folder.path, folder.settings)) as log:
        print(f"{folder.path}")
        if task.trainer.substrate is not None:
            print(task.trainer.substrate.describe())
        summary = train(cfg, task, folder, log)
        if writer:
            figures.learning_curve(folder.path)
        folder.write_json(record.SUMMARY, summary)
    print(table(summary))
    return summary


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
        return job(cfg, run)
    from experiments.loop import Interrupted, Unsettled

    try:
        return run(cfg)["test_accuracy"]
    except Interrupted as stop:
        print(stop)
        sys.exit(stop.code)
    except (ValueError, OSError, Unsettled) as error:
        fail(error)
        raise AssertionError from None  # not reached


def main() -> None:
    """The command line."""
    check_command_line("train")
    _main()


if __name__ == "__main__":
    main()
