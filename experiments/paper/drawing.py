"""What the figures share: arguments, files, provenance, and one look. No numerics.

A figure is a pair of functions: `compute(arguments)` returns the data drawn, plain lists and numbers with their
provenance, and `draw(data, arguments)` returns the picture of it. The data is written beside the picture, so that
`--redraw` needs no runs.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import BLUE, GREEN, ORANGE, PURPLE
from experiments.paper.study import SCALES, Job, Record, run_study

FIGURES = Path(__file__).parents[2] / "docs" / "results" / "figures"
PROGRAMS = Path("outputs") / ".programs"
"""Compiled programs, for the next process that needs the same."""

STYLES: tuple[dict[str, Any], ...] = (
    {"color": BLUE, "linestyle": "-", "marker": "o"},
    {"color": ORANGE, "linestyle": "--", "marker": "s"},
    {"color": GREEN, "linestyle": "-.", "marker": "^"},
    {"color": PURPLE, "linestyle": ":", "marker": "D"},
    {"color": "black", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
)
"""Lines told apart by colour, dash or marker alone."""

Data = dict[str, Any]


class Missing(Exception):
    """A figure cannot be made here, most often for want of a data set; the message says why."""


class Arguments(NamedTuple):
    """What every figure's command line takes."""

    scale: str = "cpu"
    data_label: str | None = None
    """What titles call the images, where their file differs from the original data set."""
    redraw: bool = False
    workers: int | None = None
    rerun: bool = False


class Entry(NamedTuple):
    """One figure."""

    name: str
    compute: Callable[[Arguments], Data]
    draw: Callable[[Data, Arguments], Figure]


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """The command line of a figure."""
    parser = argparse.ArgumentParser(description="Make figures of the paper's studies.")
    parser.add_argument(
        "--scale", choices=SCALES, default="cpu", help="full: as published; cpu: small; quick: smallest"
    )
    parser.add_argument("--data-label", help='the images\' name in titles, as in "CIFAR-10 (JPEG q75)"')
    parser.add_argument("--redraw", action="store_true", help="draw again from the data files, without any run")
    parser.add_argument("--workers", type=int, help="runs at a time, each with its share of the cores")
    parser.add_argument("--rerun", action="store_true", help="train again what is recorded")
    return Arguments(**vars(parser.parse_args(argv)))


def make(entry: Entry, arguments: Arguments) -> bool:
    """Compute, write and draw one figure; whether it could be made."""
    jax.config.update("jax_compilation_cache_dir", str(PROGRAMS.absolute()))
    folder = FIGURES / arguments.scale
    source = folder / f"{entry.name}.json"
    try:
        if arguments.redraw:
            if not source.exists():
                raise Missing(f"there is no {source.name} to draw again; leave --redraw out")
            data = json.loads(source.read_text())
        else:
            data = plain(entry.compute(arguments))
    except Missing as reason:
        print(f"{entry.name}: skipped, {reason}")
        return False
    write_data(source, data)
    picture = entry.draw(data, arguments)
    picture.savefig(folder / f"{entry.name}.png", dpi=150)
    picture.savefig(folder / f"{entry.name}.pdf", metadata={"CreationDate": None})
    print(f"{entry.name}: {folder / entry.name}.png")
    return True


def write_data(path: Path, data: Data) -> None:
    """What a figure is drawn from, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(data), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Arrays as lists; what is not finite as `None`, since JSON has no word for it."""
    if isinstance(value, dict):
        return {str(name): plain(sub) for name, sub in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(sub) for sub in value]
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        return plain(np.asarray(value).tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def records_of(study: str, arguments: Arguments, jobs: Sequence[Job]) -> dict[str, list[Record]]:
    """Run or reuse the jobs of a study; the runs that there are.

    **Raises:** `Missing`, as `present`.
    """
    scale, workers, rerun = arguments.scale, arguments.workers, arguments.rerun
    return present(run_study(study, scale, jobs, workers=workers, rerun=rerun))


def present(records: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """The runs that exist.

    **Raises:** `Missing` with the reason of the first one that lacks, if a job has no run at all.
    """
    kept = {label: [run for run in runs if run.missing is None] for label, runs in records.items()}
    for label, runs in records.items():
        if not kept[label]:
            raise Missing(f"{label}: {runs[0].missing if runs else 'no runs'}")
    return kept


def provenance(records: dict[str, list[Record]]) -> Data:
    """Of each job: its configuration, seeds, and where and how it ran."""
    return {
        label: {
            "config": runs[0].config,
            "seeds": [seed for run in runs for seed in run.summary["seeds"]],
            "unsettled_fraction": [run.summary["unsettled_fraction"] for run in runs],
            **where(runs[0].environment),
        }
        for label, runs in records.items()
    }


def where(environment: dict) -> Data:
    """Commit, device and precision out of a run's environment."""
    names = ("commit", "devices", "precision", "matmul_precision", "data_sha256")
    return {name: environment.get(name) for name in names}


def canvas(columns: int, *, width: float | None = None, height: float = 3.3) -> tuple[Figure, list[Axes]]:
    """A figure of one row of panels, apart from pyplot and its global state."""
    figure = Figure(figsize=(width or 3.6 * columns, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def frame(axis: Axes, xlabel: str, ylabel: str, title: str | None = None) -> None:
    """Labels, a light grid, no box."""
    axis.set(xlabel=xlabel, ylabel=ylabel)
    if title:
        axis.set_title(title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, which="major")
    axis.set_axisbelow(True)


def line(axis: Axes, x: Sequence[float], y: Sequence[float | None], index: int, label: str | None = None) -> None:
    """One curve in the style of that number; gaps where there is no value."""
    style = STYLES[index % len(STYLES)]
    values = [math.nan if value is None else value for value in y]
    axis.plot(x, values, label=label, markersize=4, linewidth=1.6, **style)


def band(axis: Axes, x: Sequence[float], runs: Sequence[Sequence[float]], index: int, label: str | None = None) -> None:
    """The mean over runs, and a band from the smallest to the largest."""
    columns = list(zip(*runs, strict=True))
    line(axis, x, [fmean(values) for values in columns], index, label)
    colour = STYLES[index % len(STYLES)]["color"]
    low, high = [min(values) for values in columns], [max(values) for values in columns]
    axis.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def legend(axis: Axes, **options: Any) -> None:
    """A legend without a box."""
    axis.legend(**{"frameon": False, "fontsize": 8, "handlelength": 3.0, **options})
