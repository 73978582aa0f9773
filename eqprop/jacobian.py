"""Products with the Jacobian of a network's drive, in the metric of the network."""

import math

import jax

from eqprop import _tree
from eqprop._tree import AnyState, Drift
from eqprop.network.base import AbstractNetwork


def jacobian(network: AbstractNetwork, s: AnyState) -> tuple[Drift, Drift]:
    """`v ↦ A v` and `v ↦ Aᵀ v` with `A = ∂drive/∂s` at the rates `s`."""
    _, forward = jax.linearize(network.drive, s)
    backward = jax.linear_transpose(forward, s)
    return forward, lambda v: backward(v)[0]


def metric_jacobian(network: AbstractNetwork, s: AnyState) -> tuple[Drift, Drift]:
    """`v ↦ Â v` and `v ↦ Âᵀ v` with `Â = m^½ A m^−½`, `m` the metric of the network; `A` itself without one."""
    forward, backward = jacobian(network, s)
    if network.metric is None:
        return forward, backward
    root = {name: math.sqrt(weight) for name, weight in network.metric.items()}
    inverse = {name: 1 / weight for name, weight in root.items()}

    def between(left: dict[str, float], product: Drift, right: dict[str, float]) -> Drift:
        return lambda v: _tree.scale_layers(left, product(_tree.scale_layers(right, v)))

    return between(root, forward, inverse), between(inverse, backward, root)
