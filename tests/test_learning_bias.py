"""Learning under an offset between two copies, in small networks of resistors, against closed forms and affine maps."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop as eq
from eqprop.circuit import ResistorGraph
from eqprop.substrate import PhaseOffset
from experiments.tasks import cycles
from experiments.tasks.learning_bias import ALL, NEWTON, outputs_of, slow_lock_in

RATES: dict[str, float] = {scheme: 1.0 for scheme in cycles.SCHEMES}
STRENGTH, OFFSET = 0.2, 1e-3


def single(key: jax.Array) -> tuple[ResistorGraph, jax.Array, jax.Array]:
    """One trained resistor from the input to the output, and one of a unit to ground: `v = g x/(1 + g)`."""
    network = ResistorGraph(3, [(0, 2), (1, 2)], inputs=[0], outputs=[2], rails={1: 0.0}, key=key)
    network = eqx.tree_at(lambda n: n.conductances, network, jnp.array([0.7, 1.0]))
    return network, jnp.array([[1.0]]), jnp.array([[0.6]])


SINGLE = cycles.System("one resistor", single, 1, RATES)


def setting(seed: int, offset: float, dwell: int = 1, rate: float = 1.0) -> cycles.Setting:
    return cycles.Setting(jnp.asarray(seed), jnp.asarray(offset), jnp.asarray(dwell), jnp.asarray(rate))


def offsets(network: ResistorGraph, seed: int, offset: float) -> Any:
    """What the probe adds to the voltages of the free nodes in phase 1."""
    zero = jax.tree.map(jnp.zeros_like, network.at(jnp.zeros(len(network.inputs))).initial_state())
    readings = eq.Substrate(chip=jnp.asarray(seed), offset=PhaseOffset(offset)).readings()
    assert readings is not None
    return readings(zero, phase=1)


@pytest.mark.parametrize("scheme", cycles.SCHEMES)
def test_where_one_resistor_comes_to_rest(scheme):
    """Coupled learning rests where the clamp moves the output by the opposite of the offset, at `e = v − y = o/η`.
    A nudge `+β` moves it by `β e/(G − β)` and `−β` by `−β e/(G + β)`, `G = 1 + g`: one of them rests at
    `−o (G − β)/β`, both read in turns at `−o (G² − β²)/2βG`, and the others at the target."""
    network, x, y = single(jax.random.key(0))
    step = jax.jit(cycles.update(SINGLE, scheme, STRENGTH, network, setting(0, OFFSET)))
    g = jax.lax.fori_loop(0, 4000, lambda _, g: step(g, x[0], y[0]), network.conductances)
    np.testing.assert_array_equal(g[1], 1.0)
    error = float(g[0] / (1 + g[0]) - y[0, 0])
    o, total = float(offsets(network, 0, OFFSET)["out"][0]), float(1 + g[0])
    expected = {
        "coupled": o / STRENGTH,
        "one_sided": -o * (total - STRENGTH) / STRENGTH,
        "turns": -o * (total**2 - STRENGTH**2) / (2 * STRENGTH * total),
    }.get(scheme, 0.0)
    print(scheme, error, expected)
    assert abs(o) > 1e-4
    assert error == pytest.approx(expected, rel=1e-9, abs=1e-12)


def solved(seed: int) -> tuple[ResistorGraph, jax.Array, jax.Array]:
    """The pair at the conductances that solve both tasks."""
    _, other = jax.random.split(jax.random.key(seed))
    network, x, y = cycles.pair(jax.random.key(seed))
    teacher = jax.random.uniform(other, (5,), float, 0.5, 1.5).at[2:].set(1.0)
    network = eqx.tree_at(lambda n: n.conductances, network, teacher)
    np.testing.assert_allclose(outputs_of(network, x), y, atol=1e-13)
    return network, x, y


def test_a_solved_task_drifts_by_the_bias_alone():
    """By `−(Δv Δo + Δo²/2)/η` an update, whose part along the solutions of the task nothing restores."""
    network, x, y = solved(1)
    step = jax.jit(
        cycles.update(cycles.SYSTEMS["pair"]._replace(rates=RATES), "coupled", STRENGTH, network, setting(1, OFFSET))
    )
    for k in range(2):
        field = network.at(x[k])
        drops = network.drops(NEWTON(field.drift, field.initial_state()).state, field.current)
        moved = network.drops(offsets(network, 1, OFFSET), jnp.zeros_like(field.current))
        expected = -(drops * moved + moved**2 / 2) / STRENGTH
        found = step(network.conductances, x[k], y[k]) - network.conductances
        np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-9)
        np.testing.assert_array_equal(found[2:], 0.0)
        # Kirchhoff's law at the hidden node and the output: what the two conductances do to the output.
        g = np.asarray(network.conductances)
        laplacian = np.array([[g[0] + g[2] + g[3], -g[2]], [-g[2], g[1] + g[2] + g[4]]])
        slope = np.linalg.solve(laplacian, np.diag(np.asarray(drops)[:2]))[1]
        along = np.array([-slope[1], slope[0]]) / np.linalg.norm(slope)
        assert abs(along @ np.asarray(found[:2])) > 1e-5


@pytest.mark.parametrize("scheme", ["coupled", "one_sided", "turns"])
def test_the_orbit_is_the_fixed_point_of_an_affine_map(scheme):
    """To first order in the offset, the updates on each task are affine about the conductances that solve both, and the
    orbit is the fixed point of their product over a period, found by dense algebra."""
    seed, offset, dwell, h = 2, 1e-8, 16, 1e-4
    system = cycles.SYSTEMS["pair"]
    network, x, y = solved(seed)
    step = jax.jit(cycles.update(system, scheme, STRENGTH, network, setting(seed, offset)))
    g = network.conductances
    maps = []
    for k in range(2):
        at = lambda g, k=k: np.asarray(step(g, x[k], y[k]))[:2]
        near = [g.at[edge].add(size) for edge in range(2) for size in (h, -h)]
        matrix = np.array([(at(up) - at(down)) / (2 * h) for up, down in zip(near[::2], near[1::2], strict=True)]).T
        shift = np.asarray(step(g, x[k], y[k]) - g)[:2]
        power, total = np.linalg.matrix_power(matrix, dwell), np.zeros(2)
        for _ in range(dwell):
            total = matrix @ total + shift
        maps.append((power, total))
    (first, a), (second, b) = maps
    end = np.linalg.solve(np.eye(2) - second @ first, second @ a + b)
    expected = np.linalg.norm(first @ end + a - end)
    made = cycles.pair(jax.random.key(seed))
    found = jax.jit(lambda: cycles.orbit(system, scheme, STRENGTH, 16384, dwell, made, setting(seed, offset, dwell)))()
    print(scheme, float(found.span), expected, float(found.closure))
    assert float(found.span) == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose((found.path[-1] - g)[:2], end, rtol=1e-3, atol=float(1e-3 * expected))
    assert float(found.closure) < 1e-3


def test_the_slow_lock_in_is_the_first_harmonic():
    """Of `exp` it is `2 I₁(β)/β`, whose error is `β²/8` to the fourth order; offsets have no weight."""
    for beta in (0.1, 0.3):
        stencil = slow_lock_in(jnp.asarray(beta))
        found = float(stencil.derivative(jnp.exp(stencil.nodes)))
        bessel = sum((beta / 2) ** (2 * k) / (math.factorial(k) * math.factorial(k + 1)) for k in range(10))
        assert found == pytest.approx(bessel, rel=1e-8)  # 8 readings take the seventh harmonic for the first
        assert abs(found - 1 - beta**2 / 8) < beta**4 / 100
    signs = (-1.0) ** np.arange(stencil.nodes.size)
    assert abs(float(jnp.sum(stencil.weights))) < 1e-14 and abs(float(jnp.sum(signs * stencil.weights))) < 1e-14


def test_a_lock_in_approaches_the_slow_one():
    """As its period grows; the lag is of the second order in the frequency."""
    network, x, y = cycles.pair(jax.random.key(3))
    model = eq.Model(network, eq.SquaredError(regression=True))

    @eqx.filter_jit
    def gradient(estimator: eq.AbstractEstimator) -> jax.Array:
        trainer = eq.Trainer(NEWTON, estimator, optax.sgd(1.0), keep_unsettled=True)
        found: Any
        found, _ = trainer.gradient(model, (x, y), key=jax.random.key(0))
        return found.network.conductances

    slow = gradient(ALL["slow_lock_in"].make(jnp.asarray(STRENGTH)))
    make = lambda period: eq.LockIn(
        beta=STRENGTH, harmonics=1, period=period, warmup=2, samples=8, steps_per_period=int(20 * period), tol=1.0
    )
    near, far = (np.linalg.norm(gradient(make(period)) - slow) for period in (40.0, 20.0))
    print(near, far, np.linalg.norm(slow))
    assert near < 0.02 * np.linalg.norm(slow) and 3.5 < far / near < 4.5
