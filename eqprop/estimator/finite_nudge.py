"""Equilibrium propagation by finite nudges, on the real axis or on a complex circle."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, PRNGKeyArray

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState
from eqprop.estimator.base import AbstractErrorEstimator, Device, Error, Reading, require_holomorphic, summed
from eqprop.model import Example
from eqprop.network.base import AbstractNetwork
from eqprop.relaxation import AbstractRelaxation
from eqprop.stencil import Stencil


class FiniteNudge(AbstractErrorEstimator):
    """`δ = Σ wₖ s*(βₖ)`: the network relaxes from its free fixed point under `F + βₖ ∂ℓ/∂s` for every node of a
    stencil. All nodes relax as one state; a complex node costs two real relaxations, so that a circle of `N` points
    costs `N`.

    The response tends to `M⁻¹g`, `M = diag(1/σ′) − A`, as the finite nudge's bias goes (order 1, 2 or N of the
    stencil). In the scale of the true gradient it equals `M⁻ᵀg` where `A` is symmetric in the metric of the network.

    Laborieux & Zenke (ICLR 2024).
    """

    stencil: Stencil
    relaxation: AbstractRelaxation
    norm_bound: float | None = None
    reading: Reading | None = None
    """How rates are read; `None`: as they are. The error vector is made of readings; the local rule's presynaptic
    factor is taken where the neuron sits."""
    needs_free_phase: ClassVar[bool] = True

    @property
    def complex_nudges(self) -> bool:
        return self.stencil.holomorphic

    def on_device(self, device: Device) -> "FiniteNudge":
        relaxation, reading = device.relaxation or self.relaxation, device.reading or self.reading
        return dataclasses.replace(self, relaxation=relaxation, reading=reading)

    def check(self, network: AbstractNetwork) -> None:
        require_holomorphic(self, network)

    def error(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Error:
        relax_key, read_key = (None, None) if key is None else jax.random.split(key)
        nudged = relax_nodes(self.stencil, self.relaxation, example, example.drift, free, relax_key)

        def read(u: AnyState, phase: Array | int) -> AnyState:
            s = example.field.rates(u)
            return s if self.reading is None else self.reading(s, phase=phase, key=read_key)

        values = jax.vmap(read)(nudged.state, 1 + jnp.arange(self.stencil.nodes.size))
        delta = self.stencil.derivative(values, read(free.state, 0))
        return Error(free.state, delta, *summed(nudged))


def relax_nodes(
    stencil: Stencil,
    relaxation: AbstractRelaxation,
    example: Example,
    drift: Callable[[AnyState, Inexact[Array, ""]], AnyState],
    free: Solution,
    key: PRNGKeyArray | None,
) -> Solution:
    """Relax `u ↦ drift(u, β)` from the free fixed point for every node. `key` is split over the nodes, whose noise
    would cancel in the derivative otherwise."""
    count = stencil.nodes.size
    u = _tree.to_complex(free.state) if stencil.holomorphic else free.state
    starts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), u)
    nodes = stencil.nodes.astype(jax.tree.leaves(u)[0].dtype)
    keys = None if key is None else jax.random.split(key, count)
    return relaxation.together(lambda beta, u: drift(u, beta), nodes, starts, blocks=example.blocks, keys=keys)
