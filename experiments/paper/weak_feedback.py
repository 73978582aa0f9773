"""Weak feedback: what a small gain is worth at two hidden layers, at four and eight, and on CIFAR-10.

    python -m experiments.paper.weak_feedback --scale cpu        # or: make weak-feedback SCALE=cpu

Homeostasis in the metric of a network is its gain times that of the kernels. The coefficient is `STRENGTH / gain`.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from experiments.paper.depth_figure import Depths, draw
from experiments.paper.study import RESULTS, Job, Record, options, run_study
from experiments.paper.tables import provenance
from experiments.paper.words import answer, cosines, done, duration, finals, layers, standing, table

DOCS = RESULTS.parent
STRENGTH = 30.0
"""Of homeostasis: its coefficient times the gain."""
STRONG, WEAK = 1.0, 0.2
SHALLOW = (("homeostasis", WEAK), ("homeostasis", STRONG), ("rbp", WEAK))
EPOCHS = (1, 6)
GAINS = {4: 0.25, 8: 0.3}
"""By the number of hidden layers."""
SEEDS = {"quick": (0,), "cpu": (0, 1, 2), "full": (0, 1, 2, 3, 4)}
QUICK = ("epochs=1", "data.train_examples=2000")
CIFAR = "cifar10"
KINDS = {"homeostasis": "EP with homeostasis", "alone": "EP alone", "rbp": "RBP, the true gradient"}
"""In the order of the styles of `drawing.STYLES`."""
Records = dict[str, list[Record]]


class Part(NamedTuple):
    """A question, its rows by label, and how the records answer it."""

    title: str
    setting: str
    rows: dict[str, str]
    answers: Callable[[Records], list[str]]
    beyond: str
    """What it does not show."""


def jobs(scale: str) -> list[Job]:
    """All runs. At the scale `quick` every run is one short epoch, so that those of six are left out."""
    quick, seeds = scale == "quick", SEEDS[scale]
    extent = QUICK if quick else ()
    made = []
    for epochs in EPOCHS:
        for kind, gain in SHALLOW:
            overrides = ("experiment=fashion_mnist_best", f"epochs={epochs}", *_learning(kind, gain), *extent)
            made.append(Job(_shallow(epochs, kind, gain), overrides, () if quick and epochs > 1 else seeds))
    for depth, gain in GAINS.items():
        sizes = f"network.sizes=[784,{'128,' * depth}32]"
        for kind in KINDS:
            overrides = ("experiment=fashion_mnist_depth", sizes, *_learning(kind, gain), *extent)
            made.append(Job(f"depth{depth}-{kind}", overrides, seeds))
    return [*made, Job(CIFAR, ("experiment=cifar10_weak", *extent), seeds if scale == "full" else seeds[:1])]


def _learning(kind: str, gain: float) -> tuple[str, ...]:
    coefficient = STRENGTH / gain if kind == "homeostasis" else 0.0
    estimator = ("estimator=rbp",) if kind == "rbp" else ()
    if kind != "homeostasis":
        estimator = (*estimator, "warm_start=0")  # nothing would act in it
    return (*estimator, f"network.feedback_gain={gain}", f"homeostasis.coefficient={coefficient:.1f}")


def _shallow(epochs: int, kind: str, gain: float) -> str:
    return f"epochs{epochs}-gain{gain}-{kind}"


def _two_layers(records: Records) -> list[str]:
    def say(weak: list[Record], strong: list[Record], rbp: list[Record]) -> str:
        (free, nudged), before = (
            [finals(r, f"{phase}_steps", 1) for phase in ("free", "nudged")] for r in (weak, strong)
        )
        return (
            f"After {duration(weak)}, EP with homeostasis at gain {WEAK} is {standing(weak, rbp, 'RBP')}, and "
            f"{standing(weak, strong, f'itself at gain {STRONG}')}. It takes {free} sweeps in the free phase and "
            f"{nudged} in the nudged phases, in place of {before[0]} and {before[1]}."
        )

    return [answer(records, [_shallow(epochs, *row) for row in SHALLOW], say) for epochs in EPOCHS]


def _depth(records: Records) -> list[str]:
    def at(depth: int) -> str:
        def say(ours: list[Record], alone: list[Record], rbp: list[Record]) -> str:
            means = [fmean(values) for values in zip(*(cosines(run, depth) for run in done(ours)), strict=True)]
            cosine, layer = min(zip(means, layers(depth), strict=True))
            return (
                f"At {depth} hidden layers EP with homeostasis is {standing(ours, rbp, 'RBP')}, where EP alone is "
                f"{standing(alone, rbp, 'RBP')}. The hidden cosine ends at {finals(ours, 'cosine_hidden', 2)} with "
                f"homeostasis ({cosine:.2f} in {layer}, the layer aligned least) and at "
                f"{finals(alone, 'cosine_hidden', 2)} without."
            )

        return answer(records, [f"depth{depth}-{kind}" for kind in KINDS], say)

    return [at(depth) for depth in GAINS]


def _cifar(records: Records) -> list[str]:
    def say(found: list[Record]) -> str:
        return (
            f"The test accuracy is {finals(found, 'test_accuracy', 1, 100)} % after {duration(found)}, where chance is "
            f"10 %. The hidden cosine ends at {finals(found, 'cosine_hidden', 2)}, and "
            f"{finals(found, 'unsettled_fraction', 1, 100)} % of the training examples did not settle."
        )

    return [answer(records, [CIFAR], say)]


PARTS = (
    Part(
        "Two hidden layers: what does weak feedback save, and what does it cost?",
        "Fashion-MNIST, 784-256-256-32 and a softmax readout, `experiment=fashion_mnist_best`.",
        {_shallow(e, kind, gain): f"{KINDS[kind]}, gain {gain}, epochs {e}" for e in EPOCHS for kind, gain in SHALLOW},
        _two_layers,
        f"Gain {WEAK}, its coefficient and the tolerances were chosen on images kept back from training. Gain {STRONG} "
        "takes the same tolerances and learning rate, so that a part of the difference may be want of tuning.",
    ),
    Part(
        "Depth: how far behind the true gradient are nudges, and what does homeostasis recover?",
        "Fashion-MNIST, hidden layers of 128, then 32 and a softmax readout, `experiment=fashion_mnist_depth`.",
        {f"depth{depth}-{kind}": f"{depth} hidden layers, {title}" for depth in GAINS for kind, title in KINDS.items()},
        _depth,
        "The gains come from earlier trials that were judged on test images. The two depths differ in gain as well. "
        "Training is too short to end at what any of the rows can reach.",
    ),
    Part(
        "CIFAR-10: does a convolutional network learn in one epoch?",
        "A narrow convolutional network, skew homeostasis on a share of each batch, `experiment=cifar10_weak`.",
        {CIFAR: KINDS["homeostasis"]},
        _cifar,
        "There is no row without homeostasis and none by the true gradient. A copy that is not the original, which the "
        "row then names, is another data set.",
    ),
)  # fmt: skip

NOTE = """Mean ± standard deviation over n seeds; differences are taken seed by seed. Unsettled: the share of training
examples with a phase that missed its tolerance, which take no part in the gradient. Sweeps are those of the last epoch;
cosine and asymmetry are measured at its end. Sweeps of nudged phases are summed over both nudges. Those of RBP solve
its linear system, and its cosine is that of the true gradient to itself. Seconds are those of the whole run, with
compilation and evaluation; where other work shared the machine, as at the scale cpu, they are no measure of speed.
Made by `make weak-feedback SCALE={scale}`; records lie beside this file.
"""


def report(records: Records, scale: str) -> str:
    """A question a part: setting, answer, table, and what it does not show."""
    page = ["# Weak feedback\n", "![Test accuracy and cosine by layer at two depths](depth.png)\n"]
    for part in PARTS:
        everything = [record for label in part.rows for record in records[label]]
        page += [f"## {part.title}\n", f"{part.setting} {provenance(everything, scale)}\n"]
        page += [f"{' '.join(part.answers(records))}\n", table([(title, records[x]) for x, title in part.rows.items()])]
        page.append(f"Not shown: {part.beyond}\n")
    return "\n".join([*page, NOTE.format(scale=scale)])


def depths(records: Records) -> Depths:
    """What the figures show: the records of each depth by the name of the run."""
    return {depth: {title: records[f"depth{depth}-{kind}"] for kind, title in KINDS.items()} for depth in GAINS}


def figure(records: Records, path: Path) -> None:
    """Both depths: test accuracy by epoch, and cosine by layer at the end."""
    draw(depths(records)).savefig(path, dpi=150)


def readme_figure(records: Records, path: Path) -> None:
    """The deepest network alone, for the README."""
    deepest = max(GAINS)
    draw({deepest: depths(records)[deepest]}, width=8.0).savefig(path, dpi=150)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then write page and figures; those of a scale other than `cpu` lie below `weak_feedback`."""
    chosen = options(argv, description=__doc__)
    label = (f"data.label='{chosen.data_label}'",) if chosen.data_label else ()
    todo = [job._replace(overrides=job.overrides + label) if job.label == CIFAR else job for job in jobs(chosen.scale)]
    workers = 2 if chosen.workers is None and chosen.scale == "quick" else chosen.workers  # they compile, above all
    records = run_study("weak_feedback", chosen.scale, todo, workers=workers, rerun=chosen.rerun)
    folder = RESULTS / "weak_feedback" / ("" if chosen.scale == "cpu" else chosen.scale)
    (folder / "README.md").write_text(report(records, chosen.scale))
    figure(records, folder / "depth.png")
    if chosen.scale == "cpu" and all(done(found) for found in depths(records)[max(GAINS)].values()):
        readme_figure(records, DOCS / "depth.png")
    print(folder / "README.md")


if __name__ == "__main__":
    main(sys.argv[1:])
