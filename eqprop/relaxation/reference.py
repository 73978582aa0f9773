"""What "settled" means where a reference is needed."""

from eqprop.relaxation.base import AbstractRelaxation
from eqprop.relaxation.newton import Newton
from eqprop.relaxation.picard import Picard


def until_rounding(like: AbstractRelaxation | None = None) -> Picard | Newton:
    """Until nothing but rounding is left of the drift, by steps damped by half; by Newton's method if the network
    relaxes `like` that, as it is stiff and steps of a fixed size would diverge."""
    if isinstance(like, Newton):
        return Newton(tol=0.0, max_steps=50)
    return Picard(tol=0.0, max_steps=20_000, damping=0.5)
