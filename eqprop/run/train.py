"""Train a network by relaxation: `eqprop train`.

A run is a folder named by its configuration. A finished one is not run again; an interrupted one goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from eqprop.run.compose import CONFIGS, compose, own_folder, quoted, say_what_is_hidden, search_path
from eqprop.run.errors import Interrupted, UsageError
from eqprop.run.overrides import check_overrides, repaired, tolerant
from eqprop.run.sweep import check_launcher, job, take_slot

if TYPE_CHECKING:
    from eqprop.run.loggers import Logger

USAGE = """
usage: eqprop train [KEY=VALUE ...]            one run
       eqprop train -m KEY=A,B,... [...]       a sweep: every combination, finished runs are skipped
       eqprop train -m --dry-run [...]         print the batch script of a sweep on SLURM and submit nothing
       eqprop train --search N KEY=choice(...) a search of N trials by Optuna, judged on validation images
       eqprop train --cfg job [KEY=VALUE ...]  print the configuration and do not run

  eqprop train                                            the default: digits, nudges on a circle, homeostasis
  eqprop train experiment=fashion_mnist_best epochs=1     a recipe, with a change
  eqprop train network.angle=45 homeostasis=none seed=1
  eqprop train -m estimator=finite_nudge,rbp seed=0,1,2
  eqprop train -m network.angle=0,45,90 hydra/launcher=joblib run.slots=2
  eqprop train --search 30 epochs=5 'optimiser.learning_rate=tag(log,interval(1e-4,1e-1))'
"""


def run(cfg: DictConfig, logger: Logger | None = None) -> dict[str, Any]:
    """One run, from a configuration to its summary. Metrics also go to `logger`, by default that of `run.logger`.

    **Raises:** `ValueError`, `OSError` for what cannot be run; `Unsettled`, `Interrupted` for what stopped.
    """
    # Imported here: the command line answers at once, and each job of a launcher starts its own JAX.
    from eqprop.run import curve, record, runtime
    from eqprop.run.build import build
    from eqprop.run.loggers import find_logger
    from eqprop.run.loop import train

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
        drawn = writer and curve.learning_curve(folder.path)
        folder.write_json(record.SUMMARY, summary)
        if drawn:
            from eqprop.run import report  # which needs matplotlib

            report.write(folder.path)
    print(table(summary))
    return summary


def table(summary: dict[str, Any]) -> str:
    """The summary as a short table."""
    shown = ("test_accuracy", "test accuracy", "{:.2%}"), ("test_rmse", "test RMSE", "{:.4g}")
    shown += ("test_r2", "test R2", "{:.4f}"), ("test_loss", "test loss", "{:.4f}")
    shown += ("validation_accuracy", "validation accuracy", "{:.2%}"), ("validation_r2", "validation R2", "{:.4f}")
    rows = [(title, form.format(summary[name])) for name, title, form in shown if name in summary]
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
    for name, title in (("inference", "inference on the device"), ("training", "training example on the device")):
        if f"energy_{name}_joules" in summary:
            joules, seconds = summary[f"energy_{name}_joules"], summary.get(f"time_{name}_seconds")
            rows.append((title, f"{joules:.3g} J" + (f", {seconds:.3g} s" if seconds is not None else "")))
    rows += [("cost not known", reason) for reason in summary.get("cost_reasons", ())]
    width = max(len(title) for title, _ in rows)
    return "\n".join(f"  {title.ljust(width)}  {value}" for title, value in rows)


def objective(summary: dict[str, Any]) -> float:
    """What a sweeper may maximise: the validation accuracy, or R² in a regression, never that of the test; NaN without
    validation images."""
    return summary.get("validation_accuracy", summary.get("validation_r2", float("nan")))


@hydra.main(config_path=str(CONFIGS), config_name="train", version_base="1.3")
def _hydra(cfg: DictConfig) -> float:
    """One job of a sweep."""
    words = list(HydraConfig.get().overrides.task)
    required = {f"++{key}" for key in cfg.run.required}
    mine = [word[2:] if word.partition("=")[0] in required else word for word in words]
    own = Path(cfg.run.own_configs) if cfg.run.own_configs else None
    if cfg.run.words:  # of a study, whose runs are a list and no product
        mine = list(cfg.run.words)
        sys.argv = ["eqprop", "train", *mine]  # which its record tells as the command
        return job(cfg, lambda _: objective(_checked_run(compose(mine, "train", own), mine, own)))
    return job(cfg, lambda cfg: objective(_checked_run(cfg, mine, own)))


def _checked_run(cfg: DictConfig, words: list[str], own: Path | None) -> dict[str, Any]:
    try:
        check_overrides(words, "train", own)
    except UsageError as error:
        raise ValueError(str(error)) from None
    return run(cfg)


def main(arguments: Sequence[str]) -> None:
    """The command line of `eqprop train`."""
    flags, own, words = parse(arguments)
    if flags.help:
        from eqprop.run.helptext import of_train

        print(of_train("train", USAGE, own))
        return
    check_overrides(words, "train", own)
    if flags.dry_run and (not flags.multirun or flags.search is not None):
        raise UsageError("--dry-run is of a sweep on SLURM; expected -m and hydra/launcher=submitit_slurm with it.")
    if flags.search is not None:
        from eqprop.run.search import main as search

        search(words, flags.search, Path(flags.journal), own)
    elif flags.multirun or flags.hydra:
        _start_hydra(flags, own, words)
    else:
        cfg = compose(words, "train", own)
        if cfg.run.slots is not None:
            take_slot(Path(cfg.run.root).expanduser(), cfg.run.slots)
        run(cfg)


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Path | None, list[str]]:
    """Flags, the user's folder of configurations, and overrides that Hydra's grammar takes."""
    parser = argparse.ArgumentParser(prog="eqprop train", add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("--search", type=int)
    parser.add_argument("--journal", default="outputs/search.log")
    parser.add_argument("-c", "--cfg")
    parser.add_argument("-p", "--package")
    parser.add_argument("-i", "--info", nargs="?", const="all")
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("words", nargs="*")
    flags = parser.parse_intermixed_args(list(arguments))
    flags.hydra = [f"--{name}={value}" for name in ("cfg", "package", "info") if (value := getattr(flags, name))]
    flags.hydra += ["--resolve"] if flags.resolve else []
    own = own_folder(flags.config_dir)
    say_what_is_hidden(own)
    return flags, own, repaired(flags.words)


def _start_hydra(flags: argparse.Namespace, own: Path | None, words: list[str]) -> None:
    """Hand a sweep, or a question about the configuration, to Hydra's own program."""
    added = search_path(own)
    if flags.multirun:
        check_launcher(words, dry_run=flags.dry_run)
        words, keys = tolerant(words, own)
        added += [f"run.required=[{','.join(keys)}]"] if keys else []
        added += [f"run.own_configs={quoted(str(own))}"] if own else []
    if flags.dry_run:
        from eqprop.run.slurm import script

        print(script(words, own), end="")
        return
    sys.argv = ["eqprop train", *(["-m"] if flags.multirun else []), *flags.hydra, *added, *words]
    with hydra_of_this_python():
        try:
            _hydra()
        except KeyboardInterrupt:
            raise Interrupted(
                signal.SIGINT, "Stopped. Jobs that were submitted go on; what is finished is not run again."
            ) from None


@contextlib.contextmanager
def hydra_of_this_python():
    """**Raises:** `UsageError` where Hydra's parser does not run: its releases before 1.4 do not on Python 3.14."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if "LazyCompletionHelp" not in str(error) and "badly formed help string" not in str(error):
            raise
        raise UsageError(
            f"Sweeps and --cfg need a newer Hydra than {hydra.__version__} on Python {sys.version.split()[0]}: "
            "pip install 'hydra-core>=1.4', or use Python 3.13. Single runs and studies work as they are."
        ) from error
