"""Homeostasis from independent feedback weights: asymmetry, alignment and accuracy by epoch.

python -m experiments.paper.homeostasis_curves --scale cpu
"""

from matplotlib.figure import Figure

from experiments.paper import curves
from experiments.paper.drawing import Arguments, Data, Entry, make, parse
from experiments.paper.study import Job

STUDY = "homeostasis"
FASTER = ("optimiser.learning_rate=1e-3",)
"""Fewer steps than published are made up for by longer ones, and a larger coefficient."""
SCALE = {
    "quick": ("epochs=2", "data.train_examples=1000", "evaluation.alignment_examples=20", *FASTER),
    "cpu": ("epochs=5", "data.train_examples=10000", *FASTER),
    "full": (),
}
COEFFICIENT = {"quick": 10.0, "cpu": 10.0, "full": 1.0}
SEEDS = {"quick": (0,), "cpu": (0, 1), "full": (0, 1, 2, 3, 4)}


def jobs(scale: str) -> list[Job]:
    """With and without."""
    return curves.pair("fashion_mnist_homeostasis", SCALE[scale], SEEDS[scale], COEFFICIENT[scale])


def compute(arguments: Arguments) -> Data:
    """Curves by epoch."""
    return curves.collect(STUDY, arguments, jobs(arguments.scale))


def draw(data: Data, arguments: Arguments) -> Figure:
    """Three panels."""
    return curves.draw(data, f"{arguments.data_label or 'Fashion-MNIST'}, dense network, initial angle 90°")


ENTRY = Entry("homeostasis_curves", compute, draw)

if __name__ == "__main__":
    make(ENTRY, parse())
