"""Newton's method on the drift, for stiff networks of moderate size."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Inexact, PRNGKeyArray

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState, Drift
from eqprop.relaxation.base import AbstractRelaxation, check_tolerance, status


class Newton(AbstractRelaxation):
    """`u ← u − λ J⁻¹F(u)`, `J = ∂F/∂u` dense, until `‖F(u)‖₂ ≤ tol`; `λ` halves until the residual falls.

    Quadratic convergence whatever the stiffness, at `n` tangents and `n³/3` multiplications a step: for circuits with
    exponential devices, of up to about a thousand nodes. Complex states need an analytic drift.
    """

    tol: float = 1e-6
    max_steps: int = 50
    halvings: int = 20
    reverse_differentiable: ClassVar[bool] = False

    def __check_init__(self):
        check_tolerance(self, self.tol, self.max_steps)

    def __call__(self, drift: Drift, u0: AnyState, *, key: PRNGKeyArray | None = None) -> Solution:
        del key
        start, unravel = ravel_pytree(u0)

        def residual(u: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
            return ravel_pytree(drift(unravel(u)))[0]

        jacobian = jax.jacfwd(residual, holomorphic=jnp.iscomplexobj(start))

        def shorten(state: tuple) -> tuple:
            u, direction, scale, _, count = state
            shorter = 0.5 * scale
            return u, direction, shorter, _norm(residual(u + shorter.astype(u.dtype) * direction)), count + 1

        def step(state: tuple) -> tuple:
            u, norm, num, _ = state
            direction = jnp.linalg.solve(jacobian(u), -residual(u))
            one = jnp.ones_like(norm)
            _, _, scale, new, _ = jax.lax.while_loop(
                lambda s: ~(s[3] < norm) & (s[4] < self.halvings),
                shorten,
                (u, direction, one, _norm(residual(u + direction)), 0),
            )
            better = new < 0.99 * norm  # at the floor of rounding no step is
            moved = jnp.where(better, u + scale.astype(u.dtype) * direction, u)
            return moved, jnp.where(better, new, norm), num + 1, better

        u, norm, num, _ = jax.lax.while_loop(
            lambda s: (s[1] > self.tol) & (s[2] < self.max_steps) & s[3],
            step,
            (start, _norm(residual(start)), jnp.zeros((), jnp.int32), jnp.ones((), bool)),
        )
        norm = _tree.norm(drift(unravel(u)))
        return Solution(unravel(u), norm, num, status(norm, norm, self.tol))


def _norm(v: Inexact[Array, " n"]) -> Array:
    return jnp.sqrt(jnp.sum(v.real**2 + v.imag**2) if jnp.iscomplexobj(v) else jnp.sum(v**2))
