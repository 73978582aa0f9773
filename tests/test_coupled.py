"""Coupled learning on resistor graphs, and the bias of an offset between two copies, against dense algebra."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop
from eqprop import FiniteNudge, LockIn, Newton, SquaredError, Substrate, Trainer, topology
from eqprop.circuit import CoupledLearning, Diodes, ResistorGraph
from eqprop.estimator import Device
from eqprop.substrate import PhaseOffset
from helpers import chain, gap, relative_error, slope

NEWTON = Newton(tol=1e-13)
KEY = jax.random.key(0)
X, Y = jnp.array([[1.0, -0.4], [0.3, 0.8]]), jnp.array([[0.1, 0.2], [0.3, 0.4]])


def lattice(seed: int = 0, **settings) -> ResistorGraph:
    settings = {"inputs": [0, 8], "outputs": [2, 6], "rails": {4: 0.5}} | settings
    return ResistorGraph(9, topology.lattice((3, 3)), key=jax.random.key(seed), **settings)


@eqx.filter_jit
def gradient(estimator, network, x, y, device: Substrate | None = None, relaxation=NEWTON) -> jax.Array:
    trainer = Trainer(relaxation, estimator, optax.sgd(0.1)).on(device)
    found: Any
    found, measured = trainer.gradient(eqprop.Model(network, SquaredError(regression=True)), (x, y), key=KEY)
    return eqx.error_if(found.network.conductances, measured["usable_fraction"] < 1, "an example did not settle")


def coupled(eta: float = 0.1) -> CoupledLearning:
    return CoupledLearning(eta=eta, relaxation=NEWTON)


def voltages(network: ResistorGraph, held: dict[int, float]) -> np.ndarray:
    """Kirchhoff's law solved densely with some nodes held."""
    L = network.leak * np.eye(network.nodes)
    for (a, b), g in zip(network.ends, np.abs(np.asarray(network.conductances)), strict=True):
        L[[a, b], [a, b]] += g
        L[[a, b], [b, a]] -= g
    fixed, free = [*held], [node for node in range(network.nodes) if node not in held]
    v = np.zeros(network.nodes)
    v[fixed] = [*held.values()]
    v[free] = np.linalg.solve(L[np.ix_(free, free)], -L[np.ix_(free, fixed)] @ v[fixed])
    return v


def copies(network: ResistorGraph, x, y, eta: float) -> tuple[np.ndarray, np.ndarray]:
    """The free and the clamped voltages."""
    held = dict(zip(network.inputs, map(float, x), strict=True)) | dict(network.rails)
    free = voltages(network, held)
    out = {node: float((1 - eta) * free[node] + eta * t) for node, t in zip(network.outputs, y, strict=True)}
    return free, voltages(network, held | out)


def drops(network: ResistorGraph, v: np.ndarray) -> np.ndarray:
    a, b = np.array(network.ends).T
    return v[a] - v[b]


@pytest.mark.parametrize("eta", [1e-3, 1.0])
def test_the_rule_is_that_of_two_dense_solves(eta):
    """`(Δv_C² − Δv_F²)/2η`, averaged over examples, for a weak clamp and for the full one."""
    network = lattice(leak=0.1)
    each = [[drops(network, v) ** 2 for v in copies(network, x, y, eta)] for x, y in zip(X, Y, strict=True)]
    expected = np.mean([(clamped - free) / (2 * eta) for free, clamped in each], axis=0)
    np.testing.assert_allclose(gradient(coupled(eta), network, X, Y), expected, atol=1e-12 / eta, rtol=0)


def test_the_rule_is_the_gradient_under_another_teaching_current():
    """That of `S⁻¹ (v − y)`, `S` the response of the outputs, as the clamp becomes weak; with finite differences."""
    network, x, y = lattice(), X[:1], Y[:1]
    held = dict(zip(network.inputs, map(float, x[0]), strict=True)) | dict(network.rails)
    free = voltages(network, held)
    rest = [node for node in range(9) if node not in held]
    L = np.zeros((9, 9))
    for (a, b), g in zip(network.ends, np.asarray(network.conductances), strict=True):
        L[[a, b], [a, b]] += g
        L[[a, b], [b, a]] -= g
    outputs = list(network.outputs)
    places = [rest.index(node) for node in outputs]
    S = np.linalg.inv(L[np.ix_(rest, rest)])[np.ix_(places, places)]
    push = np.linalg.solve(S, free[outputs] - np.asarray(y[0]))

    def pulled(g):  # ⟨push, outputs⟩, whose gradient is that of the loss under the other current
        return push @ voltages(eqx.tree_at(lambda n: n.conductances, network, g), held)[outputs]

    g, h = np.asarray(network.conductances), 1e-4
    expected = [(pulled(g + h * e) - pulled(g - h * e)) / (2 * h) for e in np.eye(g.size)]
    assert relative_error(gradient(coupled(1e-6), network, x, y), np.array(expected)) < 1e-5


def test_one_output_makes_coupled_learning_and_nudges_parallel():
    """Diodes or not."""
    nudge = FiniteNudge(stencil=eqprop.centred(1e-4), relaxation=NEWTON)
    for diodes in (None, Diodes(saturation=1e-4)):
        network = lattice(outputs=[2], diodes=diodes, leak=0.1)
        x, y = X[:1], Y[:1, :1]
        cosine = eqprop.metrics.cosine(gradient(coupled(1e-5), network, x, y), gradient(nudge, network, x, y))
        assert float(cosine) > 1 - 1e-8
        off = gradient(coupled(1e-5), network, X, Y[:, :1]) - 0.5 * sum(
            gradient(coupled(1e-5), network, X[i : i + 1], Y[i : i + 1, :1]) for i in range(2)
        )
        assert float(jnp.abs(off).max()) < 1e-12


def pattern(network: ResistorGraph, device: Substrate) -> np.ndarray:
    """The offset of every resistor, as the probe adds it in phase 1."""
    field = network.at(X[0])
    zero = field.initial_state()
    readings = device.readings()
    assert readings is not None
    off = jax.tree.map(lambda a, b: a - b, readings(zero, phase=1), readings(zero, phase=0))
    return np.asarray(network.drops(off, jnp.zeros_like(field.current)))


def test_the_bias_of_an_offset_is_the_closed_form():
    """`(Δv_C Δo + Δo²/2)/η` of coupled learning, `−Δv_F Δo/β` of a one-sided nudge, half of it for copies in turns, and
    none of a centred nudge."""
    network, x, y, strength = lattice(), X[:1], Y[:1], 0.2
    device = Substrate(chip=3, offset=PhaseOffset(1e-2))
    turns = Substrate(chip=3, offset=PhaseOffset(1e-2, alternate=True))
    free, clamped = (drops(network, v) for v in copies(network, x[0], y[0], strength))
    o = pattern(network, device)
    assert np.abs(o).max() > 1e-3

    def bias(estimator, device):
        return gradient(estimator, network, x, y, device) - gradient(estimator, network, x, y)

    one_sided = FiniteNudge(stencil=eqprop.one_sided(strength), relaxation=NEWTON)
    centred = FiniteNudge(stencil=eqprop.centred(strength), relaxation=NEWTON)
    np.testing.assert_allclose(bias(coupled(strength), device), (clamped * o + o**2 / 2) / strength, atol=1e-10)
    np.testing.assert_allclose(bias(one_sided, device), -free * o / strength, atol=1e-10)
    np.testing.assert_allclose(np.abs(bias(centred, turns)), np.abs(free * o) / (2 * strength), atol=1e-10)
    np.testing.assert_allclose(bias(centred, device), 0, atol=1e-10)


@pytest.mark.parametrize("alternate", [False, True])
def test_lock_in_does_not_see_an_offset(alternate):
    """Constant or in turns, to rounding; the same nudges read statically in turns do."""
    network = lattice()
    device = Substrate(chip=3, offset=PhaseOffset(1e-2, alternate=alternate))
    lock_in = LockIn(beta=0.2, period=40.0, steps_per_period=800, tol=1.0)
    with_offset, without = gradient(lock_in, network, X, Y, device), gradient(lock_in, network, X, Y)
    assert gap(with_offset, without) < 1e-12
    assert float(eqprop.metrics.cosine(without, gradient(coupled(), network, X, Y))) > 0.3


def floors(estimator, offset: PhaseOffset | None, sigmas, seeds, rate: float, steps: int) -> np.ndarray:
    """The median loss of the last tenth of updates, by offset and seed: two outputs of a lattice, one example."""

    def one(sigma, seed):
        network = lattice()
        network = eqx.tree_at(
            lambda n: n.conductances, network, jax.random.uniform(jax.random.key(seed), (12,), float, 0.5, 1.5)
        )
        device = None if offset is None else Substrate(chip=seed, offset=eqx.tree_at(lambda p: p.sigma, offset, sigma))
        trainer = Trainer(NEWTON, estimator, optax.sgd(1.0)).on(device)

        def step(g, _):
            model = eqprop.Model(eqx.tree_at(lambda n: n.conductances, network, g), SquaredError(regression=True))
            found: Any
            found, measured = trainer.gradient(model, (X[:1], Y[:1]), key=KEY)
            return jnp.clip(g - rate * found.network.conductances, 0.05, 5.0), measured["loss"]

        losses = jax.lax.scan(step, network.conductances, None, length=steps)[1]
        return jnp.median(losses[-steps // 10 :])

    pairs = [(sigma, seed) for seed in seeds for sigma in sigmas]
    found = jax.jit(jax.vmap(one))(*(jnp.asarray(column) for column in zip(*pairs, strict=True)))
    return np.asarray(found).reshape(len(seeds), len(sigmas))


@pytest.mark.parametrize("method", ["coupled", "one_sided", "in_turns"])
def test_an_offset_puts_a_floor_under_the_error(method):
    """The error at which training ends is proportional to the offset over the strength: a slope of one, and the same
    floor for twice the offset at twice the strength."""
    sigmas, seeds = (1e-6, 1e-5, 1e-4), (0, 1)

    def run(strength: float, factor: float = 1.0):
        stencil = eqprop.centred(strength) if method == "in_turns" else eqprop.one_sided(strength)
        estimator = coupled(strength) if method == "coupled" else FiniteNudge(stencil=stencil, relaxation=NEWTON)
        rate = 0.3 if method == "coupled" else 2.0
        offset = PhaseOffset(1.0, alternate=method == "in_turns")
        return floors(estimator, offset, [factor * sigma for sigma in sigmas], seeds, rate, 400)

    found = run(0.1)
    fitted = [slope(np.log(sigmas), np.log(np.sqrt(row))) for row in found]
    print(method, found, fitted)
    assert all(abs(exponent - 1) < 0.1 for exponent in fitted)
    np.testing.assert_allclose(np.sqrt(run(0.2, 2.0)), np.sqrt(found), rtol=0.3)


def test_centred_nudges_and_no_offset_have_no_floor():
    """Whatever a constant offset, the loss falls as far as without it."""
    centred = FiniteNudge(stencil=eqprop.centred(0.1), relaxation=NEWTON)
    with_offset = floors(centred, PhaseOffset(1.0), [1e-4, 1e-2], (0, 1), 2.0, 400)
    without = floors(centred, None, [0.0], (0, 1), 2.0, 400)
    plain = floors(coupled(0.1), None, [0.0], (0, 1), 0.3, 400)
    print(with_offset, without, plain)
    assert with_offset.max() < 1e-20 and without.max() < 1e-20 and plain.max() < 1e-14


def test_what_is_refused():
    for eta in (0.0, 1.5, -0.1):
        with pytest.raises(ValueError, match=f"eta is {eta}; expected a number above 0 and up to 1"):
            coupled(eta)
    with pytest.raises(ValueError, match="DenseNetwork is no ResistorGraph. Use FiniteNudge"):
        coupled().check(chain(0.0, key=KEY))
    assert coupled().on_device(Device(relaxation=eqprop.Picard())).relaxation == eqprop.Picard()
