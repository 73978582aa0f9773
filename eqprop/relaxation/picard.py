"""Damped synchronous steps, to a tolerance."""

import jax
import jax.numpy as jnp

from eqprop._blocks import Blocks
from eqprop._tree import AnyState, Drift
from eqprop.relaxation.base import AbstractIteration, Iterate, check_damping


class Picard(AbstractIteration):
    """`u ← u + damping · F(u)`, all layers at once, until every layer has settled.

    `damping = 1` is the published synchronous step; one half removes the cycles of period two into which undamped
    steps can fall.
    """

    tol: float = 1e-5
    max_steps: int = 500
    damping: float = 1.0
    rtol: float = 1e-2

    def __check_init__(self):
        check_damping(self.damping)

    def init(self, drift: Drift, u0: AnyState, blocks: Blocks) -> Iterate:
        return self._at(u0, u0, drift, jnp.zeros((), jnp.int32))

    def step(self, drift: Drift, now: Iterate, blocks: Blocks) -> Iterate:
        u = jax.tree.map(lambda u, f: u + self.damping * f, now.u, now.memory)
        return self._at(u, now.start, drift, now.num_steps + 1)

    def _at(self, u: AnyState, start: AnyState, drift: Drift, num_steps: jax.Array) -> Iterate:
        f = drift(u)
        residual, excess = self.measure(u, start, dict(enumerate(jax.tree.leaves(f))))
        return Iterate(u, start, residual, excess, num_steps, f)
