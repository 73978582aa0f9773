"""Records as pandas frames: a row a run, or a row an epoch of a run."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from eqprop.run.measures import MEASURES, results
from eqprop.run.record import flatten
from eqprop.run.study.records import Record
from eqprop.run.tables import DASH, spread


def of_records(records: Iterable[Record]) -> pd.DataFrame:
    """A row a record: label, seed, why there is no result, the configuration by dotted names, and the results."""
    rows = [
        {"label": r.label, "seed": r.seed, "missing": r.missing, **flatten(r.config), **results(r.summary)}
        for r in records
    ]
    return of_rows(rows)


def of_rows(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Results are numbers; settings stay as they are, where pandas would make 4 into 4.0 beside a row without any."""
    frame = pd.DataFrame(rows, dtype=object)
    numbers = [name for measure in MEASURES for name in (measure, f"{measure}_std") if name in frame]
    return frame.astype(dict.fromkeys(numbers, float))


def epochs_of(records: Iterable[Record]) -> pd.DataFrame:
    """A row an epoch of a record: label, seed and metrics."""
    return pd.DataFrame([{"label": r.label, "seed": r.seed, **line} for r in records for line in r.metrics])


def grouped(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """A row for each combination of the keys `by`: their values, `runs`, and of every result its mean and, as
    `<name>_std`, the standard deviation of a sample; NaN where there are too few runs for it. A key that a run lacks
    counts as one that is null."""
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
    return of_rows(rows)


def cell(frame: pd.DataFrame, name: str) -> str:
    """A result over the runs of a frame: mean ± deviation."""
    values = frame[name].dropna().tolist() if name in frame else []
    measure = MEASURES[name]
    return spread(values, measure.digits, measure.factor) if values else DASH


def _hashable(value: Any) -> str:
    value = None if isinstance(value, float) and math.isnan(value) else value
    return json.dumps(value, sort_keys=True, default=str)
