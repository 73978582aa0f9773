"""The figures that training studies share: curves by epoch, points along a sweep, rows side by side, layers.

A study's file says what is drawn:

    figures:
      accuracy:
        kind: curves                      # curves | points | rows | layers
        caption: What happens.            # one sentence; n is added
        rows: [with, without]             # default: all
        columns: [...]                    # curves and layers: a panel each; default: the first measure of all
        panels: [cosine_hidden, accuracy]
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqprop.plot import ordered
from eqprop.run.measures import MEASURES, results
from eqprop.run.study import style
from eqprop.run.study.records import Record
from eqprop.run.study.spec import Study, cell_label

TITLES = {
    "accuracy": ("validation accuracy (%)", 100.0),
    "cosine_hidden": ("cosine of hidden errors\nto the true ones", 1.0),
    "functional_asymmetry": ("functional asymmetry", 1.0),
    "unsettled_fraction": ("unsettled (%)", 100.0),
}
"""Of what is known at every epoch. `accuracy` is that of validation images."""


class Request(NamedTuple):
    """What a figure is asked to show."""

    study: Study
    scale: str
    rows: tuple[str, ...]
    columns: tuple[str | None, ...]
    panels: tuple[str, ...]
    records: Mapping[str, Sequence[Record]]
    """Of every cell, by its label, those that have a result."""

    def of(self, row: str, column: str | None) -> Sequence[Record]:
        """The records of a cell."""
        return self.records.get(cell_label(row, column), ())

    def title(self, row: str) -> str:
        """What a legend calls it."""
        return self.study.rows[row].title


def draw(study: Study, scale: str, records: Sequence[Record]) -> dict[str, tuple[Figure, str]]:
    """Every figure of a study's file that has results, with its caption, by name."""
    by: dict[str, list[Record]] = {}
    for record in records:
        if record.missing is None:
            by.setdefault(record.label, []).append(record)
    made = {}
    for name, asked in study.spec.get("figures", {}).items():
        columns = asked.get("columns", [*study.columns(scale)] or [None])
        request = Request(
            study, scale, tuple(asked.get("rows", study.rows)), tuple(columns), tuple(asked.get("panels", ())), by
        )
        ns = [len(found) for row in request.rows for c in columns if (found := request.of(row, c))]
        if ns:
            with style.styled():
                figure = KINDS[asked["kind"]](request)
            made[name] = figure, f"{asked['caption']} {SPREAD[asked['kind']]} {style.counted(ns)}."
    return made


def curves(request: Request) -> Figure:
    """A panel for each column and metric, by epoch; of several columns a row of panels each."""
    panels = [(column, metric) for column in request.columns for metric in request.panels or ("accuracy",)]
    width = len(request.panels or ("accuracy",)) if len(request.columns) > 1 else len(panels)
    figure, axes = style.canvas(width, -(-len(panels) // width))
    for axis, (column, metric) in zip(axes, panels, strict=True):
        ylabel, factor = TITLES[metric]
        for index, row in enumerate(request.rows):
            runs = [epochs(record, metric, factor) for record in request.of(row, column)]
            if runs and runs[0]:
                style.band(axis, [*runs[0]], [[*run.values()] for run in runs], index, request.title(row))
        shown = [record for row in request.rows for record in request.of(row, column)]
        if metric == "accuracy" and not any("validation_accuracy" in line for r in shown for line in r.metrics):
            ylabel = "test accuracy (%)"
        style.frame(axis, "epoch", ylabel, request.study.columns(request.scale)[column].title if column else None)
        axis.locator_params(axis="x", integer=True)
    _legend(axes)
    return figure


def epochs(record: Record, metric: str, factor: float = 1.0) -> dict[int, float]:
    """A metric by epoch. Of runs made before there was a validation split, `accuracy` is that of test images."""
    names = ("validation_accuracy", "test_accuracy") if metric == "accuracy" else (metric,)
    found = {}
    for line in record.metrics:
        if metric == "accuracy" and not line["epoch"]:
            continue  # chance, which would press all else together
        value = next((line[name] for name in names if name in line), None)
        if value is not None:
            found[line["epoch"]] = factor * value
    return found


def points(request: Request) -> Figure:
    """Results against the value of the sweep, a panel for each."""
    sweep = request.study.spec["sweep"]
    panels = request.panels or request.study.measures[:1]
    figure, axes = style.canvas(len(panels))
    x = [float(column) for column in request.columns if column is not None]
    for axis, name in zip(axes, panels, strict=True):
        for index, row in enumerate(request.rows):
            runs = [values(request.of(row, column), name) for column in request.columns]
            style.points(axis, x, runs, index, request.title(row))
        style.frame(axis, sweep["title"], MEASURES[name].title)
        axis.set_xticks(x, [f"{value:g}" for value in x])
    _legend(axes)
    return figure


def rows(request: Request) -> Figure:
    """Rows one below the other, columns in their own marks: means large, runs as strokes; a panel for each result. What
    has no record is left out."""
    panels = request.panels or request.study.measures[:1]
    shown = [row for row in request.rows if any(request.of(row, column) for column in request.columns)]
    height = 1.0 + (0.2 + 0.06 * len(request.columns)) * len(shown)
    figure, axes = style.canvas(len(panels), width=2.6 + 2.6 * len(panels), height=height)
    columns = request.study.columns(request.scale)
    for axis, name in zip(axes, panels, strict=True):
        for index, column in enumerate(request.columns):
            look = {"color": style.STYLES[index]["color"], "marker": style.STYLES[index]["marker"]}
            shift = 0.5 * (index - (len(request.columns) - 1) / 2) / max(len(request.columns) - 1, 1)
            label = columns[column].title if column else None
            for place, row in enumerate(shown):
                found = values(request.of(row, column), name)
                if found:
                    axis.plot([fmean(found)], [place + shift], linestyle="", markersize=5, label=label, **look)
                    axis.plot(found, [place + shift] * len(found), "|", color="black", markersize=6)
                    label = None
        axis.set_yticks(range(len(shown)), [*map(request.title, shown)] if axis is axes[0] else [])
        axis.set_ylim(len(shown) - 0.5, -0.5)
        style.frame(axis, MEASURES[name].title, "")
    if len(request.columns) > 1:
        _legend(axes, inside=False)  # marks are all over the panel
    return figure


def layers(request: Request) -> Figure:
    """The cosine of error vectors to the true ones by layer, at the end; a panel for each column."""
    figure, axes = style.canvas(len(request.columns))
    for axis, column in zip(axes, request.columns, strict=True):
        for index, row in enumerate(request.rows):
            runs = [[*cosines(record).values()] for record in request.of(row, column)]
            if runs and runs[0]:
                style.band(axis, [*range(1, len(runs[0]) + 1)], runs, index, request.title(row))
        title = request.study.columns(request.scale)[column].title if column else None
        style.frame(axis, "layer; the last is the output", "cosine to the true errors", title)
        axis.locator_params(axis="x", integer=True)
        axis.set_ylim(-0.1, 1.06)
    _legend(axes)
    return figure


def cosines(record: Record) -> dict[str, float]:
    """By layer, at the end of training, from the input to the output; empty where there are no error vectors."""
    return by_layer(next((line for line in reversed(record.metrics) if "cosine_hidden" in line), {}))


def by_layer(line: Mapping[str, Any]) -> dict[str, Any]:
    """The cosines of an epoch by layer, in the order of the layers."""
    found = {name.removeprefix("cosine_"): value for name, value in line.items() if name.startswith("cosine_")}
    return {name: found[name] for name in ordered(found) if name not in ("hidden", "hidden_median")}


def _legend(axes: Sequence[Axes], *, inside: bool = True) -> None:
    """One legend, in the first panel that has something to tell apart; one of many lines, or of long ones, which would
    hide what is drawn, stands below all panels."""
    axis = next((axis for axis in axes if axis.get_legend_handles_labels()[0]), None)
    if axis is None:
        return
    handles, labels = axis.get_legend_handles_labels()
    if inside and len(labels) <= 4 and max(map(len, labels)) <= 30:
        axis.legend()
        return
    figure, columns = axes[0].figure, 2 if len(axes) > 1 else 1
    assert isinstance(figure, Figure)
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(labels) / columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def values(records: Sequence[Record], name: str) -> list[float]:
    """A result of every run that has it, in the unit of its title."""
    found = [results(record.summary).get(name) for record in records]
    return [MEASURES[name].factor * value for value in found if value is not None]


KINDS: dict[str, Callable[[Request], Figure]] = {"curves": curves, "points": points, "rows": rows, "layers": layers}
SPREAD = {
    "curves": "Thick lines are means, thin lines the runs;",
    "points": "Bars are one standard deviation, dots the runs;",
    "rows": "Large marks are means, strokes the runs;",
    "layers": "Thick lines are means, thin lines the runs;",
}
