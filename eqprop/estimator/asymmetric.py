"""Exact gradients from nudges without weight symmetry."""

import dataclasses
from typing import ClassVar

import jax
from jaxtyping import Array, Inexact, PRNGKeyArray

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState, Drift
from eqprop.estimator.base import (
    AbstractErrorEstimator,
    Device,
    Error,
    refuse_readings,
    require_holomorphic,
    summed,
)
from eqprop.estimator.finite_nudge import relax_nodes
from eqprop.model import Example
from eqprop.network.base import AbstractNetwork
from eqprop.relaxation import AbstractRelaxation
from eqprop.stencil import Stencil


class AsymmetricNudge(AbstractErrorEstimator):
    """Finite nudges under `F(u) + β ∂ℓ/∂s + (Aᵀ − A)(s − s*)`, `A = ∂drive/∂s` at the free fixed point `s*`.

    The extra current vanishes at `s*` and turns the linearised dynamics into its transpose, so that
    `δ → M⁻ᵀ g`, the true gradient, whatever the asymmetry. It costs one product with `A` and one with `Aᵀ` a step.

    AsymEP, Scurria et al. (arXiv 2602.03670).
    """

    stencil: Stencil
    relaxation: AbstractRelaxation
    norm_bound: float | None = None
    needs_free_phase: ClassVar[bool] = True
    transposes: ClassVar[bool] = True

    @property
    def complex_nudges(self) -> bool:
        return self.stencil.holomorphic

    def on_device(self, device: Device) -> "AsymmetricNudge":
        refuse_readings(self, device)
        return dataclasses.replace(self, relaxation=device.relaxation or self.relaxation)

    def check(self, network: AbstractNetwork) -> None:
        require_holomorphic(self, network)

    def error(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Error:
        forward, transposed = example.field.jacobian(example.field.rates(free.state))
        current = lambda v: _tree.subtract(transposed(v), forward(v))
        delta, nudged = relax_corrected(self.stencil, self.relaxation, example, current, free, key)
        return Error(free.state, delta, *summed(nudged))


def relax_corrected(
    stencil: Stencil,
    relaxation: AbstractRelaxation,
    example: Example,
    current: Drift,
    free: Solution,
    key: PRNGKeyArray | None,
) -> tuple[AnyState, Solution]:
    """The error vector from nudges beside the linear map `current` of the change of the rates, and their solutions."""
    rates = example.field.rates
    origin = rates(free.state)

    def drift(u: AnyState, beta: Inexact[Array, ""]) -> AnyState:
        change = jax.tree.map(lambda s, zero: s - zero.astype(s.dtype), rates(u), origin)
        return _tree.add(example.drift(u, beta), _tree.real_linear_tree(current, change))

    nudged = relax_nodes(stencil, relaxation, example, drift, free, key)
    return stencil.derivative(jax.vmap(rates)(nudged.state), origin), nudged
