"""Block sweeps: layers see others that have already answered in the same step."""

import abc
from typing import Any, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Inexact, PyTree

from eqprop._blocks import Blocks, Order
from eqprop._tree import AnyState, Drift, is_concrete
from eqprop.relaxation.base import AbstractIteration, Iterate, check_damping

Leaves = list[Inexact[Array, "..."]]
"""Some layers of a state, in the order of their block."""


class Visited(eqx.Module):
    """A state of which all blocks but the first have just answered: all there is to know about a sweep."""

    u: AnyState
    change: Leaves
    """The drift of the first block."""


class AbstractSweep(AbstractIteration):
    """A sweep goes through the blocks of a state and moves each by its drift at the present state,

        u_b ← u_b + damping · F_b(u),      b = 1, 2, …,

    the first block as `propose` says. A step is `every` sweeps and a look at the residual.

    The drift of each block is evaluated once a sweep and the compiler removes the rest, so that a sweep costs one
    evaluation. Where blocks are independent, as the two of a chain, a block that has just been visited has no drift
    left, and the residual of two blocks comes at no cost.
    """

    damping: AbstractVar[float]
    every: AbstractVar[int]
    """Sweeps between two looks at the residual."""
    order: AbstractVar[Order]
    """`alternate` visits the blocks of the network, the two halves of a chain. `forward` visits layer by layer from the
    input, a feedforward pass first; `backward` towards it, as a nudge spreads."""

    def __check_init__(self):
        check_damping(self.damping)
        if not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every is {self.every}; expected a number of sweeps, 1 or more.")
        if self.order not in get_args(Order):
            raise ValueError(f"order is {self.order!r}; expected one of {', '.join(get_args(Order))}.")

    @abc.abstractmethod
    def begin(self, first: Leaves) -> PyTree:
        """The memory of the method, of fixed shapes."""

    @abc.abstractmethod
    def propose(self, point: Visited, first: Leaves, memory: Any) -> Leaves:
        """The next values of the first block."""

    @abc.abstractmethod
    def accept(self, old: Visited, new: Visited, proposed: tuple[Leaves, Leaves], memory: Any) -> tuple[Visited, Any]:
        """The point to go on from and the memory, after a sweep from `old` to `new`; `proposed` are the first block
        before and after it."""

    def init(self, drift: Drift, u0: AnyState, blocks: Blocks) -> Iterate:
        change = _leaves(drift(u0), blocks.ordered(self.order).order[0])
        unmeasured = jnp.asarray(jnp.inf, change[0].real.dtype)
        memory = change, self.begin(change)
        return Iterate(u0, u0, unmeasured, unmeasured, jnp.zeros((), jnp.int32), memory)

    def step(self, drift: Drift, now: Iterate, blocks: Blocks) -> Iterate:
        blocks = blocks.ordered(self.order)

        def sweep(_: Any, carry: tuple[Visited, Any]) -> tuple[Visited, Any]:
            point, memory = carry
            first = _leaves(point.u, blocks.order[0])
            proposed = self.propose(point, first, memory)
            new = self._visit(drift, _replace(point.u, blocks.order[0], proposed), blocks)
            return self.accept(point, new, (first, proposed), memory)

        begin = Visited(now.u, now.memory[0]), now.memory[1]
        point, memory = jax.lax.fori_loop(0, self.every, sweep, begin)
        left = dict(zip(blocks.order[0], point.change, strict=True))
        # Of independent blocks the last one has no drift left, unless it was damped.
        undamped = is_concrete(self.damping) and self.damping == 1
        others = blocks.order[1:-1] if blocks.independent and undamped else blocks.order[1:]
        if others:
            leaves = jax.tree.leaves(drift(point.u))
            left |= {leaf: leaves[leaf] for block in others for leaf in block}
        residual, excess = self.measure(point.u, now.start, left)
        return Iterate(point.u, now.start, residual, excess, now.num_steps + self.every, (point.change, memory))

    def _visit(self, drift: Drift, u: AnyState, blocks: Blocks) -> Visited:
        for block in blocks.order[1:]:
            old, change = _leaves(u, block), _leaves(drift(u), block)
            u = _replace(u, block, [v + self.damping * f for v, f in zip(old, change, strict=True)])
        return Visited(u, _leaves(drift(u), blocks.order[0]))


class Sweep(AbstractSweep):
    """Plain sweeps. On a chain they settle in about half the steps of a synchronous relaxation, without its cycles of
    period two."""

    tol: float = 1e-5
    max_steps: int = 500
    damping: float = 1.0
    rtol: float = 1e-2
    every: int = eqx.field(static=True, default=2)
    order: Order = eqx.field(static=True, default="alternate")

    def begin(self, first: Leaves) -> None:
        return None

    def propose(self, point: Visited, first: Leaves, memory: None) -> Leaves:
        return [leaf + self.damping * change for leaf, change in zip(first, point.change, strict=True)]

    def accept(self, old: Visited, new: Visited, proposed: tuple[Leaves, Leaves], memory: None) -> tuple[Visited, None]:
        return new, None


def _leaves(u: AnyState, block: tuple[int, ...]) -> Leaves:
    leaves = jax.tree.leaves(u)
    return [leaves[index] for index in block]


def _replace(u: AnyState, block: tuple[int, ...], values: Leaves) -> AnyState:
    leaves, structure = jax.tree.flatten(u)
    for index, value in zip(block, values, strict=True):
        leaves[index] = value
    return jax.tree.unflatten(structure, leaves)
