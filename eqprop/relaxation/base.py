"""What a relaxation is."""

import abc

import equinox as eqx
import jax.numpy as jnp
from equinox import AbstractClassVar
from jaxtyping import Array, Float, PRNGKeyArray

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


def status(residual: Float[Array, ""], last: Float[Array, ""], tol: Float[Array, ""] | float) -> RESULTS:
    """The result of a relaxation whose best residual is `residual` and whose last one is `last`."""
    unsettled = RESULTS.where(jnp.isfinite(last), RESULTS.max_steps_reached, RESULTS.diverged)
    return RESULTS.where(residual <= tol, RESULTS.successful, unsettled)


def check_tolerance(relaxation: AbstractRelaxation, tol: float, max_steps: int) -> None:
    """**Raises:** `ValueError` for a tolerance or a number of steps that makes no sense."""
    if max_steps < 1 or not tol >= 0:
        raise ValueError(
            f"{type(relaxation).__name__} got tol={tol} and max_steps={max_steps}; "
            "expected tol of at least 0 and max_steps of at least 1."
        )


def check_damping(damping: float) -> None:
    """**Raises:** `ValueError` for a damping outside (0, 1]."""
    if not 0 < damping <= 1:
        raise ValueError(f"damping is {damping}; expected a number above 0 and up to 1 (1: undamped).")
