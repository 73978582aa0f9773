"""Search settings with Optuna: every trial is an ordinary run folder, and the hopeless ones are pruned.

    python -m experiments.search --trials 30 epochs=20 'optimiser.learning_rate=tag(log,interval(1e-4,1e-1))' \\
        'estimator=choice(finite_nudge,rbp)' 'network.angle=range(0,91,30)'

What varies is written as in Hydra's sweeps: `choice`, `range`, `interval`, with `tag(log,…)` for a logarithmic scale.
The same command goes on with the study, and started several times shares it among processes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from experiments.cli import CONFIGS, UsageError, check_overrides, fail
from experiments.collect import load
from experiments.train import run

try:
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial, Trial, TrialState
except ImportError as missing:
    raise SystemExit("error: the search needs Optuna: pip install optuna") from missing


FAILURES = 5
"""In a row, after which the search gives up."""


class Pruner:
    """Reports the test accuracy of every epoch, and stops a trial that lags behind the others."""

    def __init__(self, trial: Trial):
        self._trial = trial

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        if "test_accuracy" in metrics:
            self._trial.report(float(np.mean(metrics["test_accuracy"])), step)
            if self._trial.should_prune():
                raise optuna.TrialPruned(f"after epoch {step}")

    def close(self) -> None:
        pass


def distribution(override: Override) -> BaseDistribution:
    """What Hydra's sweep syntax means to Optuna."""
    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        kind = IntDistribution if isinstance(sweep.start, int) and isinstance(sweep.end, int) else FloatDistribution
        return kind(sweep.start, sweep.end, log="log" in sweep.tags)  # pyright: ignore[reportArgumentType]
    if isinstance(sweep, RangeSweep) and all(isinstance(v, int) for v in (sweep.start, sweep.stop, sweep.step)):
        values = range(sweep.start, sweep.stop, sweep.step)  # pyright: ignore[reportArgumentType]
        return IntDistribution(values[0], values[-1], step=values.step)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def search(words: Sequence[str], trials: int, path: Path) -> optuna.Study:
    """Go on with the study in the file `path` until it has so many trials that finished or were pruned."""
    from experiments.loop import Unsettled
    from experiments.record import run_path

    overrides = OverridesParser.create().parse_overrides(list(words))
    space = {o.key_or_group: distribution(o) for o in overrides if o.is_sweep_override()}
    if not space:
        raise UsageError("Nothing varies; give a setting as choice(…), range(…) or interval(…).")
    fixed = [word for word, o in zip(words, overrides, strict=True) if not o.is_sweep_override()]
    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="eqprop",
        storage=JournalStorage(JournalFileBackend(str(path))),
        direction="maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
        load_if_exists=True,
    )
    for trial in _interrupted(study):
        study.enqueue_trial(trial.params)  # its folder is found again by its configuration

    failed = 0
    while _done(study) < trials and failed < FAILURES:
        trial = study.ask(space)
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = compose("train", [*fixed, *(f"{name}={value}" for name, value in trial.params.items())])
        trial.set_user_attr("folder", str(run_path(cfg)))
        try:
            study.tell(trial, run(cfg, logger=Pruner(trial))["test_accuracy"])
            failed = 0
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except (ValueError, OSError, Unsettled) as error:
            print(f"error: {error}", file=sys.stderr)
            study.tell(trial, state=TrialState.FAIL)
            failed += 1
    return study


def _done(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def _interrupted(study: optuna.Study) -> list[FrozenTrial]:
    """Trials whose process was killed or stopped by a signal, and which no later trial repeats."""
    trials = study.get_trials(states=(TrialState.RUNNING, TrialState.FAIL))
    out = []
    for trial in trials:
        folder = Path(trial.user_attrs.get("folder", ""))
        rows = load(folder) if "folder" in trial.user_attrs and folder.is_dir() else []
        killed = [row for row in rows if row["status"] == "unfinished" or "Interrupted:" in row["reason"]]
        later = [other for other in study.trials[trial.number + 1 :] if other.params == trial.params]
        if killed and not later:
            if trial.state == TrialState.RUNNING:
                study.tell(trial.number, state=TrialState.FAIL)
            out.append(trial)
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("overrides", nargs="+", help="settings, at least one of which varies")
    parser.add_argument("--trials", type=int, default=20, help="in all, with those of earlier calls")
    parser.add_argument("--study", type=Path, default=Path("outputs/search.log"), help="file of the study")
    options = parser.parse_args(arguments)
    from experiments.loop import Interrupted

    try:
        check_overrides(options.overrides, "train")
        study = search(options.overrides, options.trials, options.study)
    except UsageError as error:
        fail(error, code=2)
    except Interrupted as stop:
        print(stop)
        sys.exit(stop.code)
    else:
        states = [trial.state.name.lower() for trial in study.trials]
        print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
        if "complete" in states:
            best = study.best_trial
            print(f"best: {best.value:.2%} with " + " ".join(f"{k}={v}" for k, v in best.params.items()))
            print(best.user_attrs["folder"])


if __name__ == "__main__":
    main()
