"""Anderson acceleration, regularised, with a plain step whenever it does not help."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from eqprop._tree import AnyState, Drift, from_pairs, to_pairs
from eqprop.relaxation.base import AbstractIteration, Iterate


class _Memory(eqx.Module):
    """The last accepted point, and differences of states and drifts along the way to it."""

    u: Float[Array, " n"]
    drift: Float[Array, " n"]
    residual: Float[Array, ""]
    du: Float[Array, "depth n"]
    df: Float[Array, "depth n"]
    count: Int[Array, ""]
    plain: Bool[Array, ""]
    """Whether the proposal now being judged was a plain step, which is always accepted."""


class Anderson(AbstractIteration):
    """With differences `ΔU`, `ΔF` of the last `depth` steps,

        γ = argmin ‖f − ΔFᵀγ‖² + λ‖γ‖²,      u ← u + damping · f − (ΔU + damping · ΔF)ᵀ γ,

    `λ` being `ridge` times the mean squared norm of the differences. If an accelerated step makes the residual
    larger, it is taken back, the memory is cleared, and a plain damped step is made from where it began. Complex
    states are treated as pairs of real numbers.

    Anderson (1965); Walker & Ni (2011).
    """

    tol: float = 1e-5
    max_steps: int = 500
    depth: int = 4
    damping: float = 1.0
    ridge: float = 1e-8

    def __check_init__(self):
        if not 0 < self.damping <= 1 or self.depth < 1 or not self.ridge > 0:
            raise ValueError(
                f"Anderson got damping={self.damping}, depth={self.depth}, ridge={self.ridge}; expected damping "
                "above 0 and up to 1, depth of at least 1, ridge above 0 (an unregularised system can be singular)."
            )

    def init(self, drift: Drift, iterate: Iterate) -> _Memory:
        u, f, _ = _vectors(iterate)
        history = jnp.zeros((self.depth, u.size), u.dtype)
        zero = jnp.zeros((), jnp.int32)
        return _Memory(u, f, iterate.residual, history, history, zero, jnp.asarray(True))

    def propose(self, drift: Drift, iterate: Iterate, memory: _Memory) -> tuple[AnyState, _Memory]:
        u, f, unflatten = _vectors(iterate)
        helped = (iterate.residual <= memory.residual) | memory.plain
        slot = memory.count % self.depth
        du = jnp.where(helped, memory.du.at[slot].set(u - memory.u), 0.0)
        df = jnp.where(helped, memory.df.at[slot].set(f - memory.drift), 0.0)
        u = jnp.where(helped, u, memory.u)
        f = jnp.where(helped, f, memory.drift)
        # Unused rows are zero: the ridge gives them no weight.
        gram = df @ df.T
        ridge = self.ridge * jnp.trace(gram) / self.depth + jnp.finfo(gram.dtype).tiny
        gamma = jnp.linalg.solve(gram + ridge * jnp.eye(self.depth, dtype=gram.dtype), df @ f)
        proposal = u + self.damping * f - (du + self.damping * df).T @ gamma
        now = _Memory(
            u,
            f,
            jnp.where(helped, iterate.residual, memory.residual),
            du,
            df,
            jnp.where(helped, memory.count + 1, 0),
            plain=~helped,
        )
        return unflatten(proposal), now

    def takes_back(self, memory: _Memory) -> Bool[Array, ""]:
        return ~memory.plain


def _vectors(iterate: Iterate) -> tuple[Array, Array, Callable[[Array], AnyState]]:
    """State and drift as real vectors, and the way back."""
    u, unravel = ravel_pytree(to_pairs(iterate.u))
    f, _ = ravel_pytree(to_pairs(iterate.drift))
    return u, f, lambda vector: from_pairs(unravel(vector), iterate.u)
