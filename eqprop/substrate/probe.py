"""Errors of the measurement: what is read of the rates after they have settled.

Real and imaginary part are two readings. The loop itself is not touched, so that nudges may be complex.
"""

import abc
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Int, PRNGKeyArray

from eqprop._tree import AnyState
from eqprop.substrate.base import (
    AbstractHarmless,
    Chip,
    Number,
    Stage,
    check_range,
    chip_key,
    clipped_normal,
    named,
)

Phase = int | Int[Array, ""]
"""0 is the free phase, 1 the first node of the stencil, and so on in its order."""


class AbstractProbe(AbstractHarmless):
    """A defect of the measured rates."""

    stage: ClassVar[Stage] = "measurement"

    @abc.abstractmethod
    def __call__(self, s: AnyState, *, phase: Phase, chip: PRNGKeyArray, run: PRNGKeyArray | None) -> AnyState:
        """The reading of `s` in one phase. `chip` fixes patterns; `run`, another one for every phase, draws noise.

        **Raises:** `ValueError` if noise is to be drawn without `run`.
        """


class Range(NamedTuple):
    """What a converter spans: numbers, or arrays that broadcast to a layer."""

    low: Any
    high: Any
    imaginary: Any
    """Half of the range of imaginary parts, which lies about 0."""


class AbstractADC(AbstractProbe):
    """A converter of `2^bits` levels over a range. The error is at most half a level within it, and a reading beyond it
    stands at its end."""

    bits: AbstractVar[int]
    dither: AbstractVar[float]
    samples: AbstractVar[int]

    @abc.abstractmethod
    def ranges(self, s: AnyState) -> list[Range]:
        """Of every layer, in the order of the leaves of `s`."""

    def __call__(self, s: AnyState, *, phase: Phase, chip: PRNGKeyArray, run: PRNGKeyArray | None) -> AnyState:
        del phase, chip

        def read(v: Array, key: PRNGKeyArray, imaginary: bool, own: Range) -> Array:
            low, high = (-own.imaginary, own.imaginary) if imaginary else (own.low, own.high)
            zero = 0.0 if imaginary else own.low  # a level stands at 0 in the imaginary part
            step = (high - low) / (2**self.bits - 1)
            noise = self.dither * step * jax.random.uniform(key, v.shape, v.dtype, -1.0, 1.0) if self.dither else 0
            return jnp.clip(zero + step * jnp.round((v + noise - zero) / step), low, high)

        own = self.ranges(s)
        if self.dither == 0:
            return _readings(read, s, jax.random.key(0), own)
        keys = jax.random.split(_needed(run, self), self.samples)
        many = jax.vmap(lambda key: _readings(read, s, key, own))(keys)
        return jax.tree.map(lambda v: jnp.mean(v, axis=0), many)


class ADC(AbstractADC):
    """A converter of `2^bits` levels from `low` to `high`; imaginary parts have the same range about 0. The error is
    at most half a level within the range. `dither`: uniform noise of that many levels either way, before each of
    `samples` conversions, which are averaged; ½ makes the average unbiased. `calibrate_range` finds ranges by layer.

    4 bits (oscillator Ising machines), 8 (BrainScaleS-2, aihwkit) to 12.
    """

    bits: int = eqx.field(static=True, default=8)
    low: float = eqx.field(static=True, default=0.0)
    high: float = eqx.field(static=True, default=1.0)
    dither: float = eqx.field(static=True, default=0.0)
    samples: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_converter(self)
        if not self.low < self.high:
            raise ValueError(f"ADC got low={self.low} and high={self.high}; expected low below high.")

    @property
    def step(self) -> float:
        """One level."""
        return (self.high - self.low) / (2**self.bits - 1)

    def ranges(self, s: AnyState) -> list[Range]:
        return [Range(self.low, self.high, 0.5 * (self.high - self.low)) for _ in jax.tree.leaves(s)]


class ReadoutNoise(AbstractProbe):
    """`s + σ/√samples · ξ`, fresh in every phase. It enters the error vector divided by `β`: what matters is `σ/β`.

    `sigma` 10⁻⁵ to 10⁻² of the range.
    """

    sigma: Number = 1e-3
    samples: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_range(self, "sigma")
        check_range(self, "samples", 1)

    def __call__(self, s: AnyState, *, phase: Phase, chip: PRNGKeyArray, run: PRNGKeyArray | None) -> AnyState:
        del phase, chip
        sigma = self.sigma / math.sqrt(self.samples)

        def read(v: Array, key: PRNGKeyArray, imaginary: bool) -> Array:
            return v + sigma * jax.random.normal(key, v.shape, v.dtype)

        return _readings(read, s, _needed(run, self))


class PhaseOffset(AbstractProbe):
    """An offset `σ E` of every neuron in some phases only: a second copy of the circuit, charge left on a switch.

    It is in all nudged phases, and in `alternate` ones if two arrays take turns. In all, it adds `σE/β` to a one-sided
    error vector and nothing to a centred one or to a circle, whose weights sum to zero; in turns, `σE/2β` to a centred
    one. 10⁻⁴ to 10⁻² of the range.
    """

    sigma: Number = 1e-3
    alternate: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_range(self, "sigma")

    def __call__(self, s: AnyState, *, phase: Phase, chip: PRNGKeyArray, run: PRNGKeyArray | None) -> AnyState:
        del run
        phase = jnp.asarray(phase)
        return _offset(s, self.sigma, phase % 2 if self.alternate else jnp.minimum(phase, 1), chip)


class DriftBetweenPhases(AbstractProbe):
    """An offset `rate · E` of every neuron that grows with each phase, as they are read one after the other: a centred
    error vector takes half of it over `β`. 10⁻⁵ to 10⁻³ of the range a phase."""

    rate: Number = 1e-4

    def __check_init__(self):
        check_range(self, "rate")

    def __call__(self, s: AnyState, *, phase: Phase, chip: PRNGKeyArray, run: PRNGKeyArray | None) -> AnyState:
        del run
        return _offset(s, self.rate, jnp.asarray(phase), chip)


class Measurement(eqx.Module):
    """Probes in the order in which the signal meets them, with the chip whose patterns they have."""

    probes: Mapping[str, AbstractProbe] = eqx.field(converter=OrderedDict)  # the order outlives compilation
    chip: Chip = 0
    gauges: Mapping[str, Callable[..., AnyState]] = eqx.field(default_factory=dict)
    """Known gains of the neurons, which what is read is divided by."""

    def __call__(self, s: AnyState, *, phase: Phase, key: PRNGKeyArray | None = None) -> AnyState:
        """The reading of the rates `s` of one example in one phase.

        **Arguments:** `key`: of this example in this run, the same for all its phases.
        """
        run = None if key is None else jax.random.fold_in(key, phase)
        for name, probe in self.probes.items():
            own = None if run is None else named(run, name)
            s = probe(s, phase=phase, chip=chip_key(self.chip, name), run=own)
        for name, gauge in self.gauges.items():
            s = jax.tree.map(lambda v, gain: v / gain.astype(v.dtype), s, gauge(s, key=chip_key(self.chip, name)))
        return s


def _readings(read: Callable[..., Array], s: AnyState, key: PRNGKeyArray, *others: Sequence[Any]) -> AnyState:
    """`read(values, key, imaginary, …)` of every layer, real and imaginary part apart, with what `others` have for that
    layer."""
    leaves, structure = jax.tree.flatten(s)

    def both(v: Array, key: PRNGKeyArray, *own: Any) -> Array:
        first, second = jax.random.split(key)
        if not jnp.iscomplexobj(v):
            return read(v, first, False, *own)
        return jax.lax.complex(read(v.real, first, False, *own), read(v.imag, second, True, *own))

    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [both(*each) for each in zip(leaves, keys, *others, strict=True)])


def _needed(run: PRNGKeyArray | None, part: AbstractProbe) -> PRNGKeyArray:
    """The key of a run.

    **Raises:** `ValueError` if there is none.
    """
    if run is None:
        raise ValueError(f"{type(part).__name__} draws noise: pass a key, as in respond(..., key=key).")
    return run


def _offset(s: AnyState, sigma: Number, times: Array, chip: PRNGKeyArray) -> AnyState:
    def one(path: tuple, v: Array) -> Array:
        pattern = clipped_normal(named(chip, jax.tree_util.keystr(path)), v)
        return v + (sigma * times.astype(pattern.dtype) * pattern).astype(v.dtype)

    return jax.tree.map_with_path(one, s)


def check_converter(part: AbstractADC) -> None:
    """**Raises:** `ValueError` for bits, dither or samples out of range."""
    check_range(part, "bits", 1, 24)
    check_range(part, "dither")
    check_range(part, "samples", 1)
