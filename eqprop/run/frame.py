"""Records as pandas frames: a row a run, or a row an epoch of a run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from eqprop.run.record import flatten
from eqprop.run.study.records import Record
from eqprop.run.tables import DASH, spread


class Measure(NamedTuple):
    """How a result is shown."""

    title: str
    factor: float = 1.0
    digits: int = 3


MEASURES = {
    "test_accuracy": Measure("test accuracy (%)", 100, 2),
    "test_error": Measure("test error (%)", 100, 2),
    "validation_accuracy": Measure("validation accuracy (%)", 100, 2),
    "cosine_hidden": Measure("hidden cosine"),
    "functional_asymmetry": Measure("functional asymmetry"),
    "unsettled_fraction": Measure("unsettled (%)", 100, 2),
    "bounded_fraction": Measure("shortened (%)", 100, 1),
    "free_steps": Measure("free steps", 1, 1),
    "nudged_steps": Measure("nudged steps", 1, 1),
    "seconds": Measure("seconds", 1, 1),
}
"""Results of a run; those of alignment are of the end of training."""


def results(summary: Mapping[str, Any]) -> dict[str, float]:
    """The results in a summary, by the names of `MEASURES`; of what has a start and an end, the end."""
    ends = {name: value["end"] if isinstance(value, dict) else value for name, value in summary.items()}
    found = {name: ends[name] for name in MEASURES if name in ends}
    return found | ({"test_error": 1 - found["test_accuracy"]} if "test_accuracy" in found else {})


def of_records(records: Iterable[Record]) -> pd.DataFrame:
    """A row a record: label, seed, why there is no result, the configuration by dotted names, and the results."""
    rows = [
        {"label": r.label, "seed": r.seed, "missing": r.missing, **flatten(r.config), **results(r.summary)}
        for r in records
    ]
    return pd.DataFrame(rows)


def epochs_of(records: Iterable[Record]) -> pd.DataFrame:
    """A row an epoch of a record: label, seed and metrics."""
    return pd.DataFrame([{"label": r.label, "seed": r.seed, **line} for r in records for line in r.metrics])


def grouped(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A row for each combination of the keys `by`: their values, `runs`, and of every result its mean and, as
    `<name>_std`, the standard deviation of a sample."""
    keys = [frame[key].map(_hashable) if key in frame else pd.Series("null", frame.index) for key in by]
    groups = frame.groupby(keys, sort=False, dropna=False) if by else [((), frame)]
    rows = []
    for _, members in groups:
        row: dict[str, Any] = {key: members[key].iloc[0] if key in members else None for key in by}
        row["runs"] = len(members)
        for name in MEASURES:
            values = members[name].dropna() if name in members else pd.Series(dtype=float)
            row[name] = values.mean() if len(values) else None
            row[f"{name}_std"] = values.std() if len(values) > 1 else None
        rows.append(row)
    return pd.DataFrame(rows)


def cell(frame: pd.DataFrame, name: str) -> str:
    """A result over the runs of a frame: mean ± deviation."""
    values = frame[name].dropna().tolist() if name in frame else []
    measure = MEASURES[name]
    return spread(values, measure.digits, measure.factor) if values else DASH


def _hashable(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
