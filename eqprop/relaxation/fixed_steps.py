"""Exactly `T` synchronous steps, as published."""

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._solution import Solution
from eqprop._tree import AnyState, Drift
from eqprop.relaxation.base import AbstractRelaxation, check_tolerance, status


class FixedSteps(AbstractRelaxation):
    """`u ← u + F(u)`, `num_steps` times, whatever the residual: the published schedule. It returns the last state even
    where that is not finite. Differentiable in reverse, for backpropagation through time.

    `tol` decides only what counts as settled. No steps at all is a measurement of the state as it is.
    """

    num_steps: int
    tol: float = 1e-4
    reverse_differentiable: ClassVar[bool] = True

    def __check_init__(self):
        if not isinstance(self.num_steps, int) or self.num_steps < 0:
            raise ValueError(f"num_steps is {self.num_steps}; expected a number of steps, 0 or more.")
        check_tolerance(self, self.tol, 1)

    def __call__(
        self, drift: Drift, u0: AnyState, *, blocks: Blocks | None = None, key: PRNGKeyArray | None = None
    ) -> Solution:
        del blocks, key

        def step(u: AnyState, _: None) -> tuple[AnyState, None]:
            return _tree.add(u, drift(u)), None

        u, _ = jax.lax.scan(step, u0, None, length=self.num_steps)
        # The residual is a measurement, not a part of the result that anyone should differentiate.
        residual = jax.lax.stop_gradient(_tree.max_norm(drift(u)))
        return Solution(u, residual, jnp.asarray(self.num_steps, jnp.int32), status(residual, residual, self.tol))
