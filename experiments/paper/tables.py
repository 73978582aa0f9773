"""Records made into a table beside the published figures: mean ± deviation, difference, a flag where they differ."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from experiments.paper.published import DASH, Published
from experiments.paper.study import Record

DIFFERS = "≠"


class Entry(NamedTuple):
    """What one cell is made of."""

    records: Sequence[Record]
    published: Published | None = None


class Row(NamedTuple):
    """A line of a table."""

    title: str
    entries: Mapping[str, Entry]
    """By column."""
    note: str = ""
    """Of a row that was given less than the others: it says so in the table."""


class Cell(NamedTuple):
    """What a table says of an entry, in percent."""

    mean: float | None
    std: float | None
    seeds: int
    epochs: int | None
    examples: int | None
    unsettled: float | None
    data: str | None
    missing: str | None
    published: Published | None

    @property
    def difference(self) -> float | None:
        """Ours minus the published figure."""
        return None if self.mean is None or self.published is None else self.mean - self.published.mean

    @property
    def flag(self) -> str:
        """`≠` where the difference is more than two standard deviations, `?` where none is known."""
        if self.difference is None or self.published is None:
            return ""
        known = [s for s in (self.std, self.published.std) if s is not None]
        if not known:
            return "?"
        return DIFFERS if abs(self.difference) > 2 * sum(s * s for s in known) ** 0.5 else ""


def accuracy(record: Record) -> float:
    """The final test accuracy in percent."""
    return 100 * record.summary["test_accuracy"]


def error(record: Record) -> float:
    """The final test error in percent."""
    return 100 - accuracy(record)


def cell(entry: Entry, measure: Callable[[Record], float]) -> Cell:
    """**Raises:** `ValueError` if runs of different length or data would be averaged."""
    done = [record for record in entry.records if record.missing is None]
    if not done:
        reason = next((r.missing for r in entry.records), "no record")
        return Cell(None, None, 0, None, None, None, None, reason, entry.published)
    kinds = {_kind(record) for record in done}
    if len(kinds) > 1:
        raise ValueError(f"One cell mixes scales: (epochs, training examples, data) are {sorted(map(str, kinds))}.")
    epochs, examples, data = kinds.pop()
    values = [measure(record) for record in done]
    unsettled = 100 * fmean(record.summary["unsettled_fraction"] for record in done)
    failed = [r.missing for r in entry.records if r.missing]
    return Cell(
        fmean(values), stdev(values) if len(values) > 1 else None, len(done), epochs, examples, unsettled, data,
        f"{len(failed)} of {len(entry.records)} seeds: {failed[0]}" if failed else None, entry.published,
    )  # fmt: skip


def check_one_scale(rows: Iterable[Row]) -> None:
    """**Raises:** `ValueError` if a column mixes scales. A row with a note of its own may have less."""
    kinds: dict[str, set] = {}
    for row in rows:
        for column, entry in row.entries.items():
            done = {_kind(record) for record in entry.records if record.missing is None}
            kinds.setdefault(column, set()).update(done if not row.note else ())
    for column, found in kinds.items():
        if len(found) > 1:
            raise ValueError(f"The column {column!r} mixes scales: {sorted(map(str, found))}.")


def markdown(rows: Sequence[Row], measure: Callable[[Record], float], name: str) -> str:
    """The table. For every column: the measure, epochs, unsettled share, published figure and difference."""
    check_one_scale(rows)
    columns = list(dict.fromkeys(column for row in rows for column in row.entries))
    head = ["", *(t for c in columns for t in (f"{c}: {name}", "epochs", "unsettled %", "published", "difference"))]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cells = [cell(row.entries[c], measure) if c in row.entries else None for c in columns]
        title = f"{row.title} ({row.note})" if row.note else row.title
        lines.append([title, *(text for c in cells for text in _texts(c))])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write_csv(rows: Sequence[Row], measure: Callable[[Record], float], path: Path) -> None:
    """The same, one line a cell."""
    check_one_scale(rows)
    plain = ["mean", "std", "seeds", "epochs", "examples", "unsettled", "data", "missing"]
    derived = ["published", "published_std", "published_source", "difference", "flag"]
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "column", "note", *plain, *derived])
        for row in rows:
            for column, entry in row.entries.items():
                c = cell(entry, measure)
                theirs = c.published or (None, None, None)
                own = [getattr(c, name) for name in plain]
                writer.writerow([row.title, column, row.note, *own, *theirs, c.difference, c.flag])


def provenance(records: Iterable[Record], scale: str) -> str:
    """The scale, and where the records come from."""
    done = [record for record in records if record.missing is None]
    if not done:
        return f"Scale `{scale}`: no results yet."

    def values(pick: Callable[[Record], Any]) -> str:
        return ", ".join(sorted({str(pick(record)) for record in done}))

    share = values(lambda r: r.environment.get("cores_used", r.environment["cores"]))
    examples = values(lambda r: r.config["data"]["train_examples"] or "all")
    return (
        f"Scale `{scale}`: {values(lambda r: r.config['epochs'])} epochs, {examples} training images, seeds "
        f"{values(lambda r: r.config['seed'])}. Data: {values(lambda r: r.config['data']['label'])}. "
        f"{values(lambda r: r.environment['precision'])} on {values(lambda r: r.environment['devices'][0])}, "
        f"{share} cores a run; JAX {values(lambda r: r.environment['versions']['jax'])}; commit "
        f"{values(lambda r: (r.environment['commit'] or 'unknown')[:10])}."
    )


def spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation; a dash for nothing, no deviation for one value."""
    if not values:
        return DASH
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}"


def _texts(c: Cell | None) -> list[str]:
    if c is None or c.mean is None:
        published = str(c.published) if c and c.published else DASH
        return [(c.missing or DASH) if c else DASH, DASH, DASH, published, DASH]
    deviation = "" if c.std is None else f" ± {c.std:.2f}"
    missing = f"; {c.missing}" if c.missing else ""
    difference = DASH if c.difference is None else f"{c.difference:+.1f} {c.flag}".strip()
    return [
        f"{c.mean:.2f}{deviation} (n = {c.seeds}{missing})",
        str(c.epochs),
        DASH if c.unsettled is None else f"{c.unsettled:.1f}",
        str(c.published) if c.published else DASH,
        difference,
    ]


def _kind(record: Record) -> tuple[int, int | None, str]:
    data = record.config["data"]
    return record.config["epochs"], data["train_examples"], data["label"]
