"""How a trained network settles: synchronous steps against even-odd sweeps.

python -m experiments.paper.settling --scale cpu
"""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

from eqprop import RESULTS, Model, Picard, Solution, Sweep
from experiments.paper.drawing import STYLES, Arguments, Data, Entry, canvas, frame, legend, line, make, parse
from experiments.paper.trained import BRIEF, models, provenance, test_images, train

TOL, LIMIT = 1e-4, 150
KINDS = {"synchronous": Picard, "even-odd": Sweep}
QUANTILES = (0.5, 0.9, 0.99)
SIZES = {"quick": (200, 6), "cpu": (1000, 14), "full": (10_000, 24)}
"""Images, and numbers of steps at which residuals are measured."""


def compute(arguments: Arguments) -> Data:
    """Quantiles of the best residual by steps, steps needed, and the fraction unsettled, of both relaxations."""
    trained = train(BRIEF[arguments.scale], arguments.rerun)
    images, counts = SIZES[arguments.scale]
    model, (x, _) = models(trained)[-1][1], test_images(trained, images)
    budgets = sorted({int(n) for n in np.geomspace(1, LIMIT, counts).round()})
    return {
        "budgets": budgets,
        "quantiles": QUANTILES,
        "tol": TOL,
        "limit": LIMIT,
        "images": images,
        "kinds": {name: _measure(kind, model, x, budgets) for name, kind in KINDS.items()},
        "provenance": provenance(trained),
    }


def _measure(kind: type[Picard] | type[Sweep], model: Model, x: Array, budgets: list[int]) -> Data:
    residuals = [np.asarray(_relax(kind(tol=0.0, max_steps=n), model, x).residual) for n in budgets]
    end = _relax(kind(tol=TOL, max_steps=LIMIT), model, x)
    settled = np.asarray(end.result == RESULTS.successful)
    return {
        "residuals": [[_quantile(r, q) for r in residuals] for q in QUANTILES],
        "steps": np.asarray(end.num_steps)[settled],
        "unsettled_fraction": float(np.mean(~settled)),
    }


def _quantile(residuals: np.ndarray, q: float) -> float:
    """NaN, a gap in the curve, where some residual is unknown."""
    return float(np.quantile(residuals, q)) if np.isfinite(residuals).all() else math.nan


@eqx.filter_jit
def _relax(relaxation: Picard | Sweep, model: Model, x: Array) -> Solution:
    return eqx.filter_vmap(lambda x: relaxation(model.network.at(x).drift, model.network.at(x).initial_state()))(x)


def draw(data: Data, arguments: Arguments) -> Figure:
    """Residuals by step, steps needed, the fraction left."""
    figure, axes = canvas(3, width=11.5, height=3.4)
    for index, (name, measured) in enumerate(data["kinds"].items()):
        for shade, (q, values) in enumerate(zip(data["quantiles"], measured["residuals"], strict=True)):
            line(axes[0], data["budgets"], values, index, f"{name}, {100 * q:g} %")
            axes[0].lines[-1].set(alpha=1 - 0.28 * shade, linewidth=2.0 - 0.5 * shade, marker=" os^"[shade + 1])
        _histogram(axes[1], measured["steps"], data["limit"], index, name)
        share = 100 * measured["unsettled_fraction"]
        hatch = ("", "//")[index % 2]
        axes[2].bar(index, share, 0.6, color=STYLES[index]["color"], hatch=hatch, edgecolor="white")
        axes[2].text(index, share, f"{share:.1f} %", ha="center", va="bottom", fontsize=9)
    axes[0].axhline(data["tol"], color="grey", linewidth=1)
    axes[0].set(xscale="log", yscale="log")
    frame(axes[0], "steps", "residual $\\|F(u)\\|_2$, best so far", "Sweeps settle in fewer steps")
    legend(axes[0], loc="lower left", fontsize=7)
    frame(axes[1], f"steps to a residual of {data['tol']:g}", "test images", "Most images need tens of steps")
    legend(axes[1], loc="upper right")
    axes[2].set_xticks(range(len(data["kinds"])), list(data["kinds"]))
    axes[2].set(xlim=(-0.6, len(data["kinds"]) - 0.4))
    axes[2].margins(y=0.15)
    frame(axes[2], "relaxation", f"unsettled after {data['limit']} steps (%)", "Synchronous steps leave images behind")
    return figure


def _histogram(axis, steps: list[int], limit: int, index: int, label: str) -> None:
    style = STYLES[index]
    bins = np.arange(0, limit + 5, 5)
    axis.hist(steps, bins, histtype="stepfilled", color=style["color"], alpha=0.2)
    axis.hist(steps, bins, histtype="step", color=style["color"], linestyle=style["linestyle"], linewidth=1.6)
    axis.plot([], [], color=style["color"], linestyle=style["linestyle"], label=label)


ENTRY = Entry("settling", compute, draw)

if __name__ == "__main__":
    make(ENTRY, parse())
