"""The error of finite nudges against their strength, in float64 and float32, and what its floor in float32 is made of.

The reference is the tangent response at the free fixed point, in float64 and relaxed until only rounding is left.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array
from matplotlib.figure import Figure

from eqprop import RESULTS, FiniteNudge, Model, Solution, Sweep, TangentResponse, cauchy
from eqprop.run import tables
from eqprop.run.study import style
from eqprop.run.study.measured import Measured
from eqprop.run.study.trained import cast, images, models, precision, short_compilation
from experiments.paper.brief import brief

POINTS = (1, 2, 4, 8)
SETTLED = Sweep(tol=0.0, max_steps=1000)
"""Until rounding."""
USUAL = Sweep(tol=1e-4, max_steps=500)
"""Of the free phase as shipped."""
MOST = POINTS[-1]
"""Points that leave the least bias, so that the floor shows."""
ROUNDING = "all until rounding"
PARTS: dict[str, tuple[Sweep, Sweep]] = {
    "nudged phases to 1 %": (SETTLED, Sweep(tol=1.0, rtol=1e-2, max_steps=500)),
    "nudged phases to 0.1 %": (SETTLED, Sweep(tol=1.0, rtol=1e-3, max_steps=500)),
    "free phase to 1e-4": (USUAL, SETTLED),
}
"""Relaxations of the free phase and of the nudged phases, of which one stops short of rounding. The nudged ones stop at
a part of the response."""
SIZES = {"quick": (10, 3), "cpu": (100, 9), "full": (500, 17)}
"""Images and strengths."""


def measure(scale: str) -> Measured:
    """Relative errors by number of points, strength and image in both precisions; those of eight points by what is
    left to relax."""
    trained = brief(scale)
    count, strengths = SIZES[scale]
    radii = np.geomspace(0.02, 1.0, strengths)
    x, y = images(trained, count)
    model = models(trained)[-1][1]
    with precision("float64") as dtype, short_compilation():
        exact, known = (np.asarray(v) for v in _tangent(cast(model, dtype), x.astype(dtype), y))
    error = _Errors(model, x, y, radii, exact, known)
    errors = {name: [error.relative(name, points) for points in POINTS] for name in ("float64", "float32")}
    floor = {name: error.relative("float32", MOST, *part) for name, part in PARTS.items()}
    return Measured(
        {
            "radii": radii,
            "points": POINTS,
            "images": count,
            "unknown": int(np.sum(~known)),
            "errors": errors,
            "floor": {**floor, ROUNDING: errors["float32"][-1]},
        },
        [trained.record],
    )


class _Errors:
    """Finite nudges of one network against the exact error vectors, which are given."""

    def __init__(self, model: Model, x: Array, y: Array, radii: np.ndarray, exact: np.ndarray, known: np.ndarray):
        self._example, self._radii, self._exact, self._known = (model, x, y), radii, exact, known

    def relative(self, name: str, points: int, free: Sweep = SETTLED, nudged: Sweep = SETTLED) -> np.ndarray:
        """`‖δ − exact‖/‖exact‖` by strength and image; NaN where some phase did not settle."""
        with precision(name) as dtype, short_compilation():
            model, x, y = self._example
            radii = jnp.asarray(self._radii, dtype)
            found, settled = _estimates(cast(model, dtype), x.astype(dtype), y, radii, points, free, nudged)
            distance = np.linalg.norm(np.asarray(found, np.float64) - self._exact, axis=-1)
            usable = np.asarray(settled) & self._known
        return np.where(usable, distance / np.linalg.norm(self._exact, axis=-1), math.nan)


@eqx.filter_jit
def _tangent(model: Model, x: Array, y: Array) -> tuple[Array, Array]:
    """The exact error vectors, flat, and which of them are known."""

    def one(x: Array, y: Array) -> tuple[Array, Array]:
        free = _free(model, x, SETTLED)
        error = TangentResponse(relaxation=SETTLED).error(model.at(x, y), free)
        return ravel_pytree(error.delta)[0], (free.result == RESULTS.successful) & (error.result == RESULTS.successful)

    return jax.vmap(one)(x, y)


@eqx.filter_jit
def _estimates(
    model: Model, x: Array, y: Array, radii: Array, points: int, free: Sweep, nudged: Sweep
) -> tuple[Array, Array]:
    """Error vectors by strength and image from nudges on a circle, and whether all phases settled."""
    begun = jax.vmap(lambda x: _free(model, x, free))(x)

    def one(x: Array, y: Array, begun: Solution, radius: Array) -> tuple[Array, Array]:
        error = FiniteNudge(stencil=cauchy(radius, points), relaxation=nudged).error(model.at(x, y), begun)
        return ravel_pytree(error.delta)[0], (begun.result == RESULTS.successful) & (error.result == RESULTS.successful)

    return jax.lax.map(lambda radius: jax.vmap(one, in_axes=(0, 0, 0, None))(x, y, begun, radius), radii)


def _free(model: Model, x: Array, relaxation: Sweep) -> Solution:
    field = model.network.at(x)
    return relaxation(field.drift, field.initial_state(), blocks=field.blocks)


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """The bias in float64, the same in float32, and the floor of the most points by its causes."""
    figure, axes = style.canvas(3)
    radii, most = data["radii"], data["points"][-1]
    for axis, name in zip(axes, data["errors"], strict=False):
        for index, (points, errors) in enumerate(zip(data["points"], data["errors"][name], strict=True)):
            style.quartiles(axis, radii, errors, index, f"N = {points}")
        error, beta = _least(data, name)
        style.frame(
            axis, "nudge β", "relative error of δ", f"{name}: N = {most} misses by {error:.0e} at β = {beta:.2g}"
        )
    axes[0].legend(loc="lower right")
    for index, (name, errors) in enumerate(data["floor"].items()):
        style.quartiles(axes[2], radii, errors, index, name)
    error = next(iter(_floors(data).values()))
    title = f"N = {most}: 1 % left to relax costs {100 * error:.2g} %"
    style.frame(axes[2], "nudge β", "relative error of δ", title)
    axes[2].legend(loc="upper left")
    for axis in axes:
        style.log(axis)
    low, high = axes[2].get_ylim()
    axes[2].set_ylim(low, high * 30)  # room for the legend
    figure.suptitle(f"n = {data['images']} images; points are medians, bars quartiles", fontsize=9)
    return {"nudge_error": figure}


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figure shows."""
    return {
        "nudge_error": (
            "Relative error of the error vector δ against the strength β of N nudges on a circle, in float64 and in "
            f"float32, and of N = {data['points'][-1]} in float32 by what is left to relax; median and quartiles over "
            f"n = {data['images']} held-out Fashion-MNIST images, one network of one epoch, CPU."
        )
    }


def answer(data: dict[str, Any]) -> str:
    """Orders of the bias, and the floor by its causes."""
    radii, most = data["radii"], data["points"][-1]
    rows, least = [], {name: [] for name in data["errors"]}
    for index, points in enumerate(data["points"]):
        medians = {name: _medians(errors[index]) for name, errors in data["errors"].items()}
        slope = np.polyfit(np.log(radii[:3]), np.log(medians["float64"][:3]), 1)[0]
        cells = [f"{values.min():.1e} at β = {radii[int(values.argmin())]:.2g}" for values in medians.values()]
        rows.append([str(points), f"{slope:.1f}", *cells])
        for name, values in medians.items():
            least[name].append(f"{values.min():.1e}")
    head = ["N", "order of the error at small β", *(f"least error, {name}" for name in data["errors"])]
    floors = ", ".join(f"{100 * error:.2g} % with {part}" for part, error in _floors(data).items())
    rounding = _medians(data["floor"][ROUNDING])
    lost = sum(
        value is None or not math.isfinite(value)
        for runs in data["errors"].values()
        for run in runs
        for row in run
        for value in row
    )
    total = sum(len(row) for runs in data["errors"].values() for run in runs for row in run)
    said = " and ".join(f"{', '.join(errors)} in {name}" for name, errors in least.items())
    return (
        f"With N = {', '.join(map(str, data['points']))} points the least median error over the strengths is "
        f"{said}.\n\n"
        f"{tables.markdown(head, rows)}\n\n"
        f"In float32, N = {most} has a floor that depends on what is left to relax. At its best strength the median "
        f"error is {floors}. With everything relaxed until rounding it is {rounding.min():.1e}, and "
        f"{rounding[0]:.1e} at β = {radii[0]:.2g}, since rounding is divided by β. "
        f"{lost} of {total} estimates are left out, as some phase did not settle."
    )


def _least(data: dict[str, Any], name: str) -> tuple[float, float]:
    """The smallest median error of the most points, and where."""
    medians = _medians(data["errors"][name][-1])
    return float(medians.min()), data["radii"][int(medians.argmin())]


def _floors(data: dict[str, Any]) -> dict[str, float]:
    """The smallest median error over the strengths, by what is left to relax."""
    return {name: float(_medians(errors).min()) for name, errors in data["floor"].items()}


def _medians(errors: list[list[float | None]]) -> np.ndarray:
    """By strength, over the images whose error is known."""
    return np.nanmedian(np.asarray(errors, float), axis=1)
