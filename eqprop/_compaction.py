"""Batches in which no example waits for the slowest."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from eqprop._solution import RESULTS

SHRINK, SMALLEST = 4, 4


def compacted(
    relax: Callable[[Any, int, int], Any],
    examples: PyTree,
    *,
    patience: int,
    max_steps: int,
    carry_on: Callable[[Any, Any], Any],
    spent: int = 0,
) -> Any:
    """Relax a batch for `patience` steps in all, then those of it that have not settled in groups of a quarter of the
    batch, with four times the patience, and so on. Every example ends as it would alone.

    **Arguments:**

    - `relax`: `(example, budget, spent) ↦` what one example reaches by `budget` steps, of which it has done `spent`: a
        `Solution` or a `Response`.
    - `examples`: with a leading axis.
    - `max_steps`: the whole budget of an example.
    - `carry_on`: from examples and what they reached to the examples that the next groups begin with.
    """
    size = jax.tree.leaves(examples)[0].shape[0]
    group = -(-size // SHRINK)
    last = patience >= max_steps or group < SMALLEST
    budget = max_steps if last else patience
    first = eqx.filter_vmap(lambda example: relax(example, budget, spent))(examples)
    if last:
        return first
    waiting = first.result == RESULTS.max_steps_reached
    order, count = jnp.argsort(~waiting, stable=True), jnp.sum(waiting)

    def work_off(state: tuple[Array, Any]) -> tuple[Array, Any]:
        done, reached = state
        slots = done + jnp.arange(group)
        rows = order[jnp.minimum(slots, size - 1)]
        chosen, so_far = jax.tree.map(lambda leaf: leaf[rows], (examples, reached))
        more = compacted(
            relax,
            carry_on(chosen, so_far),
            patience=SHRINK * patience,
            max_steps=max_steps,
            carry_on=carry_on,
            spent=budget,
        )
        more = eqx.tree_at(lambda r: r.num_steps, more, so_far.num_steps + more.num_steps)
        rows = jnp.where(slots < count, rows, size)  # beyond the last one: dropped
        return done + group, jax.tree.map(lambda old, new: old.at[rows].set(new, mode="drop"), reached, more)

    _, reached = jax.lax.while_loop(lambda state: state[0] < count, work_off, (jnp.zeros_like(count), first))
    return reached
