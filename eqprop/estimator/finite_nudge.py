"""Equilibrium propagation by finite nudges, on the real axis or on a complex circle."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, PRNGKeyArray, Shaped

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._solution import RESULTS, Solution, worst
from eqprop._tree import AnyState
from eqprop.estimator.base import AbstractErrorEstimator, Error
from eqprop.readout import Model, Target
from eqprop.relaxation import AbstractRelaxation
from eqprop.stencil import Stencil
from eqprop.substrate.dynamics import Dynamics
from eqprop.substrate.probe import Measurement, read


class FiniteNudge(AbstractErrorEstimator):
    """`δ = Σ wₖ s*(βₖ)`: the network relaxes from its free fixed point under `F + βₖ ∂ℓ/∂s` for every node of a
    stencil. All nodes relax as one batch; a complex node costs two real relaxations, so that an N-point circle costs
    `N`.

    The response tends to `M⁻¹g`, `M = diag(1/σ′) − A`, as the finite nudge's bias goes (order 1, 2 or N of the
    stencil). In the scale of the true gradient it equals `M⁻ᵀg` where `A` is symmetric in the metric of the network.

    Laborieux & Zenke (ICLR 2024).
    """

    stencil: Stencil
    relaxation: AbstractRelaxation
    norm_bound: float | None = None
    probe: Measurement | None = None
    """How rates are read; `None`: as they are. The error vector is made of readings; the local rule's presynaptic
    factor is taken where the neuron sits."""
    needs_free_phase: ClassVar[bool] = True

    @property
    def complex_nudges(self) -> bool:
        return self.stencil.holomorphic

    def on_device(
        self, flow: AbstractRelaxation | None, dynamics: Dynamics | None, probe: Measurement | None
    ) -> "FiniteNudge":
        return dataclasses.replace(self, relaxation=flow or self.relaxation, probe=probe or self.probe)

    def check(self, model: Model) -> None:
        require_holomorphic(model, self.stencil)

    def error(
        self, model: Model, x: Shaped[Array, "..."], y: Target, free: Solution, *, key: PRNGKeyArray | None = None
    ) -> Error:
        relax_key, probe_key = (None, None) if key is None else jax.random.split(key)
        u, drift = free.state, model.drift_under(x, y)
        nudged = relax_nodes(self.stencil, self.relaxation, drift, u, model.blocks(u), relax_key)

        def reading(u: AnyState, phase: Int[Array, ""] | int) -> AnyState:
            return read(self.probe, model.network.rates(u), phase=phase, key=probe_key)

        delta = nudged.derivative(self.stencil, reading, free.state)
        return Error(free.state, delta, nudged.num_steps, nudged.result)


class NudgedPhase(eqx.Module):
    """The potentials at the nodes of a stencil, real nodes and complex nodes apart."""

    real: AnyState
    complex: AnyState | None
    num_steps: Int[Array, ""]
    result: RESULTS

    def derivative(
        self, stencil: Stencil, function: Callable[[AnyState, Int[Array, ""] | int], AnyState], free: AnyState
    ) -> AnyState:
        """`Re Σ wₖ (f(u(βₖ), k) − f(u(0), 0))` of a function that is analytic in the potentials; the second argument
        counts the phases, the free one as 0."""
        phases = 1 + jnp.arange(stencil.nodes.shape[0])
        values = jax.vmap(function)(self.real, phases[: stencil.num_real])
        if self.complex is not None:
            off_axis = jax.vmap(function)(self.complex, phases[stencil.num_real :])
            values = jax.tree.map(lambda a, b: jnp.concatenate([a.astype(b.dtype), b]), values, off_axis)
        return stencil.derivative(values, function(free, 0))


def relax_nodes(
    stencil: Stencil,
    relaxation: AbstractRelaxation,
    drift: Callable[[Inexact[Array, ""], AnyState], AnyState],
    free: AnyState,
    blocks: Blocks | None,
    key: PRNGKeyArray | None,
) -> NudgedPhase:
    """Relax `u ↦ drift(β, u)` from the free fixed point for every node: real nodes in real arithmetic. `key` is split
    over the nodes, whose noise would cancel in the derivative otherwise."""
    count, real_count = stencil.nodes.shape[0], stencil.num_real
    keys = (None, None)
    if key is not None:
        split = jax.random.split(key, count)
        keys = split[:real_count], split[real_count:]

    def over(nodes: Inexact[Array, " nodes"], keys: Array | None, u0: AnyState) -> Solution:
        starts = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (nodes.shape[0], *leaf.shape)), u0)
        nodes = nodes.astype(jax.tree.leaves(u0)[0].dtype)
        return relaxation.together(drift, nodes, starts, blocks=blocks, keys=keys)

    real = over(stencil.nodes[:real_count].real, keys[0], free)
    if not stencil.holomorphic:
        return NudgedPhase(real.state, None, jnp.sum(real.num_steps), worst(real.result))
    complex_ = over(stencil.nodes[real_count:], keys[1], _tree.to_complex(free))
    steps = jnp.sum(real.num_steps) + jnp.sum(complex_.num_steps)
    result = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), real.result, complex_.result)
    return NudgedPhase(real.state, complex_.state, steps, worst(result))


def require_holomorphic(model: Model, stencil: Stencil) -> None:
    """**Raises:** `ValueError` for a complex stencil on a network that is not analytic."""
    if stencil.holomorphic and not model.network.holomorphic:
        raise ValueError(
            f"The stencil has complex nodes ({stencil.num_points} points on a circle), but "
            f"{type(model.network).__name__} is not holomorphic. Nudge it by eqprop.centred(beta), or use analytic "
            "activations."
        )
