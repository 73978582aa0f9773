"""What an imperfection of a device is: where it acts, and what it does to the physics that learning relies on."""

import abc
import zlib
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractClassVar
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqprop._tree import is_concrete

Stage = Literal["parameters", "dynamics", "nudge", "measurement", "update"]
"""Where a device departs from its model, in the order in which a training step passes through them."""

Reciprocity = Literal["keeps", "gauge", "breaks", "none"]
"""What a defect does to `A = Aᵀ`: keeps it; makes `A` diagonally similar to a symmetric matrix, which known gains undo;
breaks it beyond repair by gains; or does not touch `A` at all."""

Number = float | int | Float[Array, ""]
"""A setting of a defect: a number, or an array where one program serves many."""

Chip = int | Int[Array, ""]
"""The number of a chip: the seed of all its fixed patterns."""


class AbstractImperfection(eqx.Module):
    """One defect of a device. Its fixed pattern comes from a chip's key, its noise from a run's key; the two never
    mix."""

    stage: AbstractClassVar[Stage]
    holomorphic: AbstractClassVar[bool]
    """Whether nudges may still be complex."""
    moves_fixed_point: AbstractClassVar[bool]
    """Whether the free fixed point is another one with the defect than without."""

    @property
    @abc.abstractmethod
    def reciprocity(self) -> Reciprocity:
        """What the defect does to the symmetry that equilibrium propagation relies on."""

    @property
    def commutes_with_gains(self) -> bool:
        """Whether the defect only multiplies weights by factors of its own, so that gains before it stay gains."""
        return False

    def note(self) -> str:
        """What a reader of the stack should be told about these settings; empty if nothing."""
        return ""


class AbstractHarmless(AbstractImperfection):
    """A defect that leaves both `A` and the free fixed point alone: of the motion, the nudge or the measurement."""

    holomorphic: ClassVar[bool] = True
    moves_fixed_point: ClassVar[bool] = False

    @property
    def reciprocity(self) -> Reciprocity:
        return "none"


def named(key: PRNGKeyArray, name: str | tuple[str, ...]) -> PRNGKeyArray:
    """The key that belongs to `name`, a word or an edge, whatever other names there are."""
    text = name if isinstance(name, str) else "-".join(name)
    return jax.random.fold_in(key, jnp.uint32(zlib.crc32(text.encode())))


def chip_key(chip: Chip, part: str) -> PRNGKeyArray:
    """The key of the fixed pattern of one part of a chip. Stacking another part does not redraw it, and no key of a
    run with the same seed equals it."""
    return named(named(jax.random.key(chip), "chip"), part)


def clipped_normal(key: PRNGKeyArray, like: Array, clip: Number = 2.5) -> Array:
    """Standard normal numbers, real, in the shape and precision of `like`; those beyond `± clip` stand at it, as a
    foundry's test rejects no device but bounds its spread."""
    return jnp.clip(jax.random.normal(key, like.shape, like.real.dtype), -clip, clip)


def lognormal(key: PRNGKeyArray, like: Array, sigma: Number, clip: Number = 2.5) -> Array:
    """`exp(σE − σ²/2)`, of mean 1 but for the clip: positive factors in the shape and precision of `like`."""
    return jnp.exp(sigma * clipped_normal(key, like, clip) - 0.5 * sigma**2)


def check_range(part: eqx.Module, name: str, low: float | int = 0.0, high: float | int = float("inf")) -> None:
    """**Raises:** `ValueError` for a number of `part` that is not within `[low, high]`; one that is traced passes."""
    value = getattr(part, name)
    if is_concrete(value) and not np.all((low <= np.asarray(value)) & (np.asarray(value) <= high)):
        expected = f"from {low:g} to {high:g}" if high < float("inf") else f"of at least {low:g}"
        raise ValueError(f"{type(part).__name__} got {name}={value}; expected a number {expected}.")


def check_choice(part: eqx.Module, name: str, choices: tuple[str, ...]) -> None:
    """**Raises:** `ValueError` for a word that is none of `choices`."""
    if getattr(part, name) not in choices:
        raise ValueError(
            f"{type(part).__name__} got {name}={getattr(part, name)!r}; expected one of {', '.join(choices)}."
        )
