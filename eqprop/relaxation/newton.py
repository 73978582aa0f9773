"""Newton's method on the drift, for stiff networks of moderate size."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Inexact, Int

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._tree import AnyState, Drift
from eqprop.relaxation.base import AbstractIteration, AbstractRelaxation, Iterate

REFUSED = 4.0
"""The factor of `λ` after a refused step. `λ` is then at least 1, the rate of the leak."""


class _Memory(eqx.Module):
    drift: AnyState
    shift: Float[Array, ""]
    """`λ`: the next step follows the flow for about a time `1/λ`."""
    rounded: Bool[Array, ""]
    """Whether the drift is nothing but rounding."""


class Newton(AbstractIteration):
    """Newton's method by pseudo-transient continuation, until every layer has settled:

        u ← u + d,      (λ1 − J) d = F(u),      J = ∂F/∂u dense.

    A step is an implicit one of the flow `du/dt = F`, of duration `1/λ`. A large `λ` follows the flow, and so cannot
    stall on the way to where the flow settles; `λ = 0` is Newton's step. `λ` begins at 1, the rate of the leak, and is
    multiplied at each step by

        max(min(‖F(u + d)‖, ½‖F(u)‖), 2c)/‖F(u)‖,      c = ‖F(u + d) − λd‖,

    so that it falls with the residual. `c` is what the curvature of `F` leaves, since `λd = F + Jd`. A step is refused,
    and `λ` raised, in three cases: `c` exceeds the residual; the residual is not finite; or `det(λ1 − J) < 0`. In the
    last, an unstable mode is faster than `λ`, and the step would run back in time, into a saddle that the flow leaves.

    Besides, a state has settled where no neuron's drift exceeds its own rounding, `|Fᵢ| ≤ ε Σⱼ |Jᵢⱼ uⱼ|`, which large
    conductances lift above that of the potentials; or where an undamped step changes no digit.

    Convergence is quadratic whatever the stiffness, at `n` tangents and `n³/3` multiplications a step: for circuits
    with exponential devices, of up to about a thousand nodes. Complex states need an analytic drift.

    Kelley & Keyes (1998) switch the step of the flow by the residual alone.
    """

    tol: float = 1e-6
    max_steps: int = 50
    rtol: float = 1e-2

    together = AbstractRelaxation.together
    """One dense system for each, not a large one for all."""

    def init(self, drift: Drift, u0: AnyState, blocks: Blocks) -> Iterate:
        force = drift(u0)
        residual, excess = self.measure(u0, u0, dict(enumerate(jax.tree.leaves(force))))
        memory = _Memory(force, jnp.ones_like(residual), jnp.zeros((), bool))
        return Iterate(u0, u0, residual, excess, jnp.zeros((), jnp.int32), memory)

    def step(self, drift: Drift, now: Iterate, blocks: Blocks) -> Iterate:
        memory: _Memory = now.memory
        start, unravel = ravel_pytree(now.u)
        force, _ = ravel_pytree(memory.drift)

        def vector(u: Inexact[Array, " n"]) -> Inexact[Array, " n"]:
            return ravel_pytree(drift(unravel(u)))[0]

        J = jax.jacfwd(vector, holomorphic=jnp.iscomplexobj(start))(start)
        shift = memory.shift.astype(start.dtype)
        factors, pivots = jax.scipy.linalg.lu_factor(shift * jnp.eye(start.size, dtype=start.dtype) - J)
        d = jax.scipy.linalg.lu_solve((factors, pivots), force)
        u = unravel(start + d)
        new = drift(u)
        before, after = _tree.norm(memory.drift), _tree.norm(new)
        curvature = _tree.norm(_tree.subtract(new, unravel(shift * d)))
        accepted = (curvature <= before) & jnp.isfinite(after) & _upright(factors, pivots)
        factor = jnp.maximum(jnp.minimum(after, 0.5 * before), 2 * curvature) / before
        lowered, raised = factor * memory.shift, jnp.maximum(REFUSED * memory.shift, 1.0)
        u, new = _tree.where(accepted, (u, new), (now.u, memory.drift))
        residual, excess = self.measure(u, now.start, dict(enumerate(jax.tree.leaves(new))))
        eps = float(jnp.finfo(start.dtype).eps)
        rounding = eps * jnp.sum(jnp.abs(J) * jnp.abs(start)[None], axis=1)
        still = jnp.all(start + d == start) & (memory.shift <= 1)
        rounded = still | jnp.all(jnp.abs(ravel_pytree(new)[0]) <= rounding)
        memory = _Memory(new, jnp.where(accepted, lowered, raised), rounded)
        return Iterate(u, now.start, residual, excess, now.num_steps + 1, memory)

    def settled(self, now: Iterate) -> Bool[Array, ""]:
        return super().settled(now) | now.memory.rounded


def _upright(factors: Inexact[Array, "n n"], pivots: Int[Array, " n"]) -> Bool[Array, ""]:
    """Whether a determinant is positive, of a real matrix by its LU factors; of a complex one nothing is asked."""
    if jnp.iscomplexobj(factors):
        return jnp.ones((), bool)
    swaps = jnp.sum(pivots != jnp.arange(pivots.size, dtype=pivots.dtype))
    negative = jnp.sum(jnp.diagonal(factors) < 0)
    return (swaps + negative) % 2 == 0
