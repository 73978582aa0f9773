"""The error of finite nudges against their radius, and where in the complex plane a nudged network settles.

    python -m experiments.paper.nudge_error --scale cpu

A briefly trained Fashion-MNIST network, its error vectors on test images against the tangent response in float64.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

from eqprop import RESULTS, FiniteNudge, Model, Sweep, TangentResponse, cauchy
from experiments.paper.drawing import Arguments, Data, Entry, canvas, frame, legend, line, make, parse
from experiments.paper.trained import BRIEF, cast, models, precision, provenance, test_images, train

POINTS = (1, 2, 4, 6, 8)
SETTLE = {"float64": Sweep(tol=1e-12, max_steps=1000), "float32": Sweep(tol=1e-5, max_steps=500)}
"""How far each precision can be relaxed: float32 rounds at a residual of about 2e-6 here."""
MAP = Sweep(tol=1e-6, max_steps=200)
EXTENT = 1.5
SIZES = {"quick": (10, 4, 7, 4), "cpu": (50, 7, 21, 10), "full": (200, 17, 61, 50)}
"""Images and radii of the errors; nodes a side and images of the map."""


def compute(arguments: Arguments) -> Data:
    """Errors by number of points and radius in both precisions, and the settled fraction over the plane of β."""
    trained = train(BRIEF[arguments.scale], arguments.rerun)
    images, radii, side, few = SIZES[arguments.scale]
    radii = np.geomspace(0.02, 1.0, radii)
    x, y = test_images(trained, images)
    model = models(trained)[-1][1]
    with precision("float64") as dtype:
        exact, known = (np.asarray(v) for v in _tangent(cast(model, dtype), x.astype(dtype), y))
    errors = {name: _errors(model, x, y, radii, name, exact, known) for name in SETTLE}
    with precision("float64") as dtype:
        axis, settled = settled_map(cast(model, dtype), x[:few].astype(dtype), y[:few], side)
    return {
        "radii": radii,
        "points": POINTS,
        "errors": errors,
        "tolerances": {name: relaxation.tol for name, relaxation in SETTLE.items()},
        "error_norm_median": np.median(np.linalg.norm(exact[known], axis=1)),
        "images": images,
        "reference_unsettled": float(np.mean(~known)),
        "map": {"axis": axis, "settled": settled, "images": few, "tol": MAP.tol, "max_steps": MAP.max_steps},
        "provenance": provenance(trained),
    }


@eqx.filter_jit
def _tangent(model: Model, x: Array, y: Array) -> tuple[Array, Array]:
    """The exact error vectors, flat, and which of them are known."""
    settle = SETTLE["float64"]

    def one(x: Array, y: Array) -> tuple[Array, Array]:
        free = settle(model.network.at(x).drift, model.network.at(x).initial_state())
        error = TangentResponse(relaxation=settle).error(model.at(x, y), free)
        return _flat(error.delta), (free.result == RESULTS.successful) & (error.result == RESULTS.successful)

    return jax.vmap(one)(x, y)


@eqx.filter_jit
def _estimates(model: Model, x: Array, y: Array, radii: Array, points: int, settle: Sweep) -> tuple[Array, Array]:
    """Error vectors by radius and image from nudges on a circle, and whether all phases settled."""

    def one(x: Array, y: Array, radius: Array) -> tuple[Array, Array]:
        free = settle(model.network.at(x).drift, model.network.at(x).initial_state())
        error = FiniteNudge(stencil=cauchy(radius, points), relaxation=settle).error(model.at(x, y), free)
        return _flat(error.delta), (free.result == RESULTS.successful) & (error.result == RESULTS.successful)

    return jax.lax.map(lambda radius: jax.vmap(one, in_axes=(0, 0, None))(x, y, radius), radii)


def _errors(model: Model, x: Array, y: Array, radii, name: str, exact: np.ndarray, known: np.ndarray) -> Data:
    """Median relative error over the images that settled, and the fraction that did not, by points and radius."""
    medians, unsettled = [], []
    with precision(name) as dtype:
        model, x, radii = cast(model, dtype), x.astype(dtype), jnp.asarray(radii, dtype)
        for points in POINTS:
            estimates, settled = _estimates(model, x, y, radii, points, SETTLE[name])
            usable = np.asarray(settled) & known
            distance = np.linalg.norm(np.asarray(estimates, np.float64) - exact, axis=-1)
            relative = distance / np.linalg.norm(exact, axis=-1)
            medians.append([np.median(r[u]) if u.any() else math.nan for r, u in zip(relative, usable, strict=True)])
            unsettled.append(1 - usable.mean(axis=1))
    return {"median": medians, "unsettled_fraction": unsettled}


def settled_map(model: Model, x: Array, y: Array, side: int) -> tuple[Array, np.ndarray]:
    """Nodes along one axis, and the fraction of images that settle, imaginary part by real part.

    A nudge by the conjugate of β leads to the conjugate state: half of the plane is relaxed, the other mirrored.
    """
    axis = jnp.linspace(-EXTENT, EXTENT, side)
    upper = axis[side // 2 :]

    def one(x: Array, y: Array, beta: Array) -> Array:
        free = MAP(model.network.at(x).drift, model.network.at(x).initial_state())
        u = jax.tree.map(lambda leaf: leaf.astype(beta.dtype), free.state)
        nudged = MAP((lambda u: model.at(x, y).drift(u, beta)), u)
        return (free.result == RESULTS.successful) & (nudged.result == RESULTS.successful)

    def at(beta: Array) -> Array:
        return jnp.mean(jax.vmap(one, in_axes=(0, 0, None))(x, y, beta))

    def row(imaginary: Array) -> Array:
        return jax.vmap(at)(axis + 1j * imaginary)

    half = np.asarray(eqx.filter_jit(lambda: jax.lax.map(row, upper))())
    return axis, np.concatenate([half[:0:-1], half])


def _flat(state: dict[str, Array]) -> Array:
    return jnp.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(state)])


def draw(data: Data, arguments: Arguments) -> Figure:
    """Errors in float64, in float32, and the map."""
    figure, axes = canvas(3, width=11.5, height=3.7)
    for axis, name in zip(axes[:2], ("float64", "float32"), strict=True):
        for index, (points, errors) in enumerate(zip(data["points"], data["errors"][name]["median"], strict=True)):
            line(axis, data["radii"], errors, index, f"$N={points}$")
        axis.set(xscale="log", yscale="log")
        title = "More points, less bias" if name == "float64" else "A floor of tolerance / radius"
        frame(axis, "radius of the nudge", "relative error of $\\delta$ (median)", f"{title} ({name})")
    tolerance, size = data["tolerances"]["float32"], data["error_norm_median"]
    floor = [tolerance / (radius * size) for radius in data["radii"]]
    axes[1].plot(data["radii"], floor, color="grey", linewidth=1, label="tolerance / (radius · $\\|\\delta\\|$)")
    legend(axes[0], loc="lower right")
    legend(axes[1], loc="upper left", ncols=2, fontsize=7)
    low, high = axes[1].get_ylim()
    axes[1].set_ylim(low, high * 30)
    _draw_map(figure, axes[2], data["map"])
    return figure


def _draw_map(figure: Figure, axis, settled: Data) -> None:
    nodes = settled["axis"]
    half = 0.5 * (nodes[1] - nodes[0])
    extent = (nodes[0] - half, nodes[-1] + half, nodes[0] - half, nodes[-1] + half)
    image = axis.imshow(settled["settled"], origin="lower", extent=extent, cmap="cividis", vmin=0, vmax=1)
    angles = np.linspace(0, 2 * math.pi, 200)
    for radius, style in ((0.5, "-"), (1.0, "--")):
        axis.plot(radius * np.cos(angles), radius * np.sin(angles), style, color="white", linewidth=1.2)
        axis.text(0, radius + 0.05, f"radius {radius:g}", color="black", ha="center", va="bottom", fontsize=7)
    frame(axis, "Re $\\beta$", "Im $\\beta$", "Complex nudges that settle")
    axis.grid(False)
    figure.colorbar(image, ax=axis, label="settled images (fraction)", shrink=0.85)


ENTRY = Entry("nudge_error", compute, draw)

if __name__ == "__main__":
    make(ENTRY, parse())
