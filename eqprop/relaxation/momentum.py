"""Synchronous steps with inertia."""

import jax
import jax.numpy as jnp

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._tree import AnyState, Drift
from eqprop.relaxation.base import AbstractIteration, Iterate, check_damping


class Momentum(AbstractIteration):
    """Heavy-ball steps: potentials have a velocity, which the drift accelerates and friction slows,

        v ← momentum · v + damping · F(u),        u ← u + v,

    until every layer has settled. The fixed points are those of `Picard`, which it is without momentum. Where the drift
    descends an energy with curvatures from `a` to `b`, `momentum = ((√b − √a)/(√b + √a))²` with
    `damping = 4/(√a + √b)²` is fastest.

    Polyak (1964).
    """

    tol: float = 1e-5
    max_steps: int = 500
    damping: float = 0.5
    momentum: float = 0.5
    rtol: float = 1e-2

    def __check_init__(self):
        check_damping(self.damping)
        if _tree.known_false(self.momentum >= 0) or _tree.known_false(self.momentum < 1):
            raise ValueError(f"momentum is {self.momentum}; expected a number from 0 (no inertia) to below 1.")

    def init(self, drift: Drift, u0: AnyState, blocks: Blocks) -> Iterate:
        return self._at(u0, u0, drift, _tree.zeros_like(u0), jnp.zeros((), jnp.int32))

    def step(self, drift: Drift, now: Iterate, blocks: Blocks) -> Iterate:
        f, v = now.memory
        v = jax.tree.map(lambda v, f: self.momentum * v + self.damping * f, v, f)
        return self._at(_tree.add(now.u, v), now.start, drift, v, now.num_steps + 1)

    def _at(self, u: AnyState, start: AnyState, drift: Drift, v: AnyState, num_steps: jax.Array) -> Iterate:
        f = drift(u)
        residual, excess = self.measure(u, start, dict(enumerate(jax.tree.leaves(f))))
        return Iterate(u, start, residual, excess, num_steps, (f, v))
