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
    labels = {job.label for job in study.jobs(scale)}
    made = []
    for text in study.spec.get("claims", ()):
        counts: list[int] = []

        def filled(match: re.Match[str], counts: list[int] = counts) -> str:
            ours, _, measure = (word.strip() for word in match[1].partition(":"))
            names = [name.strip() for name in ours.split(" - ")]
            measure = measure or "test_accuracy"
            if not set(names) <= labels or measure not in MEASURES or len(names) > 2:
                raise UsageError(f"{study.name}: the claim has {match[0]}, which is no cell and measure of the study.")
            if len(names) == 2:
                gaps = paired(names[0], names[1], records)
                counts.append(len(gaps))
                return spread(gaps, 1)
            done = [record for record in records if record.label == ours and record.missing is None]
            counts.append(len(done))
            return cell(of_records(done), measure) if done else ""

        sentence = _HOLE.sub(filled, text)
        if min(counts, default=1):
            several = sorted(set(counts))
            made.append(sentence + (f" (n = {' to '.join(map(str, several))})" if several else ""))
    return made
