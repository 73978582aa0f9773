"""Test accuracy by epoch at each depth, and by layer the cosine of the error vectors to the true ones at the end."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.paper.drawing import band, canvas, frame, legend
from experiments.paper.study import Record
from experiments.paper.words import cosines, done

Depths = Mapping[int, Mapping[str, Sequence[Record]]]
"""Records by number of hidden layers, and by what the legend calls them."""


def draw(depths: Depths, width: float | None = None) -> Figure:
    """A panel of accuracy for each depth and one of cosines; bands from the smallest to the largest seed."""
    figure, axes = canvas(len(depths) + 1, width=width)
    markers = ["white", None] if len(depths) > 1 else [None]
    for (depth, kinds), axis, filling in zip(depths.items(), axes[:-1], markers, strict=True):
        for index, (title, found) in enumerate(kinds.items()):
            runs = done(found)
            if not runs:
                continue
            lines = [[line for line in run.metrics if line["epoch"] and "test_accuracy" in line] for run in runs]
            epochs = [line["epoch"] for line in lines[0]]
            band(axis, epochs, [[100 * line["test_accuracy"] for line in own] for own in lines], index, title)
            axis.set_xticks(epochs)
            band(axes[-1], range(1, depth + 2), [cosines(run, depth) for run in runs], index, title)
            if filling:
                axes[-1].lines[-1].set_markerfacecolor(filling)
        frame(axis, "epoch", "test accuracy (%)", f"{depth} hidden layers")
        if axis.lines:
            legend(axis, loc="best")
    frame(
        axes[-1],
        "layer, from the input; the last is the output",
        "cosine to the true errors",
        "Error vectors, at the end",
    )
    axes[-1].set(ylim=(-0.1, 1.06), xticks=range(1, max(depths) + 2))
    if len(depths) > 1:
        style = {"color": "grey", "marker": "o", "markersize": 4}
        handles = [
            Line2D([], [], **style, markerfacecolor=filling or "grey", label=f"{depth} hidden layers")
            for depth, filling in zip(depths, markers, strict=True)
        ]
        legend(axes[-1], loc="lower right", handles=handles)
    return figure
