"""Two coupled copies of the network, whose difference relaxes to the true error."""

from typing import ClassVar

import jax
from jaxtyping import Array, PRNGKeyArray, Shaped

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState
from eqprop.estimator.base import AbstractErrorEstimator, Error
from eqprop.readout import Model, Target
from eqprop.relaxation import AbstractRelaxation


class DyadicNudge(AbstractErrorEstimator):
    """Mean `m` and difference `d` of two copies of the network relax together,

        dm/dt = F(m),      dd/dt = J(m)ᵀ d + β D(m) ∂ℓ/∂s,      δ = d/β,

    so that `δ → M⁻ᵀ g`, the true gradient, at any nudge strength: the augmented dynamics are linear in `d`. The mean
    goes on with the free phase, so that `δ` is the adjoint of the state it ends in.

    Dyadic EP, Scurria et al. (arXiv 2602.03670).
    """

    relaxation: AbstractRelaxation
    beta: float = 1.0
    norm_bound: float | None = None
    needs_free_phase: ClassVar[bool] = True
    beside_device: ClassVar[bool] = True
    transposes: ClassVar[bool] = True

    def __check_init__(self):
        if _tree.known_false(self.beta != 0):
            raise ValueError("beta is 0; a nudge has a strength other than zero, for instance 1.")

    def error(
        self, model: Model, x: Shaped[Array, "..."], y: Target, free: Solution, *, key: PRNGKeyArray | None = None
    ) -> Error:
        free_drift = model.free_drift(x)

        def drift(pair: tuple[AnyState, AnyState]) -> tuple[AnyState, AnyState]:
            m, d = pair
            f, jacobian_transposed = jax.vjp(free_drift, m)
            s, to_potentials = jax.vjp(model.network.rates, m)
            nudge = _tree.scale(self.beta, to_potentials(model.readout.teaching(s, y))[0])
            return f, _tree.add(jacobian_transposed(d)[0], nudge)

        u = free.state
        blocks = model.blocks(u)
        blocks = None if blocks is None else blocks.twice(len(u))
        solution = self.relaxation(drift, (u, _tree.zeros_like(u)), blocks=blocks, key=key)
        m, d = solution.state
        return Error(m, _tree.scale(1 / self.beta, d), solution.num_steps, solution.result)
