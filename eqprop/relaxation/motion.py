"""Continuous time under a drift that changes with it: what an always-on nudge needs."""

import abc
import math
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
from jaxtyping import Array, Inexact, PRNGKeyArray

from eqprop import _tree
from eqprop._tree import AnyState

TimeDrift = Callable[[Any, AnyState], AnyState]
"""`t, u ↦ F(t, u)`."""


class AbstractMotion(eqx.Module):
    """How potentials move under `du/dt = F(t, u)`, in units of the time constant of the leak."""

    @abc.abstractmethod
    def run(
        self,
        drift: TimeDrift,
        u0: AnyState,
        times: Inexact[Array, " times"],
        *,
        dt: float,
        end: float,
        key: PRNGKeyArray | None,
        solver: diffrax.AbstractSolver | None = None,
    ) -> AnyState:
        """The potentials at `times`, along a leading axis, of a run from `u0` at 0 to `end` in steps of `dt`.

        **Arguments:** `key`: for noise. `solver`: of diffrax, by default Heun's.
        """

    @abc.abstractmethod
    def longest_step(self) -> float | Array:
        """The longest `dt` at which the unit leak is stable under Heun's method, which needs `|1 − z + z²/2| ≤ 1`."""

    def check_step(self, dt: float, cure: str) -> None:
        """**Raises:** `ValueError`, saying `cure`, for a step that is known to be too long."""
        if _tree.known_false(dt < self.longest_step()):
            raise ValueError(
                f"The step is {float(dt):.4g} time constants of the leak; expected less than "
                f"{float(self.longest_step()):.4g}, "
                f"where the solver is stable. {cure}"
            )


class Motion(AbstractMotion):
    """Ideal motion: no noise, and one time constant for all."""

    def longest_step(self) -> float:
        return 2.0

    def run(
        self,
        drift: TimeDrift,
        u0: AnyState,
        times: Inexact[Array, " times"],
        *,
        dt: float,
        end: float,
        key: PRNGKeyArray | None,
        solver: diffrax.AbstractSolver | None = None,
    ) -> AnyState:
        del key
        velocity = lambda t, y, args: _tree.to_pairs(drift(t, _tree.from_pairs(y, u0)))
        ys = evenly_stepped(diffrax.ODETerm(velocity), solver or diffrax.Heun(), _tree.to_pairs(u0), times, dt, end)
        return jax.vmap(lambda y: _tree.from_pairs(y, u0))(ys)


def evenly_stepped(
    terms: Any, solver: diffrax.AbstractSolver, y0: Any, times: Array, dt: float, end: float, **settings: Any
) -> Any:
    """The solution at `times` in steps of `dt`, along a leading axis."""
    solution = diffrax.diffeqsolve(
        terms,
        solver,
        t0=0.0,
        t1=end,
        dt0=dt,
        y0=y0,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=diffrax.ConstantStepSize(),
        max_steps=math.ceil(end / dt) + 8,  # rounding of the time may cost a step more
        throw=False,
        **settings,
    )
    return solution.ys
