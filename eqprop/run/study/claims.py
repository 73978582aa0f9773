"""What a study claims, its numbers filled in from records: the summary that leads the page of results."""

import re
from collections.abc import Sequence

from eqprop.run.errors import UsageError
from eqprop.run.frame import cell, of_records
from eqprop.run.measures import MEASURES
from eqprop.run.study.page import paired
from eqprop.run.study.records import Record
from eqprop.run.study.spec import Study
from eqprop.run.tables import spread

_HOLE = re.compile(r"\{([^{}]+)\}")


def claims(study: Study, scale: str, records: Sequence[Record]) -> list[str]:
    """The sentences of `claims` in the study's file whose runs are all recorded, with their numbers and n.

    `{LABEL}` stands for the test accuracy of a cell in percent, `{LABEL: MEASURE}` for another measure, and
    `{LABEL - LABEL}` for the difference of two in points, seed by seed; a label is that of a row, or `COLUMN-ROW`.

    **Raises:** `UsageError` for a label or a measure that is not one.
    """
    sentences = (_sentence(study, scale, text, records) for text in study.spec.get("claims", ()))
    return [sentence for sentence in sentences if sentence is not None]


def _sentence(study: Study, scale: str, text: str, records: Sequence[Record]) -> str | None:
    """A claim with its numbers and n; nothing if one of them has no runs."""
    labels = {job.label for job in study.jobs(scale)}
    found: dict[str, tuple[str, int]] = {}
    for hole in _HOLE.findall(text):
        ours, _, measure = (word.strip() for word in hole.partition(":"))
        names = [name.strip() for name in ours.split(" - ")]
        measure = measure or "test_accuracy"
        if not set(names) <= labels or measure not in MEASURES or len(names) > 2:
            raise UsageError(f"{study.name}: the claim has {{{hole}}}, which is no cell and measure of the study.")
        if len(names) == 2:
            gaps = paired(names[0], names[1], records)
            found[hole] = spread(gaps, 1), len(gaps)
        else:
            done = [record for record in records if record.label == ours and record.missing is None]
            found[hole] = cell(of_records(done), measure) if done else "", len(done)
    counts = sorted({count for _, count in found.values()})
    if 0 in counts:
        return None
    runs = f" (n = {' to '.join(map(str, counts))})" if counts else ""
    return _HOLE.sub(lambda match: found[match[1]][0], text) + runs
