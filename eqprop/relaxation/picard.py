"""Damped synchronous steps, to a tolerance."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState, Drift
from eqprop.relaxation.base import AbstractRelaxation, check_damping, check_tolerance, status


class _Iterate(eqx.Module):
    u: AnyState
    drift: AnyState
    """`F(u)`."""
    residual: Float[Array, ""]
    best: AnyState
    best_residual: Float[Array, ""]
    num_steps: Int[Array, ""]


class Picard(AbstractRelaxation):
    """`u ← u + damping · F(u)`, all layers at once, until `‖F(u)‖₂ ≤ tol`; the best state visited is returned.

    `damping = 1` is the published synchronous step; one half removes the cycles of period two into which undamped
    steps can fall.
    """

    tol: float = 1e-5
    max_steps: int = 500
    damping: float = 1.0
    reverse_differentiable: ClassVar[bool] = False

    def __check_init__(self):
        check_tolerance(self, self.tol, self.max_steps)
        check_damping(self.damping)

    def __call__(self, drift: Drift, u0: AnyState, *, key: PRNGKeyArray | None = None) -> Solution:
        del key
        f0 = drift(u0)
        r0 = _tree.norm(f0)
        start = _Iterate(u0, f0, r0, u0, r0, jnp.zeros((), jnp.int32))

        def unfinished(now: _Iterate) -> Bool[Array, ""]:
            return (now.best_residual > self.tol) & jnp.isfinite(now.residual) & (now.num_steps < self.max_steps)

        def step(now: _Iterate) -> _Iterate:
            u = jax.tree.map(lambda u, f: u + self.damping * f, now.u, now.drift)
            f = drift(u)
            r = _tree.norm(f)
            better = r < now.best_residual
            best = _tree.where(better, u, now.best)
            return _Iterate(u, f, r, best, jnp.where(better, r, now.best_residual), now.num_steps + 1)

        end = jax.lax.while_loop(unfinished, step, start)
        result = status(end.best_residual, end.residual, self.tol)
        return Solution(end.best, end.best_residual, end.num_steps, result)
