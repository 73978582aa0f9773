"""Classical equilibrium propagation: a contrast of energies, for networks that have one."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int, PRNGKeyArray, Scalar

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState
from eqprop.estimator.base import AbstractEstimator, Response
from eqprop.estimator.finite_nudge import relax_nodes, require_holomorphic
from eqprop.network.base import AbstractEnergyNetwork
from eqprop.readout import Model, Target
from eqprop.relaxation import AbstractRelaxation
from eqprop.stencil import Stencil


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

    def check(self, model: Model) -> None:
        if not isinstance(model.network, AbstractEnergyNetwork):
            raise ValueError(
                f"ContrastiveHebbian contrasts energies, but {type(model.network).__name__} has none. "
                "Use FiniteNudge, or an energy network such as HopfieldNetwork."
            )
        require_holomorphic(model, self.stencil)

    def respond(
        self, model: Model, x: Float[Array, "..."], y: Target, free: Solution, *, key: PRNGKeyArray | None = None
    ) -> Response:
        self.check(model)
        phase = relax_nodes(self.stencil, self.relaxation, lambda b: model.nudged_drift(x, y, b), free.state, key)
        return Response(free.state, phase, phase.num_steps, phase.result, jnp.asarray(False))

    def surrogate(self, model: Model, x: Float[Array, "..."], y: Target, response: Response) -> Scalar:
        network = model.network
        assert isinstance(network, AbstractEnergyNetwork)
        free, phase = _tree.stop_gradient((response.state, response.payload))
        current = network.embed(x)

        def potential(u: AnyState, _: Int[Array, ""] | int) -> Inexact[Array, ""]:
            s = network.rates(u)
            return network.interaction(s) + _tree.dot(_tree.cast_like(current, s), s)

        return phase.derivative(self.stencil, potential, free) + model.readout.loss(network.rates(free), y)
