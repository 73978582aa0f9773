"""Where the studies of the substrate put data and pictures."""

from typing import Any

from matplotlib.figure import Figure

from experiments.paper.drawing import write_data
from experiments.paper.study import RESULTS

FOLDER = RESULTS / "substrate"


def write(name: str, data: dict[str, Any], figure: Figure) -> None:
    """Data beside the picture of it."""
    write_data(FOLDER / f"{name}.json", data)
    figure.savefig(FOLDER / f"{name}.png", dpi=150)
    print(FOLDER / f"{name}.png")
