"""Gradients to be compared, and the float64 oracle that tells how wrong they are."""

import dataclasses
import functools
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

import eqprop as eq
from experiments.bench import plain
from experiments.bench.plain import Params

T = TypeVar("T")

SWEEPS = eq.Sweep(tol=1e-12, max_steps=5000)
REFERENCE = eq.Picard(tol=1e-12, max_steps=5000, damping=0.5)
"""Until little more than the rounding of float64 is left."""


def stencil_of(beta: float, num_points: int, *, turned: bool) -> eq.Stencil:
    """Two real points, or a circle: as published, or turned by half a step as ours is. An estimate is compared with
    that of its own nodes."""
    return eq.cauchy(beta, num_points, on_axis=not turned or num_points == 2)


def gradient(trainer: eq.Trainer, model: eq.Model, batch: tuple[Array, Array]) -> tuple[Params, Array]:
    """The gradient of a training step's task, all examples taking part, and the share that did not settle."""
    whole = dataclasses.replace(trainer, homeostasis=None, keep_unsettled=True)
    found, metrics = whole.gradient(model, batch, key=jax.random.key(0))
    return plain.parameters(found), metrics["unsettled_fraction"]


def has_one_answer(model: eq.Model, beta: float, num_points: int, batch: tuple[Array, Array]) -> np.ndarray:
    """Which examples have an error vector that does not depend on the way to it: sweeps and damped synchronous steps,
    both in float64 until rounding, find it within a thousandth.

    Other examples have several fixed points, and no error to speak of.
    """
    with jax.enable_x64(True):
        model, (x, y) = _widened((model, batch))
        ways = (_deltas(relaxation, beta, num_points, model, x, y) for relaxation in (SWEEPS, REFERENCE))
        (first, fine), (second, also) = ways
        apart = sum(np.sum((a - b) ** 2, axis=1) for a, b in zip(first, second, strict=True))
        size = sum(np.sum(b**2, axis=1) for b in second)
        return np.asarray(fine & also & (apart <= 1e-6 * size))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _deltas(
    relaxation: eq.AbstractRelaxation, beta: float, num_points: int, model: eq.Model, x: Array, y: Array
) -> tuple[list[Array], Array]:
    """Error vectors, a matrix for each layer, and which of them are settled."""
    estimator = eq.FiniteNudge(stencil=stencil_of(beta, num_points, turned=True), relaxation=relaxation)

    def one(x: Array, y: Array) -> tuple[eq.Solution, eq.Response]:
        example = model.at(x, y)
        free = relaxation(example.field.drift, example.field.initial_state(), blocks=example.field.blocks)
        return free, estimator.respond(example, free)

    free, found = eqx.filter_vmap(one)(x, y)
    settled = (free.result == eq.RESULTS.successful) & (found.result == eq.RESULTS.successful)
    return [leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(found.payload)], settled


def _widened(tree: T) -> T:
    narrow = jax.tree.map(np.asarray, tree)
    return jax.tree.map(lambda a: jnp.asarray(a, np.float64 if a.dtype == np.float32 else a.dtype), narrow)


def reference(
    model: eq.Model, beta: float, num_points: int, batches: list[tuple[Array, Array]], *, turned: bool
) -> tuple[list[Params], float]:
    """The estimate of the same stencil in float64, relaxed until rounding, for each batch; and the share of examples
    that have no such fixed point within reach."""
    with jax.enable_x64(True):
        model, batches = _widened((model, batches))
        # Made here, since a stencil takes the precision of the day.
        estimator = eq.FiniteNudge(stencil=stencil_of(beta, num_points, turned=turned), relaxation=REFERENCE)
        trainer = eq.Trainer(REFERENCE, estimator, optax.identity())
        program = jax.jit(lambda model, batch: gradient(trainer, model, batch))
        found = [program(model, batch) for batch in batches]
        return [jax.tree.map(np.asarray, g) for g, _ in found], float(np.mean([float(lost) for _, lost in found]))


def relative_error(found: Params, true: Params) -> float:
    """`‖g − g*‖₂ / ‖g*‖₂` over all parameters."""
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(true), strict=True))
    wrong = sum(float(np.sum((np.asarray(a, np.float64) - b) ** 2)) for a, b in pairs)
    return float(np.sqrt(wrong / sum(float(np.sum(np.asarray(b, np.float64) ** 2)) for _, b in pairs)))
