"""Coupled learning: two copies of a resistor graph, one free and one whose outputs are held nearer to the target."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState
from eqprop.circuit.graph import ResistorGraph
from eqprop.estimator.base import AbstractEstimator, Device, Reading, Response, check_fields
from eqprop.model import Example
from eqprop.network.base import AbstractNetwork
from eqprop.relaxation import AbstractRelaxation


class CoupledLearning(AbstractEstimator):
    """The difference in co-content of a clamped and a free copy of a `ResistorGraph`, whose gradient is the local rule

        Δg ∝ (Δv_F² − Δv_C²)/2η,      v_C = v_F − η ∂ℓ/∂v at the outputs,

    `Δv` being the voltage across a resistor, and `v_C = v_F + η (y − v_F)` for a squared error. Equilibrium propagation
    sets a current at the outputs, and this the voltage: with one output the two updates are parallel as `η → 0`, and
    with several they differ by the response `S` of the output voltages to output currents. The update is that of a
    teaching current `S⁻¹ ∂ℓ/∂v`, so that it vanishes where the loss does, and nowhere else if `S` is regular.

    Where the clamped copy is read with an offset `o` at every node, such as the `PhaseOffset` of a substrate, the
    gradient of a resistor has the bias

        (Δv_C Δo + Δo²/2)/η.

    It does not vanish with the error, so that training ends at an error proportional to `o/η`. A one-sided
    `FiniteNudge` of strength `β` has the bias `−Δv_F Δo/β`. A centred one has none, since the offset is in both nudged
    states and their difference is taken; if two copies read them in turns, it has half of it. `LockIn` has none in
    either case, as readings that are constant or that alternate are orthogonal to its harmonics.

    Stern et al. (2021). The bias: Dillavou et al. (arXiv 2505.22887).
    """

    eta: float | Float[Array, ""]
    """`η`, above 0 and up to 1: the part of the way to the target at which the outputs are held."""
    relaxation: AbstractRelaxation
    reading: Reading | None = None
    """How voltages are read: phase 0 is the free copy, phase 1 the clamped one; `None`: as they are."""
    needs_free_phase: ClassVar[bool] = True

    def __check_init__(self):
        check_fields(self, {"eta": ((self.eta > 0) & (self.eta <= 1), "above 0 and up to 1")})

    def on_device(self, device: Device) -> "CoupledLearning":
        relaxation, reading = device.relaxation or self.relaxation, device.reading or self.reading
        return dataclasses.replace(self, relaxation=relaxation, reading=reading)

    def check(self, network: AbstractNetwork) -> None:
        if not isinstance(network, ResistorGraph):
            raise ValueError(
                f"CoupledLearning compares the voltages across resistors, and {type(network).__name__} is no "
                "ResistorGraph. Use FiniteNudge."
            )

    def respond(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Response:
        self.check(example.field.network)
        relax_key, read_key = (None, None) if key is None else jax.random.split(key)
        held = free.state["out"] - self.eta * example.teaching(free.state)["out"]

        def drift(u: AnyState) -> AnyState:
            return {**example.field.drift({**u, "out": held}), "out": held - u["out"]}

        clamped = self.relaxation(drift, {**free.state, "out": held}, key=relax_key)
        states = free.state, clamped.state
        if self.reading is not None:
            states = tuple(self.reading(v, phase=phase, key=read_key) for phase, v in enumerate(states))
        return Response(free.state, states, clamped.num_steps, clamped.result, bounded=jnp.asarray(False))

    def surrogate(self, example: Example, response: Response) -> Scalar:
        network = example.field.network
        assert isinstance(network, ResistorGraph)
        state, (free, clamped) = _tree.stop_gradient((response.state, response.payload))
        co_content = lambda v: network.co_content(v, example.field.current)
        return (co_content(clamped) - co_content(free)) / self.eta + example.loss(state)
