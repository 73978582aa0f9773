"""Reading and writing a device: converters, offsets between phases, noise, pulses."""

# Attributes of the network that a model happens to have:
# pyright: reportAttributeAccessIssue=false

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop
from eqprop import Substrate
from eqprop.substrate import ADC, ConstantStep, DriftBetweenPhases, PhaseOffset, ReadoutNoise, SoftBounds, WriteNoise
from helpers import SETTLE, flat_batch, free_phase, gap, problem, slope

BETA = 0.2


@eqx.filter_jit
def respond(estimator, model, x, y, free, key):
    keys = jax.random.split(key, x.shape[0])
    return eqx.filter_vmap(lambda x, y, f, k: estimator.respond(model.at(x, y), f, key=k))(x, y, free, keys)


def added(part, stencil, key=0):
    """What a probe adds to the error vectors, a row an example."""
    p = problem("asymmetric")
    free = free_phase(p.model, p.x)
    plain = eqprop.FiniteNudge(stencil=stencil, relaxation=SETTLE)
    read = Substrate(chip=5, part=part).equip(plain)
    with_, without = (respond(e, p.model, p.x, p.y, free, jax.random.key(key)).payload for e in (read, plain))
    return np.asarray(flat_batch(with_) - flat_batch(without))


def test_an_offset_between_phases():
    """`o/β` one-sided; nothing centred or on a circle; `o/2β` with the sign of the turn where two arrays alternate."""
    one = added(PhaseOffset(0.1), eqprop.one_sided(BETA)) * BETA
    assert np.ptp(one, axis=0).max() < 1e-13  # of the neuron, not of the example
    assert 0.01 < np.abs(one).max() <= 0.25 + 1e-12
    for stencil in (eqprop.centred(BETA), eqprop.cauchy(BETA, 4)):
        assert np.abs(added(PhaseOffset(0.1), stencil)).max() < 1e-13
    turns = added(PhaseOffset(0.1, alternate=True), eqprop.centred(BETA)) * 2 * BETA
    assert np.abs(turns - one).max() < 1e-12


def test_drift_between_phases():
    """Phases 0, 1, 2 read in turn: a centred estimate takes `(1 − 2) rate/2β`, a one-sided one `rate/β`."""
    one = added(DriftBetweenPhases(0.1), eqprop.one_sided(BETA)) * BETA
    two = added(DriftBetweenPhases(0.1), eqprop.centred(BETA)) * 2 * BETA
    assert np.abs(one).max() > 0.01 and np.abs(two + one).max() < 1e-12


@pytest.mark.parametrize(
    ("stencil", "factor"),
    [
        (eqprop.one_sided(BETA), math.sqrt(2)),
        (eqprop.centred(BETA), math.sqrt(1 / 2)),
        # Of the four points on the circle two are kept, with weights of modulus 2/4, whose two readings count both.
        (eqprop.cauchy(BETA, 4), math.sqrt(2 / 4)),
    ],
    ids=["one_sided", "centred", "circle"],
)
def test_noise_of_the_reading(stencil, factor):
    """`std δ = σ/(β√samples)` times the norm of the weights, within four standard errors."""
    sigma, samples, draws = 0.01, 4, 200
    noise = np.concatenate([added(ReadoutNoise(sigma, samples), stencil, key).ravel() for key in range(draws // 10)])
    expected = factor * sigma / BETA / math.sqrt(samples)
    assert abs(noise.std() - expected) < 4 * expected / math.sqrt(2 * noise.size)
    assert abs(noise.mean()) < 4 * expected / math.sqrt(noise.size)


def test_a_converter():
    """Half a level at most within its range, which it never leaves; dither and averages make it unbiased."""
    adc, s = ADC(4), {"a": jnp.linspace(-0.5, 1.5, 2001)}
    read = np.asarray(adc(s, phase=0, chip=jax.random.key(0), run=None)["a"])
    inside = (np.asarray(s["a"]) >= 0) & (np.asarray(s["a"]) <= 1)
    assert len(np.unique(read)) == 16 and read.min() == 0 and read.max() == 1
    assert np.abs(read - np.asarray(s["a"]))[inside].max() <= 0.5 / 15 + 1e-12
    dithered = ADC(4, dither=0.5, samples=4096)
    s = {"a": jnp.linspace(0.1, 0.9, 201)}
    read = np.asarray(dithered(s, phase=0, chip=jax.random.key(0), run=jax.random.key(1))["a"])
    assert np.abs(read - np.asarray(s["a"])).max() < 4 * 0.5 / 15 / math.sqrt(4096)
    with pytest.raises(ValueError, match="pass a key"):
        dithered(s, phase=0, chip=jax.random.key(0), run=None)


def test_the_order_of_parts_outlives_compilation():
    """A converter after an offset reads levels, before it does not, whatever the names and compiled or not."""
    s, adc, offset = {"a": jnp.linspace(0.0, 1.0, 101)}, ADC(4), PhaseOffset(0.1)
    for names in (("a", "b"), ("b", "a")):
        for parts, levels in (((offset, adc), True), ((adc, offset), False)):
            device = Substrate(**dict(zip(names, parts, strict=True)))  # pyright: ignore[reportArgumentType]
            probe = device.equip(eqprop.FiniteNudge(stencil=eqprop.centred(BETA), relaxation=SETTLE)).reading
            assert probe is not None
            for read in (probe, eqx.filter_jit(probe)):
                times = np.asarray(read(s, phase=1)["a"]) * 15
                assert (np.abs(times - np.round(times)).max() < 1e-9) == levels
            assert list(jax.tree.map(lambda v: v, device).parts) == list(names)


def test_bits_bound_the_error():
    """An estimate through a converter errs by at most `step/2 · Σ|w|`, and so as `2^−bits`."""
    bits, errors = (6, 8, 10, 12, 14), []
    for b in bits:
        adc = ADC(b, low=-2.0, high=2.0)
        error = np.abs(added(adc, eqprop.centred(BETA)))
        assert error.max() <= adc.step / 2 / BETA + 1e-12
        errors.append(math.sqrt(np.mean(error**2)))
    assert slope(bits, np.log2(errors)) == pytest.approx(-1, abs=0.1)


def test_patterns_and_noise_have_their_own_keys():
    """Offsets stay over runs and change with the chip; noise is the other way round."""
    offset = [added(PhaseOffset(0.1), eqprop.one_sided(BETA), key) for key in (0, 1)]
    noise = [added(ReadoutNoise(0.1), eqprop.one_sided(BETA), key) for key in (0, 1)]
    assert gap(*offset) < 1e-12 and gap(*noise) > 0.01


def test_predictions_are_read_as_well():
    """A converter of one bit turns rates into 0 and 1; loss and accuracy by hand from those, not from the rates."""
    p = problem("asymmetric")
    trainer = eqprop.Trainer(
        SETTLE, eqprop.FiniteNudge(stencil=eqprop.centred(BETA), relaxation=SETTLE), optax.sgd(0.1)
    )
    evaluate = eqx.filter_jit(lambda trainer: trainer.evaluate(p.model, (p.x, p.y)))
    exact, coarse = evaluate(trainer), evaluate(trainer.on(Substrate(adc=ADC(1))))
    s = 1 / (1 + np.exp(2 - 4 * np.asarray(free_phase(p.model, p.x).state["out"])))
    kernel, bias, y = (np.asarray(v) for v in (p.model.readout.kernel, p.model.readout.bias, p.y))
    for found, rates in ((exact, s), (coarse, (s > 0.5).astype(float))):
        logits = rates @ kernel + bias
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert float(found["loss"]) == pytest.approx(-np.log(chances[y == 1]).mean(), abs=1e-12)
        scores = np.sort(logits, 1)
        right = (logits.argmax(1) == y.argmax(1)) & (scores[:, -1] > scores[:, -2])  # ties are wrong
        assert float(found["accuracy"]) == pytest.approx(right.mean(), abs=1e-12)
    assert abs(float(exact["loss"] - coarse["loss"])) > 1e-3
    assert float(exact["free_steps"]) == float(coarse["free_steps"])  # the loop itself is not touched


# Writing.


def walk(part, steps, devices=40_000, change=0.0, start=0.0):
    """Weights of many devices after `steps` updates of `change`."""
    rule = Substrate(chip=2, part=part).writes()
    assert rule is not None
    w = jnp.full((devices // 100, 100), start)

    def step(w, key):
        updates, _ = rule.update(jnp.full_like(w, change), optax.EmptyState(), w, key=key)
        return optax.apply_updates(w, updates), None

    return np.asarray(jax.lax.scan(step, w, jax.random.split(jax.random.key(0), steps))[0]).ravel()


def test_write_noise_breaks_symmetry():
    """Two devices with the same intended updates part by `√2 s √steps`, with decay `λ` by `√2 s/√(2λ)` in the end."""
    for steps, s in ((100, 0.01), (400, 0.002)):
        w = walk(WriteNoise(s), steps)
        gap_ = w[::2] - w[1::2]
        expected = math.sqrt(2) * s * math.sqrt(steps)
        assert abs(gap_.std() - expected) < 4 * expected / math.sqrt(2 * gap_.size)
    for s, decay in ((0.01, 0.05), (0.002, 0.02)):
        w = walk(WriteNoise(s, decay), int(8 / decay))
        gap_ = w[::2] - w[1::2]
        expected = math.sqrt(2) * s / math.sqrt(2 * decay)
        exact = expected / math.sqrt(1 - decay / 2)  # of steps that are not infinitesimal
        assert abs(gap_.std() - exact) < 4 * exact / math.sqrt(2 * gap_.size)
        assert abs(exact / expected - 1) < 0.015


@pytest.mark.parametrize("change", [0.0004, 0.0025, -0.01])
def test_pulses_of_one_size(change):
    """Rounded without bias: the mean moves as asked, the spread is that of rounding, cycles and devices."""
    part = ConstantStep(1e-3, device_spread=0.0, cycle_spread=0.3, limit=100.0)
    w, n = walk(part, 1, change=change), abs(change) / 1e-3
    fraction = n - math.floor(n)
    expected = 1e-3 * math.sqrt(fraction * (1 - fraction) + 0.09 * n)
    assert abs(w.mean() - change) < 4 * w.std() / math.sqrt(w.size)
    assert abs(w.std() - expected) < 0.02 * expected
    exact = ConstantStep(1e-3, 0.0, 0.0, limit=100.0)
    assert gap(walk(exact, 1, change=0.007), np.full(40_000, 0.007)) < 1e-12


def test_devices_have_steps_of_their_own():
    """The same device takes the same step every time: its spread grows with the pulses, and not with their root."""
    part = ConstantStep(1e-3, device_spread=0.3, cycle_spread=0.0, limit=100.0)
    few, many = walk(part, 1, change=0.01), walk(part, 16, change=0.01)
    assert many.std() / few.std() == pytest.approx(16, rel=1e-6)
    assert few.min() > 0


def test_soft_bounds():
    """`n` pulses leave `(1 − dw_min/limit)ⁿ` of the way to the bound; up and down cancel at `limit · up_down`."""
    part = SoftBounds(0.01, device_spread=0.0, cycle_spread=0.0, limit=2.0)
    assert gap(walk(part, 3, change=0.1, start=0.5), np.full(40_000, 2 - 1.5 * (1 - 0.005) ** 30)) < 1e-12
    part = SoftBounds(0.001, up_down=0.26, device_spread=0.0, cycle_spread=0.0)
    rule = Substrate(part=part).writes()
    assert rule is not None

    def there_and_back(w, key) -> Any:
        for change in (0.01, -0.01):
            w = optax.apply_updates(w, rule.update(jnp.full_like(w, change), optax.EmptyState(), w, key=key)[0])
        return w, None

    w: Any = jax.lax.scan(there_and_back, jnp.full((1, 1), 0.9), jax.random.split(jax.random.key(0), 1000))[0]
    assert float(w[0, 0]) == pytest.approx(0.26, abs=0.01)


def test_bounds_are_never_passed():
    for part in (
        ConstantStep(0.01, limit=0.5, cycle_spread=3.0),
        SoftBounds(0.01, limit=0.5, cycle_spread=3.0),
    ):
        for change in (0.3, -0.3):
            w = walk(part, 30, change=change)
            assert abs(w.mean()) > 0.3 and np.abs(w).max() <= 0.5


def test_biases_are_written_exactly_and_writes_need_a_key():
    rule = Substrate(part=WriteNoise(0.1)).writes()
    assert rule is not None
    # A diagonal kernel is one, and a bias of a channel on a grid is none: it is the name that tells.
    params = {"kernels": {("a", "b"): jnp.zeros((2, 2)), ("b", "b"): jnp.zeros(2)}, "biases": {"b": jnp.zeros((2, 2))}}
    change = jax.tree.map(jnp.ones_like, params)
    new: Any = rule.update(change, optax.EmptyState(), params, key=jax.random.key(0))[0]
    assert gap(new["biases"], change["biases"]) == 0
    for edge in params["kernels"]:
        assert gap(new["kernels"][edge], change["kernels"][edge]) > 1e-3
    for name in ("symmetric", "conv_symmetric"):
        model = eqx.filter(problem(name).model, eqx.is_inexact_array)
        new = rule.update(jax.tree.map(jnp.zeros_like, model), optax.EmptyState(), model, key=jax.random.key(0))[0]
        assert all(jnp.abs(kernel).min() > 0 for kernel in new.network.kernels.values())
        assert gap(new.network.biases, jax.tree.map(jnp.zeros_like, model.network.biases)) == 0
    with pytest.raises(ValueError, match=r"no device among \['w'\].*Name their field conductances or .*kernels or"):
        rule.update({"w": jnp.ones(2)}, optax.EmptyState(), {"w": jnp.ones(2)}, key=jax.random.key(0))
    with pytest.raises(ValueError, match="key=key"):
        rule.update(change, optax.EmptyState(), params)


def test_writes_are_drawn_anew_at_every_step():
    """In a trainer: another step, another noise; the same state, the same step."""
    p = problem("asymmetric")
    trainer = eqprop.Trainer(SETTLE, eqprop.RecurrentBackprop(relaxation=SETTLE), optax.sgd(0.0)).on(
        Substrate(noise=WriteNoise(0.1))
    )
    step = eqx.filter_jit(trainer.step)
    start = trainer.init(p.model, key=jax.random.key(0))
    first, _ = step(start, (p.x, p.y))
    second, _ = step(first, (p.x, p.y))
    again, _ = step(start, (p.x, p.y))
    a, b, c = (m.model.network.kernels["l1", "l2"] for m in (start, first, second))
    assert gap(first.model, again.model) == 0
    assert gap(b - a, c - b) > 0.01
    assert np.std(np.asarray(b - a)) == pytest.approx(0.1, rel=0.5)
