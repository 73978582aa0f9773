"""Table 1: every estimator on Fashion-MNIST, 784-256-256-10 with feedback tied at the start, no homeostasis, SGD.

    python -m experiments.paper.table1 --scale cpu       # or: make table1 SCALE=cpu

Two columns: the published schedule, 150 free and 20 nudged steps whether they settle or not; and relaxations that
settle, with error vectors bounded to norm 1.
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from experiments.paper.published import table1_error
from experiments.paper.study import RESULTS, Job, Record, options, run_study
from experiments.paper.tables import Entry, Row, error, markdown, provenance, write_csv

COLUMNS = ("published", "settled")
STRENGTHS = (0.05, 0.5)
EXTENT = {
    "quick": ((0,), ("epochs=1", "data.train_examples=5000")),
    "cpu": ((0, 1, 2), ("epochs=2", "data.train_examples=12000")),
    "full": ((0, 1, 2, 3, 4), ("epochs=50",)),
}
"""Seeds and length of each scale; `full` is the published one."""
SLOW = {
    "quick": ((), (), ""),
    "cpu": ((0,), ("epochs=1", "data.train_examples=5000"), "5,000 images, one epoch, one seed"),
    "full": (*EXTENT["full"], ""),
}
"""The continuous-time nudge integrates three turns with an ODE solver: over ten times the work of the others."""

NOTE = """
Mean ± standard deviation over n seeds of the error after the last epoch, in percent. Published: the validation error of
Laborieux & Zenke (ICLR 2024) after 50 epochs, five seeds; a dash where no source gives it; *secondary* is somebody who
quotes it. ≠: more than two standard deviations apart; ?: no deviation is known. Only the scale `full` repeats the
published length, and only it compares like with like. Column *published*: 150 free and 20 nudged steps, unsettled
examples take part. Column *settled*: even-odd sweeps to a residual of 1e-4, error vectors bounded to norm 1, unsettled
examples left out; BPTT keeps its phases of 150 and 20 steps and has no error vector to bound. Unsettled: share of
training examples. Made by `make table1 SCALE={scale}`; records lie beside this file.
"""


class Line(NamedTuple):
    """A row of the table before it is run."""

    label: str
    title: str
    overrides: tuple[str, ...]
    published: str | None
    """Its name in `paper_numbers.json`."""
    beta: float | None = None


def lines() -> list[Line]:
    """The rows, in the published order, then those that nobody has published."""
    rows = [_finite(points, beta) for points in (1, 2, 4, 6) for beta in STRENGTHS]
    rows += [
        Line(
            f"continuous-beta{beta:g}",
            f"continuous time, \\|β\\| = {beta:g}",
            ("estimator=oscillating", f"estimator.radius={beta}"),
            "continuous time",
            beta,
        )
        for beta in STRENGTHS
    ]
    return rows + [
        Line("tangent", "true derivative", ("estimator=tangent",), "true derivative"),
        Line("rbp", "RBP", ("estimator=rbp",), None),
        Line("bptt", "BPTT", ("estimator=bptt", "relaxation=fixed_steps"), None),
        Line("asymmetric", "AsymEP, N = 2, \\|β\\| = 0.5", ("estimator=asymmetric",), None),
        Line("dyadic", "Dyadic EP", ("estimator=dyadic",), None),
    ]


def jobs(scale: str) -> list[Job]:
    """Every row in both columns."""
    return [_job(column, line, scale) for column in COLUMNS for line in lines()]


def rows(records: dict[str, list[Record]], scale: str) -> list[Row]:
    """The table; the published figures stand beside the published schedule only."""
    made = []
    for line in lines():
        entries = {
            column: Entry(
                records[f"{column}-{line.label}"],
                table1_error(line.published, line.beta) if column == "published" else None,
            )
            for column in COLUMNS
        }
        made.append(Row(line.title, entries, SLOW[scale][2] if _is_slow(line) else ""))
    return made


def report(records: dict[str, list[Record]], scale: str) -> str:
    """The table as a page."""
    everything = [record for group in records.values() for record in group]
    return (
        "# Table 1: Fashion-MNIST, 784-256-256-10\n\n"
        f"{provenance(everything, scale)}\n\n"
        + markdown(rows(records, scale), error, "test error %")
        + NOTE.format(scale=scale)
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write the table."""
    chosen = options(argv, description=__doc__)
    label = (f"data.label='{chosen.data_label}'",) if chosen.data_label else ()
    todo = [job._replace(overrides=job.overrides + label) for job in jobs(chosen.scale)]
    records = run_study("table1", chosen.scale, todo, workers=chosen.workers, rerun=chosen.rerun)
    folder = RESULTS / "table1" / chosen.scale
    (folder / "README.md").write_text(report(records, chosen.scale))
    write_csv(rows(records, chosen.scale), error, folder / "table.csv")
    print(folder / "README.md")


def _finite(points: int, beta: float) -> Line:
    """`N` points at one strength. The experiments set `stencil.beta`, which the circle calls its radius."""
    if points > 2:
        stencil = ("stencil=cauchy", "~stencil.beta", f"stencil.radius={beta}", f"stencil.num_points={points}")
    else:
        stencil = (f"stencil={'one_sided' if points == 1 else 'centred'}", f"stencil.beta={beta}")
    return Line(f"n{points}-beta{beta:g}", f"N = {points}, \\|β\\| = {beta:g}", stencil, f"N={points}", beta)


def _job(column: str, line: Line, scale: str) -> Job:
    seeds, extent = SLOW[scale][:2] if _is_slow(line) else EXTENT[scale]
    # BPTT has no error vector that could be bounded. Hydra deletes a key only once it has a value.
    drop = (
        ("estimator.norm_bound=1.0", "~estimator.norm_bound") if line.label == "bptt" and column == "published" else ()
    )
    overrides = (f"experiment=fashion_mnist_{column}", *line.overrides, *drop, *extent)
    return Job(f"{column}-{line.label}", overrides, seeds)


def _is_slow(line: Line) -> bool:
    return line.label.startswith("continuous")


if __name__ == "__main__":
    main(sys.argv[1:])
