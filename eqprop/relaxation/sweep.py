"""Even-odd block sweeps: each half of the layers sees the other half already updated."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Bool, Float, Inexact, Int, PRNGKeyArray, PyTree

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState, Drift
from eqprop.relaxation.base import AbstractRelaxation, check_damping, check_tolerance, status

Leaves = list[Inexact[Array, "..."]]
"""Some layers of a state, in its order."""


class Halfway(eqx.Module):
    """A state whose even layers have just answered to the odd ones: all there is to know about a sweep."""

    u: AnyState
    change: Leaves
    """`F_odd(u)`."""
    residual: Float[Array, ""]
    """`‖F(u)‖₂`, if no layer acts on a layer of its own half."""


class _Progress(eqx.Module):
    point: Halfway
    memory: PyTree
    num_steps: Int[Array, ""]
    target: Float[Array, ""]
    """Of the residual that the sweeps know."""
    residual: Float[Array, ""]
    """Measured over all layers."""
    again: Bool[Array, ""]
    """Whether a measurement has just asked for more sweeps."""
    alive: Bool[Array, ""]


class AbstractSweep(AbstractRelaxation):
    """One step updates the even layers, then the odd ones from the updated even ones:

        u_even ← u_even + damping · F_even(u),      u_odd ← propose(u_odd, F_odd(u)).

    Layers are numbered in the order of the state's leaves; for dictionaries that is the sorted order of their names, as
    in l1, l2, out. A state of one layer counts as odd.

    Each half of the drift is evaluated once a step and the compiler removes the rest, so that a sweep costs one
    evaluation. On a chain the halves do not act within themselves, and `F_even = 0` after the first of the two updates:
    the residual comes at no cost. On other graphs it is a guess; the loop ends only when the drift of all layers,
    measured at the last state, is small enough. After a residual that is not finite, the first state is returned.
    """

    tol: AbstractVar[float]
    """Settled means `‖F(u)‖₂ ≤ max(tol, rtol · ‖F(u₀)‖₂)`, over all neurons of an example."""
    rtol: AbstractVar[float]
    """Of a nudged phase, whose first residual is the nudge `‖β g‖`: with it a weak teaching signal is answered as
    accurately as a strong one, where `tol` alone would call it settled before it has moved anything."""
    max_steps: AbstractVar[int]
    damping: AbstractVar[float]
    reverse_differentiable: ClassVar[bool] = False

    def __check_init__(self):
        check_tolerance(self, self.tol, self.max_steps)
        if not 0 <= self.rtol < 1:
            raise ValueError(f"rtol is {self.rtol}; expected a fraction of the first residual, from 0 to below 1.")
        check_damping(self.damping)

    @abc.abstractmethod
    def init(self, point: Halfway) -> PyTree:
        """The memory of the method, of fixed shapes."""

    @abc.abstractmethod
    def propose(self, point: Halfway, odd: Leaves, memory: Any) -> Leaves:
        """The next odd layers."""

    @abc.abstractmethod
    def learn(self, old: tuple[Halfway, Leaves], new: tuple[Halfway, Leaves], memory: Any) -> PyTree:
        """The memory after a step from `old` to `new`, each with its odd layers."""

    @abc.abstractmethod
    def forgives(self, memory: Any) -> Bool[Array, ""] | bool:
        """Whether a proposal that led to a residual that is not finite is taken back and another one tried."""

    def __call__(self, drift: Drift, u0: AnyState, *, key: PRNGKeyArray | None = None) -> Solution:
        del key

        def visit(u: AnyState) -> Halfway:
            even = _half(drift(u), 0)
            u = _replace(u, 0, [leaf + self.damping * change for leaf, change in zip(_half(u, 0), even, strict=True)])
            odd = _half(drift(u), 1)
            left = _tree.norm(even) if self.damping < 1 else 0.0
            return Halfway(u, odd, jnp.hypot((1 - self.damping) * left, _tree.norm(odd)))

        def sweep(now: _Progress) -> _Progress:
            odd = _half(now.point.u, 1)
            proposed = self.propose(now.point, odd, now.memory)
            new = visit(_replace(now.point.u, 1, proposed))
            finite = jnp.isfinite(new.residual)
            memory = self.learn((now.point, odd), (new, proposed), now.memory)
            point, alive = _tree.where(finite, new, now.point), finite | self.forgives(now.memory)
            return _Progress(
                point, memory, now.num_steps + 1, now.target, now.residual, jnp.zeros_like(now.again), alive
            )

        def sweeping(now: _Progress) -> Bool[Array, ""]:
            return ((now.point.residual > now.target) | now.again) & now.alive & (now.num_steps < self.max_steps)

        def unsettled(now: _Progress) -> Bool[Array, ""]:
            more = (now.residual > tol) & (now.num_steps < self.max_steps)
            return now.alive & (more | jnp.isposinf(now.residual))  # infinite: not measured yet

        def sweep_and_measure(now: _Progress) -> _Progress:
            now = jax.lax.while_loop(sweeping, sweep, now)
            residual = _tree.norm(drift(now.point.u))
            # Where the guess was too low, half of what its ratio to the measurement asks for.
            missed = residual > tol
            target = jnp.where(missed, 0.5 * tol * now.point.residual / residual, now.target)
            alive = now.alive & jnp.isfinite(residual)
            return _Progress(now.point, now.memory, now.num_steps, target, residual, missed, alive)

        start, first = visit(u0), _tree.norm(drift(u0))
        one, no = jnp.ones((), jnp.int32), jnp.zeros((), bool)
        tol = jnp.maximum(self.tol, self.rtol * first)
        unmeasured = jnp.full_like(tol, jnp.inf)
        begin = _Progress(start, self.init(start), one, tol, unmeasured, no, jnp.isfinite(start.residual))
        end = jax.lax.while_loop(unsettled, sweep_and_measure, begin)
        u, residual = _tree.where(end.alive, (end.point.u, end.residual), (u0, first))
        return Solution(u, residual, end.num_steps, status(residual, jnp.where(end.alive, residual, jnp.inf), tol))


class Sweep(AbstractSweep):
    """Plain even-odd sweeps, `u_odd ← u_odd + damping · F_odd(u)`. On a chain they settle in about half the steps of a
    synchronous relaxation, without its cycles of period two."""

    tol: float = 1e-5
    max_steps: int = 500
    damping: float = 1.0
    rtol: float = 0.0

    def init(self, point: Halfway) -> None:
        return None

    def propose(self, point: Halfway, odd: Leaves, memory: None) -> Leaves:
        return [leaf + self.damping * change for leaf, change in zip(odd, point.change, strict=True)]

    def learn(self, old: tuple[Halfway, Leaves], new: tuple[Halfway, Leaves], memory: None) -> None:
        return None

    def forgives(self, memory: None) -> bool:
        return False


def _half(u: AnyState, parity: int) -> Leaves:
    leaves = jax.tree.leaves(u)
    return [leaf for index, leaf in enumerate(leaves) if (index % 2 if len(leaves) > 1 else 1) == parity]


def _replace(u: AnyState, parity: int, half: Leaves) -> AnyState:
    leaves, structure = jax.tree.flatten(u)
    new = iter(half)
    mine = [(index % 2 if len(leaves) > 1 else 1) == parity for index in range(len(leaves))]
    return jax.tree.unflatten(structure, [next(new) if own else leaf for own, leaf in zip(mine, leaves, strict=True)])
