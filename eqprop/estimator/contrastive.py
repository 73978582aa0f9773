"""Classical equilibrium propagation: a contrast of energies, for networks that have one."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int, PRNGKeyArray, Scalar, Shaped

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState
from eqprop.estimator.base import AbstractEstimator, Response, refuse_readings
from eqprop.estimator.finite_nudge import relax_nodes, require_holomorphic
from eqprop.network.base import AbstractEnergyNetwork
from eqprop.readout import Model, Target
from eqprop.relaxation import AbstractRelaxation
from eqprop.stencil import Stencil
from eqprop.substrate.dynamics import Dynamics
from eqprop.substrate.probe import Measurement


class ContrastiveHebbian(AbstractEstimator):
    """For an energy network with interaction `Φ`, the contrast over the nodes of a stencil,

        Re Σ wₖ (Φ_θ(s*(βₖ)) + ⟨current_θ, s*(βₖ)⟩) + ℓ_θ(s*),      all states held constant:

    the gradient of the first part is the derivative of `∂Φ/∂θ` along the nudge, by the local Hebbian rule at each
    node. The finite nudge's bias is of the stencil's order.

    Scellier & Bengio (2017); on a circle, Laborieux & Zenke (NeurIPS 2022).
    """

    stencil: Stencil
    relaxation: AbstractRelaxation
    needs_free_phase: ClassVar[bool] = True

    @property
    def complex_nudges(self) -> bool:
        return self.stencil.holomorphic

    def on_device(
        self, flow: AbstractRelaxation | None, dynamics: Dynamics | None, probe: Measurement | None
    ) -> "ContrastiveHebbian":
        refuse_readings(self, probe)
        return dataclasses.replace(self, relaxation=flow or self.relaxation)

    def check(self, model: Model) -> None:
        if not isinstance(model.network, AbstractEnergyNetwork):
            raise ValueError(
                f"ContrastiveHebbian contrasts energies, but {type(model.network).__name__} has none. "
                "Use FiniteNudge, or an energy network such as HopfieldNetwork."
            )
        require_holomorphic(model, self.stencil)

    def respond(
        self, model: Model, x: Shaped[Array, "..."], y: Target, free: Solution, *, key: PRNGKeyArray | None = None
    ) -> Response:
        self.check(model)
        u, drift = free.state, model.drift_under(x, y)
        phase = relax_nodes(self.stencil, self.relaxation, drift, u, model.blocks(u), key)
        return Response(free.state, phase, phase.num_steps, phase.result, jnp.asarray(False))

    def surrogate(self, model: Model, x: Shaped[Array, "..."], y: Target, response: Response) -> Scalar:
        network = model.network
        assert isinstance(network, AbstractEnergyNetwork)
        free, phase = _tree.stop_gradient((response.state, response.payload))
        current = network.embed(x)

        def potential(u: AnyState, _: Int[Array, ""] | int) -> Inexact[Array, ""]:
            s = network.rates(u)
            return network.interaction(s) + _tree.dot(_tree.cast_like(current, s), s)

        return phase.derivative(self.stencil, potential, free) + model.readout.loss(network.rates(free), y)
