"""Accuracy against what a training example costs a device, a point for each row of the study."""

from collections.abc import Sequence
from statistics import fmean

import matplotlib
from matplotlib.figure import Figure

from eqprop.run.measures import MEASURES, results
from eqprop.run.study import style
from eqprop.run.study.records import Record
from eqprop.run.study.spec import read

COSTS = ("energy_training_joules", "time_training_seconds")

COLOURS = matplotlib.colormaps["tab20"]
"""One a row, of which there are more than a sheet of styles has lines."""


def captions(records: Sequence[Record]) -> dict[str, str]:
    """What the figure shows."""
    seeds = style.counted([len(runs) for runs in _rows(records).values()])
    return {
        "pareto": (
            "Test accuracy on digits against energy and time of a training example, means over seeds; a line joins the "
            f"rows that no other row beats in both. Squares need two quadratures; {seeds}."
        )
    }


def draw(records: Sequence[Record]) -> dict[str, Figure]:
    """Accuracy by energy and by time."""
    titles = {name: line.title for name, line in read("pareto").rows.items()}
    figure, axes = style.canvas(2, width=10.0, height=4.2)
    for axis, cost in zip(axes, COSTS, strict=True):
        measure, points = MEASURES[cost], {}
        for index, (name, runs) in enumerate(_rows(records).items()):
            found = [results(record.summary) for record in runs]
            points[name] = (
                measure.factor * fmean(f[cost] for f in found),
                100 * fmean(f["test_accuracy"] for f in found),
            )
            marker = "s" if "quadratures" in titles[name] else "o"
            axis.plot(*points[name], marker, color=COLOURS(index % 20), label=titles[name])
        best = front(list(points.values()))
        axis.plot(*zip(*best, strict=True), color="0.6", linewidth=1, zorder=0)
        style.log(axis, "x")
        style.frame(axis, measure.title, "test accuracy (%)")
    axes[-1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return {"pareto": figure}


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of which none other costs less or as much and reaches more, by cost."""
    best: list[tuple[float, float]] = []
    for cost, reached in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or reached > best[-1][1]:
            best.append((cost, reached))
    return best


def _rows(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The finished runs of every row."""
    rows: dict[str, list[Record]] = {}
    for record in records:
        if record.missing is None and set(COSTS) <= set(record.summary):
            rows.setdefault(record.label, []).append(record)
    return rows
