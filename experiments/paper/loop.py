"""Homeostasis in a loop, a network whose output feeds back to its first layer only.

python -m experiments.paper.loop --scale cpu
"""

from matplotlib.figure import Figure

from experiments.paper import curves
from experiments.paper.drawing import Arguments, Data, Entry, make, parse
from experiments.paper.homeostasis_curves import SCALE, SEEDS
from experiments.paper.study import Job

STUDY = "loop"
COEFFICIENT = 1.0
"""Without reciprocal pairs the exact penalty only decays the recurrent weights: ten times this undoes the learning."""


def jobs(scale: str) -> list[Job]:
    """With and without."""
    return curves.pair("fashion_mnist_loop", SCALE[scale], SEEDS[scale], COEFFICIENT)


def compute(arguments: Arguments) -> Data:
    """Curves by epoch."""
    return curves.collect(STUDY, arguments, jobs(arguments.scale))


def draw(data: Data, arguments: Arguments) -> Figure:
    """Three panels. Without reciprocal connections `‖A − Aᵀ‖ = ‖A + Aᵀ‖`: the first one stays at a half."""
    titles = ("The asymmetry of a loop stays at a half", "Alignment of its errors", "What it learns")
    heading = f"{arguments.data_label or 'Fashion-MNIST'}, a loop without reciprocal connections"
    return curves.draw(data, heading, titles)


ENTRY = Entry(STUDY, compute, draw)

if __name__ == "__main__":
    make(ENTRY, parse())
