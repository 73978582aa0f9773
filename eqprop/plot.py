"""Pictures of one model: a trajectory, error vectors, the circle of nudges, the spectrum of the Jacobian.

Matplotlib is imported when a picture is drawn. Nothing is shown or saved: every function returns its axes. `ax` are
those to draw in, or `None` for a new figure.
"""

import re
from collections.abc import Iterable
from itertools import cycle
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Shaped

from eqprop import _tree, metrics
from eqprop._solution import RESULTS
from eqprop._tree import AnyState
from eqprop.audit import sample_circle
from eqprop.estimator import TangentResponse
from eqprop.model import Model
from eqprop.readout import Target
from eqprop.relaxation import AbstractRelaxation
from eqprop.trace import Trajectory

Axes = Any
"""Matplotlib's `Axes`, which cannot be named before it is imported, or an array of them."""

BLUE, ORANGE, GREEN, PINK, SKY, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#808080"
"""Okabe and Ito's colours, which colour-blind readers tell apart."""
COLOURS, DASHES = (BLUE, ORANGE, GREEN, PINK, SKY, "black"), ("-", "--", ":", "-.")
MARKED = tuple(zip(COLOURS, "osD^vP", strict=True))
UNIT_CIRCLE = np.exp(2j * np.pi * np.linspace(0, 1, 201))

MOST_NEURONS = 2000
"""Of a dense spectrum: 32 MB of Jacobian in float64, and some ten seconds of eigenvalues."""


def trajectory(trajectory: Trajectory, ax: Axes | None = None, *, neurons: int = 3) -> Axes:
    """The residual `max |F|` on a logarithmic axis, and below it those `neurons` rates of each layer that moved most.

    **Arguments:** `ax`: two axes, or one for the residual alone.

    **Raises:** `ValueError` for the trajectories of a batch.
    """
    if trajectory.residual.ndim != 1:
        raise ValueError(
            f"The trajectory has a residual of shape {trajectory.residual.shape}; expected one example's, of one axis. "
            "Take the first by jax.tree.map(lambda leaf: leaf[0], trajectory)."
        )
    axes, panels = _panels(ax, (2, 1), figsize=(6.4, 5.2), sharex=True)
    times, residual = np.asarray(trajectory.times), np.asarray(trajectory.residual)
    panels[0].semilogy(times, np.where(residual > 0, residual, np.nan), color=BLUE, linewidth=1.4)
    panels[0].set_ylabel("residual max |F|")
    panels[0].set_title(trajectory.headline(), fontsize="medium", loc="left")
    panels[-1].set_xlabel(f"time ({trajectory.unit})")
    if len(panels) > 1:
        for name, colour in zip(ordered(trajectory.rates), cycle(COLOURS), strict=False):
            rates = np.asarray(trajectory.rates[name]).reshape(times.size, -1)
            moved = np.argsort(-np.ptp(rates, axis=0), kind="stable")[:neurons]
            for neuron, dash in zip(moved, cycle(DASHES), strict=False):
                label = name if neuron == moved[0] else None
                panels[1].plot(times, rates[:, neuron], dash, color=colour, linewidth=1.2, label=label)
        panels[1].set_ylabel("rate s")
        _legend(panels[1], loc="lower right", ncols=6)
    return axes


def errors(estimates: dict[str, Any], reference: AnyState, ax: Axes | None = None) -> Axes:
    """Error vectors against the true one, a panel a layer, with the identity line and the cosine of each.

    **Arguments:** `estimates`: one state, or several by name. `reference`: the truth. Leading axes, as of a batch, are
    flattened. `ax`: as many axes as there are layers.

    **Raises:** `ValueError` for estimates whose layers or shapes are not those of the reference.
    """
    named = estimates if all(isinstance(value, dict) for value in estimates.values()) else {"estimate": estimates}
    shapes = lambda state: {name: np.shape(leaf) for name, leaf in state.items()}
    for name, estimate in named.items():
        if shapes(estimate) != shapes(reference):
            raise ValueError(f"{name!r} has layers {shapes(estimate)}; the reference has {shapes(reference)}.")
    layers = ordered(reference)
    axes, panels = _panels(ax, (1, len(layers)), figsize=(3.2 * len(layers), 3.5))
    if len(panels) != len(layers):
        raise ValueError(f"There are {len(panels)} axes for {len(layers)} layers ({', '.join(layers)}). Give one each.")
    for panel, layer in zip(panels, layers, strict=True):
        panel.axline((0.0, 0.0), slope=1.0, color=GREY, linewidth=0.9, zorder=0)
        for (name, estimate), (colour, marker) in zip(named.items(), cycle(MARKED), strict=False):
            label = f"{name}: cosine {float(metrics.cosine(estimate[layer], reference[layer])):.3f}"
            points = np.ravel(reference[layer]), np.ravel(estimate[layer])
            panel.scatter(*points, color=colour, marker=marker, s=18, alpha=0.75, linewidths=0, label=label)
        panel.set(xlabel=f"true error of {layer} (loss per rate)")
        panel.locator_params(nbins=4)
        _legend(panel)
    panels[0].set_ylabel("estimated error (loss per rate)")
    return axes


def circle(
    model: Model,
    x: Shaped[Any, "..."],
    y: Target,
    *,
    radius: float,
    relaxation: AbstractRelaxation,
    num_points: int = 16,
    layer: str | None = None,
    neuron: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """How one rate `s(β)` answers as the nudge `β` goes round a circle, and the magnitudes `|cₙ rⁿ|` of its Taylor
    coefficients, by the discrete Fourier transform.

    A weak nudge answers on the circle of radius `r |δ|` around the free rate, with `δ = ds/dβ` by the tangent response.
    Coefficients that hardly fall say that `r` is near the radius of convergence.

    **Arguments:** `relaxation`: of the free phase, of the nudged ones and of the tangent response. `layer`, `neuron`:
    whose rate; by default in the layer that is read, and where `|δ|` is largest. `ax`: two axes, or one for the orbit.

    **Raises:** `ValueError` for a network that is not analytic.
    """
    if not model.network.holomorphic:
        raise ValueError(f"{type(model.network).__name__} is not holomorphic: it has no rates at complex nudges.")
    example = model.at(x, y)
    field = example.field
    free = relaxation(field.drift, field.initial_state(), blocks=field.blocks)
    layer = model.readout.layers[0] if layer is None else layer
    delta = np.ravel(TangentResponse(relaxation=relaxation).error(example, free).delta[layer])
    neuron = int(np.argmax(np.abs(delta))) if neuron is None else neuron
    rate_of = lambda u: field.rates(u)[layer].reshape(-1)[neuron]
    nudged = sample_circle(example, free.state, relaxation, radius, num_points)
    rates, lost = np.asarray(jax.vmap(rate_of)(nudged.state)), np.asarray(nudged.result != RESULTS.successful)
    centre = float(rate_of(free.state))

    axes, panels = _panels(ax, (1, 2), figsize=(8.6, 4.4))
    panel, tangent = panels[0], centre + radius * abs(float(delta[neuron])) * UNIT_CIRCLE
    panel.plot(*_xy(tangent), color=GREY, linestyle="--", linewidth=1.1, label="tangent circle, r |δ|")
    panel.plot(*_xy(np.append(rates, rates[0])), "o-", color=BLUE, markersize=4, linewidth=1.0, label="s(β)")
    panel.plot(*_xy(rates[:1]), "o", mfc="none", color=ORANGE, markersize=10, label="β = r")
    panel.plot(centre, 0.0, "+", color="black", markersize=9, label="β = 0")
    if any(lost):
        panel.plot(*_xy(rates[lost]), "x", color=ORANGE, markersize=8, label="not settled")
    panel.set(xlabel=f"Re s of {layer}[{neuron}], |β| = {radius:g}", ylabel="Im s", aspect="equal")
    _legend(panel, ncols=3)
    if len(panels) > 1:
        taylor = np.abs(np.fft.fft(rates)) / num_points
        panels[1].semilogy(np.where(taylor > 0, taylor, np.nan), "o-", color=BLUE, markersize=4, linewidth=1.0)
        panels[1].set(xlabel="order n", ylabel="|cₙ rⁿ| of the rate")
        panels[1].xaxis.get_major_locator().set_params(integer=True)
    return axes


def spectrum(model: Model, x: Shaped[Any, "..."], relaxation: AbstractRelaxation, ax: Axes | None = None) -> Axes:
    """The eigenvalues of `J = ∂F/∂u` at the free fixed point, in units of the leak's rate.

    The fixed point is stable in continuous time left of the line `Re λ = 0`, and under undamped synchronous steps
    inside the circle `|1 + λ| = 1`. Crosses are unstable modes. The circle around the origin has the smallest singular
    value of `J` as radius: how near `J` is to a singular one, where the fixed point would cease to be.

    **Raises:** `ValueError` for more than 2000 neurons.
    """
    field = model.network.at(x)
    drift, u0 = field.drift, field.initial_state()
    if _tree.size(u0) > MOST_NEURONS:
        count = f"The network has {_tree.size(u0)} neurons; a dense spectrum is drawn of {MOST_NEURONS} at most."
        raise ValueError(f"{count} Take a smaller network of the same kind.")
    free = relaxation(drift, u0, blocks=field.blocks)
    flat, unravel = ravel_pytree(free.state)
    jacobian = np.asarray(jax.jacfwd(lambda u: ravel_pytree(drift(unravel(u)))[0])(flat))
    values, least = np.linalg.eigvals(jacobian), float(np.linalg.norm(jacobian, -2))
    stable = values.real < 0
    axes, (panel,) = _panels(ax, (1, 1), figsize=(5.4, 5.2))
    panel.axvline(0.0, color="black", linewidth=1.0, label="Re λ = 0")
    panel.plot(*_xy(UNIT_CIRCLE - 1), color=GREY, linestyle="--", linewidth=1.0, label="|1 + λ| = 1")
    panel.plot(*_xy(least * UNIT_CIRCLE), color=PINK, label=f"smallest singular value {least:.2g}")
    panel.scatter(*_xy(values[stable]), s=18, color=BLUE, alpha=0.8, linewidths=0, label="stable", zorder=3)
    if not all(stable):
        panel.scatter(*_xy(values[~stable]), s=34, color=ORANGE, marker="x", label="unstable", zorder=3)
    settled = "" if free.result == RESULTS.successful else ", the state did not settle"
    panel.set(xlabel=f"Re λ (1 / time constant{settled})", ylabel="Im λ (1 / time constant)", aspect="equal")
    _legend(panel, ncols=2)
    return axes


def _panels(ax: Axes | None, shape: tuple[int, int], **kwargs: Any) -> tuple[Axes, list[Axes]]:
    """The axes to return, and the same as a list."""
    if ax is None:
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise ImportError("eqprop.plot draws by Matplotlib, which is missing: pip install matplotlib") from error
        ax = pyplot.subplots(*shape, layout="constrained", **kwargs)[1]
    return ax, list(np.ravel(np.asarray(ax, dtype=object)))


def _legend(panel: Axes, loc: str = "lower left", ncols: int = 1) -> None:
    """Above the panel, where it hides nothing."""
    panel.legend(frameon=False, fontsize="small", loc=loc, bbox_to_anchor=(float("right" in loc), 1.0), ncols=ncols)


def ordered(names: Iterable[str]) -> list[str]:
    """Names of layers in their order: a stem, then `l2` before `l10`, and `out`."""
    numbered = lambda name: re.sub(r"\d+", lambda number: number[0].zfill(9), name)
    return sorted(names, key=lambda name: ({"stem": 0, "out": 2}.get(name, 1), numbered(name)))


def _xy(points: Any) -> tuple[np.ndarray, np.ndarray]:
    return points.real, points.imag
