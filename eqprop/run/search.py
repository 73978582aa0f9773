"""Search settings with Optuna: every trial is an ordinary run folder, and the hopeless ones are pruned.

Validation images judge a trial; its test accuracy plays no part. What varies is written as in Hydra's sweeps: `choice`,
`range`, `interval`, with `tag(log,…)` for a logarithmic scale. The same command goes on with the study, and started
several times shares it among processes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from eqprop.run.collect import load
from eqprop.run.compose import compose
from eqprop.run.errors import EXPECTED, UsageError
from eqprop.run.record import run_path
from eqprop.run.train import objective, run

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
    raise UsageError("--search needs Optuna: pip install optuna") from missing


FAILURES = 5
"""In a row, after which the search gives up."""


class Pruner:
    """Reports the validation accuracy of every epoch, and stops a trial that lags behind the others."""

    def __init__(self, trial: Trial):
        self._trial = trial

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        score = next((metrics[n] for n in ("validation_accuracy", "validation_r2") if n in metrics), None)
        if score is not None:
            self._trial.report(float(np.mean(score)), step)
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


def search(words: Sequence[str], trials: int, path: Path, own: Path | None = None) -> optuna.Study:
    """Go on with the study in the file `path` until it has so many trials that finished or were pruned."""
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
        cfg = compose([*fixed, *(f"{name}={value}" for name, value in trial.params.items())], "train", own)
        if cfg.data.validation is None:
            raise UsageError("--search judges by validation images; set data.validation, as to 0.1.")
        trial.set_user_attr("folder", str(run_path(cfg)))
        try:
            study.tell(trial, objective(run(cfg, logger=Pruner(trial))))
            failed = 0
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except EXPECTED as error:
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


def main(words: Sequence[str], trials: int, journal: Path, own: Path | None = None) -> None:
    """Search, and print the best trial.

    **Raises:** `UsageError` if nothing varies, or there is no validation split to judge by.
    """
    study = search(words, trials, journal, own)
    states = [trial.state.name.lower() for trial in study.trials]
    print(", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))
    if "complete" in states:
        best = study.best_trial
        print(
            f"best: {best.value:.2%} of validation images with " + " ".join(f"{k}={v}" for k, v in best.params.items())
        )
        print(best.user_attrs["folder"])
