"""Converters with ranges from the readings of a calibration batch."""

from collections import OrderedDict
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from eqprop._solution import RESULTS
from eqprop._tree import AnyState, is_concrete
from eqprop.estimator import FiniteNudge
from eqprop.estimator.base import summed
from eqprop.estimator.finite_nudge import relax_nodes
from eqprop.model import Model, checked
from eqprop.readout import Batch
from eqprop.substrate.probe import AbstractADC, AbstractProbe, Measurement, Range, check_converter
from eqprop.substrate.stack import Substrate
from eqprop.train import Trainer


class CalibratedADC(AbstractADC):
    """An `ADC` with a range for each layer or neuron, as `calibrate_range` finds them: `2^bits` levels from `low` to
    `high`, and for imaginary parts from `−imaginary` to `imaginary`.

    A reading within the range has an error of variance `step²/12`, `step = (high − low)/(2^bits − 1)`, where it is
    spread over many levels.
    """

    low: AnyState
    """A number for each layer, or one for each of its neurons; so are the others."""
    high: AnyState
    imaginary: AnyState
    bits: int = eqx.field(static=True, default=8)
    dither: float = eqx.field(static=True, default=0.0)
    samples: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        check_converter(self)

    @property
    def step(self) -> AnyState:
        """One level of the real part."""
        return jax.tree.map(lambda low, high: (high - low) / (2**self.bits - 1), self.low, self.high)

    def ranges(self, s: AnyState) -> list[Range]:
        if jax.tree.structure(s) != jax.tree.structure(self.low):
            raise ValueError(
                f"CalibratedADC has ranges of {jax.tree.structure(self.low)}, but reads {jax.tree.structure(s)}. "
                "Calibrate it on the network that it reads."
            )
        ends = zip(*map(jax.tree.leaves, (s, self.low, self.high, self.imaginary)), strict=True)
        return [Range(*(jnp.asarray(end, v.real.dtype) for end in own)) for v, *own in ends]


def calibrate_range(
    substrate: Substrate,
    trainer: Trainer,
    model: Model,
    batch: Batch,
    *,
    percentile: float = 99.98,
    by: Literal["layer", "neuron"] = "layer",
    narrowest: float = 1e-3,
    key: PRNGKeyArray | None = None,
) -> Substrate:
    """The substrate with the range of every converter set by what it reads on a calibration batch.

    The free phase and all nudged phases of the trainer's `FiniteNudge` are run on the device. The readings of all of
    them together, as they come to the converter through the parts before it, give its range: it holds the inner
    `percentile` per cent, and half of the rest is clipped at either end. A range is the same in all phases, so that
    their differences have no offset. Imaginary parts, which only nudges cause, have the range that holds as much of
    their absolute values. Weights that change want another calibration.

        device = calibrate_range(device, trainer, model, (x, y))
        trainer = trainer.on(device)

    The rule is that of Xiao et al. (2022), who keep 99.98 % of the values of each layer.

    **Arguments:**

    - `trainer`: its relaxation and estimator; its own substrate is not used.
    - `batch`: inputs and targets, which nudge.
    - `by`: one range for a layer, or one for each of its neurons.
    - `narrowest`: the least width of a range, in units of rates, as an amplifier before a converter has a largest gain.
        A neuron that does not move has this range.
    - `key`: of the noise of the readings.

    **Raises:** `ValueError` for a substrate without a converter, for an estimator other than `FiniteNudge`, for numbers
    out of range, and where the phases of all examples diverge.
    """
    if not 0 < percentile <= 100 or not narrowest > 0:
        raise ValueError(
            f"calibrate_range got percentile={percentile} and narrowest={narrowest}; expected a percentile above 0 and "
            "at most 100, and a width above 0."
        )
    if by not in ("layer", "neuron"):
        raise ValueError(f"calibrate_range got by={by!r}; expected one of layer, neuron.")
    if not any(isinstance(part, AbstractADC) for part in substrate.parts.values()):
        raise ValueError("calibrate_range sets ranges of converters, and this substrate has none: add an ADC.")
    keys = jax.random.split(jax.random.key(0) if key is None else key, 2)
    free, nudged = _settled(substrate, trainer, model, batch, keys[0])
    parts = OrderedDict(substrate.parts)
    before: OrderedDict[str, AbstractProbe] = OrderedDict()
    for name, part in substrate.parts.items():
        if isinstance(part, AbstractADC):
            seen = _read(Measurement(before, substrate.chip), free, nudged, keys[1])
            layers = zip(*map(jax.tree.leaves, seen), strict=True)
            ends = [_ends(still, moved, percentile, by == "neuron", narrowest) for still, moved in layers]
            low, high, imaginary = (jax.tree.unflatten(jax.tree.structure(free), e) for e in zip(*ends, strict=True))
            part = CalibratedADC(
                low=low, high=high, imaginary=imaginary, bits=part.bits, dither=part.dither, samples=part.samples
            )
            parts[name] = part
        if isinstance(part, AbstractProbe):
            before[name] = part
    return eqx.tree_at(lambda s: s.parts, substrate, parts)


def _settled(
    substrate: Substrate, trainer: Trainer, model: Model, batch: Batch, key: PRNGKeyArray
) -> tuple[AnyState, AnyState]:
    """The rates of the free phase and at the nodes of the nudged phases, along a leading axis of examples; NaN in those
    that diverged."""
    x, y = checked(model, batch)
    estimator = substrate.equip(trainer.estimator)
    if not isinstance(estimator, FiniteNudge):
        raise ValueError(
            f"calibrate_range runs the phases of a FiniteNudge, and the trainer has a {type(estimator).__name__}. Give "
            "it a trainer with a FiniteNudge that nudges as strongly."
        )
    relaxation = trainer.relaxation if substrate.flow is None else substrate.flow
    nudged_model = substrate.nudge(substrate.deploy(model))

    def one(x: Array, y: Array, key: PRNGKeyArray) -> tuple[AnyState, AnyState]:
        free_key, nudge_key = jax.random.split(key)
        example = nudged_model.at(x, y)
        field = example.field
        free = relaxation(field.drift, field.initial_state(), blocks=field.blocks, key=free_key)
        nudged = relax_nodes(estimator.stencil, estimator.relaxation, example, example.drift, free, nudge_key)
        fine = (free.result != RESULTS.diverged) & (summed(nudged)[1] != RESULTS.diverged)

        def kept(v: Array) -> Array:
            lost = complex(jnp.nan, jnp.nan) if jnp.iscomplexobj(v) else jnp.nan
            return jnp.where(fine, v, jnp.asarray(lost, v.dtype))

        states = field.rates(free.state), jax.vmap(field.rates)(nudged.state)
        return jax.tree.map(kept, states[0]), jax.tree.map(kept, states[1])

    return eqx.filter_vmap(one)(x, y, jax.random.split(key, x.shape[0]))


def _read(measure: Measurement, free: AnyState, nudged: AnyState, key: PRNGKeyArray) -> tuple[AnyState, AnyState]:
    """What is read of the free and the nudged phases of every example."""

    def one(free: AnyState, nudged: AnyState, key: PRNGKeyArray) -> tuple[AnyState, AnyState]:
        phases = 1 + jnp.arange(jax.tree.leaves(nudged)[0].shape[0])
        read = jax.vmap(lambda s, phase: measure(s, phase=phase, key=key))
        return measure(free, phase=0, key=key), read(nudged, phases)

    return jax.vmap(one)(free, nudged, jax.random.split(key, jax.tree.leaves(free)[0].shape[0]))


def _ends(
    free: Float[Array, "batch *layer"],
    nudged: Inexact[Array, "batch nodes *layer"],
    percentile: float,
    by_neuron: bool,
    narrowest: float,
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """The ends of a range, and half of the imaginary one."""
    axes = (0, 1) if by_neuron else None
    every = jnp.concatenate([free[:, None], nudged.real], axis=1)
    outer = 0.5 * (100.0 - percentile)
    low, high = jnp.nanpercentile(every, jnp.asarray([outer, 100.0 - outer]), axis=axes)
    if is_concrete(low) and bool(jnp.any(jnp.isnan(low))):
        raise ValueError("The phases of all examples of the calibration batch diverge. Take a network that settles.")
    middle, half = 0.5 * (low + high), jnp.maximum(0.5 * (high - low), 0.5 * narrowest)
    imaginary = jnp.nanpercentile(jnp.abs(nudged.imag), percentile, axis=axes)
    return middle - half, middle + half, jnp.maximum(imaginary, 0.5 * narrowest)
