"""Reviewers' questions about homeostasis, on Fashion-MNIST from independent feedback weights.

    python -m experiments.paper.ablations --scale cpu    # or: make ablations SCALE=cpu

Which term does the work? How strong should it be? What do the five draws cost? Does it help recurrent backprop too?
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.paper.published import DASH
from experiments.paper.study import RESULTS, Job, Record, options, run_study
from experiments.paper.tables import provenance, spread

EXTENT = {
    "quick": ((0,), ("epochs=2", "data.train_examples=2000")),
    "cpu": ((0, 1), ("epochs=2", "data.train_examples=20000")),
    "full": ((0, 1, 2, 3, 4), ("epochs=50",)),
}
EXACT = "homeostasis=exact"
SETTINGS = {
    "none": ("none", ("homeostasis=none",)),
    "norm": ("‖Jε‖² alone", ("homeostasis=forward", "++homeostasis.terms=norm")),
    "trace": ("−εᵀJ²ε alone", ("homeostasis=forward", "++homeostasis.terms=trace")),
    "forward5": ("both, as published, 5 draws", ("homeostasis=forward",)),
    "forward1": ("both, as published, 1 draw", ("homeostasis=forward", "homeostasis.num_probes=1")),
    "skew1": ("skew, 1 draw", ("homeostasis=skew", "homeostasis.coefficient=1.0")),
    "skew5": ("skew, 5 draws", ("homeostasis=skew", "homeostasis.coefficient=1.0", "homeostasis.num_probes=5")),
    "exact0.1": ("exact, coefficient 0.1", (EXACT, "homeostasis.coefficient=0.1")),
    "exact1": ("exact, coefficient 1", (EXACT, "homeostasis.coefficient=1.0")),
    "exact10": ("exact, coefficient 10", (EXACT, "homeostasis.coefficient=10.0")),
    "exact30": ("exact, coefficient 30", (EXACT, "homeostasis.coefficient=30.0")),
    "exact100": ("exact, coefficient 100", (EXACT, "homeostasis.coefficient=100.0")),
    "rbp-none": ("RBP, none", ("estimator=rbp", "homeostasis=none")),
    "rbp-exact10": ("RBP, exact, coefficient 10", ("estimator=rbp", EXACT, "homeostasis.coefficient=10.0")),
}
"""By label: title and overrides. Coefficients are 1 unless the title says another."""
QUESTIONS = {
    "Which term does the work?": ("none", "norm", "trace", "forward5", "skew1", "exact1"),
    "How strong should it be?": ("none", "exact0.1", "exact1", "exact10", "exact30", "exact100"),
    "What do five draws cost?": ("none", "forward1", "forward5", "skew1", "skew5", "exact1"),
    "Does it help recurrent backprop?": ("none", "exact10", "rbp-none", "rbp-exact10"),
}
TRAINING_EXAMPLES = 60_000
HEAD = ("homeostasis", "test accuracy %", "hidden cosine", "functional asymmetry", "unsettled %", "ms a step", "n")

NOTE = """\
Fashion-MNIST, 784-256-256-10 from angle 90, N = 2 at |β| = 0.5 unless the row says RBP, AdamW at 1e-3, error vectors
bounded to norm 1; coefficient 1 unless the row says another. Mean ± standard deviation over n seeds at the end of
training. Hidden cosine: of the error vectors to the true ones. Unsettled: share of training examples. Made by
`make ablations SCALE={scale}`; records lie beside this file.
"""


def jobs(scale: str) -> list[Job]:
    """Each setting once, though several questions ask for it."""
    seeds, extent = EXTENT[scale]
    experiment = "experiment=fashion_mnist_ablation"
    return [Job(label, (experiment, *overrides, *extent), seeds) for label, (_, overrides) in SETTINGS.items()]


def milliseconds_a_step(record: Record) -> float:
    """Of the epochs after the first, which compiles. Nothing is evaluated between the first two epochs."""
    times = [line["seconds"] for line in record.metrics if "seconds" in line][:2]
    steps = (record.config["data"]["train_examples"] or TRAINING_EXAMPLES) // record.config["batch_size"]
    return 1000 * (times[1] - times[0]) / steps


def line(label: str, records: Sequence[Record]) -> list[str]:
    """One row of a table."""
    title = SETTINGS[label][0]
    done = [record for record in records if record.missing is None]
    if not done:
        return [title, records[0].missing or DASH, *[DASH] * (len(HEAD) - 3), "0"]
    summaries = [record.summary for record in done]
    return [
        title,
        spread([100 * s["test_accuracy"] for s in summaries], 2),
        spread([s["cosine_hidden"]["end"] for s in summaries], 3),
        spread([s["functional_asymmetry"]["end"] for s in summaries], 3),
        spread([100 * s["unsettled_fraction"] for s in summaries], 1),
        spread([milliseconds_a_step(record) for record in done], 1),
        str(len(done)),
    ]


def report(records: dict[str, list[Record]], scale: str) -> str:
    """A table a question."""
    everything = [record for group in records.values() for record in group]
    page = ["# Homeostasis, part by part\n", f"{provenance(everything, scale)}\n"]
    for question, labels in QUESTIONS.items():
        lines = [list(HEAD), ["---"] * len(HEAD), *(line(label, records[label]) for label in labels)]
        page += [f"## {question}\n", *("| " + " | ".join(cells) + " |" for cells in lines), ""]
    page.append(NOTE.format(scale=scale))
    return "\n".join(page)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write the tables."""
    chosen = options(argv, description=__doc__)
    records = run_study("ablations", chosen.scale, jobs(chosen.scale), workers=chosen.workers, rerun=chosen.rerun)
    folder = RESULTS / "ablations" / chosen.scale
    (folder / "README.md").write_text(report(records, chosen.scale))
    _write_csv(records, folder / "table.csv")
    print(folder / "README.md")


def _write_csv(records: dict[str, list[Record]], path: Path) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([["label", *HEAD], *([label, *line(label, found)] for label, found in records.items())])


if __name__ == "__main__":
    main(sys.argv[1:])
