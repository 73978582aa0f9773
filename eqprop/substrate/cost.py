"""What an inference and a training example cost a device, in joules and seconds, by cause."""

from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from eqprop import _tree
from eqprop.device import AbstractSubstrate
from eqprop.estimator import AbstractEstimator, AsymmetricNudge
from eqprop.homeostasis import AbstractHomeostasis, ForwardHomeostasis, SkewHomeostasis
from eqprop.model import Model, checked
from eqprop.readout import Batch
from eqprop.substrate.base import AbstractImperfection, Number
from eqprop.substrate.conduction import circuit_of, unknown
from eqprop.substrate.dynamics import DeviceFlow
from eqprop.substrate.kernels import kernels_of
from eqprop.substrate.nudge import NudgeDAC
from eqprop.substrate.phases import Phases, Schedule, phases_of, schedule, unphysical
from eqprop.substrate.probe import AbstractADC
from eqprop.substrate.technology import Technology
from eqprop.substrate.write import AbstractWrite, asked, count_pulses
from eqprop.train import Trainer

Amount = Number | Float[Array, ""]


class Expense(eqx.Module):
    """What one example costs."""

    joules: dict[str, Float[Array, ""]]
    """By cause: `swing`, `conduction`, `amplifiers`, `converters`, and of a training example `homeostasis` and
    `writes`."""
    seconds: dict[str, Float[Array, ""]]
    """By cause: `settling`, `converters`, and of a training example `homeostasis` and `writes`."""

    @property
    def energy(self) -> Float[Array, ""]:
        """All joules."""
        return jnp.asarray(sum(self.joules.values()))

    @property
    def time(self) -> Float[Array, ""]:
        """All seconds: what has different causes follows each other."""
        return jnp.asarray(sum(self.seconds.values()))


class Cost(eqx.Module):
    """Energy and time of an inference and of a training example, means over a batch."""

    inference: Expense
    training: Expense
    reasons: tuple[str, ...] = eqx.field(static=True)
    """Why some of it is not a number; empty where all of it is."""

    def describe(self) -> str:
        """The causes and their sums, for people."""
        lines = []
        for name, expense in (("inference", self.inference), ("training example", self.training)):
            for unit, parts, total in (("J", expense.joules, expense.energy), ("s", expense.seconds, expense.time)):
                causes = ", ".join(f"{cause} {float(value):.3g}" for cause, value in parts.items())
                lines.append(f"{name}: {float(total):.3g} {unit} ({causes})")
        return "\n".join([*lines, *(f"not a number: {reason}" for reason in self.reasons)])


class _Counts(NamedTuple):
    """What a model is made of."""

    neurons: int
    read: int
    """Neurons of the layers that are read."""
    inputs: int
    weights: int
    batch: int


class _Work(NamedTuple):
    """What a device does for one example."""

    moves: Amount = 0.0
    """Squares of moves of nodes out and back, in units of rates."""
    settling: Amount = 0.0
    """Time constants."""
    conduction: Amount = 0.0
    """Watts times time constants."""
    amplified: Amount = 0.0
    """Amplifiers times time constants."""
    readings: float = 0.0
    """Neurons read, each by as many conversions as a reading takes."""
    read_outs: float = 0.0
    """Of those, how many follow each other in time of their own."""
    inputs: float = 0.0
    """Conversions to volts of inputs and noise."""
    nudges: float = 0.0
    """Conversions to volts of targets."""
    drives: float = 0.0
    """Of both, how many follow each other."""


def cost(
    technology: Technology,
    parts: Mapping[str, AbstractImperfection],
    substrate: AbstractSubstrate,
    trainer: Trainer,
    model: Model,
    batch: Batch,
    *,
    optimiser_state: PyTree = None,
    key: PRNGKeyArray | None = None,
) -> Cost:
    """Energy and time of an inference and of a training example, as `Substrate.cost` says."""
    x, y = checked(model, batch)
    key = jax.random.key(0) if key is None else key
    trainer = trainer.on(substrate)
    relaxation = trainer.relaxation if substrate.flow is None else substrate.flow
    estimator, device = substrate.equip(trainer.estimator), trainer.deployed(model)
    nudged = substrate.nudge(device)

    def one(x: Array, y: Array, key: PRNGKeyArray) -> Phases:
        return phases_of(technology, parts, nudged, x, y, relaxation, estimator, key)

    every = eqx.filter_vmap(one)(x, y, jax.random.split(key, x.shape[0]))
    mean = jax.tree.map(lambda values: jnp.mean(values, axis=0), every)
    state = jax.eval_shape(lambda x: device.network.at(x).initial_state(), x[0])
    counts = _Counts(
        neurons=_tree.size(state),
        read=sum(state[name].size for name in device.readout.layers),
        inputs=x[0].size,
        weights=sum(w.size for w in kernels_of(device).values()),
        batch=x.shape[0],
    )
    averaged = relaxation.samples if isinstance(relaxation, DeviceFlow) else 1
    converters = _converters(technology, parts)
    circuit = circuit_of(device.network)
    tau = technology.time_constant(None if circuit is None else circuit.siemens)
    charge = technology.farads * (technology.volts**2 if circuit is None else 1.0)

    def expense(work: _Work) -> Expense:
        return _expense(technology, converters, work, tau, charge)

    training = expense(_training(mean, counts, estimator, averaged))
    if trainer.homeostasis is not None:
        probed = expense(_probing(mean, counts, trainer.homeostasis))
        training.joules["homeostasis"], training.seconds["homeostasis"] = probed.energy, probed.time
    pulses = _pulses(parts, trainer, model, (x, y), optimiser_state, key) / counts.batch
    training.joules["writes"] = jnp.asarray(pulses * technology.pulse_joules)
    training.seconds["writes"] = jnp.asarray(technology.write_seconds(pulses))
    reasons = [*unphysical(relaxation, estimator), unknown(device.network)]
    return Cost(expense(_inference(mean, counts, averaged)), training, tuple(filter(None, dict.fromkeys(reasons))))


def _inference(phases: Phases, counts: _Counts, averaged: int) -> _Work:
    """A free phase, and a read-out of the layers that are read."""
    return _Work(
        moves=phases.free_moves,
        settling=phases.free,
        conduction=phases.watts * phases.free,
        amplified=counts.neurons * phases.free,
        readings=counts.read * averaged,
        read_outs=1,
        inputs=counts.inputs,
        drives=1,
    )


def _training(phases: Phases, counts: _Counts, estimator: AbstractEstimator, averaged: int) -> _Work:
    """A free phase where the estimator needs one, all nudged phases, and read-outs of all neurons in each of them."""
    plan: Schedule = schedule(estimator)
    first, quadratures = int(estimator.needs_free_phase), 2 if estimator.complex_nudges else 1
    free, nudged = phases.free * first, phases.nudged
    # AsymEP holds the free state of every neuron, and has two more amplifiers at each, of A and of its transpose.
    holds = isinstance(estimator, AsymmetricNudge)
    averaged = 1 if plan.sampled else averaged
    return _Work(
        moves=phases.free_moves + phases.nudged_moves,
        settling=free + nudged,
        conduction=phases.watts * (free + nudged) + phases.extra_watts * nudged,
        amplified=counts.neurons * (free + quadratures * (3 if holds else 1) * nudged),
        readings=counts.neurons * averaged * (first + quadratures * plan.readings),
        read_outs=first + (1 if plan.sampled else plan.readings),
        inputs=counts.inputs + counts.neurons * holds,
        nudges=counts.read * quadratures * plan.drives,
        drives=1 + holds + (0 if plan.sampled else plan.drives),
    )


def _probing(phases: Phases, counts: _Counts, homeostasis: AbstractHomeostasis) -> _Work:
    """Two products of the Jacobian a probe, of noise that is put on the neurons, and read after a time constant. The
    closed form reads every weight once a batch."""
    if isinstance(homeostasis, ForwardHomeostasis | SkewHomeostasis):
        products = 2 * homeostasis.num_probes * homeostasis.share
        return _Work(
            settling=products,
            conduction=phases.watts * products,
            amplified=counts.neurons * products,
            readings=counts.neurons * products,
            read_outs=products,
            inputs=counts.neurons * products,
            drives=products,
        )
    readings = counts.weights / counts.batch
    return _Work(readings=readings, read_outs=readings / counts.neurons)


def _expense(
    technology: Technology, converters: tuple[int, int, int], work: _Work, tau: Amount, charge: Amount
) -> Expense:
    bits, samples, nudge_bits = converters
    read = work.readings * samples * technology.adc_joules(bits)
    written = work.inputs * technology.dac_joules(technology.dac_bits) + work.nudges * technology.dac_joules(nudge_bits)
    reading = samples * technology.neurons_per_adc * technology.adc_seconds
    joules = {
        "swing": charge * work.moves,
        "conduction": tau * work.conduction,
        "amplifiers": technology.amplifier_watts * tau * work.amplified,
        "converters": read + written,
    }
    seconds = {
        "settling": tau * work.settling,
        "converters": work.read_outs * reading + work.drives * technology.dac_seconds,
    }
    arrays = lambda amounts: {cause: jnp.asarray(amount, float) for cause, amount in amounts.items()}
    return Expense(arrays(joules), arrays(seconds))


def _converters(technology: Technology, parts: Mapping[str, AbstractImperfection]) -> tuple[int, int, int]:
    """Bits and conversions of a reading, and bits of a target."""
    adcs = [(part.bits, part.samples) for part in parts.values() if isinstance(part, AbstractADC)]
    dacs = [part.bits for part in parts.values() if isinstance(part, NudgeDAC)]
    bits, samples = adcs[-1] if adcs else (technology.adc_bits, 1)
    return bits, samples, dacs[-1] if dacs else technology.dac_bits


def _pulses(
    parts: Mapping[str, AbstractImperfection],
    trainer: Trainer,
    model: Model,
    batch: Batch,
    optimiser_state: PyTree,
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    """How many pulses the update of a batch takes, in all."""
    rules = [part for part in parts.values() if isinstance(part, AbstractWrite)]
    gradient, measured = trainer.gradient(model, batch, key=key)
    params = eqx.filter(model, eqx.is_inexact_array)
    state = trainer.optimiser.init(params) if optimiser_state is None else optimiser_state
    if optimiser_state is not None and rules:
        state = optimiser_state[0]  # the writes are the second of a chain
    return count_pulses(rules, asked(trainer.optimiser, state, gradient, params, measured["loss"], key))
