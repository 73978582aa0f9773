"""The floor: the time of the matrix products that a step cannot avoid, at the throughput measured in the same run."""

import time
from collections.abc import Iterable, Mapping
from statistics import median
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

import eqprop as eq
from experiments.bench import flops
from experiments.bench.flops import Product

Seconds = Mapping[Product, float]
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_PADDING = {"conv": "SAME", "valid": "VALID", "transposed": [(2, 2), (2, 2)]}


def multiply(product: Product, x: Array, kernel: Array) -> Array:
    """The product itself."""
    if product.kind == "matmul":
        return x @ kernel
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), _PADDING[product.kind], dimension_numbers=DIMENSIONS)


def seconds_of(products: Iterable[Product], *, budget: float = 0.25) -> dict[Product, float]:
    """Seconds of each distinct product, the median of a few loops; `budget` seconds for each."""
    return {product: _seconds(product, budget) for product in dict.fromkeys(products)}


def _seconds(product: Product, budget: float, loops: int = 5) -> float:
    x = jnp.ones(product.image, jnp.float32)
    kernel = jnp.full(product.kernel, 1e-3, jnp.float32)

    @jax.jit
    def repeat(x: Array, kernel: Array, count: int) -> Array:
        def body(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            x, y = carry
            # One entry of the last result enters the next argument: the loop's body cannot be hoisted out of it.
            x = x.at[(0,) * x.ndim].set(jnp.clip(y[(0,) * y.ndim], -1, 1))
            return x, multiply(product, x, kernel)

        return jax.lax.fori_loop(0, count, body, (x, multiply(product, x, kernel)))[1]

    def timed(count: int) -> float:
        start = time.perf_counter()
        repeat(x, kernel, count).block_until_ready()
        return (time.perf_counter() - start) / count

    timed(2)
    count = max(3, min(5000, int(budget / loops / timed(3))))
    return median(timed(count) for _ in range(loops))


class Floor(NamedTuple):
    """Seconds of the unavoidable products, and their FLOPs, for one batch."""

    drift: float
    embed: float
    gradient: float
    drift_flops: int
    embed_flops: int
    gradient_flops: int


def floor_of(network: eq.AbstractNetwork, batch: int, seconds: Seconds | None = None) -> Floor:
    """Count and, unless given, measure."""
    parts = (flops.drift_products, flops.embed_products, flops.gradient_products)
    lists = [part(network, batch) for part in parts]
    seconds = seconds_of(p for products in lists for p in products) if seconds is None else seconds
    times = [sum(seconds[p] for p in products) for products in lists]
    return Floor(times[0], times[1], times[2], *count_of(network, batch))


class Count(NamedTuple):
    """FLOPs of the unavoidable products for one batch."""

    drift: int
    embed: int
    gradient: int


def count_of(network: eq.AbstractNetwork, batch: int) -> Count:
    """Counted from shapes, nothing measured."""
    parts = (flops.drift_products, flops.embed_products, flops.gradient_products)
    return Count(*(flops.total(part(network, batch)) for part in parts))


def evaluations(metrics: Mapping[str, float], estimator: eq.AbstractEstimator) -> float:
    """Evaluations of the drift in one training step: the mean over the batch of the steps that were taken.

    A complex node is two real evaluations, and all nodes are taken to need as many steps. AsymEP multiplies by the
    Jacobian and its transpose besides. Homeostasis and readout are not in the floor.
    """
    cost = 1.0
    if isinstance(estimator, eq.FiniteNudge | eq.AsymmetricNudge):
        cost = estimator.stencil.num_points / estimator.stencil.nodes.shape[0]
    if isinstance(estimator, eq.AsymmetricNudge):
        cost *= 3
    return metrics["free_steps"] + cost * metrics["nudged_steps"]


def step_floor(floor: Floor, drift_evaluations: float) -> float:
    """Seconds below which a training step with that many evaluations of the drift cannot fall at this throughput."""
    return drift_evaluations * floor.drift + floor.embed + floor.gradient
