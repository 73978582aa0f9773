"""Write noise without learning: how far two devices of one nominal value walk apart, beside the closed form."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from matplotlib.figure import Figure

from eqprop import Substrate
from eqprop.run import tables
from eqprop.run.study import style
from eqprop.run.study.measured import Measured
from eqprop.substrate import WriteNoise

SIGMA = 2e-3
"""Of the noise at every update."""
DECAYS = (0.0, 0.01, 0.1)
STEPS = (1, 3, 10, 30, 100, 300, 1000)
SIZES = {"quick": (3, 2_000), "cpu": (5, 20_000), "full": (5, 200_000)}
"""Draws, and device pairs of each."""


def measure(scale: str) -> Measured:
    """The spread of the pairs' differences by decay, draw and number of updates."""
    draws, pairs = SIZES[scale]
    walks = {}
    for decay in DECAYS:
        keys = jax.random.split(jax.random.key(0), draws)
        spreads = jax.jit(jax.vmap(lambda key, decay=decay: walk(decay, pairs, key)))(keys)
        walks[f"{decay:g}"] = {"measured": spreads[:, np.asarray(STEPS) - 1], "closed form": closed_form(decay)}
    return Measured({"sigma": SIGMA, "steps": STEPS, "draws": draws, "pairs": pairs, "walks": walks})


def walk(decay: float, pairs: int, key: Array) -> Array:
    """The spread after 1, 2, … updates of pairs that begin alike and are asked for no change."""
    rule = Substrate(noise=WriteNoise(SIGMA, decay)).writes()
    assert rule is not None

    def step(w: Array, key: Array) -> tuple[Array, Array]:
        change, _ = rule.update(jnp.zeros_like(w), optax.EmptyState(), w, key=key)
        w = w + jnp.asarray(change)
        return w, jnp.std(w[0] - w[1])

    return jax.lax.scan(step, jnp.zeros((2, pairs)), jax.random.split(key, STEPS[-1]))[1]


def closed_form(decay: float) -> np.ndarray:
    """`σ √(2 Σ (1 − decay)^2k)`, the sum over the updates before."""
    kept, steps = (1 - decay) ** 2, np.asarray(STEPS)
    return SIGMA * np.sqrt(2 * (steps if decay == 0 else (1 - kept**steps) / (1 - kept)))


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """Spread by number of updates."""
    figure, (axis,) = style.canvas(height=3.4)
    for index, (decay, found) in enumerate(data["walks"].items()):
        by_step = list(zip(*found["measured"], strict=True))
        style.quartiles(axis, data["steps"], by_step, index, f"decay {decay}")
        axis.plot(
            data["steps"], found["closed form"], color="black", linewidth=0.8, label=None if index else "closed form"
        )
    style.log(axis)
    style.frame(axis, "updates", "spread of two devices' difference", f"Within {_worst(data):.1%} of the closed form")
    axis.legend(loc="upper left")
    figure.suptitle(f"{data['draws']} draws of {data['pairs']} pairs: medians and quartiles", fontsize=9)
    return {"walk": figure}


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figure shows."""
    return {
        "walk": (
            f"Standard deviation of the difference of two devices of one nominal value against updates with write "
            f"noise of {data['sigma']:g} and no learning, by decay, beside the closed form; median and quartiles of "
            f"n = {data['draws']} draws of {data['pairs']} pairs, simulated device, CPU."
        )
    }


def answer(data: dict[str, Any]) -> str:
    """The spread in the end beside its closed form."""
    rows = []
    for decay, found in data["walks"].items():
        ends = [run[-1] for run in found["measured"]]
        rows.append([decay, f"{np.mean(ends):.4f} ± {np.std(ends, ddof=1):.4f}", f"{found['closed form'][-1]:.4f}"])
    head = ["decay", f"spread after {data['steps'][-1]} updates", "closed form"]
    return (
        f"Without learning, write noise of {data['sigma']:g} takes two devices apart as the closed form says, within "
        f"{_worst(data):.1%} at any number of updates.\n\n{tables.markdown(head, rows)}"
    )


def _worst(data: dict[str, Any]) -> float:
    """The largest relative deviation from the closed form, of any decay, draw and number of updates."""
    ratios = [np.asarray(found["measured"]) / np.asarray(found["closed form"]) for found in data["walks"].values()]
    return float(max(np.max(np.abs(ratio - 1)) for ratio in ratios))
