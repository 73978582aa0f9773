"""What a relaxation is, and the one loop of those that go step by step."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractClassVar, AbstractVar
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._solution import RESULTS, Solution
from eqprop._tree import AnyState, Drift, T
from eqprop.relaxation import batch

Limit = float | Float[Array, ""]
"""A tolerance: a number, or a traced one where many are compiled as one program."""

ROUNDING = 2.0
"""Units of rounding of a layer's largest potential to which its drift can be brought."""


class AbstractRelaxation(eqx.Module):
    """Takes a drift to a fixed point `F(u*) = 0`. It knows nothing of networks, losses or nudges, so that the same
    object relaxes the free phase, a nudged phase and a linearised system.

    States may be real or complex. Under `jax.vmap` every example stops on its own.
    """

    reverse_differentiable: AbstractClassVar[bool]
    """Whether reverse-mode differentiation passes through the relaxation itself."""

    @abc.abstractmethod
    def __call__(
        self, drift: Drift, u0: AnyState, *, blocks: Blocks | None = None, key: PRNGKeyArray | None = None
    ) -> Solution:
        """**Arguments:**

        - `drift`: `u ↦ F(u)`, with the structure, shapes and dtypes of `u0`.
        - `u0`: where to start.
        - `blocks`: which layers a sweep visits together; relaxations that move all layers at once ignore it.
        - `key`: for stochastic relaxations; the others ignore it.

        **Returns:** the last state with its measured residual, the number of steps, and a status; the state at the
        start if the residual stopped being a number.
        """

    def together(
        self,
        drift: Callable[[Any, AnyState], AnyState],
        rows: PyTree,
        starts: AnyState,
        *,
        blocks: Blocks | None = None,
        keys: Array | None = None,
    ) -> Solution:
        """Several relaxations whose fixed points are to be compared, such as those at the nodes of a stencil.

        **Arguments:** `drift`: from a row and a state to `F(u)`. `rows`, `starts`, `keys`: along a leading axis.
        """
        relax = lambda row, u0, key: self(lambda u: drift(row, u), u0, blocks=blocks, key=key)
        return jax.vmap(relax)(rows, starts, keys)


class Iterate(eqx.Module):
    """Where an iteration stands: all that it needs to go on."""

    u: AnyState
    start: AnyState
    residual: Float[Array, ""]
    """The largest `|Fᵢ(u)|`."""
    excess: Float[Array, ""]
    """The largest ratio of a layer's residual to its tolerance: settled at 1 or below."""
    num_steps: Int[Array, ""]
    memory: PyTree
    """What the method keeps besides, of fixed shapes."""


class AbstractIteration(AbstractRelaxation):
    """A relaxation that goes step by step, can be stopped after any of them, and resumed.

    A layer has settled if, over its neurons,

        max |F(u)| ≤ max(min(tol, rtol · max |u − u₀|), 2 ε max |u|),

    and the state has if all its layers have. `tol` is absolute. `rtol` is relative to the answer, the distance that the
    layer has moved from where the relaxation began: with it a weak nudge is answered as accurately as a strong one, and
    a layer far from the output as accurately as one near it. `ε` is the unit of rounding, below which nothing settles.
    """

    tol: AbstractVar[float]
    rtol: AbstractVar[float]
    max_steps: AbstractVar[int]
    reverse_differentiable: ClassVar[bool] = False

    def __check_init__(self):
        check_tolerance(self, self.tol, self.max_steps)
        if _tree.known_false(self.rtol >= 0) or _tree.known_false(self.rtol < 1):
            raise ValueError(f"rtol is {self.rtol}; expected a fraction of the response, from 0 to below 1.")

    @abc.abstractmethod
    def init(self, drift: Drift, u0: AnyState, blocks: Blocks) -> Iterate:
        """Where the iteration begins."""

    @abc.abstractmethod
    def step(self, drift: Drift, now: Iterate, blocks: Blocks) -> Iterate:
        """One step, or a few of them, with the residual measured at the end."""

    def settled(self, now: Iterate) -> Bool[Array, ""]:
        """Whether every layer is within its tolerance."""
        return now.excess <= 1

    def unfinished(self, now: Iterate) -> Bool[Array, ""]:
        """Whether another step is due: not settled, not lost, not out of steps. A residual that is infinite at the
        start has not been measured yet."""
        lost = ~jnp.isfinite(now.residual) & (now.num_steps > 0)
        return ~self.settled(now) & ~lost & (now.num_steps < self.max_steps)

    def solution(self, now: Iterate) -> Solution:
        """What is returned of an iteration that has finished."""
        finite = jnp.isfinite(now.residual)
        unsettled = RESULTS.where(finite, RESULTS.max_steps_reached, RESULTS.diverged)
        result = RESULTS.where(self.settled(now), RESULTS.successful, unsettled)
        return Solution(_tree.where(finite, now.u, now.start), now.residual, now.num_steps, result)

    def measure(self, u: AnyState, start: AnyState, drift: dict[int, Array]) -> tuple[Array, Array]:
        """Residual and excess, from the drift of those leaves that may still have one."""
        return measure(u, start, drift, self.tol, self.rtol)

    def __call__(
        self, drift: Drift, u0: AnyState, *, blocks: Blocks | None = None, key: PRNGKeyArray | None = None
    ) -> Solution:
        del key
        return batch.relax(self, drift, u0, Blocks.alternate(len(jax.tree.leaves(u0))) if blocks is None else blocks)

    def together(
        self,
        drift: Callable[[Any, AnyState], AnyState],
        rows: PyTree,
        starts: AnyState,
        *,
        blocks: Blocks | None = None,
        keys: Array | None = None,
    ) -> Solution:
        # As one state, which takes as many steps in every row: what the free phase has left to relax is then the same
        # in all of them, and cancels where they are compared.
        del keys
        solution = self(lambda u: jax.vmap(drift)(rows, u), starts, blocks=blocks)
        count = jax.tree.leaves(starts)[0].shape[0]
        measured = solution.residual, solution.num_steps, solution.result
        repeated = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count,)), measured)
        return Solution(solution.state, *repeated)


def measure(
    u: AnyState, start: AnyState, drift: dict[int, Array], tol: Limit, rtol: Limit
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The largest drift of any neuron, and the largest ratio of a layer's to its tolerance (see `AbstractIteration`).

    **Arguments:** `drift`: of those leaves that may still have one, by position.
    """
    now, before = jax.tree.leaves(u), jax.tree.leaves(start)
    limits = jnp.finfo(now[0].dtype)
    eps, tiny = float(limits.eps), float(limits.tiny)  # plain numbers, which keep the precision of the state
    residuals = {leaf: _tree.largest(value) for leaf, value in drift.items()}

    def excess(leaf: int) -> Array:
        moved, size = _tree.largest(now[leaf] - before[leaf]), _tree.largest(now[leaf])
        allowed = jnp.maximum(jnp.minimum(tol, rtol * moved), ROUNDING * eps * size)
        # A quotient of zeros is zero: a layer that has no drift has settled.
        return residuals[leaf] / jnp.maximum(allowed, tiny)

    return _tree.max_norm(list(residuals.values())), _tree.max_norm([excess(leaf) for leaf in drift])


def status(residual: Float[Array, ""], last: Float[Array, ""], tol: Float[Array, ""] | float) -> RESULTS:
    """The result of a relaxation whose best residual is `residual` and whose last one is `last`."""
    unsettled = RESULTS.where(jnp.isfinite(last), RESULTS.max_steps_reached, RESULTS.diverged)
    return RESULTS.where(residual <= tol, RESULTS.successful, unsettled)


def check_tolerance(relaxation: AbstractRelaxation, tol: float, max_steps: int) -> None:
    """**Raises:** `ValueError` for a tolerance or a number of steps that makes no sense."""
    if not isinstance(max_steps, int) or max_steps < 1 or _tree.known_false(tol >= 0):
        raise ValueError(
            f"{type(relaxation).__name__} got tol={tol} and max_steps={max_steps}; "
            "expected tol of at least 0 and max_steps of at least 1."
        )


def check_damping(damping: float) -> None:
    """**Raises:** `ValueError` for a damping outside (0, 1]."""
    if _tree.known_false(damping > 0) or _tree.known_false(damping <= 1):
        raise ValueError(f"damping is {damping}; expected a number above 0 and up to 1 (1: undamped).")


def allowed(tree: T, condition: Bool[Array, ""]) -> T:
    """A tree, such as an estimator, whose iterations take no step where the condition does not hold."""
    is_iteration = lambda part: isinstance(part, AbstractIteration)

    def limited(part: Any) -> Any:
        if not is_iteration(part):
            return part
        return eqx.tree_at(lambda it: it.max_steps, part, jnp.where(condition, part.max_steps, 0))

    return jax.tree.map(limited, tree, is_leaf=is_iteration)
