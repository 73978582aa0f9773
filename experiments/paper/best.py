"""Beyond the paper: how far finite nudges alone go from independent feedback weights, beside the true gradient.

    python -m experiments.paper.best --scale cpu         # or: make best SCALE=cpu

Three runs of one configuration: nudges with homeostasis, nudges without, and recurrent backprop, the true gradient.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from experiments.figures import BLUE, GREEN, ORANGE
from experiments.paper.study import RESULTS, Job, Record, options, run_study
from experiments.paper.tables import Entry, Row, accuracy, markdown, provenance, spread, write_csv

EXTENT = {
    "quick": ((0,), ("epochs=2", "data.train_examples=2000")),
    "cpu": ((0,), ()),
    "full": ((0, 1, 2, 3, 4), ()),
}
RUNS = {
    "nudges-with": ("nudges with homeostasis", (), BLUE, "-"),
    "nudges-without": ("nudges without", ("homeostasis.coefficient=0.0",), ORANGE, "--"),
    "rbp": ("RBP, the true gradient", ("estimator=rbp", "homeostasis.coefficient=0.0"), GREEN, ":"),
}

NOTE = """

784-256-256-32 and a softmax readout from angle 90; AdamW with a cosine schedule; error vectors bounded to norm 1.
The accuracy is that after the last epoch. Nobody has published this job, so that there is no figure to compare with.
Made by `make best SCALE={scale}`.
"""


def jobs(scale: str) -> list[Job]:
    """The three runs."""
    seeds, extent = EXTENT[scale]
    return [
        Job(label, ("experiment=fashion_mnist_best", *overrides, *extent), seeds)
        for label, (_, overrides, *_) in RUNS.items()
    ]


def report(records: dict[str, list[Record]], scale: str) -> str:
    """The comparison as a page."""
    everything = [record for group in records.values() for record in group]
    lines = ["| | hidden cosine, start | end | functional asymmetry, end | minutes |", "|---|---|---|---|---|"]
    for label, (title, *_) in RUNS.items():
        done = [record.summary for record in records[label] if record.missing is None]
        cosines = [spread([s["cosine_hidden"][when] for s in done], 3) for when in ("start", "end")]
        asymmetry = spread([s["functional_asymmetry"]["end"] for s in done], 3)
        minutes = spread([s["seconds"] / 60 for s in done], 1)
        lines.append("| " + " | ".join([title, *cosines, asymmetry, minutes]) + " |")
    return (
        "# Fashion-MNIST by finite nudges alone\n\n"
        f"{provenance(everything, scale)}\n\n![Accuracy and hidden cosine by epoch](accuracy.png)\n\n"
        + markdown(rows(records), accuracy, "test accuracy %")
        + "\n"
        + "\n".join(lines)
        + NOTE.format(scale=scale)
    )


def rows(records: dict[str, list[Record]]) -> list[Row]:
    """One row a run."""
    return [Row(title, {"Fashion-MNIST": Entry(records[label])}) for label, (title, *_) in RUNS.items()]


def figure(records: dict[str, list[Record]], path: Path) -> None:
    """Accuracy and hidden cosine by epoch; a band from the smallest to the largest seed."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(8.5, 3.3), layout="constrained")
    panels = (("test_accuracy", 100, "test accuracy (%)"), ("cosine_hidden", 1, "hidden cosine to the true errors"))
    for axis, (key, factor, name) in zip(canvas.subplots(1, 2), panels, strict=True):
        for label, (title, _, colour, style) in RUNS.items():
            seeds = [record.metrics for record in records[label] if record.missing is None]
            curves = [{line["epoch"]: factor * line[key] for line in lines if key in line} for lines in seeds]
            if not curves:
                continue
            epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
            values = [[curve[epoch] for curve in curves] for epoch in epochs]
            axis.plot(epochs, [fmean(v) for v in values], style, color=colour, label=title)
            axis.fill_between(epochs, [min(v) for v in values], [max(v) for v in values], color=colour, alpha=0.2, lw=0)
        axis.set(xlabel="epoch", ylabel=name)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    canvas.axes[0].set_ylim(bottom=70)
    canvas.axes[0].legend(frameon=False, loc="lower right")
    canvas.savefig(path, dpi=150)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write table and figure to `docs/results/best`, those of another scale below it."""
    chosen = options(argv, description=__doc__)
    records = run_study("best", chosen.scale, jobs(chosen.scale), workers=chosen.workers, rerun=chosen.rerun)
    folder = RESULTS / "best" if chosen.scale == "cpu" else RESULTS / "best" / chosen.scale
    (folder / "README.md").write_text(report(records, chosen.scale))
    write_csv(rows(records), accuracy, folder / "table.csv")
    figure(records, folder / "accuracy.png")
    print(folder / "README.md")


if __name__ == "__main__":
    main(sys.argv[1:])
