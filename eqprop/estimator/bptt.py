"""Backpropagation through the relaxation itself: the baseline that no device can run."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, Scalar

from eqprop import _tree
from eqprop._solution import RESULTS, Solution
from eqprop.estimator.base import AbstractEstimator, Response
from eqprop.model import Example
from eqprop.relaxation import AbstractRelaxation


class BackpropThroughTime(AbstractEstimator):
    """The gradient of `ℓ` after a further relaxation from the free state, which is held constant:

        u_T = relax(F_θ, u*),      ∂/∂θ ℓ_θ(σ(u_T)).

    From a settled state, `T` steps give the first `T` terms of the Neumann series of RBP.

    **Raises:** `ValueError` when made with a relaxation that reverse mode cannot differentiate.
    """

    relaxation: AbstractRelaxation
    needs_free_phase: ClassVar[bool] = True
    beside_device: ClassVar[bool] = True

    def __check_init__(self):
        if not self.relaxation.reverse_differentiable:
            raise ValueError(
                f"BackpropThroughTime cannot differentiate through {type(self.relaxation).__name__}, which stops by "
                "itself. Give it FixedSteps(num_steps=40), or use RecurrentBackprop for the same gradient without time."
            )

    def respond(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Response:
        del key
        # It relaxes here to learn whether that stays finite, and once more under the gradient.
        end = self.relaxation(example.field.drift, free.state)
        finite = jnp.isfinite(_tree.max_norm(end.state))
        result = RESULTS.where(finite, RESULTS.successful, RESULTS.diverged)
        return Response(free.state, None, end.num_steps, result, jnp.asarray(False))

    def surrogate(self, example: Example, response: Response) -> Scalar:
        end = self.relaxation(example.field.drift, _tree.stop_gradient(response.state))
        return example.loss(example.field.rates(end.state))
