"""Devices in time: noise of a known size, harmonics of a real nudge, real stencils, known gains."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.linalg import solve_continuous_lyapunov

import eqprop
from eqprop import LockIn, Substrate
from eqprop._tree import is_concrete
from eqprop.substrate import (
    ADC,
    DeviceFlow,
    Dynamics,
    Flicker,
    MirrorGain,
    Mismatch,
    PhaseOffset,
    ReadoutNoise,
    TimeConstants,
    WhiteNoise,
)
from helpers import SETTLE, chain, flat, flat_batch, free_phase, gap, oracle, problem, relative_error, respond, slope

# Real stencils.


@pytest.mark.parametrize("num_points", [2, 4, 6, 8])
def test_chebyshev_nodes(num_points):
    """Exact up to degree `K = N − 1`, and no weights within `± β` are smaller: `β Σ|w| = K`."""
    stencil, order = eqprop.chebyshev(0.5, num_points), num_points - 1
    assert not stencil.holomorphic and stencil.nodes.size == num_points
    for degree in range(num_points + 1):  # even powers vanish by symmetry
        value = float(stencil.derivative(3.0 * stencil.nodes**degree, jnp.asarray(3.0 * 0.0**degree)))
        assert abs(value - (3.0 if degree == 1 else 0.0)) < 1e-12
    assert float(stencil.derivative(stencil.nodes ** (order + 2), jnp.zeros(()))) != 0
    assert abs(0.5 * float(jnp.sum(jnp.abs(stencil.weights))) - order) < 1e-12


def test_two_chebyshev_points_are_centred():
    a, b = eqprop.chebyshev(0.3, 2), eqprop.centred(0.3)
    assert gap(a.nodes, b.nodes) < 1e-15 and gap(a.weights, b.weights) < 1e-15
    for wrong in (1, 3, 0):
        with pytest.raises(ValueError, match="even"):
            eqprop.chebyshev(0.3, wrong)
    with pytest.raises(ValueError, match="other than zero"):
        eqprop.chebyshev(0.0, 2)


@pytest.mark.parametrize("num_points", [2, 4, 6])
def test_order_of_a_real_stencil(num_points):
    """The error of a network's estimate falls as `β^N`, against the dense solve."""
    p = problem("asymmetric")
    free, true = free_phase(p.model, p.x), oracle(*p).tangent
    strengths = np.geomspace(0.05, 0.15, 4)
    errors = []
    for beta in strengths:
        nudge = eqprop.FiniteNudge(stencil=eqprop.chebyshev(jnp.asarray(beta), num_points), relaxation=SETTLE)
        errors.append(relative_error(flat_batch(respond(nudge, p.model, p.x, p.y, free).payload), true))
    assert slope(np.log(strengths), np.log(errors)) == pytest.approx(num_points, abs=0.25)


# Noise.


def linear(key, n=4):
    """A stable linear drift, `F = −B u`."""
    B = jnp.eye(n) + 0.3 * jax.random.normal(key, (n, n))
    return B, lambda u: {"a": -B @ u["a"]}


def pace(spread, chip, n):
    """`τ` of `n` potentials, seen from outside: how fast each begins to move under a constant force."""
    flow = DeviceFlow(settle=1e-4, dt=1e-4, dynamics=Dynamics(time_constants=TimeConstants(spread), chip=chip))
    return 1e-4 / np.asarray(flow(lambda u: {"a": jnp.ones(n)}, {"a": jnp.zeros(n)}).state["a"])


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_white_noise_at_rest(spread, getkey):
    """Its covariance is that of the Lyapunov equation of `τ du = −Bu dt + σ dB`, within statistical error:

    B̃ P + P B̃ᵀ = σ² diag(τ)⁻²,      B̃ = diag(τ)⁻¹ B.
    """
    B, drift = linear(getkey())
    dynamics = Dynamics(WhiteNoise(0.1), time_constants=TimeConstants(spread), chip=4)
    flow = DeviceFlow(settle=12.0, dt=0.05, dynamics=dynamics)
    keys = jax.random.split(getkey(), 4000)
    u = np.asarray(jax.jit(jax.vmap(lambda k: flow(drift, {"a": jnp.zeros(4)}, key=k).state["a"]))(keys))
    tau = pace(spread, 4, 4)
    assert np.ptp(tau) > 0.05 or spread == 0
    P = solve_continuous_lyapunov(np.asarray(B) / tau[:, None], 0.01 * np.diag(tau**-2))
    assert np.abs(np.cov(u.T) - P).max() < 4 * np.max(np.diag(P)) * math.sqrt(2 / len(u))


@pytest.mark.slow
@pytest.mark.parametrize("siemens", [0.7, 1.5])
def test_thermal_noise_of_a_circuit(siemens, getkey):
    """`C dv = −G v dt + √(2kTG) dB` has the variance `kT/C` whatever `G`, for capacitances `C = τG` of any size."""
    n, kT, spread = 40, 0.01, 0.4
    # In the units of the device, τ = C/G of the time 1: τ dv = −v dt + √(2kT/G) dB.
    dynamics = Dynamics(WhiteNoise(math.sqrt(2 * kT / siemens)), time_constants=TimeConstants(spread), chip=1)
    flow = DeviceFlow(settle=30.0, dt=0.02, dynamics=dynamics)
    farads = pace(spread, 1, n) * siemens
    run = jax.jit(jax.vmap(lambda k: flow(lambda u: {"a": -u["a"]}, {"a": jnp.zeros(n)}, key=k).state["a"]))
    u = np.asarray(run(jax.random.split(getkey(), 2000)))
    assert np.ptp(farads) > siemens
    assert np.abs(u.var(0) / (kT / farads) - 1).max() < 4.5 * math.sqrt(2 / len(u)) + 0.02  # steps are 1/25 of τ


@pytest.mark.parametrize("average", [20.0, 80.0])
def test_averages_beat_white_noise_down(average, getkey):
    """`std ⟨u⟩ = σ/√T (1 − (1 − e^{−T})/T)^{1/2}` of one leaky potential."""
    flow = DeviceFlow(
        settle=6.0, average=average, samples=int(4 * average), dt=0.05, dynamics=Dynamics(WhiteNoise(0.1))
    )
    keys = jax.random.split(getkey(), 2000)
    u = np.asarray(jax.jit(jax.vmap(lambda k: flow(lambda u: -u, jnp.zeros(1), key=k).state[0]))(keys))
    expected = 0.1 / math.sqrt(average) * math.sqrt(1 - (1 - math.exp(-average)) / average)
    assert abs(u.std() / expected - 1) < 4 / math.sqrt(2 * len(u)) + 0.01  # readings are 1/4 apart


def test_flicker(getkey):
    """Variance `σ²` of the current, correlated over its times: of a slow one, the potential follows."""
    flow = DeviceFlow(settle=10.0, dt=0.05, dynamics=Dynamics(flicker=Flicker(0.1, 1e3, 1e4, num=3)))
    keys = jax.random.split(getkey(), 2000)
    u = np.asarray(jax.jit(jax.vmap(lambda k: flow(lambda u: -u, jnp.zeros(1), key=k).state[0]))(keys))
    assert abs(u.std() / 0.1 - 1) < 4 / math.sqrt(2 * len(u)) + 0.01
    assert Flicker().times() == pytest.approx((1, 10, 100, 1000, 10_000))


@pytest.mark.parametrize(("samples", "spacing"), [(40, 0.25), (8, 1.0), (6, 4.0)])
def test_a_mean_of_readings(samples, spacing, getkey):
    """`var ⟨u⟩ = σ²/(2n²) Σᵢⱼ e^{−|i−j|Δ}` of `n` readings of one leaky potential."""
    average = spacing * (samples - 1)
    flow = DeviceFlow(6.0, average, samples, dt=0.05, dynamics=Dynamics(WhiteNoise(0.1)))
    keys = jax.random.split(getkey(), 2000)
    u = np.asarray(jax.jit(jax.vmap(lambda k: flow(lambda u: -u, jnp.zeros(1), key=k).state[0]))(keys))
    at = spacing * np.arange(samples)
    variance = 0.01 / (2 * samples**2) * np.exp(-np.abs(at[:, None] - at)).sum()
    assert abs(u.std() / math.sqrt(variance) - 1) < 4 / math.sqrt(2 * len(u)) + 0.02  # a step is 1/20


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_the_longest_step(spread):
    """Heun's method on the leak of the fastest neuron possible: `1 − z + z²/2` a step, stable up to `z = 2`."""
    dynamics, tau = Dynamics(time_constants=TimeConstants(spread)), math.exp(-2.5 * spread - 0.5 * spread**2)
    period = 240 * 2 * tau  # in 240 steps
    for make, knob in (
        (lambda share: DeviceFlow(settle=100.0, dt=2 * tau * share, dynamics=dynamics), "Lower dt"),
        (lambda share: LockIn(beta=0.1, period=share * period, motion=dynamics), "Raise steps_per_period"),
        (
            lambda share: eqprop.OscillatingNudge(beta=0.1, period=share * period, motion=dynamics),
            "Raise steps_per_period",
        ),
    ):
        make(0.99)
        with pytest.raises(ValueError, match=f"expected less than {2 * tau:.4g}.*{knob}"):
            make(1.01)
    for dt, grows in ((1.9, False), (2.1, True)):
        times = jnp.asarray([50 * dt])
        end = Dynamics().run(lambda t, u: -u, jnp.ones(1), times, dt=dt, end=50 * dt, key=None)
        assert float(end[0, 0]) == pytest.approx((1 - dt + dt**2 / 2) ** 50, rel=1e-6) and (end[0, 0] > 1) == grows


def test_slow_flicker_moves_a_potential_by_its_current(getkey):
    """`u = n` at rest whatever `τ`: the spread is `σ` of fast neurons and slow ones."""
    noise, n = Flicker(0.1, 1e6, 1e8, num=3), 20
    flow = DeviceFlow(settle=20.0, dt=0.2, dynamics=Dynamics(flicker=noise, time_constants=TimeConstants(0.4)))
    run = jax.jit(jax.vmap(lambda k: flow(lambda u: {"a": -u["a"]}, {"a": jnp.zeros(n)}, key=k).state["a"]))
    u = np.asarray(run(jax.random.split(getkey(), 2000)))
    assert np.abs(u.std(0) / 0.1 - 1).max() < 4.5 / math.sqrt(2 * len(u)) + 0.01


def test_noise_of_complex_potentials_is_that_of_two_circuits(getkey):
    """Independent, of equal size, and none without a key."""
    flow = DeviceFlow(settle=8.0, dt=0.05, dynamics=Dynamics(WhiteNoise(0.1)))
    keys = jax.random.split(getkey(), 2000)
    u = np.asarray(jax.jit(jax.vmap(lambda k: flow(lambda u: -u, jnp.zeros(1, complex), key=k).state[0]))(keys))
    real, imaginary = np.real(u), np.imag(u)
    for part in (real, imaginary):
        assert abs(part.std() * math.sqrt(2) / 0.1 - 1) < 4 / math.sqrt(2 * len(u)) + 0.01
    assert abs(np.corrcoef(real, imaginary)[0, 1]) < 4 / math.sqrt(len(u))
    with pytest.raises(ValueError, match="needs a key"):
        flow(lambda u: -u, jnp.zeros(1))


def test_time_constants_move_no_fixed_point():
    """Error vectors stay, as the nudge goes through the same capacitors; given time, the flow settles."""
    p = problem("asymmetric")
    vectors = []
    for spread in (0.0, 0.3):
        flow = DeviceFlow(settle=60.0, dt=0.4, dynamics=Dynamics(time_constants=TimeConstants(spread)))
        free = free_phase(p.model, p.x, flow)  # pyright: ignore[reportArgumentType]
        assert float(free.residual.max()) < 1e-11
        nudge = eqprop.FiniteNudge(stencil=eqprop.cauchy(0.1, 6), relaxation=flow)
        vectors.append(flat_batch(respond(nudge, p.model, p.x, p.y, free).payload))
    assert gap(*vectors) < 1e-10
    assert relative_error(vectors[0], oracle(*p).tangent) < 1e-5


def test_a_short_time_to_settle_is_reported():
    """The residual of what was read, and `unsettled` above the tolerance."""
    p = problem("asymmetric")
    short = free_phase(p.model, p.x, DeviceFlow(settle=2.0, tol=1e-3))  # pyright: ignore[reportArgumentType]
    assert np.all(np.asarray(short.result != eqprop.RESULTS.successful))
    assert float(short.residual.min()) > 1e-3


# The lock-in.


@eqx.filter_jit
def locked(estimator, p):
    start = jax.vmap(
        lambda x: eqprop.Picard(max_steps=1)(p.model.network.at(x).drift, p.model.network.at(x).initial_state())
    )(p.x)
    return eqx.filter_vmap(lambda x, y, f: estimator.error(p.model.at(x, y), f))(p.x, p.y, start)


def test_noise_of_the_demodulation():
    """White noise of the readings enters as `2 Σ n²`: 2, 20, 70, 168 over the number of readings."""
    angle = 2 * jnp.pi * (jnp.arange(64) / 64)
    for harmonics, factor in ((1, 2), (3, 20), (5, 70), (7, 168)):
        lock = LockIn(beta=0.5, harmonics=harmonics)
        assert abs(float(jnp.mean(lock.demodulation(angle)[1] ** 2)) * 0.25 - factor) < 1e-10


@pytest.mark.parametrize("harmonics", [1, 3, 5, 7])
def test_harmonics_of_a_polynomial(harmonics):
    """Odd harmonics give the derivative of polynomials up to degree `K + 1`, even ones the value at no nudge."""
    lock = LockIn(beta=0.5, harmonics=harmonics, samples=64)
    angle = 2 * jnp.pi * (jnp.arange(64) / 64)
    beta = 0.5 * jnp.cos(angle)
    still, moved = lock.demodulation(angle)
    for degree in range(harmonics + 1):
        assert abs(float(jnp.mean(moved * beta**degree)) - (degree == 1)) < 1e-12
        assert abs(float(jnp.mean(still * beta**degree)) - (degree == 0)) < 1e-12
    if harmonics == 1:  # three quarters of the centred nudge's bias, β²
        assert abs(float(jnp.mean(moved * beta**3)) - 0.75 * 0.25) < 1e-12


def test_the_lock_in_against_the_dense_solve():
    """Each odd harmonic takes away bias, down to the lag; the state is the free fixed point."""
    p = problem("asymmetric")
    true = oracle(*p)
    errors = []
    for harmonics in (1, 3, 5):
        lock = LockIn(beta=0.5, harmonics=harmonics, period=2000.0, samples=24, steps_per_period=8000)
        found = locked(lock, p)
        errors.append(relative_error(flat_batch(found.delta), true.tangent))
        if harmonics > 1:
            assert gap(flat_batch(found.state), true.u) < 5e-3
    assert errors[0] > 4 * errors[1] > 8 * errors[2]
    assert errors[2] < 2e-3
    # The first harmonic's bias is three quarters of the centred nudge's.
    centred = eqprop.FiniteNudge(stencil=eqprop.centred(0.2), relaxation=SETTLE)
    two = relative_error(
        flat_batch(respond(centred, p.model, p.x, p.y, free_phase(p.model, p.x)).payload), true.tangent
    )
    one = locked(LockIn(beta=0.2, harmonics=1, period=2000.0, samples=24, steps_per_period=8000), p)
    assert relative_error(flat_batch(one.delta), true.tangent) / two == pytest.approx(0.75, abs=0.03)


def test_the_lag_of_a_lock_in():
    """In phase it grows as `(ω τ)²`."""
    p = problem("asymmetric")
    periods, errors = (60.0, 120.0, 240.0), []
    for period in periods:
        lock = LockIn(beta=0.02, harmonics=1, period=period, steps_per_period=int(12 * period))
        errors.append(relative_error(flat_batch(locked(lock, p).delta), oracle(*p).tangent))
    assert slope(np.log(periods), np.log(errors)) == pytest.approx(-2, abs=0.2)


@pytest.mark.parametrize("name", ["conv", "hopfield"])
def test_every_network_takes_a_lock_in(name):
    p = problem(name)
    found = locked(LockIn(beta=0.1, period=400.0, steps_per_period=1600), p)
    assert relative_error(flat_batch(found.delta), oracle(*p).tangent) < 0.02


def test_offsets_and_converters_of_a_lock_in():
    """An offset is orthogonal to every harmonic; a converter is not."""
    p = problem("asymmetric")
    plain = LockIn(beta=0.3, period=100.0)
    offset = Substrate(part=PhaseOffset(0.1)).equip(plain)
    coarse = Substrate(part=ADC(6)).equip(plain)
    vectors = [flat_batch(locked(lock, p).delta) for lock in (plain, offset, coarse)]
    assert gap(vectors[0], vectors[1]) < 1e-12 and gap(vectors[0], vectors[2]) > 1e-3


@pytest.mark.slow
def test_noise_reaches_the_oscillating_estimators(getkey):
    """The flow of a substrate becomes theirs; their noise is that of the mean over the readings, and needs a key."""
    p = problem("asymmetric")
    device = Substrate(chip=3, flow=DeviceFlow(dynamics=Dynamics(WhiteNoise(0.05))))
    oscillating = eqprop.OscillatingNudge(beta=0.3, period=20.0, warmup=1, samples=40, steps_per_period=200)
    x, y = p.x[0], p.y[0]
    free = SETTLE(p.model.network.at(x).drift, p.model.network.at(x).initial_state())

    def delta(estimator, key):
        return flat(estimator.error(p.model.at(x, y), free, key=key).delta)

    for estimator in (LockIn(beta=0.3, period=20.0, samples=40, steps_per_period=200), oscillating):
        noisy = device.equip(estimator)
        assert isinstance(noisy.motion, Dynamics) and noisy.motion.white is not None and noisy.motion.chip == 3
        draws = np.asarray(
            eqx.filter_jit(eqx.filter_vmap(delta, in_axes=(None, 0)))(noisy, jax.random.split(getkey(), 200))
        )
        still = flat(estimator.error(p.model.at(x, y), free).delta)
        assert draws.std(0).max() > 1e-3
        assert np.all(np.abs(draws.mean(0) - still) < 5 * draws.std(0) / math.sqrt(200) + 2e-3)
        with pytest.raises(ValueError, match="needs a key"):
            noisy.error(p.model.at(x, y), free)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"harmonics": 2}, "odd"),
        ({"samples": 6}, "twice the harmonics"),
        ({"beta": 0.0}, "other than 0"),
        ({"beta": jnp.asarray(0.0)}, "other than 0"),
        ({"warmup": 0}, "of at least 1"),
    ],
)
def test_what_a_lock_in_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        LockIn(**{"beta": 0.1, **change})


@pytest.mark.parametrize(
    "make",
    [
        lambda q: LockIn(beta=q),
        lambda q: eqprop.OscillatingNudge(beta=q),
        lambda q: LockIn(beta=0.1, motion=Dynamics(WhiteNoise(q), Flicker(q), TimeConstants(q))),
        lambda q: [Mismatch(q), ReadoutNoise(q), PhaseOffset(q), MirrorGain(q, q)],
        lambda q: Mismatch(q, law="gaussian").note(),
    ],
)
def test_settings_may_be_traced(make):
    """One program for many settings: only numbers that can be looked at are checked."""
    jax.vmap(lambda q: [make(q), q][1])(jnp.asarray([0.01, 0.1]))
    jax.jit(lambda: [make(0.1), 0][1])()


def test_numbers_of_every_type_are_checked():
    """Whatever is not traced can be looked at."""
    for value in (0, 1.5, 1j, True, np.float32(0), np.bool(True), np.zeros(2), jnp.zeros(()), jnp.zeros(2)):
        assert is_concrete(value)
    for value in (None, "0", jax.ShapeDtypeStruct((), float), SETTLE):
        assert not is_concrete(value)
    jax.jit(lambda q: [q, pytest.fail("traced") if is_concrete(q) else 0][0])(0.1)
    for sigma in (-0.1, jnp.asarray(-0.1), math.nan):
        for make in (Mismatch, WhiteNoise, ReadoutNoise, TimeConstants):
            with pytest.raises(ValueError, match="expected a number of at least 0"):
                make(sigma)


# Bias against noise.


@pytest.mark.parametrize(
    ("stencil", "order"),
    [(eqprop.one_sided, 1), (eqprop.centred, 2), (lambda b: eqprop.cauchy(b, 4), 4)],
    ids=["one", "two", "four"],
)
def test_the_best_error_goes_as_its_exponent(stencil, order):
    """Over the best `β`, the error goes as `σ^{N/(N+1)}`: bias from relaxations, noise from the weights of readings."""
    p = problem("asymmetric")
    free, true = free_phase(p.model, p.x), oracle(*p).tangent
    strengths = np.geomspace(3e-3, 1.5, 40)

    @jax.jit
    def bias(beta):
        nudge = eqprop.FiniteNudge(stencil=stencil(beta), relaxation=SETTLE)
        delta = jax.vmap(lambda x, y, f: nudge.error(p.model.at(x, y), f).delta)(p.x, p.y, free)
        return jnp.linalg.norm(flat_batch(delta) - true)

    squares = np.asarray([float(bias(jnp.asarray(b))) ** 2 for b in strengths])
    part = stencil(1.0)
    through = float(jnp.sum(jnp.abs(part.weights) ** 2)) + (float(jnp.sum(part.weights).real) ** 2)
    noises = np.geomspace(1e-6, 1e-4, 5)
    best = [math.sqrt(np.min(squares + true.size * s**2 * through / strengths**2)) for s in noises]
    assert slope(np.log(noises), np.log(best)) == pytest.approx(order / (order + 1), abs=0.05)


# Known gains.


def test_known_gains_give_the_true_error():
    """`cos(δ, δ_true) = 1` to 1e-12 in every layer where the plain estimate is off, through the trainer's estimator."""
    p, part = problem("symmetric"), MirrorGain(0.39, 0.39)
    nudge = eqprop.FiniteNudge(stencil=eqprop.cauchy(0.05, 12), relaxation=SETTLE)
    cosines = []
    for known in (False, True):
        trainer = eqprop.Trainer(SETTLE, nudge, optax.sgd(0.1)).on(Substrate(chip=2, part=part, known_gains=known))
        aligned = eqx.filter_jit(trainer.alignment)(p.model, (p.x, p.y), key=jax.random.key(0))
        cosines.append(float(aligned["cosine_hidden"]))
    assert cosines[0] < 0.9995
    assert abs(1 - cosines[1]) < 1e-12
    assert Substrate(chip=2, part=part, known_gains=True).reciprocity == "gauge"


def test_known_gains_in_a_metric():
    """With weak feedback, symmetric in its metric, gains and metric are corrected together: the error vector is the
    true one of the deployed network, its length included."""
    p = problem("symmetric")
    model = eqprop.Model(chain(0.0, key=jax.random.key(7), feedback_gain=0.3), p.model.readout)
    nudge = eqprop.FiniteNudge(stencil=eqprop.cauchy(0.05, 12), relaxation=SETTLE)
    errors = []
    for known in (False, True):
        device = Substrate(chip=2, mirrors=MirrorGain(0.2, 0.2), known_gains=known)
        deployed = device.deploy(model)
        free = free_phase(deployed, p.x)
        found = flat_batch(respond(device.equip(nudge), device.nudge(deployed), p.x, p.y, free).payload)
        errors.append(relative_error(found, oracle(deployed, p.x, p.y).rbp))
    assert errors[0] > 0.05 and errors[1] < 1e-10
    assert device.reciprocity == "gauge"


def test_gains_of_noise_are_divided_as_well():
    """What is read is divided by the gain: noise of the reading is smaller where it is large."""
    p = problem("symmetric")
    device = Substrate(chip=2, mirrors=MirrorGain(0.3, 0.0), noise=ReadoutNoise(0.1), known_gains=True)
    nudge = device.equip(eqprop.FiniteNudge(stencil=eqprop.centred(0.5), relaxation=SETTLE))
    plain = Substrate(chip=2, noise=ReadoutNoise(0.1)).equip(nudge)
    assert nudge.reading is not None and plain.reading is not None
    s = p.model.network.rates(jax.tree.map(lambda v: v[0], free_phase(p.model, p.x).state))
    key = jax.random.key(1)
    corrected, raw = (probe(s, phase=1, key=key) for probe in (nudge.reading, plain.reading))
    ratio = flat(raw) / flat(corrected)
    assert 0.05 < float(jnp.std(ratio)) and float(jnp.abs(ratio - 1).max()) <= 0.75 + 1e-12
