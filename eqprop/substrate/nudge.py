"""Errors of the teaching current: what the output neurons get is not what the readout computes.

All of them stay analytic in the rates, so that nudges may be complex. Prediction and loss are the readout's own.
"""

import abc
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from eqprop._tree import AnyState
from eqprop.model import Model
from eqprop.readout import AbstractReadout, Target, is_class
from eqprop.substrate.base import AbstractHarmless, Number, Stage, check_range, clipped_normal
from eqprop.substrate.neurons import dense_biases


class AbstractNudge(AbstractHarmless):
    """A defect of the teaching current."""

    stage: ClassVar[Stage] = "nudge"

    @abc.abstractmethod
    def __call__(self, readout: AbstractReadout, size: int, *, key: PRNGKeyArray) -> AbstractReadout:
        """`readout` with the defect in its `teaching`; `size` is the number of neurons it nudges."""


class NudgeGain(AbstractNudge):
    """`g_k (1 + σ E_k)`, one gain an output neuron: the gradient of a re-weighted loss. 0.01 to 0.2."""

    sigma: Number = 0.05

    def __check_init__(self):
        check_range(self, "sigma")

    def __call__(self, readout: AbstractReadout, size: int, *, key: PRNGKeyArray) -> AbstractReadout:
        return _device(readout, gain=1 + self.sigma * _pattern(size, key))


class NudgeOffset(AbstractNudge):
    """`g_k + σ E_k`: for a squared error the gradient towards targets moved by `−σ E_k`. In units of the teaching
    current, 0.001 to 0.05."""

    sigma: Number = 0.01

    def __check_init__(self):
        check_range(self, "sigma")

    def __call__(self, readout: AbstractReadout, size: int, *, key: PRNGKeyArray) -> AbstractReadout:
        return _device(readout, offset=self.sigma * _pattern(size, key))


class NudgePhase(AbstractNudge):
    """A nudge that lags its reference by `φ_k = phi + spread · E_k` degrees: a demodulator keeps the part in phase,
    `g_k cos φ_k`. One phase for all is a common factor, harmless."""

    phi: Number = 0.0
    spread: Number = 0.0

    def __call__(self, readout: AbstractReadout, size: int, *, key: PRNGKeyArray) -> AbstractReadout:
        angle = jnp.radians(self.phi + self.spread * _pattern(size, key))
        return _device(readout, gain=jnp.cos(angle))


class NudgeDAC(AbstractNudge):
    """Targets from a converter of `2^bits` levels from `low` to `high`; it is the target that is rounded, and not the
    current, which depends on the rates. 4 to 12 bits."""

    bits: int = eqx.field(static=True, default=8)
    low: float = eqx.field(static=True, default=0.0)
    high: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        check_range(self, "bits", 1, 24)
        if not self.low < self.high:
            raise ValueError(f"NudgeDAC got low={self.low} and high={self.high}; expected low below high.")

    def __call__(self, readout: AbstractReadout, size: int, *, key: PRNGKeyArray) -> AbstractReadout:
        return ConvertedReadout(readout=readout, converter=self)  # pyright: ignore[reportCallIssue]

    def convert(self, targets: Float[Array, " classes"]) -> Float[Array, " classes"]:
        """The nearest level."""
        step = (self.high - self.low) / (2**self.bits - 1)
        return self.low + step * jnp.round((jnp.clip(targets, self.low, self.high) - self.low) / step)


class _AbstractDeviceReadout(AbstractReadout):
    readout: AbstractVar[AbstractReadout]

    @property
    def layers(self) -> tuple[str, ...]:  # pyright: ignore
        return self.readout.layers

    def device_kernel(self) -> Any:
        return self.readout.device_kernel()

    def predict(self, s: AnyState) -> Float[Array, " classes"]:
        return self.readout.predict(s)

    def loss(self, s: AnyState, y: Target) -> Scalar:
        return self.readout.loss(s, y)


class DeviceReadout(_AbstractDeviceReadout):
    """`gain ∘ teaching + offset`."""

    readout: AbstractReadout
    gain: Float[Array, " neurons"] | None
    offset: Float[Array, " neurons"] | None

    def teaching(self, s: AnyState, y: Target) -> AnyState:
        signal = self.readout.teaching(s, y)
        (layer,) = self.layers
        given = signal[layer]
        if self.gain is not None:
            given = given * self.gain.reshape(given.shape).astype(given.dtype)
        if self.offset is not None:
            given = given + self.offset.reshape(given.shape).astype(given.dtype)
        return {**signal, layer: given}


def _device(readout: AbstractReadout, gain: Array | None = None, offset: Array | None = None) -> DeviceReadout:
    return DeviceReadout(readout=readout, gain=gain, offset=offset)  # pyright: ignore[reportCallIssue]


class ConvertedReadout(_AbstractDeviceReadout):
    """Teaching towards converted targets."""

    readout: AbstractReadout
    converter: NudgeDAC

    def teaching(self, s: AnyState, y: Target) -> AnyState:
        scores = self.readout.predict(jax.tree.map(jnp.real, s))  # for their number: nudges may be complex
        dtype = scores.dtype
        targets = jax.nn.one_hot(y, scores.size, dtype=dtype) if is_class(y) else y.astype(dtype)
        return self.readout.teaching(s, self.converter.convert(targets))


def num_nudged(model: Model, part: eqx.Module) -> int:
    """The neurons of the layer that the readout nudges.

    **Raises:** `ValueError` if neither readout nor network tell, or if several layers are nudged.
    """
    layers, kernel = list(model.readout.layers), model.readout.device_kernel()
    if len(layers) > 1:
        raise ValueError(
            f"{type(part).__name__} spoils the teaching current of one layer, but {type(model.readout).__name__} "
            f"nudges {', '.join(layers)}. Use a readout of one layer, or leave this part out."
        )
    return math.prod(dense_biases(model.network, part)[layers[0]].shape) if kernel is None else kernel.shape[0]


def _pattern(size: int, key: PRNGKeyArray) -> Float[Array, " neurons"]:
    return clipped_normal(key, jnp.zeros(size))
