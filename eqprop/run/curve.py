"""The learning curve of a run, from its records: reading and drawing, no numerics."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eqprop.run.record import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curve(folder: Path) -> Path | None:
    """Draw `learning_curve.png` of a run. Without matplotlib it says so and returns `None`: a picture is not worth a
    run."""
    try:
        figure = draw(read_metrics(folder))
    except ImportError:
        print("note: no learning_curve.png, as matplotlib is not installed: pip install matplotlib", file=sys.stderr)
        return None
    path = folder / "learning_curve.png"
    figure.savefig(path, dpi=150)
    return path


def draw(records: Sequence[Mapping[str, Any]]) -> "Figure":
    """Accuracy or R², alignment and asymmetry, settling, by epoch."""
    # Without pyplot, which would change the backend of a notebook.
    from matplotlib.figure import Figure

    from eqprop.run.study.style import BLUE, ORANGE

    figure = Figure(figsize=(10.5, 3.1), layout="constrained")
    axes = figure.subplots(1, 3)

    def line(axis, name: str, colour: str, label: str, style: str = "-", scale: int = 1) -> None:
        points = [(record["epoch"], scale * np.mean(record[name])) for record in records if name in record]
        if points:
            axis.plot(*zip(*points, strict=True), style, color=colour, label=label, marker=".", markersize=4)

    score, factor, unit = ("r2", 1, "R²") if "r2" in records[-1] else ("accuracy", 100, "accuracy (%)")
    line(axes[0], score, ORANGE, "training", "--", factor)
    line(axes[0], f"validation_{score}", BLUE, "validation", scale=factor)
    axes[0].set(ylabel=unit, title=unit.split()[0].capitalize())
    line(axes[1], "cosine_hidden", BLUE, "hidden cosine to the true gradient")
    line(axes[1], "functional_asymmetry", ORANGE, "functional asymmetry", "--")
    axes[1].set(ylabel="cosine, asymmetry", title="Alignment", ylim=(-0.1, 1.05))
    line(axes[2], "unsettled_fraction", ORANGE, "training", "--", 100)
    line(axes[2], "validation_unsettled_fraction", BLUE, "validation", scale=100)
    axes[2].set(ylabel="unsettled examples (%)", title="Settling")
    axes[2].set_ylim(bottom=0)
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    return figure
