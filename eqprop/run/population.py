"""A population: networks of several seeds, trained as one compiled program."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array
from omegaconf import DictConfig

from eqprop import Substrate, Trainer
from eqprop.run.build import own_chips

T = TypeVar("T")


def population_of(members: Sequence[T]) -> T:
    """Trees of one structure as one, whose arrays have a leading axis of members."""
    arrays = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(eqx.filter(one, eqx.is_array) for one in members))
    return eqx.combine(arrays, eqx.filter(members[0], eqx.is_array, inverse=True))


def over_members(cfg: DictConfig, trainer: Trainer, function: Callable[..., T]) -> Callable[..., T]:
    """`function(trainer, state, *rest)` as a function of the state of a population and the rest, which all members
    share. With `substrate.chip=member` each has a trainer on the chip of its seed."""
    # A lone run is not a population of one: a batched kernel would turn convolutions into grouped ones.
    if cfg.population == 1:
        return functools.partial(function, trainer)

    def member(chip: Array | None, state: Any, rest: tuple) -> T:
        if chip is None or not isinstance(trainer.substrate, Substrate):
            return function(trainer, state, *rest)
        return function(trainer.on(trainer.substrate.with_chip(chip)), state, *rest)

    chips = cfg.seed + jnp.arange(cfg.population) if own_chips(cfg) else None
    lifted = eqx.filter_vmap(member, in_axes=(eqx.if_array(0), eqx.if_array(0), None))
    return lambda state, *rest: lifted(chips, state, rest)
