"""One look for every figure: panels, lines, bands and points that differ by more than their colour.

`matplotlib.figure.Figure` is used apart from pyplot, whose global state a notebook would see.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

SHEET = Path(__file__).with_name("eqprop.mplstyle")
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#004D40", "#CC79A7"
"""Colours that colour-blind readers tell apart, and that differ in luminance, so that they stay apart in grey."""

Numbers = Sequence[float] | Sequence[int]
_FILLED: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": ORANGE, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": PURPLE, "linestyle": ":", "marker": "D"},
    {"color": "black", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": "grey", "linestyle": (0, (1, 1)), "marker": "x"},
)
"""Lines told apart by colour, dash or marker alone."""
STYLES = (
    *_FILLED,
    *({**own, "linestyle": _FILLED[k - 3]["linestyle"], "markerfacecolor": "white"} for k, own in enumerate(_FILLED)),
)
"""The same again with hollow markers and each other's dashes, for figures of more lines."""


def styled() -> Any:
    """The style sheet as a context; every figure is made within it."""
    return matplotlib.rc_context(fname=str(SHEET))


def canvas(columns: int = 1, rows: int = 1, *, width: float | None = None, height: float = 3.1) -> tuple[Figure, list]:
    """A figure and its panels, row by row. A panel is 3.4 inches wide, the column of a page."""
    figure = Figure(figsize=(width or 3.4 * columns, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def frame(axis: Axes, xlabel: str, ylabel: str, title: str | None = None) -> None:
    """Labels, and what the panel says."""
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if title:
        axis.set_title(title)


def line(axis: Axes, x: Numbers, y: Sequence[float | None], index: int, label: str | None = None) -> None:
    """One curve in the style of that number; gaps where there is no value."""
    values = [math.nan if value is None else value for value in y]
    axis.plot(x, values, label=label, **STYLES[index % len(STYLES)])


def band(axis: Axes, x: Numbers, runs: Sequence[Numbers], index: int, label: str | None = None) -> None:
    """The mean over runs, and every run as a thin line, so that a reader sees how many they are and how they spread."""
    line(axis, x, [fmean(values) for values in zip(*runs, strict=True)], index, label)
    colour = STYLES[index % len(STYLES)]["color"]
    for run in runs if len(runs) > 1 else ():
        axis.plot(x, run, color=colour, linewidth=0.6, alpha=0.6)


def points(axis: Axes, x: Numbers, runs: Sequence[Numbers], index: int, label: str | None = None) -> None:
    """At every `x` the mean over `runs[k]` with a bar of one standard deviation, and every run as a small mark."""
    style = STYLES[index % len(STYLES)]
    means = [fmean(values) if values else math.nan for values in runs]
    bars = [stdev(values) if len(values) > 1 else 0.0 for values in runs]
    axis.errorbar(x, means, bars, label=label, capsize=2, **style)
    for position, values in zip(x, runs, strict=True):
        axis.plot([position] * len(values), values, ".", color=style["color"], markersize=2.5, alpha=0.7)


def quartiles(
    axis: Axes, x: Numbers, runs: Sequence[Sequence[float | int | None]], index: int, label: str | None = None
):
    """At every `x` the median over `runs[k]` with a bar from the first to the third quartile, for logarithmic axes.
    What is not finite is left out; a gap where nothing is left."""
    found = [[value for value in values if value is not None and math.isfinite(value)] for values in runs]
    low, middle, high = np.asarray([np.quantile(v, (0.25, 0.5, 0.75)) if v else [math.nan] * 3 for v in found]).T
    axis.errorbar(x, middle, (middle - low, high - middle), label=label, elinewidth=0.8, **STYLES[index % len(STYLES)])


def log(axis: Axes, which: str = "xy") -> None:
    """Logarithmic axes, without numbers at minor ticks."""
    for name in which:
        getattr(axis, f"set_{name}scale")("log")
        getattr(axis, f"{name}axis").set_minor_formatter(NullFormatter())


def counted(ns: Sequence[int], what: str = "seeds") -> str:
    """`n = 3 seeds`, or `n = 1 to 3 seeds`, for a title."""
    if not ns:
        return "no runs"
    low, high = min(ns), max(ns)
    return f"n = {low} {what[:-1] if low == high == 1 else what}" if low == high else f"n = {low} to {high} {what}"
