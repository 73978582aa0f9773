"""Sentences and rows from records: how far apart two runs are, what they reached, and why there is no result."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from experiments.paper.published import DASH
from experiments.paper.study import Record
from experiments.paper.tables import Entry, accuracy, cell, spread

MEASURES: dict[str, tuple[str, int, float]] = {
    "test accuracy %": ("test_accuracy", 2, 100),
    "unsettled %": ("unsettled_fraction", 1, 100),
    "sweeps, free": ("free_steps", 1, 1),
    "sweeps, nudged": ("nudged_steps", 1, 1),
    "hidden cosine": ("cosine_hidden", 3, 1),
    "functional asymmetry": ("functional_asymmetry", 3, 1),
    "seconds": ("seconds", 0, 1),
}
"""Columns: what they show, to how many digits, in which unit."""


def done(records: Sequence[Record]) -> list[Record]:
    """Those that have a result."""
    return [record for record in records if record.missing is None]


def final(record: Record, name: str) -> float:
    """A figure of the summary, or of the last epoch where the summary has none."""
    value: Any = record.summary[name] if name in record.summary else record.metrics[-1][name]
    return value["end"] if isinstance(value, dict) else value


def finals(records: Sequence[Record], name: str, digits: int, factor: float = 1.0) -> str:
    """Mean ± standard deviation over the seeds that have a result."""
    return spread([factor * final(record, name) for record in done(records)], digits)


def layers(depth: int) -> list[str]:
    """The names of the hidden layers and of the output, from the input on."""
    return [*(f"l{number}" for number in range(1, depth + 1)), "out"]


def cosines(record: Record, depth: int) -> list[float]:
    """By layer, at the end of training."""
    return [final(record, f"cosine_{name}") for name in layers(depth)]


def duration(records: Sequence[Record]) -> str:
    """`one epoch` or `6 epochs`."""
    epochs = done(records)[0].config["epochs"]
    return "one epoch" if epochs == 1 else f"{epochs} epochs"


def standing(ours: Sequence[Record], theirs: Sequence[Record], name: str) -> str:
    """`2.9 ± 0.4 points behind RBP`: the difference in test accuracy, mean ± standard deviation over the common seeds.

    A mean within one standard deviation is called level with theirs.
    """
    other = {record.config["seed"]: accuracy(record) for record in done(theirs)}
    gaps = [accuracy(r) - other[r.config["seed"]] for r in done(ours) if r.config["seed"] in other]
    if not gaps:
        return f"without a seed in common with {name}"
    mean, deviation = fmean(gaps), stdev(gaps) if len(gaps) > 1 else 0.0
    if abs(mean) <= deviation:
        return f"level with {name} within one standard deviation ({mean:+.1f} ± {deviation:.1f} points)"
    size = spread([abs(mean)], 1) + (f" ± {deviation:.1f}" if len(gaps) > 1 else "")
    seeds = "" if len(gaps) > 1 else " (one seed)"
    return f"{size} points {'behind' if mean < 0 else 'ahead of'} {name}{seeds}"


def answer(records: Mapping[str, list[Record]], labels: Sequence[str], say: Callable[..., str]) -> str:
    """What `say` makes of the records of these labels, or which of them have no result, and why."""
    lacking = [f"{label}: {records[label][0].missing}" for label in labels if not done(records[label])]
    return f"No answer yet ({'; '.join(lacking)})." if lacking else say(*(records[label] for label in labels))


def table(rows: Sequence[tuple[str, Sequence[Record]]]) -> str:
    """What each run was and reached, as Markdown. A row names its data where that is not Fashion-MNIST.

    **Raises:** `ValueError` if runs of different length or data would be averaged.
    """
    head = ["", "gain", "coefficient", "epochs", "n", *MEASURES]
    lines = [head, ["---"] * len(head), *(_row(title, records) for title, records in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _row(title: str, records: Sequence[Record]) -> list[str]:
    data = records[0].config.get("data")
    if data and data["label"] != "fashion_mnist":
        title = f"{data['label']}, {title}"
    runs, made = done(records), cell(Entry(records), accuracy)
    if not runs:
        return [title, *[DASH] * 3, "0", made.missing or DASH, *[DASH] * (len(MEASURES) - 1)]
    config = runs[0].config
    return [
        title,
        f"{config['network']['feedback_gain']:g}",
        f"{config['homeostasis']['coefficient']:g}",
        str(made.epochs),
        f"{made.seeds} ({made.missing})" if made.missing else str(made.seeds),
        *(finals(runs, *measure) for measure in MEASURES.values()),
    ]
