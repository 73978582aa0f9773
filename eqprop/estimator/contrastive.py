"""Classical equilibrium propagation: a contrast of energies, for networks that have one."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, PRNGKeyArray, Scalar

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState
from eqprop.estimator.base import AbstractEstimator, Device, Response, refuse_readings, require_holomorphic, summed
from eqprop.estimator.finite_nudge import relax_nodes
from eqprop.model import Example
from eqprop.network.base import AbstractEnergyNetwork, AbstractNetwork
from eqprop.relaxation import AbstractRelaxation
from eqprop.stencil import Stencil


class ContrastiveHebbian(AbstractEstimator):
    """For an energy network with interaction `Φ`, the contrast over the nodes of a stencil,

        Re Σ wₖ Φ_θ(s*(βₖ)) + ℓ_θ(s*),      all states held constant:

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

    def on_device(self, device: Device) -> "ContrastiveHebbian":
        refuse_readings(self, device)
        return dataclasses.replace(self, relaxation=device.relaxation or self.relaxation)

    def check(self, network: AbstractNetwork) -> None:
        if not isinstance(network, AbstractEnergyNetwork):
            raise ValueError(
                f"ContrastiveHebbian contrasts energies, but {type(network).__name__} has none. "
                "Use FiniteNudge, or an energy network such as HopfieldNetwork."
            )
        require_holomorphic(self, network)

    def respond(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Response:
        self.check(example.field.network)
        nudged = relax_nodes(self.stencil, self.relaxation, example, example.drift, free, key)
        return Response(free.state, nudged.state, *summed(nudged), bounded=jnp.asarray(False))

    def surrogate(self, example: Example, response: Response) -> Scalar:
        network = example.field.network
        assert isinstance(network, AbstractEnergyNetwork)
        free, nudged = _tree.stop_gradient((response.state, response.payload))

        def interaction(u: AnyState) -> Inexact[Array, ""]:
            return network.interaction(network.rates(u), example.field.current)

        contrast = self.stencil.derivative(jax.vmap(interaction)(nudged), interaction(free))
        return contrast + example.loss(network.rates(free))
