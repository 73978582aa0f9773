"""Exact gradients from nudges without weight symmetry."""

import dataclasses
from typing import ClassVar

import jax
from jaxtyping import Array, Inexact, PRNGKeyArray, Shaped

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState
from eqprop.estimator.base import AbstractErrorEstimator, Error, refuse_readings
from eqprop.estimator.finite_nudge import relax_nodes, require_holomorphic
from eqprop.jacobian import jacobian
from eqprop.readout import Model, Target
from eqprop.relaxation import AbstractRelaxation
from eqprop.stencil import Stencil
from eqprop.substrate.dynamics import Dynamics
from eqprop.substrate.probe import Measurement


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

    def on_device(
        self, flow: AbstractRelaxation | None, dynamics: Dynamics | None, probe: Measurement | None
    ) -> "AsymmetricNudge":
        refuse_readings(self, probe)
        return dataclasses.replace(self, relaxation=flow or self.relaxation)

    def check(self, model: Model) -> None:
        require_holomorphic(model, self.stencil)

    def error(
        self, model: Model, x: Shaped[Array, "..."], y: Target, free: Solution, *, key: PRNGKeyArray | None = None
    ) -> Error:
        rates = model.network.rates
        origin = rates(free.state)
        forward, transposed = jacobian(model.network, origin)
        skew = lambda v: _tree.subtract(forward(v), transposed(v))

        under = model.drift_under(x, y)

        def drift(beta: Inexact[Array, ""], u: AnyState) -> AnyState:
            change = jax.tree.map(lambda s, zero: s - zero.astype(s.dtype), rates(u), origin)
            return _tree.subtract(under(beta, u), _tree.real_linear_tree(skew, change))

        phase = relax_nodes(self.stencil, self.relaxation, drift, free.state, model.blocks(free.state), key)
        delta = phase.derivative(self.stencil, lambda u, _: rates(u), free.state)
        return Error(free.state, delta, phase.num_steps, phase.result)
