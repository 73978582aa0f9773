"""How free phases settle: synchronous steps, damped ones, and sweeps over every second layer."""

import math
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

from eqprop import Model, Picard, Sweep, trace
from eqprop.run import tables
from eqprop.run.study import style
from eqprop.run.study.measured import Measured
from eqprop.run.study.trained import images, models
from experiments.paper.brief import brief

TOL, LIMIT = 1e-4, 150
KINDS = {
    "synchronous": Picard(tol=TOL, max_steps=LIMIT),
    "synchronous, half steps": Picard(tol=TOL, max_steps=LIMIT, damping=0.5),
    "even-odd sweeps": Sweep(tol=TOL, max_steps=LIMIT),
}
STEPS = sorted({round(n) for n in np.geomspace(1, LIMIT, 16)})
"""At which residuals are kept."""
QUANTILES = {"median": 0.5, "99 % quantile": 0.99}
SIZES = {"quick": (1, 100), "cpu": (3, 1000), "full": (5, 5000)}
"""Networks and images."""


def measure(scale: str) -> Measured:
    """By relaxation and network: the share of images above the tolerance and quantiles of the residual, by steps."""
    seeds, count = SIZES[scale]
    networks = [brief(scale, seed) for seed in range(seeds)]
    kinds: dict[str, dict[str, list]] = {name: {} for name in KINDS}
    for trained in networks:
        model, (x, _) = models(trained)[-1][1], images(trained, count)
        for name, relaxation in KINDS.items():
            best = np.minimum.accumulate(np.asarray(_residuals(model, x, relaxation)), axis=1)
            for quantity, value in summary(best).items():
                kinds[name].setdefault(quantity, []).append(value)
    data = {"steps": STEPS, "tol": TOL, "limit": LIMIT, "networks": seeds, "images": count, "kinds": kinds}
    return Measured(data, [trained.record for trained in networks])


@eqx.filter_jit
def _residuals(model: Model, x: Array, relaxation: Picard | Sweep) -> Array:
    """By image and step, the initial state first."""
    return jax.lax.map(lambda x: trace(model, x, relaxation).residual, x, batch_size=50)


def summary(best: np.ndarray) -> dict[str, Any]:
    """Of the smallest residuals so far, by image and step. One that is not finite is above every tolerance.

    `needed` is the median of the steps to the tolerance over all images, infinite if fewer than half reach it."""
    kept = np.where(np.isfinite(best), best, math.inf)
    found: dict[str, Any] = {"above": np.mean(kept[:, STEPS] > TOL, axis=0)}
    found |= {name: np.quantile(kept[:, STEPS], q, axis=0, method="higher") for name, q in QUANTILES.items()}
    reached = kept <= TOL
    found["needed"] = float(np.median(np.where(reached.any(axis=1), reached.argmax(axis=1), math.inf)))
    return found


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """The share of images left, the typical residual, and that of the worst hundredth."""
    figure, axes = style.canvas(3)
    steps = data["steps"]
    for index, (name, found) in enumerate(data["kinds"].items()):
        style.band(axes[0], steps, [[100 * v for v in run] for run in found["above"]], index, name)
        for axis, quantity in zip(axes[1:], QUANTILES, strict=True):
            runs = [[math.nan if v is None else v for v in run] for run in found[quantity]]
            style.band(axis, steps, runs, index)
    left = {name: 100 * _end(found) for name, found in data["kinds"].items()}
    best = min(left, key=left.__getitem__)
    style.frame(
        axes[0],
        "steps",
        f"images with a residual above {data['tol']:g} (%)",
        f"After {data['limit']} steps {best} leave {left[best]:.2g} %",
    )
    axes[0].set_ylim(0, 105)
    style.log(axes[0], "x")
    axes[0].legend(loc="lower left")
    for axis, quantity in zip(axes[1:], QUANTILES, strict=True):
        axis.axhline(data["tol"], color="grey", linewidth=1)
        axis.annotate(
            "tolerance", (1, data["tol"]), xytext=(0, 2), textcoords="offset points", color="grey", fontsize=8
        )
        style.log(axis)
        style.frame(axis, "steps", "largest |F(u)|, best so far", f"Residual: {quantity} of the images")
    networks = style.counted([data["networks"]], "networks")
    figure.suptitle(f"{networks}, {data['images']} images each; thin lines are networks", fontsize=9)
    return {"relaxation_steps": figure}


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figure shows."""
    return {
        "relaxation_steps": (
            f"Share of images whose free phase has a residual above {data['tol']:g}, and median and 99 % quantile of "
            f"the residual, against the steps taken; mean of n = {data['networks']} networks of one epoch and "
            f"{data['images']} held-out Fashion-MNIST images each, float32, CPU."
        )
    }


def answer(data: dict[str, Any]) -> str:
    """Steps needed and images left."""
    rows = []
    for name, found in data["kinds"].items():
        needed = [math.inf if steps is None else steps for steps in found["needed"]]
        middle = float(np.median(needed))
        ends = [100 * run[-1] for run in found["above"]]
        rows.append(
            [
                name,
                f"{middle:.0f}" if math.isfinite(middle) else f"over {data['limit']}",
                f"{np.mean(ends):.2g} %",
                f"{min(ends):.2g} to {max(ends):.2g} %",
            ]
        )
    left = {name: 100 * _end(found) for name, found in data["kinds"].items()}
    worst, best = max(left, key=left.__getitem__), min(left, key=left.__getitem__)
    head = ["relaxation", "steps of the median image", f"unsettled after {data['limit']} steps", "over networks"]
    return (
        f"After {data['limit']} steps {worst} leave {left[worst]:.2g} % of the images above the tolerance, "
        f"{best} {left[best]:.2g} %.\n\n{tables.markdown(head, rows)}"
    )


def _end(found: dict[str, Any]) -> float:
    """The share of images left at the last step, the mean over networks."""
    return float(np.mean([run[-1] for run in found["above"]]))
