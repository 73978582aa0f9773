"""The fixed point of a network as a function that JAX differentiates, by equilibrium propagation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar, Shaped

from eqprop import _tree
from eqprop._solution import RESULTS, Solution
from eqprop._tree import AnyState
from eqprop.estimator import AbstractEstimator
from eqprop.model import Example
from eqprop.network import AbstractNetwork
from eqprop.readout import AbstractReadout, Target
from eqprop.relaxation import AbstractRelaxation


class Cotangent(AbstractReadout):
    """The loss `⟨g, s⟩` over the layers on which what follows depends: its teaching signal is the cotangent `g`."""

    cotangent: AnyState
    layers: tuple[str, ...] = eqx.field(static=True)

    def predict(self, s: AnyState) -> Float[Array, " scores"]:
        return s[self.layers[0]].reshape(-1)

    def loss(self, s: AnyState, y: Target) -> Scalar:
        read = {name: s[name] for name in self.layers}
        return _tree.dot(_tree.cast_like(self.cotangent, read), read)


def equilibrium(
    network: AbstractNetwork,
    x: Shaped[Array, "..."],
    *,
    relaxation: AbstractRelaxation,
    estimator: AbstractEstimator,
    layers: tuple[str, ...] = ("out",),
    key: PRNGKeyArray | None = None,
) -> AnyState:
    """The rates `s*` of some layers at the fixed point, differentiable in the network's parameters and in `x`.

    The backward pass is the estimator: the cotangent `g` of the rates is the teaching signal of a nudge, the network
    answers by the error vector `δ`, and the cotangents of parameters and input are `⟨δ, ∂F/∂θ⟩` and `⟨δ, ∂F/∂x⟩`. So a
    network that learns by nudges may stand behind an ordinary encoder and before an ordinary head, and be trained by
    `jax.grad`; with `RecurrentBackprop` the gradient is the exact one. It sees one example: `jax.vmap` it.

    An example that does not settle in its free or nudged phases has the cotangent zero, as `Trainer` leaves it out. A
    nudge is as long as the cotangent: divide a mean loss by its batch afterwards, or scale the stencil.

    **Arguments:** `layers`: those that are returned, and nudged. `key`: for noise of relaxation and estimator.

    **Raises:** `ValueError` if the estimator cannot serve the network.
    """
    estimator.check(network)
    arrays, static = eqx.partition((network, relaxation, estimator), eqx.is_inexact_array)
    keys = (None, None) if key is None else jax.random.split(key)

    def relax(arrays: PyTree, x: Array) -> Solution:
        network, relaxation, _ = eqx.combine(arrays, static)
        field = network.at(x)
        return relaxation(field.drift, field.initial_state(), blocks=field.blocks, key=keys[0])

    def read(arrays: PyTree, free: Solution) -> AnyState:
        s = eqx.combine(arrays, static)[0].rates(free.state)
        return {name: s[name] for name in layers}

    @jax.custom_vjp
    def rates(arrays: PyTree, x: Array) -> AnyState:
        return read(arrays, relax(arrays, x))

    def forward(arrays: PyTree, x: Array) -> tuple[AnyState, tuple[PyTree, Array, Solution]]:
        free = relax(arrays, x)
        return read(arrays, free), (arrays, x, free)

    def backward(saved: tuple[PyTree, Array, Solution], cotangent: AnyState) -> tuple[PyTree, Any]:
        arrays, x, free = saved
        readout, y = Cotangent(cotangent, layers), jnp.zeros((), int)
        network, _, estimator = eqx.combine(arrays, static)
        response = estimator.respond(Example(network.at(x), readout, y), free, key=keys[1])
        settled = (free.result == RESULTS.successful) & (response.result == RESULTS.successful)

        def surrogate(network: PyTree, x: Array) -> Scalar:
            bound = eqx.combine(network, static[0])
            return estimator.surrogate(Example(bound.at(x), readout, y), response)

        by_network, by_x = jax.grad(surrogate, argnums=(0, 1), allow_int=True)(arrays[0], x)
        gradient = by_network, *jax.tree.map(jnp.zeros_like, arrays[1:])
        return jax.tree.map(lambda g: jnp.where(settled, g, 0) if eqx.is_inexact_array(g) else g, (gradient, by_x))

    rates.defvjp(forward, backward)
    return rates(arrays, x)
