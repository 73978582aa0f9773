"""Figures from the records of runs: reading and drawing, no numerics."""

import sys
from pathlib import Path

import numpy as np

from eqprop.run.record import read_metrics


def learning_curve(folder: Path) -> Path | None:
    """Draw `learning_curve.png` of a run: accuracy or R², alignment and asymmetry, settling, by epoch. Without
    matplotlib it says so and returns `None`: a picture is not worth a run."""
    # Without pyplot, which would change the backend of a notebook.
    try:
        from matplotlib.figure import Figure

        from eqprop.run.study.style import BLUE, ORANGE
    except ImportError:
        print("note: no learning_curve.png, as matplotlib is not installed: pip install matplotlib", file=sys.stderr)
        return None
    records = read_metrics(folder)
    figure = Figure(figsize=(10.5, 3.1), layout="constrained")
    axes = figure.subplots(1, 3)

    def draw(axis, name: str, colour: str, label: str, style: str = "-", scale: int = 1) -> None:
        points = [(record["epoch"], scale * np.mean(record[name])) for record in records if name in record]
        if points:
            axis.plot(*zip(*points, strict=True), style, color=colour, label=label, marker=".", markersize=4)

    score, factor, unit = ("r2", 1, "R²") if "r2" in records[-1] else ("accuracy", 100, "accuracy (%)")
    draw(axes[0], score, ORANGE, "training", "--", factor)
    draw(axes[0], f"validation_{score}", BLUE, "validation", scale=factor)
    axes[0].set(ylabel=unit, title=unit.split()[0].capitalize())
    draw(axes[1], "cosine_hidden", BLUE, "hidden cosine to the true gradient")
    draw(axes[1], "functional_asymmetry", ORANGE, "functional asymmetry", "--")
    axes[1].set(ylabel="cosine, asymmetry", title="Alignment", ylim=(-0.1, 1.05))
    draw(axes[2], "unsettled_fraction", ORANGE, "training", "--", 100)
    draw(axes[2], "validation_unsettled_fraction", BLUE, "validation", scale=100)
    axes[2].set(ylabel="unsettled examples (%)", title="Settling")
    axes[2].set_ylim(bottom=0)
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    path = folder / "learning_curve.png"
    figure.savefig(path, dpi=150)
    return path
