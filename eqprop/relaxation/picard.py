"""Damped synchronous steps, to a tolerance."""

import math

import jax
import jax.numpy as jnp

from eqprop import _tree
from eqprop._tree import AnyState, Drift
from eqprop.relaxation.base import AbstractDamped, Iterate


class Picard(AbstractDamped):
    """`u ← u + damping · F(u)`, all layers at once.

    `damping = 1` is the published synchronous step; one half removes the cycles of period two into which undamped
    steps can fall.
    """

    tol: float = 1e-5
    max_steps: int = 500
    damping: float = 1.0

    def propose(self, drift: Drift, iterate: Iterate, memory: None) -> tuple[AnyState, None]:
        return jax.tree.map(lambda u, f: u + self.damping * f, iterate.u, iterate.drift), None


def until_rounding(u0: AnyState) -> Picard:
    """Steps damped by half, to 30 units of rounding a neuron: what "settled" means where a reference is needed."""
    eps = float(jnp.finfo(jax.tree.leaves(u0)[0].dtype).eps)
    return Picard(tol=30 * eps * math.sqrt(_tree.size(u0)), max_steps=20_000, damping=0.5)
