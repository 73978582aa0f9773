"""What homeostasis does in the course of training: the panels that several networks share."""

from collections.abc import Sequence
from statistics import fmean

from matplotlib.figure import Figure

from experiments.paper.drawing import Arguments, Data, band, canvas, frame, legend, provenance, records_of
from experiments.paper.study import Job

PANELS = (
    ("functional_asymmetry", 1, "functional asymmetry"),
    ("cosine_hidden", 1, "cosine of hidden errors\nto the true ones"),
    ("test_accuracy", 100, "test accuracy (%)"),
)
"""Metric, factor, axis label."""
TITLES = ("Asymmetry of the network", "Alignment of its errors", "What it learns")
CURVES = {"with": "with homeostasis", "without": "without homeostasis"}


def pair(
    experiment: str, scale: Sequence[str], seeds: Sequence[int], coefficient: float, label: str | None = None
) -> list[Job]:
    """The same run with homeostasis at that coefficient, and without; `label` is what its record calls the data."""
    base = (f"experiment={experiment}", *scale, *((f"data.label='{label}'",) if label else ()))
    changes = {"with": f"homeostasis.coefficient={coefficient}", "without": "homeostasis=none"}
    return [Job(name, (*base, change), tuple(seeds)) for name, change in changes.items()]


def collect(study: str, arguments: Arguments, jobs: Sequence[Job]) -> Data:
    """Curves by epoch: of each job and metric, one list a seed.

    **Raises:** `drawing.Missing` if a job could not be run.
    """
    records = records_of(study, arguments, jobs)
    runs = [run.metrics for run in records["with"]]
    # Only epochs of which everything was measured.
    epochs = [entry["epoch"] for entry in runs[0] if all(name in entry for name, *_ in PANELS)]
    curves = {
        label: {
            name: [[entry[name] for entry in run.metrics if entry["epoch"] in epochs] for run in kept]
            for name, *_ in PANELS
        }
        for label, kept in records.items()
    }
    unsettled = {label: fmean(run.summary["unsettled_fraction"] for run in kept) for label, kept in records.items()}
    return {"epochs": epochs, "curves": curves, "unsettled_fraction": unsettled, "provenance": provenance(records)}


def draw(data: Data, heading: str, titles: Sequence[str] = TITLES) -> Figure:
    """Asymmetry, cosine and accuracy by epoch."""
    figure, axes = canvas(3, width=11.0, height=3.5)
    for axis, (name, factor, ylabel), title in zip(axes, PANELS, titles, strict=True):
        for index, (label, text) in enumerate(CURVES.items()):
            runs = [[factor * value for value in run] for run in data["curves"][label][name]]
            band(axis, data["epochs"], runs, index, text)
        frame(axis, "epoch", ylabel, title)
        axis.locator_params(axis="x", integer=True)
    axes[0].set_ylim(0, 0.62)
    legend(axes[2], loc="lower right")
    figure.suptitle(heading, fontsize=11)
    return figure
