"""Five tasks of two classes in turns: what is forgotten, and what a small memory and aligned classes keep."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eqprop import metrics
from eqprop.run import runtime, tables
from eqprop.run.build import build
from eqprop.run.compose import compose
from eqprop.run.provenance import environment
from eqprop.run.record import settings
from eqprop.run.study import style
from eqprop.run.study.measured import Measured
from eqprop.run.study.records import Record
from experiments.tasks.training import ALIGNED, ALONE, AT_ONCE, KEPT, MEMORY, ROWS, TASKS, run

FIRST = "nudges with homeostasis"
TRAININGS = {FIRST: (), "RBP": ("estimator=rbp", "homeostasis=none")}
COMMON = (
    "experiment=fashion_mnist_best",
    "network.sizes=[${data.input_size},256,32]",
    "schedule=constant",
    "epochs=20",
)
"""`epochs` are those of every task."""
DATA = {
    "Fashion-MNIST": ("data=fashion_mnist", "optimiser.learning_rate=5e-4"),
    "digits": ("data=digits", "batch_size=20", "optimiser.learning_rate=1e-3"),
}
SCALE: dict[str, tuple[int, dict[str, tuple[str, ...]]]] = {
    "quick": (1, {"digits": ("epochs=2",)}),
    "cpu": (3, {"Fashion-MNIST": ("data.train_examples=5000",), "digits": ()}),
    "full": (5, {"Fashion-MNIST": (), "digits": ()}),
}
"""Seeds, and overrides by data set."""


def measure(scale: str) -> Measured:
    """What `run` finds, by data set, training, row and seed."""
    seeds, sets = SCALE[scale]
    found: dict[str, Any] = {}
    records = []
    for name, words in sets.items():
        runs: dict[str, dict[str, list]] = {}
        for training, rule in TRAININGS.items():
            cfg = compose((*COMMON, *DATA[name], *words, *rule))
            runtime.configure(cfg)
            task, runs[training] = build(cfg), {}
            config, origin = settings(cfg), environment(cfg, task.dataset.checksums)
            for row in ROWS:
                runs[training][row] = [run(task, row, cfg.epochs, seed) for seed in range(seeds)]
                for seed, one in enumerate(runs[training][row]):
                    summary = {"test_accuracy": _end(one), "unsettled_fraction": one["unsettled"]}
                    label = f"{name}, {training}, {row}"
                    records.append(Record(label, seed, {**config, "seed": seed}, origin, [], summary))
            found[name] = {"epochs": cfg.epochs, "images": len(task.dataset.train), "tested": len(task.dataset.test)}
        found[name]["runs"] = runs
    return Measured({"seeds": seeds, "kept": KEPT, "sets": found}, records)


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """A figure a data set: a panel a training, and old and new classes before and after they are aligned."""
    return {_stem(name): _figure(name, found["runs"], data["seeds"]) for name, found in data["sets"].items()}


def _figure(name: str, trainings: dict[str, dict[str, list]], seeds: int) -> Figure:
    figure, axes = style.canvas(3)
    learned = [sum(map(len, TASKS[: k + 1])) for k in range(len(TASKS))]
    for axis, (training, rows) in zip(axes, trainings.items(), strict=False):
        for index, (row, runs) in enumerate(rows.items()):
            style.band(axis, learned, [_course(run, row) for run in runs], index, row)
        ends = {row: 100 * np.mean([_end(run) for run in runs]) for row, runs in rows.items()}
        title = f"{training[0].upper()}{training[1:]}: {ends[ALONE]:.0f}, {ends[MEMORY]:.0f}, {ends[ALIGNED]:.0f} %"
        style.frame(axis, "classes learned", "accuracy on them (%)", title)
    runs = trainings[FIRST][ALIGNED]
    parts = [(which, when) for which in ("old", "new") for when in ("before", "after")]
    for index, (which, when) in enumerate(parts):
        lines = [[100 * _part(run, which, when, k) for k in range(1, len(TASKS))] for run in runs]
        style.band(axes[2], learned[1:], lines, index, f"{which} classes, {when}")
    first, last = (100 * np.mean([_part(run, "old", when) for run in runs]) for when in ("before", "after"))
    style.frame(axes[2], "classes learned", "accuracy (%)", f"Old classes in the end: {first:.0f} to {last:.0f} %")
    for axis in axes:
        axis.set_ylim(0, 105)
        axis.set_xticks(learned)
    axes[2].legend(loc="best")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=len(ROWS))
    figure.suptitle(f"Split {name}, {style.counted([seeds])}; thin lines are runs", fontsize=9)
    return figure


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figures show."""
    return {
        _stem(name): (
            f"Split {name}: accuracy on the test images of the classes learned so far, after every task, by training; "
            "that of all at once is on all classes. Titles have the means of the first three rows in the end. Right: "
            f"accuracy on old classes and on the two new ones before and after weights are aligned, by {FIRST}. "
            f"{found['images']} training images, {found['epochs']} epochs a task, {style.counted([data['seeds']])}, "
            "float32."
        )
        for name, found in data["sets"].items()
    }


def answer(data: dict[str, Any]) -> str:
    """Accuracy and forgetting in the end, and what aligning changes."""
    sentences, rows, changes, factors = [], [], [], []
    for name, found in data["sets"].items():
        for training, by_row in found["runs"].items():
            sentences.append(f"By {training} on split {name}, {_said(by_row)}")
            rows += [[name, training, row, *_reached(runs)] for row, runs in by_row.items()]
            changes += [[name, training, str(k + 1), *_changed(by_row[ALIGNED], k)] for k in range(1, len(TASKS))]
            factors += np.mean([run["factors"] for run in by_row[ALIGNED]], axis=0).tolist()
    quantities = ("accuracy", "forgetting", "old classes", "new classes", "unsettled")
    joined = "\n\n".join(sentences)
    head = ["data", "training", "", *(f"{quantity} (%)" for quantity in quantities)]
    titles = ["data", "training", "task", "γ", "old, before", "old, after", "new, before", "new, after"]
    return (
        f"{joined}\n\n{tables.markdown(head, rows)}\n\n"
        "In the end, on test images; old classes are those of all tasks but the last. Below, accuracies (%) before and "
        "after the weights of the new classes are multiplied by γ, in the runs that align. The mean of γ over seeds "
        f"lies between {min(factors):.2f} and {max(factors):.2f}.\n\n{tables.markdown(titles, changes)}"
    )


SAID = {
    ALONE: "with nothing else",
    MEMORY: "with a memory",
    ALIGNED: "with a memory and aligned classes",
    AT_ONCE: "with all classes at once",
}
"""How the answer names the rows."""


def _said(by_row: dict[str, list]) -> str:
    ends = {row: [_end(run) for run in runs] for row, runs in by_row.items()}
    said = ", ".join(f"{tables.spread(ends[row], 1, 100)} % {words}" for row, words in SAID.items())
    gaps = [ours - theirs for ours, theirs in zip(ends[ALIGNED], ends[MEMORY], strict=True)]
    change = f"Aligning after every task changes it by {tables.spread(gaps, 2, 100)} points, paired by seed."
    return f"the accuracy on all classes ends at {said}. {change}"


def _reached(runs: list) -> list[str]:
    """Cells of what is reached in the end."""
    lost = [metrics.forgetting(np.array(run["after"])) for run in runs if len(run["after"]) > 1]
    parts = [[_part(run, which) for run in runs] for which in ("old", "new")]
    cells = [tables.spread(values, 1, 100) for values in ([_end(run) for run in runs], lost, *parts)]
    return [*cells, tables.spread([run["unsettled"] for run in runs], 2, 100)]


def _changed(runs: list, k: int) -> list[str]:
    """Cells of what aligning changes after task `k`."""
    parts = [[_part(run, which, when, k) for run in runs] for which in ("old", "new") for when in ("before", "after")]
    factor = tables.spread([run["factors"][k - 1] for run in runs], 3)
    return [factor, *(tables.spread(values, 1, 100) for values in parts)]


def _stem(name: str) -> str:
    return name.lower().replace("-", "_")


def _end(run: dict[str, Any]) -> float:
    """The mean accuracy over all tasks in the end."""
    return float(np.mean(run["after"][-1]))


def _course(run: dict[str, Any], row: str) -> list[float]:
    """The mean accuracy over the tasks learned so far, in per cent; in the end, where all are learned at once."""
    if row == AT_ONCE:
        return [100 * _end(run)] * len(TASKS)
    return [100 * float(np.mean(after[: k + 1])) for k, after in enumerate(run["after"])]


def _part(run: dict[str, Any], which: str, when: str = "after", k: int = -1) -> float:
    """The mean accuracy on old or new classes, after task `k`."""
    reached = run[when][k]
    new = len(TASKS) - 1 if k == -1 else k
    return float(np.mean(reached[:new]) if which == "old" else reached[new])
