"""What a relaxation is, and the one loop that the iterative ones share."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractClassVar, AbstractVar
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from eqprop import _tree
from eqprop._solution import RESULTS, Solution
from eqprop._tree import AnyState, Drift


class AbstractRelaxation(eqx.Module):
    """Takes a drift to a fixed point `F(u*) = 0`. It knows nothing of networks, losses or nudges, so that the same
    object relaxes the free phase, a nudged phase and a linearised system.

    States may be real or complex. Under `jax.vmap` every example stops on its own.
    """

    reverse_differentiable: AbstractClassVar[bool]
    """Whether reverse-mode differentiation passes through the relaxation itself."""

    @abc.abstractmethod
    def __call__(self, drift: Drift, u0: AnyState, *, key: PRNGKeyArray | None = None) -> Solution:
        """**Arguments:**

        - `drift`: `u ↦ F(u)`, with the structure, shapes and dtypes of `u0`.
        - `u0`: where to start.
        - `key`: for stochastic relaxations; the others ignore it.

        **Returns:** the best state with its measured residual, the number of steps, and a status.
        """


def status(residual: Float[Array, ""], last: Float[Array, ""], tol: float) -> RESULTS:
    """The result of a relaxation whose best residual is `residual` and whose last one is `last`."""
    unsettled = RESULTS.where(jnp.isfinite(last), RESULTS.max_steps_reached, RESULTS.diverged)
    return RESULTS.where(residual <= tol, RESULTS.successful, unsettled)


class Iterate(eqx.Module):
    """Where an iteration stands: the current state, and the best one so far."""

    u: AnyState
    drift: AnyState
    """`F(u)`."""
    residual: Float[Array, ""]
    best: AnyState
    best_residual: Float[Array, ""]
    num_steps: Int[Array, ""]


class AbstractIteration(AbstractRelaxation):
    """A relaxation by discrete steps `u ← propose(u, F(u))` until the residual is at or below `tol`.

    The loop is compiled once, whatever `max_steps`, and keeps the best state visited.
    """

    tol: AbstractVar[float]
    """Settled means `‖F(u)‖₂ ≤ tol`, over all neurons of an example."""
    max_steps: AbstractVar[int]
    reverse_differentiable: ClassVar[bool] = False

    def __check_init__(self):
        if self.max_steps < 1 or not self.tol >= 0:
            raise ValueError(
                f"{type(self).__name__} got tol={self.tol} and max_steps={self.max_steps}; "
                "expected tol of at least 0 and max_steps of at least 1."
            )

    @abc.abstractmethod
    def init(self, drift: Drift, iterate: Iterate) -> PyTree:
        """The memory of the method, of fixed shapes."""

    @abc.abstractmethod
    def propose(self, drift: Drift, iterate: Iterate, memory: Any) -> tuple[AnyState, Any]:
        """The next state, and the memory after it."""

    @abc.abstractmethod
    def takes_back(self, memory: Any) -> Bool[Array, ""] | bool:
        """Whether the next proposal would take back a step to a residual that is not finite; else the loop ends."""

    def __call__(self, drift: Drift, u0: AnyState, *, key: PRNGKeyArray | None = None) -> Solution:
        del key
        f0 = drift(u0)
        r0 = _tree.norm(f0)
        start = Iterate(u0, f0, r0, u0, r0, jnp.zeros((), jnp.int32))

        def unfinished(carry: tuple[Iterate, Any]) -> Bool[Array, ""]:
            now, memory = carry
            alive = jnp.isfinite(now.residual) | self.takes_back(memory)
            return (now.best_residual > self.tol) & alive & (now.num_steps < self.max_steps)

        def step(carry: tuple[Iterate, Any]) -> tuple[Iterate, Any]:
            now, memory = carry
            u, memory = self.propose(drift, now, memory)
            f = drift(u)
            r = _tree.norm(f)
            better = r < now.best_residual
            best = _tree.where(better, u, now.best)
            best_residual = jnp.where(better, r, now.best_residual)
            return Iterate(u, f, r, best, best_residual, now.num_steps + 1), memory

        end, _ = jax.lax.while_loop(unfinished, step, (start, self.init(drift, start)))
        result = status(end.best_residual, end.residual, self.tol)
        return Solution(end.best, end.best_residual, end.num_steps, result)


class AbstractDamped(AbstractIteration):
    """An iteration that remembers nothing, with steps shortened by `damping`."""

    damping: AbstractVar[float]

    def __check_init__(self):
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping is {self.damping}; expected a number above 0 and up to 1 (1: undamped).")

    def init(self, drift: Drift, iterate: Iterate) -> None:
        return None

    def takes_back(self, memory: None) -> bool:
        return False
