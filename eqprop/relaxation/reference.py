"""What "settled" means where a reference is needed."""

import math

import jax
import jax.numpy as jnp

from eqprop import _tree
from eqprop._tree import AnyState
from eqprop.relaxation.base import AbstractRelaxation
from eqprop.relaxation.newton import Newton
from eqprop.relaxation.picard import Picard


def until_rounding(u0: AnyState, like: AbstractRelaxation | None = None) -> Picard | Newton:
    """To 30 units of rounding a neuron, by steps damped by half; by Newton's method if the network relaxes `like` that,
    as it is stiff and steps of a fixed size would diverge."""
    eps = float(jnp.finfo(jax.tree.leaves(u0)[0].dtype).eps)
    tol = 30 * eps * math.sqrt(_tree.size(u0))
    if isinstance(like, Newton):
        return Newton(tol=tol, max_steps=30)
    return Picard(tol=tol, max_steps=20_000, damping=0.5)
