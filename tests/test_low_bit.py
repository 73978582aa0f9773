"""Weights of few levels that are trained in place, by hand-made cases."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop
from eqprop import Substrate
from eqprop.substrate import (
    Compander,
    FreezeConfident,
    Oscillation,
    Quantised,
    freeze_oscillating,
    oscillation_fraction,
    reversals,
    write,
)
from helpers import SETTLE, finite_differences, problem, relative_error, unchecked

KEY = jax.random.key(0)
LEVELS = Quantised(bits=2, limit=3.0)
"""Levels at the whole numbers from -3 to 3, thresholds between them."""


# The measure.


def test_reversals_of_a_hand_made_walk():
    """Jumps up, up, down, none, up; none at all; down and back twice."""
    walks = jnp.array(
        [[0.0, 1.0, 2.0, 1.0, 1.1, 2.0], [0.4, -0.4, 0.3, -0.2, 0.1, 0.4], [0.6, 0.4, 0.6, 0.4, 0.6, 0.6]]
    )
    np.testing.assert_array_equal(reversals(walks.T, LEVELS), [2, 0, 3])
    assert float(oscillation_fraction(walks.T, LEVELS, least=0.5)) == pytest.approx(1 / 3)
    assert float(oscillation_fraction(walks.T, LEVELS, least=0.3)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("mapping", ["one_sided", "common_mode"])
def test_places_are_those_of_the_levels(mapping):
    """A weight is rounded to the level of the nearest place, and a place is the inverse of its weight."""
    levels = Quantised(bits=3, limit=0.7, mapping=mapping)
    w = jnp.linspace(-0.9, 0.9, 1001)
    place = levels.place(w)
    np.testing.assert_allclose(levels.at(place), jnp.clip(w, -0.7, 0.7), atol=1e-15)
    apart = jnp.abs(place - jnp.floor(place) - 0.5) > 1e-9
    np.testing.assert_allclose(levels.round(w)[apart], levels.at(jnp.round(place))[apart], atol=1e-15)


# Remedies.


def trained(rule: optax.GradientTransformation, start: float, best: float, steps: int, rate: float = 0.3):
    """One weight under the loss `½ (rounded − best)²` with straight-through gradients; its course and the state."""
    w = jnp.full((1,), start)
    state: Any = rule.init(w)
    course = []
    for _ in range(steps):
        change: Any
        change, state = rule.update(-rate * (LEVELS.round(w) - best), state, w)
        w = w + change
        course.append(float(w[0]))
    return np.array(course), state


def test_a_weight_between_two_levels_jumps_for_ever_and_is_frozen():
    """At a best value of 0.7 it is at the level 1 for 70 % of the time: there it is frozen, and nowhere else."""
    free, counted = trained(freeze_oscillating(LEVELS, threshold=1.0, momentum=0.05), 0.6, 0.7, 400)
    assert {*np.round(free[-50:])} == {0.0, 1.0}
    assert abs(np.mean(np.round(free[-200:])) - 0.7) < 0.02
    turned = np.asarray(reversals(jnp.asarray(free)[:, None], LEVELS))[0]
    assert isinstance(counted, Oscillation) and turned > 150 and float(counted.fraction(0.2)) == 1
    frozen, state = trained(freeze_oscillating(LEVELS, threshold=0.2, momentum=0.05), 0.6, 0.7, 400)
    assert isinstance(state, Oscillation) and bool(state.frozen[0])
    stop = int(np.argmax(frozen == 1.0))
    assert 5 < stop < 60 and np.all(frozen[stop:] == 1.0)


def test_the_running_mean_of_reversals_is_its_definition():
    """Against a loop over the course of the weight."""
    course, state = trained(freeze_oscillating(LEVELS, threshold=1.0, momentum=0.1), 0.6, 0.4, 60)
    last, place, frequency = 0.0, 1.0, 0.0
    for w in course:
        jump = np.sign(np.round(w) - place)
        frequency = 0.9 * frequency + 0.1 * float(jump * last < 0)
        last, place = jump if jump else last, np.round(w)
    np.testing.assert_allclose(state.frequency[0], frequency, rtol=1e-12)
    assert frequency > 0.1


def test_a_weight_that_finds_its_level_is_not_frozen():
    course, state = trained(freeze_oscillating(LEVELS, threshold=0.02, momentum=0.01), -1.4, 2.0, 100)
    assert not bool(state.frozen[0]) and course[-1] > 1.5


def test_biases_are_left_alone():
    """What is no device passes, and has no memory."""
    rule, params = freeze_oscillating(LEVELS), {"kernel": jnp.zeros(2), "biases": jnp.zeros(3)}
    change = jax.tree.map(lambda w: w + 0.1, params)
    moved: Any
    moved, state = rule.update(change, rule.init(params), params)
    assert isinstance(state, Oscillation) and state.frozen["biases"] is None
    np.testing.assert_array_equal(moved["biases"], change["biases"])


def test_it_trains_within_an_optimiser():
    """As the end of a chain of a trainer whose device has few levels: frozen weights do not move."""
    p = problem("asymmetric")
    levels = Quantised(bits=2)
    rule = optax.chain(optax.sgd(0.5), freeze_oscillating(levels, threshold=0.02, momentum=0.05))
    estimator = eqprop.FiniteNudge(stencil=eqprop.centred(0.1), relaxation=SETTLE)
    trainer = eqprop.Trainer(SETTLE, estimator, rule).on(Substrate(weights=levels))
    state = trainer.init(p.model, key=KEY)
    step = eqx.filter_jit(trainer.step)
    for _ in range(40):
        state, _ = step(state, (p.x, p.y))
    optimiser: Any = state.optimiser
    memory = optimiser[1]
    before = state.model.network.device_kernels()
    state, _ = step(state, (p.x, p.y))
    frozen = memory.frozen.network.kernels
    assert sum(int(jnp.sum(mask)) for mask in jax.tree.leaves(frozen)) > 0
    for name, mask in frozen.items():
        np.testing.assert_array_equal(state.model.network.device_kernels()[name][mask], before[name][mask])
        np.testing.assert_allclose(levels.round(before[name])[mask], before[name][mask], atol=1e-12)


def test_confident_weights_stay():
    """Only those within the margin of a threshold move, whatever the mapping; a margin of a half moves all."""
    w = jnp.array([0.0, 0.44, 0.46, 0.5, 0.54, 0.56, 1.0, -1.46, -1.44, 3.2])
    moves = [False, False, True, True, True, False, False, True, False, False]
    change = 0.1 * jnp.ones_like(w)
    for margin, expected in ((0.05, moves), (0.5, [True] * 10)):
        rule = write({"freeze": FreezeConfident(LEVELS, margin)})
        moved, _ = rule.update(change, rule.init(w), w, key=KEY)
        np.testing.assert_array_equal(moved, np.where(expected, 0.1, 0.0))
    common = FreezeConfident(Quantised(bits=2, limit=3.0, mapping="common_mode"), 0.05)  # thresholds at -2, 0, 2
    moved = common(change, jnp.array([-2.0, -1.0, 0.0, 0.05, 0.2, 1.0, 1.95, 2.0, 2.2, 3.0]), chip=KEY, run=KEY)
    np.testing.assert_array_equal(moved > 0, [True, False, True, True, False, False, True, True, False, False])


def test_a_statistical_scale_follows_the_weights():
    """The limit is twice the mean size: scaled weights have scaled levels, and no gradient passes the scale."""
    w = jnp.array([[0.5, -1.5], [0.25, 0.75]])
    levels = Quantised(bits=3, limit=None)
    scale = 2 * 0.75
    np.testing.assert_allclose(levels.round(w), np.clip(np.round(w / scale * 7), -7, 7) * scale / 7, atol=1e-15)
    np.testing.assert_allclose(levels.round(10 * w), 10 * levels.round(w), rtol=1e-14)
    np.testing.assert_array_equal(jax.grad(lambda w: jnp.sum(levels.round(w)))(w), jnp.ones((2, 2)))
    np.testing.assert_array_equal(levels.round(jnp.zeros(3)), jnp.zeros(3))


# A limited range.


@pytest.mark.parametrize("law", ["arctan", "tanh"])
def test_the_compander(law):
    """Bounded, of the given slope at 0, and inverted by `expand`."""
    part = Compander(limit=0.4, slope=2.0, law=law)
    w = jnp.linspace(-3.0, 3.0, 41)
    assert float(jnp.max(jnp.abs(part.compress(1e3 * w)))) <= 0.4
    np.testing.assert_allclose(jax.grad(lambda w: part.compress(w))(0.0), 2.0, rtol=1e-14)
    np.testing.assert_allclose(part.expand(part.compress(0.3 * w)), 0.3 * w, rtol=1e-9, atol=1e-15)


def test_a_gradient_goes_through_the_compander():
    """A device that is known: the gradient of the nominal weights against finite differences; symmetry is kept."""
    p = problem("symmetric")
    device = Substrate(aware=True, range=Compander(limit=0.8, slope=1.5))
    trainer = eqprop.Trainer(
        SETTLE, eqprop.FiniteNudge(stencil=eqprop.cauchy(0.2, 16), relaxation=SETTLE), optax.sgd(1.0)
    ).on(device)
    found, _ = eqx.filter_jit(trainer.gradient)(p.model, (p.x, p.y), key=KEY)
    params, static = eqx.partition(p.model, eqx.is_inexact_array)

    def loss(params):
        deployed = device.deploy(eqx.combine(params, static))

        def one(x, y):
            field = deployed.network.at(x)
            return deployed.readout.loss(field.rates(SETTLE(field.drift, field.initial_state()).state), y)

        return jnp.mean(jax.vmap(one)(p.x, p.y))

    assert device.reciprocity == "keeps"
    assert relative_error(found, finite_differences(loss, params)) < 1e-8


def test_what_is_refused():
    for settings in ({"threshold": 0.0}, {"momentum": 1.0}):
        with pytest.raises(ValueError, match="expected them above 0, and below 1"):
            freeze_oscillating(LEVELS, **settings)
    with pytest.raises(ValueError, match="needs fixed levels"):
        freeze_oscillating(Quantised(limit=None))
    with pytest.raises(ValueError, match="a load needs a limit"):
        Quantised(limit=None, leak=True)
    with pytest.raises(ValueError, match="margin=0.7; expected a number from 0 to 0.5"):
        FreezeConfident(LEVELS, 0.7)
    with unchecked(), pytest.raises(ValueError, match="law='erf'; expected one of arctan, tanh"):
        Compander(law="erf")  # pyright: ignore[reportArgumentType]
    rule = freeze_oscillating(LEVELS)
    with pytest.raises(ValueError, match="pass update"):
        rule.update(jnp.zeros(2), rule.init(jnp.zeros(2)))
