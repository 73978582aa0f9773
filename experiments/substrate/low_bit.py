"""Weights of few levels trained in place: what oscillates between two levels, and whether it matters."""

from contextlib import nullcontext
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqprop.run import runtime, tables
from eqprop.run.build import Task, build
from eqprop.run.compose import compose
from eqprop.run.study import style
from eqprop.run.study.measured import Measured
from eqprop.run.study.trained import short_compilation
from experiments.substrate.low_bit_training import (
    CALM,
    CONFIDENT,
    FROZEN,
    IN_PLACE,
    LIMIT,
    MARGIN,
    ROWS,
    STATISTICAL,
    WINDOW,
    Training,
)

FLOAT, ROUNDED = "float", "rounded after training"
COMMON = ("stencil=centred",)
DATA: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "digits": ((1, 2, 3, 4), ("data=digits", "epochs=40")),
    "Fashion-MNIST": ((1, 2), ("data=fashion_mnist", "data.train_examples=5000", "epochs=10")),
}
"""Bits of a device, and overrides: about a thousand updates."""
SCALE: dict[str, tuple[int, dict[str, tuple[tuple[int, ...], tuple[str, ...]]]]] = {
    "quick": (1, {"digits": ((1,), ("data=digits", "epochs=8"))}),
    "cpu": (3, DATA),
    "full": (5, {name: (bits, (*words, "data.train_examples=null")) for name, (bits, words) in DATA.items()}),
}
"""Seeds and data sets."""


def measure(scale: str) -> Measured:
    """What `Training.run` finds, by data set, row, bits and seed."""
    seeds, sets = SCALE[scale]
    found = {}
    for name, (bits, words) in sets.items():
        cfg = compose((*COMMON, *words))
        runtime.configure(cfg)
        task = build(cfg)
        size = {"images": len(task.dataset.train), "tested": len(task.dataset.test), "epochs": cfg.epochs}
        with short_compilation() if scale == "quick" else nullcontext():
            found[name] = {**size, "bits": bits, **_rows(task, bits, cfg.epochs, seeds)}
    common = {"limit": LIMIT, "window": WINDOW, "margin": MARGIN, "calm": CALM}
    return Measured({"seeds": seeds, **common, "sets": found})


def _rows(task: Task, bits: tuple[int, ...], epochs: int, seeds: int) -> dict[str, Any]:
    plain = [Training(task, FLOAT, None).run(epochs, seed) for seed in range(seeds)]
    rows: dict[str, dict[str, list]] = {ROUNDED: {}, **{row: {} for row in ROWS}}
    for number in bits:
        for row in ROWS:
            training = Training(task, row, number)
            rows[row][str(number)] = [training.run(epochs, seed)[1] for seed in range(seeds)]
            if row == IN_PLACE:
                rows[ROUNDED][str(number)] = [{"accuracy": training.accuracy(state)} for state, _ in plain]
    return {FLOAT: [one for _, one in plain], "rows": rows}


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """By data set: accuracy by bits, and the course of the share that oscillates."""
    return {_stem(name): _figure(name, found, data) for name, found in data["sets"].items()}


def _figure(name: str, found: dict[str, Any], data: dict[str, Any]) -> Figure:
    figure, (left, right) = style.canvas(2, height=3.6)
    _accuracies(left, found)
    fewest = str(min(found["bits"]))
    for index, row in enumerate(ROWS):
        courses = [[100 * share for share in one["oscillating"]] for one in found["rows"][row][fewest]]
        updates = [data["window"] * (k + 1) for k in range(len(courses[0]))]
        style.band(right, updates, courses, index, row)
    right.set_ylim(bottom=0)
    means = {row: 100 * _mean(found["rows"][row][fewest], "oscillating") for row in (IN_PLACE, FROZEN)}
    said = f"{_bits(fewest)}: {means[IN_PLACE]:.1f} %, if frozen {means[FROZEN]:.1f} %"
    style.frame(right, "updates", "oscillating weights (%)", said)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    figure.suptitle(f"{name}, {style.counted([data['seeds']])}", fontsize=9)
    return figure


def _accuracies(axis: Axes, found: dict[str, Any]) -> None:
    """Each row beside the others at every number of bits."""
    rows, bits = [*ROWS, ROUNDED], found["bits"]
    for index, row in enumerate(rows):
        places = [k + 0.12 * (index - 0.5 * (len(rows) - 1)) for k in range(len(bits))]
        runs = [[100 * one["accuracy"] for one in found["rows"][row][str(number)]] for number in bits]
        style.points(axis, places, runs, index, row)
    mean = 100 * _mean(found[FLOAT], "accuracy")
    axis.axhline(mean, color="black", linewidth=0.8, linestyle=":", label=FLOAT)
    for line in axis.lines:
        if line.get_label() in rows or line.get_marker() not in (".", "None", ""):
            line.set_linestyle("none")  # numbers of bits are no course
    axis.set_xticks(range(len(bits)), [str(number) for number in bits])
    style.frame(axis, "bits of a device", "test accuracy (%)", f"Float weights end at {mean:.1f} %")


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figures show."""
    return {
        _stem(name): (
            f"{name}. Left: test accuracy in the end by bits of a device, with a bar of one standard deviation. Right: "
            f"share of the weights that turn back at least twice in {data['window']} updates, with "
            f"{_bits(min(found['bits']))}; thin lines are runs. {found['images']} training images, {found['epochs']} "
            f"epochs, {style.counted([data['seeds']])}, float32."
        )
        for name, found in data["sets"].items()
    }


def answer(data: dict[str, Any]) -> str:
    """Accuracy, and what oscillates and is frozen, by bits."""
    sentences, accuracies, oscillating = [], [], []
    for name, found in data["sets"].items():
        rows, numbers = found["rows"], [str(number) for number in found["bits"]]
        fewest = numbers[0]
        sentences.append(_said(name, rows, fewest))
        accuracies.append([name, FLOAT, "–", tables.spread([one["accuracy"] for one in found[FLOAT]], 1, 100)])
        for number in numbers:
            for row, by_bits in rows.items():
                runs = by_bits[number]
                cells = [name, row, number, tables.spread([one["accuracy"] for one in runs], 1, 100)]
                accuracies.append(cells)
                if row != ROUNDED:
                    oscillating.append([*cells[:3], *_counted(runs)])
    unsettled = max(one["unsettled"] for runs in _trainings(data) for one in runs)
    head = ["data", "", "bits", "accuracy (%)"]
    shares = ["data", "", "bits", "whole training (%)", "last window (%)", "frozen in the end (%)"]
    return (
        f"{' '.join(sentences)}\n\n{tables.markdown(head, accuracies)}\n\nBelow, the share of weights that turn back "
        f"at least twice in {data['window']} updates: the mean over the training, and in its last window. The learning "
        f"rate falls to zero, and oscillations with it. At most {100 * unsettled:.2f} % of the examples of a training "
        f"did not settle.\n\n{tables.markdown(shares, oscillating)}"
    )


def _said(name: str, rows: dict[str, dict[str, list]], fewest: str) -> str:
    """What rounding costs, and what remedies change, at the fewest bits."""
    ends = {row: [one["accuracy"] for one in by_bits[fewest]] for row, by_bits in rows.items()}
    gap = lambda ours, theirs: tables.spread([a - b for a, b in zip(ends[ours], ends[theirs], strict=True)], 1, 100)
    share = lambda row: f"{100 * _mean(rows[row][fewest], 'oscillating'):.1f} %"
    return (
        f"On {name} with {_bits(fewest)}, training in place changes accuracy by {gap(IN_PLACE, ROUNDED)} points over "
        f"rounding after training. {share(IN_PLACE)} of the weights oscillate, {share(STATISTICAL)} with a statistical "
        f"scale, and {share(FROZEN)} where those that oscillate are frozen. Accuracy differs from training in place by "
        f"{gap(STATISTICAL, IN_PLACE)} points with a statistical scale, {gap(FROZEN, IN_PLACE)} where oscillating "
        f"weights are frozen, and {gap(CONFIDENT, IN_PLACE)} where confident ones are."
    )


def _counted(runs: list[dict[str, Any]]) -> list[str]:
    """Cells of the shares that oscillate and are frozen."""
    whole = [float(np.mean(one["oscillating"])) for one in runs]
    last, frozen = [one["oscillating"][-1] for one in runs], [one["frozen"] for one in runs]
    return [tables.spread(values, 1, 100) for values in (whole, last, frozen)]


def _trainings(data: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The runs of every training of every data set."""
    plain = [found[FLOAT] for found in data["sets"].values()]
    few = [by_bits for found in data["sets"].values() for row, by_bits in found["rows"].items() if row != ROUNDED]
    return [*plain, *(runs for by_bits in few for runs in by_bits.values())]


def _mean(runs: list[dict[str, Any]], what: str) -> float:
    return float(np.mean([np.mean(one[what]) for one in runs]))


def _bits(number: str | int) -> str:
    return f"{number} {'bit' if str(number) == '1' else 'bits'} a device"


def _stem(name: str) -> str:
    return name.lower().replace("-", "_")
