"""The energy that a circuit takes to settle: its power integrated along the way."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from eqprop._tree import AnyState
from eqprop.circuit.graph import ResistorGraph
from eqprop.circuit.resistive import ResistiveNetwork
from eqprop.relaxation import Motion


class Settling(NamedTuple):
    """A circuit on its way from rest, at times along a leading axis."""

    seconds: Float[Array, " times"]
    state: AnyState
    """Potentials in volts."""
    joules: Float[Array, " times"]
    """Dissipated up to each time by resistors, leaks and diodes."""


def settling(
    network: ResistiveNetwork | ResistorGraph,
    x: Shaped[Array, "..."],
    *,
    farads: float = 1e-9,
    horizon: float = 20.0,
    dt: float = 0.01,
    samples: int = 100,
) -> Settling:
    """The flow `farads dv/dt = siemens F(v)` from its initial state, with the energy `E = ∫ P dt` of `network.power`
    carried along by Heun's method, whose error is of order `dt²`. Sources deliver `E` and what the nodes hold at the
    end, `½ farads Σ v²`.

    **Arguments:** `farads`: capacitance of every node. `horizon`, `dt`: the time and the step, in units of
    `farads/siemens`. `samples`: how many times are returned, evenly spaced from 0 to `horizon`.

    **Raises:** `ValueError` for a capacitance, a time or a step that is not above 0, or a step beyond the horizon.
    """
    if not (farads > 0 and horizon > 0 and 0 < dt <= horizon and samples >= 2):
        raise ValueError(
            f"settling got farads={farads}, horizon={horizon}, dt={dt} and samples={samples}; expected numbers above "
            "0, a step of at most the horizon, and two samples or more."
        )
    field = network.at(x)

    def drift(t: Any, both: AnyState) -> AnyState:
        del t
        state: Any = both["state"]
        return {"state": field.drift(state), "energy": network.power(state, x) / network.siemens}  # pyright: ignore

    start: Any = {"state": field.initial_state(), "energy": jnp.zeros(())}
    times = jnp.linspace(0.0, horizon, samples)
    path: Any = Motion().run(drift, start, times, dt=dt, end=horizon, key=None)
    return Settling(times * farads / network.siemens, path["state"], farads * path["energy"])
