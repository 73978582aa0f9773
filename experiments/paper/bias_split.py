"""The bias of the gradient in the course of training, split into finite nudge, finite relaxation and asymmetry.

The same network is trained with and without homeostasis; the checkpoint of every epoch is audited in float64.
"""

import math
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

from eqprop import AbstractRelaxation, Audit, FiniteNudge, Model, Sweep, audit
from eqprop.run import tables
from eqprop.run.study import style
from eqprop.run.study.measured import Measured
from eqprop.run.study.trained import Trained, cast, images, models, precision, train

PARTS = {"asymmetry": "asymmetry", "finite_nudge": "finite nudge", "finite_relaxation": "finite relaxation"}
RUNS = {"without": "homeostasis=none", "with": "homeostasis.coefficient=10"}
TITLES = {"without": "Without homeostasis", "with": "With homeostasis"}
TOLERANCE = 1e-3
"""Of nudged phases, a part of the response: the bias of the relaxation then stays in proportion to the error vector."""
COMMON = (
    "experiment=fashion_mnist_homeostasis",
    "optimiser.learning_rate=1e-3",
    f"response_tol={TOLERANCE}",
    "run.name=bias_split",
    "run.keep=1000",
    "run.checkpoint_minutes=1e9",
    "evaluation.alignment_examples=50",
)
"""A checkpoint of every epoch, in folders that no other study reads."""
SCALE = {
    "quick": ("epochs=1", "data.train_examples=500"),
    "cpu": ("epochs=5", "data.train_examples=2500"),
    "full": ("epochs=20",),
}
SIZES = {"quick": (1, 10), "cpu": (1, 100), "full": (3, 200)}
"""Networks and images."""
REFERENCE = Sweep(tol=1e-10, max_steps=1000)
"""What the audit calls settled."""


def measure(scale: str) -> Measured:
    """The parts by epoch and image, with and without homeostasis, relative to the true error vector."""
    seeds, count = SIZES[scale]
    runs, records = {}, []
    for label, override in RUNS.items():
        found = [
            train(f"{label}, seed {seed}", (*COMMON, *SCALE[scale], override, f"seed={seed}")) for seed in range(seeds)
        ]
        records += [trained.record for trained in found]
        splits = [_split(trained, count) for trained in found]
        pooled = {name: np.concatenate([split[name] for split in splits], axis=1) for name in (*PARTS, "cosine_hidden")}
        runs[label] = {"epochs": [epoch for epoch, _ in models(found[0])], **pooled}
    return Measured({"runs": runs, "networks": seeds, "images": count, "tolerance": TOLERANCE}, records)


def _split(trained: Trained, count: int) -> dict[str, np.ndarray]:
    """The parts by epoch and image; NaN where a phase of the audit did not settle."""
    trainer, checkpoints = trained.task.trainer, models(trained)
    estimator = trainer.estimator
    assert isinstance(estimator, FiniteNudge)
    with precision("float64") as dtype:
        x, y = images(trained, count)
        x, estimator = x.astype(dtype), cast(estimator, dtype)
        reports = [_audit(cast(model, dtype), x, y, estimator, trainer.relaxation) for _, model in checkpoints]
        return {
            name: np.stack([np.where(report.settled, getattr(report, name), math.nan) for report in reports])
            for name in (*PARTS, "cosine_hidden")
        }


@eqx.filter_jit
def _audit(model: Model, x: Array, y: Array, estimator: FiniteNudge, relaxation: AbstractRelaxation) -> Audit:
    # The circle gives leakage and radius of convergence, which are not looked at here.
    return audit(model, x, y, estimator=estimator, relaxation=relaxation, reference=REFERENCE, num_points=2)


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """A panel without, a panel with homeostasis, and what they make of the direction."""
    figure, axes = style.canvas(3)
    for axis, (label, title) in zip(axes, TITLES.items(), strict=False):
        run = data["runs"][label]
        for index, (part, name) in enumerate(PARTS.items()):
            style.quartiles(axis, run["epochs"], run[part], index, name)
        style.log(axis, "y")
        part, size = _largest(run)
        style.frame(axis, "epoch", "bias / true error vector", f"{title}: {part} {size:.2g}")
    axes[1].sharey(axes[0])
    axes[1].autoscale(axis="y")
    axes[0].legend(loc="best")
    for index, (label, title) in enumerate(TITLES.items()):
        run = data["runs"][label]
        style.quartiles(axes[2], run["epochs"], run["cosine_hidden"], index, title.lower())
    ends = {label: _ends(run, "cosine_hidden") for label, run in data["runs"].items()}
    title = f"Hidden cosine: {ends['with']:.2f} with, {ends['without']:.2f} without"
    style.frame(axes[2], "epoch", "hidden cosine to the true error", title)
    axes[2].legend(loc="best")
    for axis in axes:
        axis.locator_params(axis="x", integer=True)
    networks = style.counted([data["networks"]], "networks")
    figure.suptitle(f"{networks} a line, {data['images']} images each; points are medians, bars quartiles", fontsize=9)
    return {"bias_split": figure}


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figure shows."""
    return {
        "bias_split": (
            "Norms of the parts of the gradient's bias relative to the true error vector, by epoch, without and with "
            f"homeostasis, and the hidden cosine; median and quartiles over {data['images']} held-out Fashion-MNIST "
            f"images of {style.counted([data['networks']], 'networks')} each, audited in float64, CPU. Titles name "
            "the part that is the largest in the end."
        )
    }


def answer(data: dict[str, Any]) -> str:
    """The parts at the start and at the end, and which is the largest."""
    rows = []
    for label, title in TITLES.items():
        run = data["runs"][label]
        for part, name in PARTS.items():
            first, last = (float(np.nanmedian(np.asarray(run[part][k], float))) for k in (0, -1))
            rows.append([title.lower(), name, f"{first:.2g}", f"{last:.2g}"])
    sentences = []
    for label, title in TITLES.items():
        part, size = _largest(data["runs"][label])
        cosine = _ends(data["runs"][label], "cosine_hidden")
        sentences.append(
            f"{title}, the largest part in the end is the {part}, {size:.2g} of the true error vector; "
            f"the hidden cosine is {cosine:.2f}."
        )
    table = tables.markdown(["training", "part", "at the start", "at the end"], rows)
    tolerance = f"Nudged phases are relaxed to {100 * data['tolerance']:g} % of the response."
    return f"{' '.join(sentences)} {tolerance}\n\n{table}"


def _ends(run: dict[str, Any], name: str) -> float:
    """The median over images at the last epoch."""
    return float(np.nanmedian(np.asarray(run[name][-1], float)))


def _largest(run: dict[str, Any]) -> tuple[str, float]:
    """The part that ends as the largest, and how large."""
    ends = {name: _ends(run, part) for part, name in PARTS.items()}
    name = max(ends, key=ends.__getitem__)
    return name, ends[name]
