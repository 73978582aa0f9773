"""A batch as a queue of examples that can be resumed: none waits for the slowest, none starts again.

A relaxation of one example becomes a queue where `jax.vmap` meets it. All examples take their first steps together.
When a quarter of them is left, those go on in groups of an eighth of the batch, the furthest from its tolerance first.
An example that has settled is left as it is, so that each ends exactly as it would alone.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._solution import Solution
from eqprop._tree import AnyState, Drift

SHRINK, SMALLEST = 8, 4
"""How much smaller than the batch a group is, and the smallest one."""

STEPS = 4
"""Steps that a group takes before the next one is chosen."""

HEAVY = 64
"""Examples that bring more numbers than so many times their state, such as kernels of their own, are not regrouped."""


@runtime_checkable
class Resumable(Protocol):
    """What a queue needs of a relaxation (see `AbstractIteration`)."""

    def init(self, drift: Drift, u0: AnyState, blocks: Blocks) -> Any: ...
    def step(self, drift: Drift, now: Any, blocks: Blocks) -> Any: ...
    def unfinished(self, now: Any) -> Bool[Array, ""]: ...
    def solution(self, now: Any) -> Solution: ...


def relax(relaxation: Resumable, drift: Drift, u0: AnyState, blocks: Blocks) -> Solution:
    """Relax one example; where `jax.vmap` makes many of it, all of them as a queue."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), u0)
    constants, static = eqx.partition((relaxation, eqx.filter_closure_convert(drift, shapes)), eqx.is_array)

    @jax.custom_batching.custom_vmap
    def run(constants: PyTree, u0: AnyState) -> Solution:
        alone = jax.tree.map(lambda leaf: leaf[None], u0)
        solution = _queue(lambda _: eqx.combine(constants, static), (), alone, blocks)
        return jax.tree.map(lambda leaf: leaf[0], solution)

    @run.def_vmap
    def _(size: int, batched: Any, constants: PyTree, u0: AnyState) -> tuple[Solution, Any]:
        own, shared = eqx.partition(constants, batched[0])
        spread = lambda leaf, is_own: leaf if is_own else jnp.broadcast_to(leaf, (size, *leaf.shape))
        starts = jax.tree.map(spread, u0, batched[1])
        solution = _queue(lambda row: eqx.combine(row, shared, static), own, starts, blocks)
        return solution, jax.tree.map(lambda _: True, solution)

    return run(constants, u0)


def _queue(make: Callable[[Any], tuple[Resumable, Drift]], rows: PyTree, starts: AnyState, blocks: Blocks) -> Solution:
    def begin(row: Any, u0: AnyState) -> Any:
        relaxation, drift = make(row)
        return relaxation.init(drift, u0, blocks)

    def advance(row: Any, now: Any) -> Any:
        relaxation, drift = make(row)
        return _tree.where(relaxation.unfinished(now), relaxation.step(drift, now, blocks), now)

    def waiting(rows: PyTree, states: Any) -> Bool[Array, " rows"]:
        return jax.vmap(lambda row, now: make(row)[0].unfinished(now))(rows, states)

    def several(rows: PyTree, states: Any) -> Any:
        more = lambda carry: (carry[0] < STEPS) & jnp.any(waiting(rows, carry[1]))
        step = lambda carry: (carry[0] + 1, jax.vmap(advance)(rows, carry[1]))
        return jax.lax.while_loop(more, step, (0, states))[1]

    def next_group(size: int, states: Any) -> Any:
        urgency = jnp.where(waiting(rows, states), states.excess, -1.0)
        chosen: Int[Array, " group"] = jax.lax.top_k(urgency, size)[1]
        group, example = jax.tree.map(lambda leaf: leaf[chosen], (states, rows))
        return jax.tree.map(lambda old, new: old.at[chosen].set(new), states, several(example, group))

    states = jax.vmap(begin)(rows, starts)
    count = jax.tree.leaves(starts)[0].shape[0]
    group = max(SMALLEST, -(-count // SHRINK))
    light = _tree.size(rows) <= HEAVY * _tree.size(starts)
    left = 2 * group if light and count >= 2 * SMALLEST else 0
    more = lambda states: jnp.sum(waiting(rows, states)) > left
    states = jax.lax.while_loop(more, lambda states: jax.vmap(advance)(rows, states), states)
    if left:
        some = lambda states: jnp.any(waiting(rows, states))
        states = jax.lax.while_loop(some, lambda states: next_group(group, states), states)
    return jax.vmap(lambda row, now: make(row)[0].solution(now))(rows, states)
