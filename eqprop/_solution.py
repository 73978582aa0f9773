"""What a relaxation returns: the state and how far one may trust it."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eqprop._tree import AnyState


class RESULTS(eqx.Enumeration):
    """How a relaxation ended; the message is what a person should know and do."""

    successful = "The state settled: its residual is at or below the tolerance."
    max_steps_reached = (
        "The state did not settle within the allowed steps. Allow more steps, damp the relaxation, "
        "loosen its tolerance, or lower the gain of the network."
    )
    diverged = (
        "The residual became infinite or NaN; a finite state from before is returned. If the nudge is "
        "complex, shrink the radius of the stencil."
    )


def worst(results: RESULTS) -> RESULTS:
    """The worst along a leading axis: `diverged`, then `max_steps_reached`, then `successful`."""
    diverged = jnp.any(results == RESULTS.diverged)
    settled = jnp.all(results == RESULTS.successful)
    unsettled = RESULTS.where(diverged, RESULTS.diverged, RESULTS.max_steps_reached)
    return RESULTS.where(settled, RESULTS.successful, unsettled)


class Solution(eqx.Module):
    """A relaxed state of one example, with what was measured on it."""

    state: AnyState
    """Potentials `u*`: the last state, or that at the start if the residual stopped being a number."""
    residual: Float[Array, "..."]
    """The largest `|Fᵢ(u*)|` of any neuron, as measured; not finite where the relaxation diverged."""
    num_steps: Int[Array, "..."]
    """Steps taken. A step of Picard, Sweep, Anderson or FixedSteps costs about one evaluation of the drift, one of
    Newton as many tangents as there are neurons, one of Flow as many evaluations as its solver has stages."""
    result: RESULTS
    """Status; `result == RESULTS.successful` means settled."""
