"""Anderson acceleration of block sweeps, with plain sweeps whenever it does not help."""

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from eqprop import _tree
from eqprop._blocks import Order
from eqprop._tree import from_pairs, to_pairs
from eqprop.relaxation.sweep import AbstractSweep, Leaves, Visited


class _Memory(eqx.Module):
    """Differences between the last states, and between their drifts; the newest first."""

    du: Float[Array, "depth n"]
    df: Float[Array, "depth n"]
    failures: Int[Array, ""]
    rest: Int[Array, ""]
    """Plain sweeps still to make before acceleration is tried again."""


class Anderson(AbstractSweep):
    """Sweeps whose first block goes, with differences `ΔU`, `ΔF` of the last `depth` sweeps, to

        u₁ + damping · f − (ΔU + damping · ΔF)ᵀ γ,      γ = argmin ‖f − ΔFᵀγ‖² + λ‖γ‖²,      f = F₁(u).

    `λ` is `ridge` times the mean squared norm of the differences; a ridge below ten units of rounding acts as that.
    After a step that made the residual larger, the memory is cleared and plain sweeps follow, twice as many each time,
    so that what a sweep settles is settled. Complex states are treated as pairs of real numbers.

    Anderson (1965); Walker & Ni (2011).
    """

    tol: float = 1e-5
    max_steps: int = 500
    depth: int = 2
    damping: float = 1.0
    ridge: float = 1e-8
    rtol: float = 1e-2
    every: int = eqx.field(static=True, default=2)
    order: Order = eqx.field(static=True, default="alternate")

    def __check_init__(self):
        if self.depth < 1 or not self.ridge > 0:
            raise ValueError(
                f"Anderson got depth={self.depth}, ridge={self.ridge}; expected depth of at least 1, and ridge above 0 "
                "(an unregularised system can be singular)."
            )

    def begin(self, first: Leaves) -> _Memory:
        f = _vector(first)
        history = jnp.zeros((self.depth, f.size), f.dtype)
        zero = jnp.zeros((), jnp.int32)
        return _Memory(history, history, zero, zero)

    def propose(self, point: Visited, first: Leaves, memory: _Memory) -> Leaves:
        _, unravel = ravel_pytree(to_pairs(first))
        f = _vector(point.change)
        # Unused rows are zero: the ridge gives them no weight.
        gram = memory.df @ memory.df.T
        limits = jnp.finfo(gram.dtype)
        ridge = max(self.ridge, 10 * float(limits.eps)) * jnp.trace(gram) / self.depth + limits.tiny
        gamma = _solve(gram + ridge * jnp.eye(self.depth, dtype=gram.dtype), memory.df @ f)
        step = self.damping * f - jnp.where(memory.rest > 0, 0.0, gamma) @ (memory.du + self.damping * memory.df)
        return _tree.add(first, from_pairs(unravel(step), first))

    def accept(
        self, old: Visited, new: Visited, proposed: tuple[Leaves, Leaves], memory: _Memory
    ) -> tuple[Visited, _Memory]:
        before, after = _tree.norm(old.change), _tree.norm(new.change)
        worse = ~(after <= before)  # also where it is no number
        du = _vector(proposed[1]) - _vector(proposed[0])
        df = _vector(new.change) - _vector(old.change)
        failures = jnp.minimum(memory.failures + worse.astype(jnp.int32), 10)
        taken_back = ~jnp.isfinite(after) & (memory.rest == 0)
        return _tree.where(taken_back, old, new), _Memory(
            jnp.where(worse, 0.0, jnp.concatenate([du[None], memory.du[:-1]])),
            jnp.where(worse, 0.0, jnp.concatenate([df[None], memory.df[:-1]])),
            failures,
            jnp.where(worse, 2**failures, jnp.maximum(memory.rest - 1, 0)),
        )


def _vector(half: Leaves) -> Float[Array, " n"]:
    return ravel_pytree(to_pairs(half))[0]


def _solve(a: Float[Array, "depth depth"], b: Float[Array, " depth"]) -> Float[Array, " depth"]:
    """The solution of a small positive definite system, unrolled: a batched library call costs more than the sweep."""
    n = b.shape[0]
    rows, right = [[a[i, j] for j in range(n)] for i in range(n)], [b[i] for i in range(n)]
    for k in range(n):
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [rows[i][j] - factor * rows[k][j] for j in range(n)]
            right[i] = right[i] - factor * right[k]
    for k in reversed(range(n)):
        right[k] = (right[k] - sum(rows[k][j] * right[j] for j in range(k + 1, n))) / rows[k][k]
    return jnp.stack(right)
