"""Ranges of converters from readings: percentiles, errors of `step²/12`, error vectors through a coarse converter."""

# Attributes of the network that a model happens to have, and settings by name:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop
from eqprop.substrate import ADC, CalibratedADC, Mismatch, PhaseOffset, ReadoutNoise, Substrate, calibrate_range
from helpers import SETTLE, flat_batch, free_phase, gap, problem, respond, scaled

BETA, MANY = 0.5, 600
LAYERS = {"l1": 5, "l2": 4, "out": 3}


@functools.cache
def case():
    """A network with many examples, which do not saturate it, and its rates in the free phase and at both nodes of a
    centred nudge."""
    p = problem("symmetric")
    biases = jax.tree.map(lambda b: jnp.full_like(b, 0.5), p.model.network.biases)  # where the slope is largest
    network = eqx.tree_at(lambda n: n.biases, scaled(p.model.network, 0.4), biases)
    model = eqprop.Model(network, p.model.readout)
    x_key, y_key = jax.random.split(jax.random.key(2))
    x = 0.5 * jax.random.normal(x_key, (MANY, 6))
    y = jax.nn.one_hot(jax.random.randint(y_key, (MANY,), 0, 3), 3, dtype=float)
    free = free_phase(model, x)

    @eqx.filter_jit
    @eqx.filter_vmap
    def nudged(x, y, u):
        example = model.at(x, y)
        at = lambda beta: SETTLE(lambda u: example.drift(u, beta), u).state
        return [example.field.rates(u) for u in (u, at(BETA), at(-BETA))]

    return model, x, y, free, nudged(x, y, free.state)


def trainer(stencil=None, estimator=None):
    stencil = eqprop.centred(BETA) if stencil is None else stencil
    nudge = eqprop.FiniteNudge(stencil=stencil, relaxation=SETTLE)
    return eqprop.Trainer(SETTLE, nudge if estimator is None else estimator, optax.sgd(0.1))


@eqx.filter_jit
def calibrated(device, trainer, model, batch, percentile, by="layer", **settings):
    return calibrate_range(device, trainer, model, batch, percentile=percentile, by=by, **settings)


def seen(layer):
    """What a converter reads of a layer: examples, phases, neurons."""
    return np.stack([np.asarray(phase[layer]) for phase in case()[4]], axis=1)


def read(adc, s):
    return adc(s, phase=0, chip=jax.random.key(0), run=None)


@pytest.mark.parametrize("by", ["layer", "neuron"])
@pytest.mark.parametrize("percentile", [100.0, 99.0, 80.0])
def test_the_range_holds_the_percentile(percentile, by):
    """Half of the rest lies beyond either end, by a sort of the readings, to one reading."""
    model, x, y, *_ = case()
    device = calibrated(Substrate(adc=ADC(8)), trainer(), model, (x, y), percentile, by)
    adc = device.parts["adc"]
    assert isinstance(adc, CalibratedADC) and adc.bits == 8
    for layer, size in LAYERS.items():
        values = seen(layer).reshape(-1, size if by == "neuron" else 1)
        low, high = (np.atleast_1d(np.asarray(end[layer])) for end in (adc.low, adc.high))
        assert low.size == values.shape[1]
        for outside in (values < low - 1e-12, values > high + 1e-12):
            assert np.abs(np.sum(outside, axis=0) - 0.005 * (100 - percentile) * len(values)).max() <= 1
        if percentile == 100:
            assert gap(low, values.min(axis=0)) < 1e-12 and gap(high, values.max(axis=0)) < 1e-12


@pytest.mark.parametrize("by", ["layer", "neuron"])
def test_the_error_of_a_reading(by):
    """Of variance `step²/12` within the range, with the step of the calibrated range, within four standard errors; a
    uniform error has `√(4/5n)` of its own, and readings of a neuron in several phases are not independent. Beyond the
    range a reading stands at its end."""
    model, x, y, *_, phases = case()
    device = calibrated(Substrate(adc=ADC(7)), trainer(), model, (x, y), 90.0, by)
    adc = device.parts["adc"]
    found = [eqx.filter_jit(jax.vmap(lambda s: read(adc, s)))(s) for s in phases]
    errors = []
    for layer in LAYERS:
        low, high, step = (np.asarray(tree[layer]) for tree in (adc.low, adc.high, adc.step))
        for phase, given in zip(found, phases, strict=True):
            s, error = np.asarray(given[layer]), np.asarray(phase[layer] - given[layer])
            inside = (s >= low) & (s <= high)
            assert np.abs(phase[layer] - np.clip(s, low, high))[~inside].max(initial=0.0) < 1e-12
            assert (np.abs(error) / step)[inside].max() <= 0.5 + 1e-9
            errors.append((error / step)[inside])
    variance, n = np.mean(np.concatenate(errors) ** 2), sum(e.size for e in errors) / len(phases)
    assert abs(12 * variance - 1) < 4 * math.sqrt(0.8 / n)


def rms(adc, stencil=None):
    """Of what a converter adds to the error vectors of all examples, and the error vectors without it."""
    model, x, y, free, _ = case()
    plain = eqprop.FiniteNudge(stencil=eqprop.centred(BETA) if stencil is None else stencil, relaxation=SETTLE)
    with_, without = (
        np.asarray(flat_batch(respond(e, model, x, y, free).payload)) for e in (Substrate(a=adc).equip(plain), plain)
    )
    return math.sqrt(np.mean((with_ - without) ** 2)), without


def remade(adc, low, high):
    """The converter with other ranges."""
    return eqx.tree_at(lambda adc: (adc.low, adc.high), adc, (low, high))


def moved(adc, by):
    """The ends of ranges, by a part of a step further up."""
    return (jax.tree.map(lambda end, step: end + by * step, ends, adc.step) for ends in (adc.low, adc.high))


def test_a_calibrated_converter_against_a_wide_one():
    """Six bits, over the calibrated range and over ten times that. The difference `d` of two readings that lie anywhere
    between two levels is off by `step² f (1 − f)` in the mean square, `f` being the fraction of `d/step`, so that the
    factor between the two converters is known. It is 10 where `f` is anything and less here, where a step of the wide
    one is more than the difference."""
    model, x, y, *_ = case()
    fine = calibrated(Substrate(adc=ADC(6)), trainer(), model, (x, y), 100.0, "neuron").parts["adc"]
    spread = lambda tree, other: jax.tree.map(lambda a, b: a + 9 * (a - b) / 2, tree, other)
    wide = remade(fine, spread(fine.low, fine.high), spread(fine.high, fine.low))
    assert gap(wide.step, jax.tree.map(lambda step: 10 * step, fine.step)) < 1e-12
    found, expected = [], []
    for adc in (fine, wide):
        shifts = np.arange(16) / 16 - 0.5  # of a step, so that readings in clusters lie anywhere as well
        placed = [remade(adc, *moved(adc, by)) for by in shifts]
        errors, (delta, *_) = zip(*map(rms, placed), strict=True)
        step = np.concatenate([np.asarray(adc.step[layer]) for layer in LAYERS])
        fraction = np.mod(np.abs(delta) * 2 * BETA / step, 1.0)
        found.append(math.sqrt(np.mean(np.square(errors))))
        expected.append(math.sqrt(np.mean(step**2 * fraction * (1 - fraction))) / (2 * BETA))
    assert np.abs(np.asarray(found) / expected - 1).max() < 0.02
    assert found[1] / found[0] == pytest.approx(expected[1] / expected[0], rel=0.02)
    assert found[1] > 5 * found[0]


def test_imaginary_parts_have_a_range_of_their_own():
    """On a circle, the largest imaginary part at its nodes. Over that range an error vector is better than over one of
    the swing."""
    model, x, y, free, _ = case()
    circle = eqprop.cauchy(0.1, 4)
    adc = calibrated(Substrate(adc=ADC(8)), trainer(circle), model, (x, y), 100.0).parts["adc"]

    @eqx.filter_jit
    @eqx.filter_vmap
    def nodes(x, y, u):
        example, start = model.at(x, y), jax.tree.map(lambda v: v.astype(complex), u)
        at = lambda beta: SETTLE(lambda u: example.drift(u, beta), start).state
        return [example.field.rates(at(beta)) for beta in circle.nodes]

    each = nodes(x, y, free.state)
    for layer in LAYERS:
        largest = max(np.abs(np.asarray(s[layer].imag)).max() for s in each)
        assert float(adc.imaginary[layer]) == pytest.approx(largest, rel=1e-9) and largest < 0.2
    wide = eqx.tree_at(lambda a: a.imaginary, adc, jax.tree.map(lambda v: 0.5 + 0 * v, adc.imaginary))
    assert rms(wide, circle)[0] > 1.3 * rms(adc, circle)[0]


def test_equal_ranges_read_equal():
    """A calibrated converter whose ranges are all those of an `ADC` is one, bit for bit, with and without dither."""
    s = {name: jnp.linspace(-0.3, 1.3, size) for name, size in LAYERS.items()}
    s = jax.tree.map(lambda v: jax.lax.complex(v, v[::-1] - 0.5), s)
    for settings in ({}, {"dither": 0.5, "samples": 8}):
        each = lambda value: {name: jnp.asarray(value) for name in LAYERS}
        one = ADC(5, -0.2, 1.1, **settings)
        two = CalibratedADC(low=each(-0.2), high=each(1.1), imaginary=each(0.5 * (1.1 + 0.2)), bits=5, **settings)
        found = [a(s, phase=0, chip=jax.random.key(0), run=jax.random.key(1)) for a in (one, two)]
        assert gap(*found) == 0


def test_what_comes_before_the_converter():
    """Offsets and noise before it are in its range, what comes after is not; the chip's mismatch is in the rates."""
    model, x, y, *_ = case()
    offset, noise = PhaseOffset(0.2), ReadoutNoise(0.5)
    at = lambda **parts: calibrated(Substrate(chip=4, **parts), trainer(), model, (x, y), 100.0).parts["adc"]
    alone = at(adc=ADC(8))
    assert gap(at(adc=ADC(8), offset=offset), alone) == 0
    shifted, noisy = at(offset=offset, adc=ADC(8)), at(noise=noise, adc=ADC(8))
    width = lambda adc: jax.tree.map(jnp.subtract, adc.high, adc.low)
    assert gap(width(shifted), width(alone)) > 0.05
    assert all(float(width(noisy)[layer]) > 3 for layer in LAYERS)
    part = Mismatch(0.5)
    mismatched = at(part=part, adc=ADC(8))
    rates = free_phase(Substrate(chip=4, part=part).deploy(model), x).state
    top = {name: np.asarray(model.network.activation(u)).max() for name, u in rates.items()}
    assert all(float(mismatched.high[name]) >= top[name] - 1e-12 for name in top)
    assert gap(mismatched, alone) > 1e-2


def test_a_calibrated_device_trains_and_keeps_its_settings():
    """All else of the stack is what it was; a step through it is one; another calibration finds the same ranges."""
    model, x, y, *_ = case()
    device = Substrate(chip=7, aware=True, part=Mismatch(0.1), adc=ADC(6, dither=0.5, samples=2))
    new = calibrated(device, trainer(), model, (x, y), 99.0)
    assert list(new.parts) == ["part", "adc"] and (new.chip, new.aware) == (7, True)
    assert (new.parts["adc"].dither, new.parts["adc"].samples) == (0.5, 2)
    assert gap(new.parts["adc"], calibrated(new, trainer(), model, (x, y), 99.0).parts["adc"]) == 0
    on = trainer().on(new)
    state, measured = eqx.filter_jit(on.step)(on.init(model, key=jax.random.key(0)), (x[:4], y[:4]))
    assert measured["skipped_steps"] == 0 and gap(state.model, model) > 1e-6


def test_neurons_that_do_not_move_have_the_narrowest_range():
    model, x, y, *_ = case()
    zeros = jax.tree.map(jnp.zeros_like, model.network.kernels)
    still = eqx.tree_at(lambda m: m.network.kernels, model, zeros)
    adc = calibrated(Substrate(adc=ADC(8)), trainer(), still, (x, y), 100.0, "neuron", narrowest=0.02).parts["adc"]
    rest = np.asarray(model.network.activation(model.network.biases["l1"]))
    np.testing.assert_allclose(adc.high["l1"] - adc.low["l1"], 0.02, rtol=1e-12)
    np.testing.assert_allclose(0.5 * (adc.high["l1"] + adc.low["l1"]), rest, rtol=1e-12)
    s = {name: v[0] for name, v in case()[4][0].items()}
    assert gap(read(adc, s)["l1"], np.clip(s["l1"], adc.low["l1"], adc.high["l1"])) < 0.02 / 255


def test_what_is_refused():
    model, x, y, *_ = case()
    batch, device = (x[:3], y[:3]), Substrate(adc=ADC(8))
    with pytest.raises(ValueError, match="this substrate has none: add an ADC"):
        calibrate_range(Substrate(), trainer(), model, batch)
    with pytest.raises(ValueError, match="percentile=0"):
        calibrate_range(device, trainer(), model, batch, percentile=0.0)
    with pytest.raises(ValueError, match="expected one of layer, neuron"):
        calibrate_range.__wrapped__(device, trainer(), model, batch, by="pixel")  # pyright: ignore
    with pytest.raises(ValueError, match="the trainer has a LockIn"):
        calibrate_range(device, trainer(estimator=eqprop.LockIn(beta=0.1)), model, batch)
    other = {"hidden": jnp.zeros(3)}
    adc = calibrated(device, trainer(), model, batch, 100.0).parts["adc"]
    with pytest.raises(ValueError, match="Calibrate it on the network that it reads"):
        read(adc, other)
