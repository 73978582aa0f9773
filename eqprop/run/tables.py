"""Tables in Markdown, and a mean with its spread: the one writer of all tables."""

from collections.abc import Sequence
from statistics import fmean, stdev

DASH = "–"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns but the first whose every cell begins with a digit, a sign or a dash are set to the right."""
    numbers = [k > 0 and all(row[k][:1] in "0123456789-+−–≠" for row in rows if row[k]) for k in range(len(head))]
    rule = ["---:" if right and rows else "---" for right in numbers]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in line)} |\n" for line in (head, rule, *rows))


def spread(values: Sequence[float], digits: int, factor: float | int = 1) -> str:
    """Mean ± standard deviation of a sample; a dash for nothing, no deviation for one value."""
    if not values:
        return DASH
    deviation = f" ± {factor * stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{factor * fmean(values):.{digits}f}{deviation}"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
