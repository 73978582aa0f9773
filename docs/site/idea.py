"""The picture of docs/idea.md: `python docs/site/idea.py` draws it again. The curve is that of a real network."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch

import eqprop as eq
from eqprop.run.study.style import styled

FILE = Path(__file__).with_name("idea.svg")
BLUE, ORANGE = "#0072B2", "#E69F00"
NUDGE = 0.4


def rates(betas: np.ndarray) -> tuple[np.ndarray, float]:
    """The rate of a hidden neuron of a small symmetric network at each nudge strength, and its slope at zero."""
    network_key, readout_key = jax.random.split(jax.random.key(1))
    network = eq.DenseNetwork.chain([3, 4, 2], angle=0.0, key=network_key)
    model = eq.Model(network, eq.SoftmaxReadout(2, 2, key=readout_key))
    example, relaxation = model.at(jnp.array([0.5, -1.0, 0.8]), jnp.array(1)), eq.Newton(tol=1e-10)

    @eqx.filter_jit
    def settle(beta: jax.Array) -> jax.Array:
        state = relaxation(lambda u: example.drift(u, beta), example.field.initial_state()).state
        return jax.tree.leaves(example.field.rates(state))[0][0]

    free = relaxation(example.field.drift, example.field.initial_state())
    slope = eq.TangentResponse(relaxation=relaxation).error(example, free).delta
    return np.array([settle(jnp.asarray(beta)) for beta in betas]), float(jax.tree.leaves(slope)[0][0])


def network(ax: Axes) -> None:
    """Input, hidden and output neurons, arrows both ways, and the nudge."""
    columns = [("input $x$", [0.5, -0.5]), ("hidden", [1.0, 0.0, -1.0]), ("output", [0.5, -0.5])]
    for k, (label, heights) in enumerate(columns):
        for y in heights:
            ax.add_patch(Circle((2 * k, y), 0.22, facecolor="white", edgecolor="black", linewidth=1.2, zorder=3))
            for above in columns[k + 1][1] if k < 2 else ():
                style = "<|-|>" if k else "-|>"
                look = {"mutation_scale": 7, "shrinkA": 11, "shrinkB": 11, "color": "0.55", "linewidth": 0.8}
                ax.add_patch(FancyArrowPatch((2 * k, y), (2 * k + 2, above), arrowstyle=style, **look))
        ax.text(2 * k, 1.55, label, ha="center")
    for y in columns[2][1]:
        ax.add_patch(
            FancyArrowPatch((5.3, y), (4.26, y), arrowstyle="-|>", mutation_scale=12, color=ORANGE, linewidth=2)
        )
    ax.text(5.4, 0.0, r"nudge $\beta\,\partial\ell/\partial s$", color=ORANGE, va="center")
    ax.text(2.0, -1.75, "free phase: no nudge.  nudged phase: everything moves a little", ha="center", fontsize=9)
    ax.set(xlim=(-0.7, 7.2), ylim=(-2, 2), aspect="equal")
    ax.axis("off")


def response(ax: Axes) -> None:
    betas = np.linspace(-0.7, 0.7, 29)
    values, slope = rates(betas)
    (free,), nudged = rates(np.zeros(1))[0], rates(np.array([-NUDGE, NUDGE]))[0]
    ax.plot(betas, values, color=BLUE, label=r"rate $s^*(\beta)$ where it settles")
    ax.plot(betas, free + slope * betas, color="0.4", linestyle="--", label=r"slope at $\beta = 0$: the error $\delta$")
    ax.plot([-NUDGE, NUDGE], nudged, "o-", color=ORANGE, label="what two nudged phases measure")
    ax.plot([0], [free], "o", color="black", label="free phase")
    ax.set(xlabel=r"nudge strength $\beta$", ylabel="rate of a hidden neuron")
    ax.legend(fontsize=8, loc="lower left")


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with styled(), matplotlib.rc_context({"svg.hashsalt": "eqprop"}):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=[1.35, 1])
        network(left)
        response(right)
        figure.savefig(FILE, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
