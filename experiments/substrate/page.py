"""Where the studies of the substrate put data and pictures."""

import json
from typing import Any

from matplotlib.figure import Figure

from experiments.paper.drawing import plain
from experiments.paper.study import RESULTS

FOLDER = RESULTS / "substrate"


def write(name: str, data: dict[str, Any], figure: Figure) -> None:
    """Data beside the picture of it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(plain(data), indent=1, allow_nan=False) + "\n")
    figure.savefig(FOLDER / f"{name}.png", dpi=150)
    print(FOLDER / f"{name}.png")
