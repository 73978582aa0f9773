"""Trajectories: what is recorded, and what their motion is called, where the answer is known beforehand."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop as eq
from eqprop import STATUS
from eqprop.trace import energy
from helpers import finite_differences, flat, gap, oracle, problem, product

trace = eqx.filter_jit(eq.trace)


class Recurrent(eq.AbstractNetwork):
    """One layer with the given recurrent weights; undamped synchronous steps are `u ← W σ(u) + x`."""

    weights: jax.Array
    activation: Any = eqx.field(static=True, default=eq.linear)
    holomorphic: ClassVar[bool] = True

    def embed(self, x):
        return {"out": x}

    def drive(self, s, current):
        return {"out": product(s["out"], self.weights.T) + current["out"]}


def recurrent(weights, activation=eq.linear) -> eq.Model:
    return eq.Model(Recurrent(jnp.asarray(weights, float), activation), eq.SquaredError())


def rotation(angle: float, modulus: float = 1.0) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return modulus * np.array([[cos, -sin], [sin, cos]])


def random_weights(gain: float, size: int = 30) -> np.ndarray:
    return gain * np.random.default_rng(0).standard_normal((size, size)) / np.sqrt(size)


def steps(weights, activation, x, count: int) -> np.ndarray:
    """The same steps, in NumPy."""
    states = [np.zeros(len(x))]
    for _ in range(count):
        states.append(weights @ activation(states[-1]) + x)
    return np.stack(states)


def short(relaxation_type=eq.Picard, num_steps: int = 200, **kwargs):
    return relaxation_type(max_steps=num_steps, **kwargs)


X = jnp.asarray([0.1, -0.1])
GOLDEN = np.pi * (np.sqrt(5) - 1)

LINEAR = {
    "decay": (np.diag([0.99, 0.5]), "slow", 0.99),
    "very slow decay": (np.diag([0.9999, 0.5]), "slow", 0.9999),
    "damped flip": (np.diag([-0.98, 0.5]), "slow", 0.98),
    "barely damped flip": (np.diag([-0.9999, 0.5]), "slow", 0.9999),
    "damped rotation": (rotation(2 * np.pi / 5, 0.999), "slow", 0.999),
    "barely damped rotation": (rotation(2 * np.pi / 5, 0.99999), "slow", 0.99999),
    "rotation by an irrational angle": (rotation(GOLDEN, 0.98), "slow", 0.98),
    "flip": (np.diag([-1.0, 0.5]), "cycling", 1.0),
    "rotation": (rotation(2 * np.pi / 5), "cycling", 1.0),
    "growth": (np.diag([1.1, 0.5]), "diverged", 1.1),
    "slow growth": (np.diag([1.001, 0.5]), "diverged", 1.001),
    "growing flip": (np.diag([-1.05, 0.5]), "diverged", 1.05),
    "growing rotation": (rotation(2 * np.pi / 5, 1.001), "diverged", 1.001),
    "fast decay": (np.diag([0.5, 0.25]), "settled", 0.5),
}
PERIODS = {"flip": 2.0, "rotation": 5.0}


def test_linear_networks_move_as_their_eigenvalues_say():
    """All in one batch: status, the factor a step within 1 %, the period, and the steps that a slow one still needs."""
    weights = jnp.stack([jnp.asarray(w) for w, _, _ in LINEAR.values()])
    run = eqx.filter_jit(eqx.filter_vmap(lambda w: eq.trace(recurrent(w), X, short(rtol=0.9))))
    t = run(weights)
    for i, (name, (_, status, rate)) in enumerate(LINEAR.items()):
        assert (t.status == getattr(STATUS, status))[i], f"{name} is {status}"
        np.testing.assert_allclose(t.rate[i], rate, rtol=1e-2 * abs(1 - rate) + 1e-3, err_msg=name)
        np.testing.assert_allclose(t.period[i], PERIODS.get(name, np.nan), rtol=1e-12, err_msg=name)
        needed = np.log(1e-5 / t.residual[i, -1]) / np.log(rate) if status == "slow" else np.nan
        np.testing.assert_allclose(t.remaining[i], needed, rtol=0.1, err_msg=name)
    assert str(t) == "1 settled, 7 slow, 2 cycling, 0 wandering, 4 diverged"


def test_states_are_the_iterates():
    weights, x = random_weights(0.9, 6), np.linspace(-1.0, 1.0, 6)
    t = trace(recurrent(weights, eq.tanh), jnp.asarray(x), short(num_steps=30))
    expected = steps(weights, np.tanh, x, 30)
    np.testing.assert_allclose(t.states["out"], expected, atol=1e-13)
    np.testing.assert_allclose(t.rates["out"], np.tanh(expected), atol=1e-13)
    drift = np.tanh(expected) @ weights.T + x - expected
    np.testing.assert_allclose(t.residual, np.abs(drift).max(axis=1), atol=1e-13)
    np.testing.assert_array_equal(t.times, np.arange(31))
    assert t.energy is None


def test_two_neurons_that_excite_each_other_change_places():
    """Undamped steps fall into a cycle of period two, whose two states answer each other."""
    weights = np.array([[0.0, 3.0], [3.0, 0.0]])
    model = recurrent(weights, eq.tanh)
    t = trace(model, X, short())
    orbit = steps(weights, np.tanh, np.asarray(X), 200)
    assert t.status == STATUS.cycling and t.period == 2.0
    np.testing.assert_allclose(orbit[-1], orbit[-3], atol=1e-12)
    np.testing.assert_allclose(t.amplitude, np.abs(orbit[-1] - orbit[-2]).max(), rtol=1e-12)
    assert t.headline() == f"cycling, period 2, amplitude {float(t.amplitude):.4g} (200 steps)"


def test_limit_cycles_have_the_period_that_crossings_show():
    """Of steps whose period is no whole number, and of a flow, against zero crossings of a long orbit."""

    def measured(signal, interval):
        signal = signal[len(signal) // 2 :] - signal[len(signal) // 2 :].mean()
        up = np.flatnonzero((signal[:-1] < 0) & (signal[1:] >= 0))
        at = up + signal[up] / (signal[up] - signal[up + 1])
        return interval * np.diff(at).mean()

    weights = rotation(0.31, 1.2)
    t = trace(recurrent(weights, eq.tanh), X, short(num_steps=300))
    orbit = steps(weights, np.tanh, np.asarray(X), 20_000)
    assert t.status == STATUS.cycling
    np.testing.assert_allclose(t.period, measured(orbit[:, 0], 1.0), rtol=2e-3)
    np.testing.assert_allclose(t.amplitude, np.ptp(orbit[10_000:], axis=0).max(), rtol=1e-2)

    weights, fine = np.array([[1.5, -2.0], [2.0, 1.5]]), 0.005
    t = trace(recurrent(weights, eq.tanh), X, eq.Flow(horizon=50.0, tol=1e-7))
    u, orbit = np.zeros(2), []
    velocity = lambda u: weights @ np.tanh(u) + np.asarray(X) - u
    for _ in range(10_000):  # the midpoint rule
        u = u + fine * velocity(u + 0.5 * fine * velocity(u))
        orbit.append(u[0])
    assert t.status == STATUS.cycling and t.unit == "time constants"
    np.testing.assert_allclose(t.period, measured(np.array(orbit), fine), rtol=2e-3)


def test_a_strong_random_network_wanders():
    """Of 20 inputs none settles, is slow, or repeats."""
    model = recurrent(random_weights(10.0, 50), eq.tanh)
    x = jax.random.normal(jax.random.key(0), (20, 50))
    t = eqx.filter_jit(eqx.filter_vmap(lambda x: eq.trace(model, x, short())))(x)
    assert bool(jnp.all(t.status == STATUS.wandering)) and bool(jnp.all(t.amplitude < 200))


def test_a_transient_is_not_taken_for_the_end():
    """Growth that has not saturated is no settled state, though below the tolerance, nor a cycle; later it is one."""
    model = recurrent(np.diag([-1.1, 0.5]), eq.tanh)
    x = jnp.asarray([1e-12, 0.0])
    early, late = (trace(model, x, short(num_steps=n)) for n in (100, 600))
    assert early.residual[-1] < 1e-5 and early.status == STATUS.diverged
    np.testing.assert_allclose(early.rate, 1.1, rtol=1e-3)
    assert late.status == STATUS.cycling and late.period == 2.0


RELAXATIONS = {
    "sweep": eq.Sweep(max_steps=60),
    "anderson": eq.Anderson(max_steps=60),
    "newton": eq.Newton(max_steps=20),
    "fixed_steps": eq.FixedSteps(60),
    "flow": eq.Flow(horizon=60.0),
}


@pytest.mark.parametrize("method", RELAXATIONS)
def test_every_relaxation_settles_and_goes_on(method):
    """Its last state has the residual that is reported; a sweep is a step, whatever `every` is."""
    p, relaxation = problem("asymmetric"), RELAXATIONS[method]
    t = trace(p.model, p.x[0], relaxation)
    assert t.status == STATUS.settled and str(t).startswith("settled")
    last, drift = jax.tree.map(lambda leaf: leaf[-1], t.states), p.model.network.at(p.x[0]).drift
    measured = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(drift(last)))
    np.testing.assert_allclose(t.residual[-1], measured, atol=1e-14)
    assert gap(flat(last), oracle(*p).u[0]) < 1e-3
    assert t.unit == {"sweep": "sweeps", "anderson": "sweeps", "flow": "time constants"}.get(method, "steps")
    assert t.times.shape == t.residual.shape == t.states["out"].shape[:1]


def test_an_explosion_diverges():
    square = lambda u: 3.0 * u**2
    t = trace(recurrent(np.eye(2), square), X + 1.0, short(num_steps=40))
    assert t.status == STATUS.diverged and not np.isfinite(t.residual[-1])


def test_energy_falls_along_the_flow_and_its_gradient_is_the_drift():
    """`∂E/∂u = −σ′ F` at a random state, by finite differences."""
    p = problem("hopfield")
    network = p.model.network
    t = trace(p.model, p.x[0], eq.Flow(tol=1e-9, horizon=30.0))
    assert t.energy is not None and bool(jnp.all(jnp.diff(t.energy) <= 1e-14)) and t.energy[0] - t.energy[-1] > 1e-2
    current = network.embed(p.x[0])
    u = jax.tree.map(lambda c: jnp.cos(3.0 * c) + 0.5, current)
    slope = jax.tree.map(jax.vmap(jax.grad(network.activation)), u)
    expected = jax.tree.map(lambda d, f: -d * f, slope, network.drift(u, current))
    assert isinstance(network, eq.AbstractEnergyNetwork)
    assert gap(finite_differences(lambda u: energy(network, u, current), u), expected) < 1e-9


class Other(eq.AbstractRelaxation):
    reverse_differentiable: ClassVar[bool] = False

    def __call__(self, drift, u0, *, blocks=None, key=None):
        raise NotImplementedError


def test_what_cannot_be_traced_is_refused():
    model = recurrent(np.eye(2))
    with pytest.raises(ValueError, match="Other has no steps.*Trace Picard"):
        eq.trace(model, X, Other(), num_steps=50)
    with pytest.raises(ValueError, match="num_steps is 3; expected a whole number of 16 or more"):
        eq.trace(model, X, eq.Picard(), num_steps=3)
