"""Homeostasis in a convolutional network with softmax pooling, on CIFAR-10.

    python -m experiments.paper.conv_curves --scale cpu --data-label "CIFAR-10 (JPEG q75)"

Without the data set the figure is skipped; `make data DATASET=cifar10` fetches it, EQPROP_DATA says where it lies.
"""

from matplotlib.figure import Figure

from experiments.paper import curves
from experiments.paper.drawing import Arguments, Data, Entry, make, parse
from experiments.paper.study import Job

STUDY = "conv"
NARROW = ("network.channels=[8,16,32,32]", "batch_size=50")
SCALE = {
    "quick": (
        "epochs=1",
        "data.train_examples=100",
        "network.channels=[4,4,4,4]",
        "batch_size=50",
        "evaluation.alignment_examples=5",
    ),
    "cpu": ("epochs=4", "data.train_examples=4000", *NARROW, "evaluation.alignment_examples=20"),
    "full": (),
}
SEEDS = {"quick": (0,), "cpu": (0,), "full": (0, 1, 2)}


def jobs(scale: str, label: str | None = None) -> list[Job]:
    """With and without."""
    return curves.pair("cifar10_homeostasis", SCALE[scale], SEEDS[scale], 10.0, label)


def compute(arguments: Arguments) -> Data:
    """Curves by epoch."""
    return curves.collect(STUDY, arguments, jobs(arguments.scale, arguments.data_label))


def draw(data: Data, arguments: Arguments) -> Figure:
    """Three panels."""
    return curves.draw(data, f"{arguments.data_label or 'CIFAR-10'}, convolutional network, initial angle 90°")


ENTRY = Entry("conv_curves", compute, draw)

if __name__ == "__main__":
    make(ENTRY, parse())
