"""Continuous time: the drift as an ordinary differential equation, solved by diffrax."""

from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._solution import Solution
from eqprop._tree import AnyState, Drift
from eqprop.relaxation.base import AbstractRelaxation, check_tolerance, status


class Flow(AbstractRelaxation):
    """`du/dt = F(u)` until `max |F(u)| ≤ tol`, at most for `horizon` time constants of the leak.

    Any solver and step-size controller of diffrax will do; a constant step needs `dt0`. By default the step adapts to
    local errors well below `tol`: a looser control never settles to it. Complex states are integrated as pairs of real
    numbers.
    """

    tol: float = 1e-5
    horizon: float = 500.0
    max_steps: int = 10_000
    solver: diffrax.AbstractSolver = eqx.field(default_factory=diffrax.Tsit5)
    controller: diffrax.AbstractStepSizeController | None = None
    dt0: float | None = None
    reverse_differentiable: ClassVar[bool] = True

    def __check_init__(self):
        check_tolerance(self, self.tol, self.max_steps)
        if self.horizon <= 0:
            raise ValueError(
                f"Flow got horizon={self.horizon}; expected a time above 0, in time constants of the leak."
            )
        if self.dt0 is None and isinstance(self.controller, diffrax.ConstantStepSize):
            raise ValueError("A constant step size needs dt0: give Flow(dt0=0.1, ...).")

    @property
    def step_control(self) -> diffrax.AbstractStepSizeController:
        """The controller given, or one of local errors well below `tol`."""
        return self.controller or diffrax.PIDController(rtol=self.tol, atol=0.1 * self.tol)

    def __call__(
        self, drift: Drift, u0: AnyState, *, blocks: Blocks | None = None, key: PRNGKeyArray | None = None
    ) -> Solution:
        del blocks, key

        def velocity(t: Any, y: AnyState, args: None) -> AnyState:
            del t, args
            return _tree.to_pairs(drift(_tree.from_pairs(y, u0)))

        def settled(t: Any, y: AnyState, args: None, **kwargs: Any) -> Bool[Array, ""]:
            del kwargs
            return _tree.max_norm(velocity(t, y, args)) <= self.tol

        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(velocity),
            self.solver,
            t0=0.0,
            t1=self.horizon,
            dt0=self.dt0,
            y0=_tree.to_pairs(u0),
            stepsize_controller=self.step_control,
            event=diffrax.Event(settled),
            max_steps=self.max_steps,
            throw=False,
        )
        assert solution.ys is not None
        end = _tree.from_pairs(jax.tree.map(lambda y: y[-1], solution.ys), u0)
        start_residual, end_residual = _tree.max_norm(drift(u0)), _tree.max_norm(drift(end))
        better = end_residual <= start_residual
        residual = jnp.where(better, end_residual, start_residual)
        steps = jnp.asarray(solution.stats["num_steps"], jnp.int32)
        return Solution(_tree.where(better, end, u0), residual, steps, status(residual, end_residual, self.tol))
