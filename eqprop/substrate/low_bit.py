"""Weights of few levels that are trained in place: how often they jump between two levels, and what calms them.

A weight whose best value lies between two levels is pushed across the threshold from either side, and jumps for ever.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from eqprop.substrate.base import Number, Reciprocity, check_range
from eqprop.substrate.conductance import Quantised
from eqprop.substrate.write import AbstractWrite, WriteRule, is_device


def reversals(weights: Float[Array, "steps *shape"], levels: Quantised) -> Int[Array, "*shape"]:
    """How often each weight jumps to another level in the direction opposite to its last jump.

    **Arguments:** `weights`: nominal weights after each update. `levels`: their quantisation.
    """
    places = jnp.round(jax.vmap(levels.place)(weights))

    def step(last: Array, jump: Array) -> tuple[Array, Array]:
        return jnp.where(jump != 0, jump, last), last * jump < 0

    _, turned = jax.lax.scan(step, jnp.zeros_like(places[0]), jnp.sign(jnp.diff(places, axis=0)))
    return jnp.sum(turned, axis=0, dtype=jnp.int32)


def oscillation_fraction(
    weights: Float[Array, "steps *shape"], levels: Quantised, *, least: float = 0.02
) -> Float[Array, ""]:
    """The share of weights that turn back in more than a part `least` of the updates, as of `reversals`."""
    return jnp.mean(
        reversals(weights, levels).astype(weights.dtype) > least * (weights.shape[0] - 1), dtype=weights.dtype
    )


class FreezeConfident(AbstractWrite):
    """Only weights within `margin` of a threshold between two levels move, in units of the distance of two levels.

    A weight that is far from every threshold is confident of its level and keeps it, so that the rest is trained beside
    weights that no longer change; a margin of ½ freezes nothing. A frozen weight never moves again, as its place does
    not change. For the end of a training that has found its levels.

    Confidence-guided annealing, Liu et al. (arXiv 2302.02210), which uses margins of 0.003 to 0.01.
    """

    levels: Quantised
    margin: Number = 0.01

    def __check_init__(self):
        check_range(self, "margin", 0.0, 0.5)

    @property
    def reciprocity(self) -> Reciprocity:
        return "keeps"

    def __call__(self, change: Array, w: Array, *, chip: PRNGKeyArray, run: PRNGKeyArray) -> Array:
        del chip, run
        place = self.levels.place(w)
        return jnp.where(jnp.abs(place - jnp.floor(place) - 0.5) <= self.margin, change, 0.0)


class _Moved(NamedTuple):
    change: Array | None
    memory: tuple[Array | None, ...]


class Oscillation(NamedTuple):
    """What `freeze_oscillating` remembers of every weight; `None` for arrays that are no devices."""

    place: PyTree
    """The level of the last update."""
    direction: PyTree
    """The sign of the last jump, 0 before any."""
    frequency: PyTree
    """Running mean of the reversals."""
    average: PyTree
    """Running mean of the level."""
    frozen: PyTree

    def fraction(self, above: float = 0.02) -> Float[Array, ""]:
        """The share of weights that are frozen, or turn back more often than that."""
        pairs = zip(jax.tree.leaves(self.frequency), jax.tree.leaves(self.frozen), strict=True)
        return jnp.mean(jnp.concatenate([((f > above) | frozen).ravel() for f, frozen in pairs]), dtype=float)


def freeze_oscillating(levels: Quantised, *, threshold: float = 0.02, momentum: float = 0.01) -> WriteRule:
    """An optax transformation, after all others, that ends oscillations one by one. With `r = 1` where a weight turns
    back at an update,

        f ← (1 − momentum) f + momentum r,

    and a weight with `f > threshold` goes to the level nearest to its running mean, and stays there. The `state` of the
    transformation is an `Oscillation`.

    Iterative weight freezing, Nagel et al. (ICML 2022). A `threshold` of twice the momentum freezes at the third of
    reversals that follow close on each other; 1 freezes nothing, and only counts.

    **Arguments:** `levels`: the quantisation, which has to have a `limit`, as a frozen weight stands at a level.

    **Raises:** `ValueError` for numbers out of range, for a statistical scale, and in `update` without parameters.
    """
    if not (0 < threshold <= 1 and 0 < momentum < 1):
        raise ValueError(f"threshold is {threshold} and momentum {momentum}; expected them above 0, and below 1.")
    if levels.limit is None:
        raise ValueError("freeze_oscillating needs fixed levels, and limit=None moves them; give Quantised a limit.")

    def chosen(params: PyTree, value: Any) -> PyTree:
        return jax.tree.map_with_path(lambda path, w: value(w) if is_device(path) else None, params)

    def init(params: PyTree) -> Oscillation:
        place = lambda: chosen(params, lambda w: jnp.round(levels.place(w)))
        zero = lambda: chosen(params, jnp.zeros_like)
        return Oscillation(place(), zero(), zero(), place(), chosen(params, lambda w: jnp.zeros(w.shape, bool)))

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        del extra
        if params is None:
            raise ValueError("freeze_oscillating compares levels before and after: pass update(..., params).")

        def one(change: Any, w: Any, place: Any, direction: Any, frequency: Any, average: Any, frozen: Any) -> _Moved:
            if place is None:
                return _Moved(change, (None,) * 5)
            new = jnp.round(levels.place(w + change))
            jump = jnp.sign(new - place)
            turned = (jump * direction < 0).astype(w.dtype)
            frequency = jnp.where(frozen, frequency, (1 - momentum) * frequency + momentum * turned)
            average = jnp.where(frozen, average, (1 - momentum) * average + momentum * new)
            stops = ~frozen & (frequency > threshold)
            held = levels.at(jnp.round(average))
            change = jnp.where(frozen, 0.0, jnp.where(stops, held - w, change))
            new = jnp.where(frozen, place, jnp.where(stops, jnp.round(average), new))
            return _Moved(change, (new, jnp.where(jump != 0, jump, direction), frequency, average, frozen | stops))

        moved = jax.tree.map(one, updates, params, *state, is_leaf=lambda leaf: leaf is None)
        is_moved = lambda leaf: isinstance(leaf, _Moved)
        pick = lambda take: jax.tree.map(take, moved, is_leaf=is_moved)
        memories = [pick(lambda m, i=i: m.memory[i]) for i in range(5)]
        return pick(lambda m: m.change), Oscillation(*memories)

    return WriteRule(init, update)
