"""The two exact linear responses of a fixed point, one transposition apart, and the dynamics that solve for the second.

With `J = ∂F/∂u` at the fixed point, `D = diag σ′` and the teaching signal `g = ∂ℓ/∂s`, both relax a linear system;
neither differentiates through a loop.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._solution import Solution
from eqprop._tree import AnyState, Drift
from eqprop.estimator.base import AbstractErrorEstimator, Error
from eqprop.model import Example
from eqprop.network import Field
from eqprop.relaxation import AbstractRelaxation


def relax_tangent(
    relaxation: AbstractRelaxation, drift: Drift, u: AnyState, source: AnyState, blocks: Blocks | None = None
) -> Solution:
    """The fixed point of `dv/dt = J v + source`: `v = −J⁻¹ source`."""
    _, jvp = jax.linearize(drift, u)
    return _relax_linear(relaxation, jvp, source, blocks)


def relax_adjoint(
    relaxation: AbstractRelaxation, field: Field, u: AnyState, source: AnyState, blocks: Blocks | None = None
) -> Solution:
    """The fixed point of `dv/dt = Jᵀ v + source`: `v = −J⁻ᵀ source`."""
    return _relax_linear(relaxation, field.drift_transposed(u), source, blocks)


def _relax_linear(relaxation: AbstractRelaxation, product: Drift, source: AnyState, blocks: Blocks | None) -> Solution:
    # The system is solved for a source of size one, so that a tolerance means the same for a weak signal and a strong.
    size = _tree.max_norm(source)
    unit = _tree.scale(1 / jnp.where(size > 0, size, 1), source)
    solution = relaxation(lambda v: _tree.add(product(v), unit), _tree.zeros_like(source), blocks=blocks)
    return eqx.tree_at(
        lambda s: (s.state, s.residual), solution, _tree.scale(size, (solution.state, solution.residual))
    )


class TangentResponse(AbstractErrorEstimator):
    """`δ = ds*/dβ` at `β = 0`: `D v` with `dv/dt = J v + g`, that is `δ = M⁻¹ g`, `M = diag(1/σ′) − A`, before it is
    brought to the scale of the true gradient. The limit of an infinitesimal nudge, without one.

    Laborieux & Zenke (ICLR 2024), "true derivative".
    """

    relaxation: AbstractRelaxation
    """Any, or `Krylov`."""
    norm_bound: float | None = None
    needs_free_phase: ClassVar[bool] = True
    beside_device: ClassVar[bool] = True

    def error(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Error:
        del key
        s, to_rates = jax.linearize(example.field.rates, free.state)
        g = example.teaching(s)
        solution = relax_tangent(self.relaxation, example.field.drift, free.state, g, example.blocks)
        return Error(free.state, to_rates(solution.state), solution.num_steps, solution.result)


class RecurrentBackprop(AbstractErrorEstimator):
    """The true gradient: `dδ/dt = Jᵀ δ + D g`, that is `δ = M⁻ᵀ g`.

    Almeida (1987); Pineda (1987).
    """

    relaxation: AbstractRelaxation
    """Any, or `Krylov`."""
    norm_bound: float | None = None
    needs_free_phase: ClassVar[bool] = True
    beside_device: ClassVar[bool] = True
    transposes: ClassVar[bool] = True

    def error(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Error:
        del key
        s, to_potentials = jax.vjp(example.field.rates, free.state)
        source = to_potentials(example.teaching(s))[0]
        solution = relax_adjoint(self.relaxation, example.field, free.state, source, example.blocks)
        return Error(free.state, solution.state, solution.num_steps, solution.result)


class DyadicNudge(AbstractErrorEstimator):
    """Mean `m` and difference `δ` of two copies of the network, in the limit of a weak coupling, relax together,

        dm/dt = F(m),      dδ/dt = J(m)ᵀ δ + D(m) ∂ℓ/∂s,

    so that `δ → M⁻ᵀ g`, the true gradient. It is recurrent backpropagation beside a free phase that goes on: `δ` is the
    adjoint of the state in which the mean ends.

    Dyadic EP, Scurria et al. (arXiv 2602.03670).
    """

    relaxation: AbstractRelaxation
    norm_bound: float | None = None
    needs_free_phase: ClassVar[bool] = True
    beside_device: ClassVar[bool] = True
    transposes: ClassVar[bool] = True

    def error(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Error:
        def drift(pair: tuple[AnyState, AnyState]) -> tuple[AnyState, AnyState]:
            m, delta = pair
            f, transposed = example.field.drift(m), example.field.drift_transposed(m)
            s, to_potentials = jax.vjp(example.field.rates, m)
            nudge = to_potentials(example.teaching(s))[0]
            return f, _tree.add(transposed(delta), nudge)

        start, blocks = (free.state, _tree.zeros_like(free.state)), example.blocks
        blocks = None if blocks is None else blocks.twice(len(free.state))
        solution = self.relaxation(drift, start, blocks=blocks, key=key)
        m, delta = solution.state
        return Error(m, delta, solution.num_steps, solution.result)
