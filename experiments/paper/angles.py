"""Test accuracy against the initial angle between forward and feedback weights.

python -m experiments.paper.angles --scale cpu
"""

from matplotlib.figure import Figure

from experiments.paper.drawing import (
    Arguments,
    Data,
    Entry,
    band,
    canvas,
    frame,
    legend,
    make,
    parse,
    provenance,
    records_of,
)
from experiments.paper.study import Job

STUDY = "angles"
ANGLES = {"quick": (0, 90), "cpu": (0, 15, 30, 45, 60, 75, 90), "full": (0, 15, 30, 45, 60, 75, 90)}
SEEDS = {"quick": (0,), "cpu": (0, 1), "full": (0, 1, 2, 3, 4)}
SCALE = {
    "quick": ("epochs=1", "data.train_examples=1000", "evaluation.alignment_examples=20"),
    "cpu": ("epochs=1", "data.train_examples=20000"),
    "full": (),
}
METHODS = {
    "rbp": ("true gradient (RBP)", ("estimator=rbp",)),
    "ep": ("EP, $N=2$", ()),
    "ep-homeostasis": ("EP, $N=2$, with homeostasis", ("homeostasis=exact",)),
}
"""Of each curve, its name and what it changes."""


def jobs(scale: str) -> list[Job]:
    """Every method at every angle."""
    return [
        Job(
            f"{method}-{angle}",
            ("experiment=fashion_mnist_angles", *changes, f"network.angle={angle}", *SCALE[scale]),
            SEEDS[scale],
        )
        for method, (_, changes) in METHODS.items()
        for angle in ANGLES[scale]
    ]


def compute(arguments: Arguments) -> Data:
    """Final test accuracy by method, seed and angle."""
    records = records_of(STUDY, arguments, jobs(arguments.scale))
    angles = ANGLES[arguments.scale]
    accuracy = {
        method: list(
            zip(
                *([100 * run.summary["test_accuracy"] for run in records[f"{method}-{angle}"]] for angle in angles),
                strict=True,
            )
        )
        for method in METHODS
    }
    epochs = next(iter(records.values()))[0].summary["epochs"]
    return {"angles": angles, "accuracy": accuracy, "epochs": epochs, "provenance": provenance(records)}


def draw(data: Data, arguments: Arguments) -> Figure:
    """One panel, one curve a method."""
    figure, (axis,) = canvas(1, width=5.0, height=3.6)
    for index, (method, (name, _)) in enumerate(METHODS.items()):
        band(axis, data["angles"], data["accuracy"][method], index, name)
    axis.set_xticks(data["angles"])
    label = arguments.data_label or "Fashion-MNIST"
    frame(axis, "initial weight angle (degrees)", "test accuracy (%)", f"Accuracy by initial weight angle ({label})")
    legend(axis, loc="lower left")
    return figure


ENTRY = Entry(STUDY, compute, draw)

if __name__ == "__main__":
    make(ENTRY, parse())
