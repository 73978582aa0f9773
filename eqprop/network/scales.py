"""Scales and biases of convolutional layers at the start, from images that pass forward."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from eqprop._blocks import Edge
from eqprop.network.base import Activation
from eqprop.network.convolution import ConvEdge
from eqprop.network.graph import INPUT


def centred(
    edges: Sequence[ConvEdge],
    levels: Mapping[str, int],
    kernels: Mapping[Edge, Array],
    activation: Activation,
    images: Float[Array, "n height width channels"],
) -> tuple[dict[Edge, Array], dict[str, Array]]:
    """Kernels and biases that bring the drive of every layer to its centre and spread where images pass forward only
    (see `ConvNetwork`).

    Images pass through the mean of the two kernels of a pair, which is what homeostasis leaves of it: signals would
    fade from layer to layer, as two independent kernels have a mean that is shorter than either.
    """
    kernels, biases, rates = dict(kernels), {}, {INPUT: images}

    def shared(edge: ConvEdge) -> Array | None:
        forward = kernels.get((edge.source, edge.target))
        return None if forward is None else (forward + kernels.get((edge.target, edge.source), forward)) / 2

    centre, spread = _steepest(activation)
    for name in sorted(levels, key=lambda name: levels[name]):
        arriving = [edge for edge in edges if edge.target == name and edge.source in rates]

        def drive(arriving: list[ConvEdge] = arriving) -> Array:
            passed = [jax.vmap(lambda s, e=e: e.pool(e.convolve(s, shared(e))))(rates[e.source]) for e in arriving]
            return sum(passed[1:], start=passed[0])

        for _ in range(4):  # softmax pooling is not linear in the kernel
            v = drive()
            deviation = jnp.std(v - jnp.mean(v, axis=(0, 1, 2), keepdims=True))
            for a, b in ((edge.source, edge.target) for edge in arriving):
                for pair in {(a, b), (b, a)} & kernels.keys():
                    kernels[pair] = kernels[pair] * (spread / deviation)
        v = drive()
        biases[name] = centre - jnp.mean(v, axis=(0, 1, 2))
        rates[name] = activation(v + biases[name][None, None, None])
    return kernels, biases


def _steepest(activation: Activation) -> tuple[float, float]:
    """Where an activation is steepest, and the spread of potentials that its slope turns into rates of spread ½."""
    with jax.ensure_compile_time_eval():
        grid = jnp.linspace(-4.0, 4.0, 801)
        slopes = jax.vmap(jax.grad(activation))(grid)
        steep = slopes > 0.999 * jnp.max(slopes)
        return float(jnp.mean(grid, where=steep)), 0.5 / float(jnp.max(slopes))
