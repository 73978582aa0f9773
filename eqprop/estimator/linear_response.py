"""The two exact linear responses of a fixed point, one transposition apart.

With `J = ∂F/∂u` at the fixed point, `D = diag σ′` and the teaching signal `g = ∂ℓ/∂s`, both relax a linear system;
neither differentiates through a loop.
"""

from typing import ClassVar

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState, Drift
from eqprop.estimator.base import AbstractErrorEstimator, Error
from eqprop.readout import Model, Target
from eqprop.relaxation import AbstractRelaxation


def relax_tangent(relaxation: AbstractRelaxation, drift: Drift, u: AnyState, source: AnyState) -> Solution:
    """The fixed point of `dv/dt = J v + source`: `v = −J⁻¹ source`."""
    _, jvp = jax.linearize(drift, u)
    return relaxation(lambda v: _tree.add(jvp(v), source), _tree.zeros_like(u))


def relax_adjoint(relaxation: AbstractRelaxation, drift: Drift, u: AnyState, source: AnyState) -> Solution:
    """The fixed point of `dv/dt = Jᵀ v + source`: `v = −J⁻ᵀ source`."""
    _, vjp = jax.vjp(drift, u)
    return relaxation(lambda v: _tree.add(vjp(v)[0], source), _tree.zeros_like(u))


class TangentResponse(AbstractErrorEstimator):
    """`δ = ds*/dβ` at `β = 0`: `D v` with `dv/dt = J v + g`, that is `δ = M⁻¹ g`, `M = diag(1/σ′) − A`. The limit of an
    infinitesimal nudge, without one.

    Laborieux & Zenke (ICLR 2024), "true derivative".
    """

    relaxation: AbstractRelaxation
    norm_bound: float | None = None
    needs_free_phase: ClassVar[bool] = True

    def error(
        self, model: Model, x: Float[Array, "..."], y: Target, free: Solution, *, key: PRNGKeyArray | None = None
    ) -> Error:
        del key
        u = free.state
        s, to_rates = jax.linearize(model.network.rates, u)
        solution = relax_tangent(self.relaxation, model.free_drift(x), u, model.readout.teaching(s, y))
        return Error(u, to_rates(solution.state), solution.num_steps, solution.result)


class RecurrentBackprop(AbstractErrorEstimator):
    """The true gradient: `dδ/dt = Jᵀ δ + D g`, that is `δ = M⁻ᵀ g`.

    Almeida (1987); Pineda (1987).
    """

    relaxation: AbstractRelaxation
    norm_bound: float | None = None
    needs_free_phase: ClassVar[bool] = True

    def error(
        self, model: Model, x: Float[Array, "..."], y: Target, free: Solution, *, key: PRNGKeyArray | None = None
    ) -> Error:
        del key
        u = free.state
        s, to_potentials = jax.vjp(model.network.rates, u)
        source = to_potentials(model.readout.teaching(s, y))[0]
        solution = relax_adjoint(self.relaxation, model.free_drift(x), u, source)
        return Error(u, solution.state, solution.num_steps, solution.result)
