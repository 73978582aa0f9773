"""Damped synchronous steps, to a tolerance."""

import jax

from eqprop._tree import AnyState, Drift
from eqprop.relaxation.base import AbstractIteration, Iterate


class Picard(AbstractIteration):
    """`u ← u + damping · F(u)`, all layers at once.

    `damping = 1` is the published synchronous step; one half removes the cycles of period two into which undamped
    steps can fall.
    """

    tol: float = 1e-5
    max_steps: int = 500
    damping: float = 1.0

    def __check_init__(self):
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping is {self.damping}; expected a number above 0 and up to 1 (1: undamped).")

    def init(self, drift: Drift, iterate: Iterate) -> None:
        return None

    def propose(self, drift: Drift, iterate: Iterate, memory: None) -> tuple[AnyState, None]:
        return jax.tree.map(lambda u, f: u + self.damping * f, iterate.u, iterate.drift), None
