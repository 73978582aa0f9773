"""Table 2: the convolutional network on CIFAR-10, CIFAR-100 and ImageNet 32x32, with and without homeostasis.

    python -m experiments.paper.table2 --scale cpu       # or: make table2 SCALE=cpu

`full` is the published job; `quick` and `cpu` take a narrow network, relaxations that settle and few images. Data that
is not found leaves its cells empty, with the reason.
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from experiments.paper.published import table2_accuracy
from experiments.paper.study import RESULTS, Job, Record, options, run_study
from experiments.paper.tables import Entry, Row, accuracy, markdown, provenance, write_csv

DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet32": "ImageNet 32x32"}
NARROW = "network.channels=[8,16,32,32]"
EXTENT = {
    "quick": ((0,), ("experiment=cifar10_settled", NARROW, "epochs=1", "data.train_examples=512")),
    "cpu": ((0,), ("experiment=cifar10_settled", NARROW, "epochs=2", "data.train_examples=10000")),
    "full": ((0, 1, 2), ("experiment=cifar10_published",)),
}
"""Seeds and experiment of each scale."""
IMAGENET = ("epochs=90", "homeostasis.coefficient=10.0")
"""As published: shorter, and a weaker homeostasis."""
UNTIED = "the network keeps forward and feedback kernels apart and cannot tie them in training"

NOTE = """
Mean ± standard deviation over n seeds of the top-1 accuracy after the last epoch, in percent. Published: the validation
accuracy of Laborieux & Zenke (ICLR 2024), three seeds; a dash where no source gives it; *secondary* is somebody who
quotes it. ≠: more than two standard deviations apart; ?: no deviation is known. Only the scale `full` repeats the
published job, and only it compares like with like. Unsettled: share of training examples. Made by
`make table2 SCALE={scale}`; records lie beside this file.
"""


class Line(NamedTuple):
    """A row of the table before it is run."""

    label: str
    title: str
    overrides: tuple[str, ...]
    homeostasis: bool
    published: str | None
    """Its name in `paper_numbers.json`."""


LINES = (
    Line("n2-without", "N = 2 without homeostasis", (), False, "hEP without homeostasis"),
    Line("n2-with", "N = 2 with homeostasis", (), True, "hEP N=2 |beta|=1 with homeostasis"),
    Line("tangent-with", "true derivative with homeostasis", ("estimator=tangent",), True,
         "hEP true derivative with homeostasis"),
    Line("rbp-with", "RBP with homeostasis", ("estimator=rbp",), True, "RBP with homeostasis"),
    Line("rbp-without", "RBP without homeostasis", ("estimator=rbp",), False, "RBP without homeostasis"),
    Line("n4-with", "N = 4 with homeostasis", ("circle=4",), True, None),
    Line("n6-with", "N = 6 with homeostasis", ("circle=6",), True, None),
    Line("asymmetric-without", "AsymEP, N = 2, without homeostasis", ("estimator=asymmetric",), False, None),
)  # fmt: skip


def jobs(scale: str) -> list[Job]:
    """Every row on every data set."""
    return [_job(data, line, scale) for data in DATA for line in LINES]


def rows(records: dict[str, list[Record]]) -> list[Row]:
    """The table beside the published figures."""
    made = []
    for line in LINES:
        entries = {
            title: Entry(records[f"{data}-{line.label}"], table2_accuracy(line.published, data))
            for data, title in DATA.items()
        }
        made.append(Row(line.title, entries))
    untied = [Record("symmetric", {}, {}, [], {}, UNTIED)]
    symmetric = {
        title: Entry(untied, table2_accuracy("symmetric hEP N=2 |beta|=1", data)) for data, title in DATA.items()
    }
    return [*made, Row("symmetric EP, N = 2", symmetric)]


def report(records: dict[str, list[Record]], scale: str) -> str:
    """The table as a page."""
    everything = [record for group in records.values() for record in group]
    width = "128-256-512-512 as published" if scale == "full" else "8-16-32-32, not the published widths"
    return (
        "# Table 2: the convolutional network\n\n"
        f"{provenance(everything, scale)} Channels: {width}.\n\n"
        + markdown(rows(records), accuracy, "test accuracy %")
        + NOTE.format(scale=scale)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write the table. A data label is that of CIFAR-10."""
    chosen = options(argv, description=__doc__)
    label = (f"data.label='{chosen.data_label}'",) if chosen.data_label else ()
    todo = [
        job._replace(overrides=job.overrides + label) if job.label.startswith("cifar10-") else job
        for job in jobs(chosen.scale)
    ]
    records = run_study("table2", chosen.scale, todo, workers=chosen.workers, rerun=chosen.rerun)
    folder = RESULTS / "table2" / chosen.scale
    (folder / "README.md").write_text(report(records, chosen.scale))
    write_csv(rows(records), accuracy, folder / "table.csv")
    print(folder / "README.md")


def _job(data: str, line: Line, scale: str) -> Job:
    seeds, extent = EXTENT[scale]
    overrides = [*extent, f"data={data}"]
    for override in line.overrides:
        overrides += _circle(override, scale) if override.startswith("circle=") else [override]
    full = scale == "full"
    if full and data == "imagenet32":
        overrides += IMAGENET
    if not line.homeostasis:  # the published job has a coefficient, and its "without" is a coefficient of zero
        overrides = [o for o in overrides if not o.startswith("homeostasis.")]
        overrides.append("homeostasis.coefficient=0.0" if full else "homeostasis=none")
    return Job(f"{data}-{line.label}", tuple(overrides), seeds)


def _circle(override: str, scale: str) -> list[str]:
    """`N` points at the strength of the experiment, which sets `stencil.beta`; the circle calls it its radius."""
    points, radius = override.partition("=")[2], 1.0 if scale == "full" else 0.5
    return ["stencil=cauchy", "~stencil.beta", f"stencil.radius={radius}", f"stencil.num_points={points}"]


if __name__ == "__main__":
    main(sys.argv[1:])
