"""Does what training on a class of chips changes make other networks robust to the class? A figure and a table."""

import dataclasses
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eqprop.data import subset
from eqprop.run import runtime, tables
from eqprop.run.build import build
from eqprop.run.compose import compose
from eqprop.run.study import style
from eqprop.run.study.measured import Measured
from experiments.substrate.signature_training import CHIPS, ITSELF, NETWORKS, OTHER, SAME, SCALES, UNSEEN, run

SIGMAS = (0.75, 1.0, 1.25)
"""Of the classes."""
COMMON = ("stencil=centred",)
TESTED = 1000
"""At most so many test images are measured on every chip."""
DATA = {
    "digits": ("data=digits", "epochs=40"),
    "Fashion-MNIST": ("data=fashion_mnist", "data.train_examples=5000", "epochs=10"),
}
SCALE: dict[str, tuple[int, tuple[float, ...], dict[str, tuple[str, ...]]]] = {
    "quick": (1, (1.0,), {"digits": ("data=digits", "epochs=4")}),
    "cpu": (3, SIGMAS, DATA),
    "full": (5, SIGMAS, {name: (*words, "data.train_examples=null") for name, words in DATA.items()}),
}
"""Seeds, classes and data sets."""


def measure(scale: str) -> Measured:
    """What `run` finds, by data set and seed."""
    seeds, sigmas, sets = SCALE[scale]
    found = {}
    for name, words in sets.items():
        cfg = compose((*COMMON, *words))
        runtime.configure(cfg)
        task = build(cfg)
        if len(task.dataset.test) > TESTED:
            task = task._replace(dataset=dataclasses.replace(task.dataset, test=subset(task.dataset.test, TESTED, 0)))
        runs = [run(task, sigmas, cfg.epochs, seed) for seed in range(seeds)]
        size = {"images": len(task.dataset.train), "tested": len(task.dataset.test), "epochs": cfg.epochs}
        found[name] = {**size, "runs": runs}
    common = {"sigmas": sigmas, "scales": SCALES, "chips": CHIPS, "unseen": len(UNSEEN)}
    return Measured({"seeds": seeds, **common, "sets": found})


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """By data set, accuracy against the scale of the signature at one class, a panel for each network."""
    return {_stem(name): _figure(name, found["runs"], data) for name, found in data["sets"].items()}


def _figure(name: str, runs: list[dict[str, Any]], data: dict[str, Any]) -> Figure:
    figure, axes = style.canvas(len(NETWORKS), height=3.4)
    k = _shown(data)
    for axis, network in zip(axes, NETWORKS, strict=True):
        _panel(axis, [one[network][k] for one in runs], data["scales"])
        change = _gain(runs, network, k, data["scales"])
        said = "The network itself" if network == ITSELF else network[0].upper() + network[1:]
        style.frame(
            axis, "scale of the signature", "accuracy on unseen chips (%)", f"{said}: {change:+.1f} points at 1"
        )
        axis.sharey(axes[0])
    axes[0].autoscale(axis="y")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(
        f"{name}, σ = {data['sigmas'][k]:g}, {style.counted([data['seeds']])}; thin lines are runs", fontsize=9
    )
    return figure


def _panel(axis: Axes, runs: list[dict[str, Any]], scales: list[float]) -> None:
    for index, (what, title) in enumerate({"signature": "signature", "random": "random signature"}.items()):
        style.band(axis, scales, [[100 * value for value in one[what]] for one in runs], index, title)
    for what, title, dash in (("tuned", "tuned itself", "--"), ("alone", "alone", ":")):
        mean = 100 * float(np.mean([one[what] for one in runs]))
        axis.axhline(mean, color="black", linewidth=0.8, linestyle=dash, label=title)


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figures show."""
    sigma = data["sigmas"][_shown(data)]
    return {
        _stem(name): (
            f"{name}: accuracy on unseen chips of the class σ = {sigma:g} against the factor of the signature that is "
            "added, or of a random one of equal norm; from left to right to the network that the signature is from, to "
            "one from the same initial weights, and to one from another seed. Horizontal lines: networks alone, and "
            f"tuned themselves. {found['tested']} test images on {data['unseen']} chips, {found['images']} training "
            f"images, {found['epochs']} epochs, {style.counted([data['seeds']])}, float32."
        )
        for name, found in data["sets"].items()
    }


def answer(data: dict[str, Any]) -> str:
    """What the signature is worth to each network, by class."""
    sentences = [_said(name, found["runs"], data) for name, found in data["sets"].items()]
    rows = [
        [name, f"{sigma:g}", network, *_cells([one[network][k] for one in found["runs"]], data["scales"])]
        for name, found in data["sets"].items()
        for k, sigma in enumerate(data["sigmas"])
        for network in NETWORKS
    ]
    head = [
        "data",
        "σ",
        "network",
        "alone",
        "signature",
        "random",
        "tuned",
        "cosine",
        "alone, σ = 0",
        "signature, σ = 0",
    ]
    return (
        f"{' '.join(sentences)}\n\n{tables.markdown(head, rows)}\n\nAccuracies in percent, means over {data['unseen']} "
        f"unseen chips, and without mismatch (σ = 0), ± the deviation over n = {data['seeds']} seeds. The cosine is "
        "between the signature that is added and that of the network's own tuning."
    )


def _said(name: str, runs: list[dict[str, Any]], data: dict[str, Any]) -> str:
    """The gains at one class, in points of accuracy on unseen chips."""
    k, one = _shown(data), data["scales"].index(1.0)

    def gain(network: str, what: str) -> str:
        values = [each[network][k] for each in runs]
        after = [value[what] if what == "tuned" else value[what][one] for value in values]
        return tables.spread([a - value["alone"] for a, value in zip(after, values, strict=True)], 1, 100)

    return (
        f"On {name} at σ = {data['sigmas'][k]:g}, tuning changes the accuracy of a network on unseen chips by "
        f"{gain(ITSELF, 'tuned')} points. Its signature changes that of a network from the same initial weights by "
        f"{gain(SAME, 'signature')} points, where tuning would by {gain(SAME, 'tuned')}, and that of a network from "
        f"another seed by {gain(OTHER, 'signature')}, where tuning would by {gain(OTHER, 'tuned')} and a random "
        f"signature does by {gain(OTHER, 'random')}."
    )


def _cells(values: list[dict[str, Any]], scales: list[float]) -> list[str]:
    one = scales.index(1.0)
    columns = [
        [value["alone"] for value in values],
        *([value[what][one] for value in values] for what in ("signature", "random")),
        [value["tuned"] for value in values],
    ]
    ideal = [[value["ideal"][what] for value in values] for what in ("alone", "signature")]
    cosines = tables.spread([value["cosine"] for value in values], 2)
    shown = [[tables.spread(column, 1, 100) for column in part] for part in (columns, ideal)]
    return [*shown[0], cosines, *shown[1]]


def _gain(runs: list[dict[str, Any]], network: str, k: int, scales: list[float]) -> float:
    one = scales.index(1.0)
    return 100 * float(np.mean([each[network][k]["signature"][one] - each[network][k]["alone"] for each in runs]))


def _shown(data: dict[str, Any]) -> int:
    """The place of the class that the figure and the sentence are about."""
    return len(data["sigmas"]) // 2


def _stem(name: str) -> str:
    return name.lower().replace("-", "_")
