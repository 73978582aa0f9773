"""Devices: what each defect does to the fixed point, to reciprocity and so to the error vector, in closed form."""

# Attributes of the network that a model happens to have:
# pyright: reportAttributeAccessIssue=false

import dataclasses
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import eqprop
from eqprop import Substrate
from eqprop.substrate import (
    ADC,
    AbstractProbe,
    DeviceFlow,
    Drift,
    Faults,
    MirrorGain,
    Mismatch,
    NeuronSpread,
    NudgeDAC,
    NudgeGain,
    NudgeOffset,
    NudgePhase,
    ProgrammingNoise,
    Quantised,
    ReadoutNoise,
    WeightAngle,
)
from eqprop.substrate.base import chip_key
from helpers import (
    FD_TOL,
    SETTLE,
    estimate,
    finite_differences,
    flat,
    flat_batch,
    free_phase,
    gap,
    problem,
    relative_error,
    respond,
)

EXACT = 1e-12
"""The cosine that the specification of a class asks for."""


@eqx.filter_jit
def dense(model, x, y):
    """`J`, `D` and `g` at the fixed points, whatever the neurons are; from them `−D J⁻¹ g` and `−J⁻ᵀ D g`."""
    network = model.network

    def one(x, y):
        u = SETTLE(model.network.at(x).drift, model.network.at(x).initial_state()).state
        unravel = ravel_pytree(u)[1]
        u = flat(u)
        J = jax.jacfwd(lambda u: flat(model.network.at(x).drift(unravel(u))))(u)
        D = jnp.diagonal(jax.jacfwd(lambda u: flat(network.rates(unravel(u))))(u))
        g = flat(model.readout.teaching(network.rates(unravel(u)), y))
        return u, J, D, g

    u, J, D, g = jax.vmap(one)(x, y)
    return u, J, D, g


def tangent(J, D, g):
    return -np.asarray(D) * np.linalg.solve(np.asarray(J), np.asarray(g)[..., None])[..., 0]


def adjoint(J, D, g):
    return -np.linalg.solve(np.swapaxes(np.asarray(J), 1, 2), np.asarray(D * g)[..., None])[..., 0]


def cosines(a, b):
    return np.sum(a * b, -1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))


def deployed(name, **parts):
    """The problem, with the network on a chip."""
    p = problem(name)
    return eqx.filter_jit(Substrate(chip=5, **parts).deploy)(p.model), p.x, p.y


# Reciprocity classes.

KEEP = {
    "mismatch": Mismatch(1.0),
    "gaussian": Mismatch(0.3, law="gaussian"),
    "programming": ProgrammingNoise(sigma=0.05),
    "pcm": ProgrammingNoise(sigma=None),
    "drift": Drift(age=1e5),
    "faults": Faults(stuck_zero=0.1, stuck_min=0.1, stuck_max=0.05),
    "quantised": Quantised(3),
    "common_mode": Quantised(3, mapping="common_mode"),
}
UNTOUCHED = {
    "spread": NeuronSpread(1.0, 0.2),
    "dead": Faults(dead_neurons=0.3, dead_rate=0.2),
    "leak": Quantised(12, limit=4.0, leak=True),
}
GAUGES = {
    "mirrors": MirrorGain(0.3, 0.3),
    "row": Mismatch(0.5, structure="row"),
    "column": Mismatch(0.5, structure="column"),
}
BREAK = {
    "per_direction": Mismatch(0.5, structure="per_direction"),
    "tied": Mismatch(0.5, structure="per_direction_tied"),
    "programming": ProgrammingNoise(sigma=0.2, shared=False),
    "drift": Drift(age=1e5, shared=False),
    "faults": Faults(stuck_zero=0.2, shared=False),
    "angle": WeightAngle(45.0),
}


@pytest.mark.parametrize("name", ["symmetric", "hopfield", "conv_symmetric"])
@pytest.mark.parametrize("part", KEEP)
def test_shared_devices_keep_equilibrium_propagation_exact(name, part):
    """They move the fixed point, by any amount, and leave `cos(δ_EP, δ) = 1`."""
    assert KEEP[part].reciprocity == "keeps"
    model, x, y = deployed(name, part=KEEP[part])
    u, J, D, g = dense(model, x, y)
    assert np.all(1 - cosines(tangent(J, D, g), adjoint(J, D, g)) < EXACT)
    assert gap(u, dense(*problem(name))[0]) > 1e-4


@pytest.mark.parametrize("part", UNTOUCHED)
@pytest.mark.parametrize("name", ["symmetric", "hopfield"])
def test_neurons_of_their_own_leave_it_exact(name, part):
    """Gains, thresholds, dead neurons and leaks move the fixed point; they are on the diagonal of `M`."""
    model, x, y = deployed(name, part=UNTOUCHED[part])
    u, J, D, g = dense(model, x, y)
    assert np.all(1 - cosines(tangent(J, D, g), adjoint(J, D, g)) < EXACT)
    assert gap(u, dense(*problem(name))[0]) > 1e-3
    # The library sees the same: its estimators on the device agree with the dense solves.
    ep, rbp = eqprop.TangentResponse(relaxation=SETTLE), eqprop.RecurrentBackprop(relaxation=SETTLE)
    for estimator, delta in ((ep, tangent), (rbp, adjoint)):
        response = respond(estimator, model, x, y, free_phase(model, x))
        assert gap(flat_batch(response.payload), delta(J, D, g)) < 1e-12


@pytest.mark.parametrize("part", GAUGES)
def test_known_gains_repair_a_gauge(part):
    """`δ = G⁻¹ ∘ δ_EP[G g]`, where the plain one is off."""
    assert GAUGES[part].reciprocity == "gauge"
    model, x, y = deployed("symmetric", part=GAUGES[part])
    _, J, D, g = dense(model, x, y)
    true = adjoint(J, D, g)
    assert np.all(1 - cosines(tangent(J, D, g), true) > 1e-5)
    gain = np.asarray(flat(GAUGES[part].gauge(problem("symmetric").model.network.biases, key=chip_key(5, "part"))))
    repaired = np.asarray(tangent(J, D, gain * np.asarray(g))) / gain
    assert np.all(1 - cosines(repaired, true) < EXACT)


@pytest.mark.parametrize("part", BREAK)
def test_what_breaks_reciprocity(part):
    """The bias obeys `δ_EP − δ = M⁻¹ (A − Aᵀ) M⁻ᵀ g` exactly, for what the estimators return."""
    assert BREAK[part].reciprocity == "breaks"
    model, x, y = deployed("symmetric", part=BREAK[part])
    _, J, D, g = dense(model, x, y)
    A = (np.asarray(J) + np.eye(J.shape[-1])) / np.asarray(D)[:, None, :]
    M = np.asarray([np.diag(1 / d) for d in np.asarray(D)]) - A
    right = np.linalg.solve(np.swapaxes(M, 1, 2), np.asarray(g)[..., None])
    bias = np.linalg.solve(M, (A - np.swapaxes(A, 1, 2)) @ right)[..., 0]
    assert np.all(np.linalg.norm(bias, axis=-1) > 1e-4)
    free = free_phase(model, x)
    ep = flat_batch(respond(eqprop.TangentResponse(relaxation=SETTLE), model, x, y, free).payload)
    rbp = flat_batch(respond(eqprop.RecurrentBackprop(relaxation=SETTLE), model, x, y, free).payload)
    assert gap(ep - rbp, bias) < 1e-12


def test_asymmetric_devices_cannot_be_repaired_by_gains():
    """No diagonal `G` makes `G⁻¹ A` symmetric where two mismatched paths serve each synapse: around a cycle of three
    neurons the products of the couplings differ."""
    model, *_ = deployed("symmetric", part=BREAK["per_direction"])
    forward, back = model.network.kernels["l1", "l2"], model.network.kernels["l2", "l1"].T
    ratio = np.asarray(forward / back)  # a gauge gives an outer product, rank one
    singular = np.linalg.svd(ratio, compute_uv=False)
    assert singular[1] > 0.1 * singular[0]
    model, *_ = deployed("symmetric", part=GAUGES["mirrors"])
    ratio = np.asarray(model.network.kernels["l1", "l2"] / model.network.kernels["l2", "l1"].T)
    singular = np.linalg.svd(ratio, compute_uv=False)
    assert singular[1] < 1e-12 * singular[0]


# Fixed patterns.


def test_the_lognormal_law_has_mean_one_and_keeps_signs():
    """Mean 1 and `std(log f) = σ` within four standard errors, for a spread that is not clipped."""
    part, n = Mismatch(0.3, clip=20.0), 200_000
    f = np.asarray(part.factor(jnp.zeros(n), jax.random.key(1)))
    assert abs(f.mean() - 1) < 4 * f.std() / math.sqrt(n)
    assert abs(np.log(f).std() - 0.3) < 4 * 0.3 / math.sqrt(2 * n)
    assert f.min() > 0
    assert "4.8%" in Mismatch(0.6, law="gaussian").note() and not Mismatch(0.6).note()


def test_patterns_belong_to_the_chip():
    """The same at every call and whatever else is stacked; others on another chip."""
    model = problem("symmetric").model
    one = Substrate(chip=1, mismatch=Mismatch(0.2)).deploy(model)
    again = Substrate(chip=1, faults=Faults(dead_neurons=0.5), mismatch=Mismatch(0.2)).deploy(model)
    other = Substrate(chip=2, mismatch=Mismatch(0.2)).deploy(model)
    assert gap(one.network.kernels, again.network.network.kernels) == 0  # pyright: ignore
    assert gap(one.network.kernels, other.network.kernels) > 0.01
    renamed = Substrate(chip=1, second=Mismatch(0.2)).deploy(model)
    assert gap(one.network.kernels, renamed.network.kernels) > 0.01


def test_one_device_serves_both_directions_of_a_loop():
    """Of a layer onto itself, `ij` and `ji` are one device: symmetric weights stay so."""
    p = problem("loop")
    kernel = p.model.network.kernels["l2", "l2"]
    model = eqx.tree_at(lambda m: m.network.kernels["l2", "l2"], p.model, kernel + kernel.T)
    new = Substrate(mismatch=Mismatch(0.5)).deploy(model).network.kernels["l2", "l2"]
    assert gap(new, new.T) == 0 and gap(new, kernel + kernel.T) > 0.01


def test_an_edge_and_its_reverse_share_a_device_or_have_their_own():
    """The factors of a sparse network's mismatch, weight by weight."""
    edges, inputs = eqprop.topology.random(40, 12, 0), eqprop.topology.inputs(3, 40, 2, 0)
    network = eqprop.SparseNetwork(3, 40, edges, inputs, outputs=2, key=jax.random.key(0))
    model, pairs = eqprop.Model(network, eqprop.SquaredError()), np.asarray(network.pairs)
    lone = np.flatnonzero(np.asarray(network.reverse) == network.weights.size)
    assert len(pairs) > 3 and len(lone) > 3

    def factors(**settings):
        return np.asarray(Substrate(part=Mismatch(0.5, **settings)).deploy(model).network.weights / network.weights)

    shared, own = factors(), factors(structure="per_direction")
    np.testing.assert_allclose(shared[pairs[:, 0]], shared[pairs[:, 1]], rtol=1e-14)
    assert abs(np.corrcoef(np.log(own[pairs]).T)[0, 1]) < 0.3
    for found in (shared[lone], own[lone], shared[pairs[:, 0]]):
        assert np.std(np.log(found)) == pytest.approx(0.5, abs=0.1)


def test_resistors_keep_equilibrium_propagation_exact_whatever_their_mismatch():
    """A resistor is one device: mismatch moves the fixed point, and leaves the response the true error vector."""
    graph = eqprop.topology.lattice((3, 3))
    network = eqprop.circuit.ResistorGraph(9, graph, inputs=[0, 8], outputs=[2, 6], key=jax.random.key(0))
    model, x, y = eqprop.Model(network, eqprop.SquaredError()), jnp.asarray([1.0, -0.5]), jnp.asarray([0.2, 0.1])
    relaxation = eqprop.Newton(tol=1e-14)

    def errors(model):
        free = relaxation(model.network.at(x).drift, model.network.at(x).initial_state())
        kinds = eqprop.TangentResponse, eqprop.RecurrentBackprop
        found = [kind(relaxation=relaxation).error(model.at(x, y), free).delta for kind in kinds]
        return ravel_pytree(free.state)[0], *(ravel_pytree(delta)[0] for delta in found)

    mismatched = Substrate(part=Mismatch(0.5), faults=Faults(stuck_zero=0.1)).deploy(model)
    (u, *_), (moved, response, true) = errors(model), errors(mismatched)
    assert gap(u, moved) > 1e-2
    np.testing.assert_allclose(response, true, rtol=1e-12)
    with pytest.raises(ValueError, match="ResistorGraph has one kernel for both"):
        Substrate(part=Mismatch(0.5, structure="per_direction")).deploy(model)


def test_the_angle_of_weights():
    """The feedback stands at the angle asked for, as long as the forward weights."""
    model, *_ = deployed("symmetric", angle=WeightAngle(30.0))
    for forward, back in model.network.reciprocal_pairs():
        cosine = jnp.sum(forward * back) / jnp.sqrt(jnp.sum(forward**2) * jnp.sum(back**2))
        assert abs(float(cosine) - math.cos(math.pi / 6)) < 1e-14
        assert abs(float(jnp.sum(back**2) / jnp.sum(forward**2)) - 1) < 1e-13


# Conductances.


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_levels_of_a_pair_of_devices(bits):
    """One-sided: multiples of a step, half of one away at most; common mode: odd multiples. Beyond the limit: at it."""
    w = jnp.linspace(-3.0, 3.0, 1001)
    steps = 2**bits - 1
    for mapping, farthest in (("one_sided", 0.5), ("common_mode", 1.0)):
        part = Quantised(bits, limit=2.0, mapping=mapping)  # pyright: ignore[reportArgumentType]
        level = np.asarray(part.round(w)) * steps / 2.0
        np.testing.assert_allclose(level, np.round(level), atol=1e-9)
        inside = np.abs(np.asarray(w)) <= 2
        assert np.max(np.abs(level - np.asarray(w) * steps / 2)[inside]) <= farthest + 1e-9
        assert np.max(np.abs(level)) == pytest.approx(steps, abs=1e-9)
    odd = np.round(np.asarray(Quantised(bits, limit=2.0, mapping="common_mode").round(w)) * steps / 2)
    assert np.all((odd % 2 == 1) | (odd == 0))
    assert gap(jax.grad(lambda w: jnp.sum(part.round(w)))(w), jnp.ones_like(w)) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_levels_are_exact(dtype):
    """No rounding on top of the rounding: `2^(bits+1) − 1` values, those of the levels, and tied pairs equal bit for
    bit; also through a substrate that is not aware."""
    w, steps = jnp.linspace(-1.5, 1.5, 4001, dtype=dtype), 7
    levels = np.asarray(0.7 * jnp.arange(-steps, steps + 1, dtype=dtype) / steps)
    assert set(np.unique(np.asarray(Quantised(3, limit=0.7).round(w)))) == set(levels)
    # Compiled, a level may be another number in the last digit, but is one number.
    found = np.unique(np.asarray(jax.jit(Quantised(3, limit=0.7).round)(w)))
    assert len(found) == len(levels) and gap(found, levels) <= np.finfo(dtype).eps
    for name in ("symmetric", "conv_symmetric"):
        model, *_ = deployed(name, part=Quantised(3, limit=0.7))
        for kernel in model.network.kernels.values():
            assert len(np.unique(np.asarray(kernel))) <= len(levels)
        for forward, back in model.network.reciprocal_pairs():
            assert gap(forward, back) == 0


def test_leak_of_the_conductances():
    """`Σ (G⁺ + G⁻)` at every neuron, by hand from the rounded weights; the loaded circuit has the same rates."""
    part = Quantised(10, on_off_ratio=50.0, limit=2.0, leak=True)
    model, *_ = deployed("symmetric", part=part)
    w = {name: np.asarray(k) for name, k in model.network.network.kernels.items()}
    least = 2.0 / 50 / (1 - 1 / 50)
    loads = {
        "l1": [("in", "l1"), ("l2", "l1")],
        "l2": [("l1", "l2"), ("out", "l2")],
        "out": [("l2", "out")],
    }
    for layer, edges in loads.items():
        expected = sum(np.sum(np.abs(w[e]) + 2 * least, axis=0) for e in edges)
        assert gap(1 / model.network.gain[layer], 1 + expected) < 1e-11
    network, x = model.network.network, problem("symmetric").x[0]
    load = jax.tree.map(lambda gain: 1 / gain - 1, model.network.gain)
    v = SETTLE(model.network.at(x).drift, model.network.at(x).initial_state()).state
    u = jax.tree.map(lambda v, load: v / (1 + load), v, load)
    s = network.rates(u)
    kirchhoff = jax.tree.map(lambda d, u, l: d - (1 + l) * u, network.at(x).drive(s), u, load)
    assert float(jnp.abs(flat(kirchhoff)).max()) < 1e-12


def test_drift_follows_its_power_law():
    """`((t₀ + age)/t₀)^−ν`, with the published exponents of phase-change memory: 0.049 to 0.1 within four spreads."""
    p = problem("symmetric")
    new = Substrate(drift=Drift(age=180.0, nu=0.05)).deploy(p.model).network.kernels
    assert gap(new, jax.tree.map(lambda k: k * 10.0**-0.05, p.model.network.kernels)) < 1e-14
    part, w = Drift(age=180.0), jnp.asarray([1.0, 0.2, 0.01])
    np.testing.assert_allclose(part.exponent(w, jnp.zeros(3)), [0.049, 0.049347, 0.09578], atol=1e-5)


def test_faults_hold_their_value_and_feel_no_update():
    """Fractions as asked for, the values held, and no gradient where a device is stuck."""
    p = problem("conv", 0)
    part = Faults(stuck_zero=0.1, stuck_min=0.2, stuck_max=0.1, limit=3.0, on_off_ratio=10.0)

    def total(model):
        deployed = Substrate(faults=part).deploy(model)
        return sum(jnp.sum(k) for k in deployed.network.kernels.values()), deployed.network.kernels

    gradient, new = eqx.filter_grad(total, has_aux=True)(p.model)
    trees = new, p.model.network.kernels, gradient.network.kernels
    new, old, felt = (np.concatenate([np.ravel(k) for k in jax.tree.leaves(tree)]) for tree in trees)
    for value, fraction in ((0.0, 0.1), (0.3, 0.2), (3.0, 0.1)):
        stuck = np.isclose(np.abs(new), value, atol=1e-12)
        error = math.sqrt(fraction * (1 - fraction) / new.size)
        assert abs(stuck.mean() - fraction) < 4 * error
        assert np.all(felt[stuck] == 0)
    assert np.all(felt[new == old] == 1)


# Gradients through a device.


@pytest.mark.slow
@pytest.mark.parametrize("part", [Mismatch(0.3, structure="per_direction"), MirrorGain(0.2, 0.2)])
def test_an_aware_update_follows_the_loss(part):
    """The step of recurrent backpropagation is the gradient of the device's loss to the nominal parameters, by finite
    differences; unaware it is the one that a network with the effective parameters takes."""
    p, estimator = problem("asymmetric"), eqprop.RecurrentBackprop(relaxation=SETTLE)
    params, static = eqx.partition(p.model, eqx.is_inexact_array)

    def moved(aware):
        trainer = eqprop.Trainer(SETTLE, estimator, optax.sgd(1.0)).on(Substrate(part=part, aware=aware))
        state, _ = eqx.filter_jit(trainer.step)(trainer.init(p.model, key=jax.random.key(0)), (p.x, p.y))
        return jax.tree.map(lambda a, b: a - b, params, eqx.filter(state.model, eqx.is_inexact_array))

    device = Substrate(part=part)

    def loss(nominal):
        model = device.deploy(eqx.combine(nominal, static))

        def one(x, y):
            u = SETTLE(model.network.at(x).drift, model.network.at(x).initial_state()).state
            return model.readout.loss(model.network.rates(u), y)

        return jnp.mean(jax.vmap(one)(p.x, p.y))

    assert gap(moved(True), finite_differences(loss, params)) < 5 * FD_TOL
    _, effective = estimate(estimator, device.deploy(p.model), p.x, p.y)
    assert gap(moved(False), effective) < 1e-12 and gap(moved(True), effective) > 1e-3


# Nudges.

PATTERN = 0.3


def nudged(part):
    """Error vector of an infinitesimal nudge with the defect, and what the dense solve says without: `J`, `D`, `g`."""
    p = problem("asymmetric")
    model = Substrate(chip=5, part=part).nudge(p.model)
    response = respond(eqprop.TangentResponse(relaxation=SETTLE), model, p.x, p.y, free_phase(p.model, p.x))
    _, J, D, g = dense(p.model, p.x, p.y)
    return flat_batch(response.payload), J, D, g


def test_gains_and_offsets_of_the_nudge():
    """The error vector of `g ∘ (1 + σE)`, of `g + σE` and of `g cos φ`, with patterns that the chip fixes."""
    delta, J, D, g = nudged(NudgePhase(60.0))
    assert gap(delta, 0.5 * tangent(J, D, g)) < 1e-12
    gained, *_ = nudged(NudgeGain(PATTERN))
    offset, *_ = nudged(NudgeOffset(PATTERN))
    plain = tangent(J, D, g)
    assert relative_error(gained, plain) > 0.05 and relative_error(offset, plain) > 0.05
    # What reached the outputs: δ = −D J⁻¹ g, undone.
    arrived = [-np.einsum("bij,bj->bi", J, d / D) for d in (gained, offset)]
    out = np.abs(np.asarray(g)).max(0) > 0
    gain = arrived[0][:, out] / np.asarray(g)[:, out]
    assert np.ptp(gain, axis=0).max() < 1e-11 and np.all(np.abs(gain - 1) <= 2.5 * PATTERN + 1e-11)
    added = (arrived[1] - np.asarray(g))[:, out]
    assert np.ptp(added, axis=0).max() < 1e-11 and np.all(np.abs(added) <= 2.5 * PATTERN + 1e-11)
    assert gap((arrived[1] - np.asarray(g))[:, ~out], np.zeros_like(g[:, ~out])) < 1e-11


def test_a_converter_rounds_targets_and_not_currents():
    """`2^bits` levels; teaching towards a target on a level is unchanged."""
    dac = NudgeDAC(2)
    np.testing.assert_allclose(dac.convert(jnp.asarray([-1.0, 0.1, 0.2, 0.6, 0.9, 2.0])), [0, 0, 1 / 3, 2 / 3, 1, 1])
    p = problem("asymmetric")
    model = Substrate(dac=dac).nudge(p.model)
    s = p.model.network.rates(jax.tree.map(lambda v: v[0], free_phase(p.model, p.x).state))
    assert gap(model.readout.teaching(s, p.y[0]), p.model.readout.teaching(s, p.y[0])) == 0
    smooth = jnp.asarray([0.2, 0.7, 0.1])
    assert gap(model.readout.teaching(s, smooth), p.model.readout.teaching(s, dac.convert(smooth))) == 0
    whole = jnp.asarray([0, 3, 1])  # a vector of targets, and no class
    assert gap(model.readout.teaching(s, whole), p.model.readout.teaching(s, jnp.asarray([0.0, 1.0, 1.0]))) == 0
    label = jnp.asarray(1)
    assert gap(model.readout.teaching(s, label), p.model.readout.teaching(s, label)) == 0


# Refusals and reports.


class Rectifier(AbstractProbe):
    """A reading that is not analytic."""

    holomorphic: ClassVar[bool] = False

    def __call__(self, s, *, phase, chip, run):
        return jax.tree.map(jnp.abs, s)


def test_a_substrate_refuses_what_does_not_go_together():
    nudge = eqprop.FiniteNudge(stencil=eqprop.cauchy(0.3, 4), relaxation=SETTLE)
    with pytest.raises(ValueError, match="clip of the substrate is not holomorphic.*centred"):
        Substrate(clip=Rectifier()).equip(nudge)
    Substrate(clip=Rectifier()).equip(eqprop.FiniteNudge(stencil=eqprop.centred(0.3), relaxation=SETTLE))
    with pytest.raises(ValueError, match="RecurrentBackprop measures no rates that a device's readings"):
        Substrate(adc=ADC(8)).equip(eqprop.RecurrentBackprop(relaxation=SETTLE))
    with pytest.raises((ValueError, TypeError), match="AbstractImperfection"):  # the type, where it is checked
        Substrate(dynamics=eqprop.Flow())  # pyright: ignore
    with pytest.raises(ValueError, match="one kernel for both"):
        Substrate(m=Mismatch(0.1, structure="per_direction")).deploy(problem("hopfield").model)
    with pytest.raises(ValueError, match="DenseNetwork"):
        Substrate(m=MirrorGain()).deploy(problem("conv").model)
    with pytest.raises(ValueError, match="no pair"):
        network = eqprop.DenseNetwork(6, {"out": 3}, [("in", "out")], key=jax.random.key(0))
        Substrate(a=WeightAngle()).deploy(eqprop.Model(network, problem("loop").model.readout))
    for make in (
        lambda: Mismatch(-0.1),
        lambda: MirrorGain(receiver=0.5),
        lambda: Quantised(0),
        lambda: Faults(stuck_zero=0.7, stuck_max=0.7),
        lambda: NudgeDAC(8, low=1.0, high=0.0),
    ):
        with pytest.raises(ValueError):
            make()


class Untold(eqprop.AbstractEstimator):
    """An estimator of a user, who has said nothing of devices: the gradient at a fixed state."""

    needs_free_phase: ClassVar[bool] = True

    def respond(self, example, free, *, key=None):
        return eqprop.Response(free.state, None, jnp.zeros((), jnp.int32), free.result, jnp.asarray(False))

    def surrogate(self, example, response):
        return example.loss(example.field.rates(response.state))


def test_an_estimator_says_itself_how_it_runs_on_a_device():
    """Where a device moves or reads on its own, an estimator that does not say so is refused, at once; where it only
    has weights of its own, there is nothing to say."""
    trainer = eqprop.Trainer(SETTLE, Untold(), optax.sgd(0.1))
    for device in (Substrate(flow=DeviceFlow()), Substrate(flow=eqprop.Flow()), Substrate(adc=ADC(8))):
        with pytest.raises(
            ValueError, match=r"Untold does not say how it runs on a device\. Give it a method on_device"
        ):
            trainer.on(device)
    assert trainer.on(Substrate(mismatch=Mismatch(0.1), dac=NudgeDAC(8))).substrate is not None


def test_a_trainer_on_a_device_is_one_made_with_it():
    """`Trainer(substrate=S)`, `.on(S)` and `.on(S).on(S)` are one trainer, whose step is one step: nothing of a device
    is applied twice."""
    p, device = problem("asymmetric"), Substrate(chip=5, mismatch=Mismatch(0.3), noise=ReadoutNoise(0.1))
    nudge = eqprop.FiniteNudge(stencil=eqprop.centred(0.1), relaxation=SETTLE)
    plain, made = (eqprop.Trainer(SETTLE, nudge, optax.sgd(0.1), substrate=s) for s in (None, device))
    # The static parts, functions of optax among them, are the same objects.
    made = dataclasses.replace(made, optimiser=plain.optimiser)
    assert eqx.tree_equal(made, plain.on(device)) and eqx.tree_equal(made, made.on(device))
    assert eqx.tree_equal(plain, made.on(None)) and not eqx.tree_equal(plain, made)
    step = eqx.filter_jit(lambda trainer: trainer.step(trainer.init(p.model, key=jax.random.key(0)), (p.x, p.y)))
    moved = [step(trainer)[0].model for trainer in (made, made.on(device), plain)]
    assert gap(moved[0], moved[1]) == 0 and gap(moved[0], moved[2]) > 1e-3


def test_what_a_stack_amounts_to():
    """The worst class of its parts; a table with a row a part."""
    keeps = Substrate(chip=3, spread=NeuronSpread(), mismatch=Mismatch(0.1))
    assert keeps.reciprocity == "keeps"
    breaks = Substrate(chip=3, mismatch=Mismatch(0.5, "gaussian", "per_direction"), mirrors=MirrorGain())
    assert breaks.reciprocity == "breaks" and Substrate().reciprocity == "none"
    text = breaks.describe()
    assert "mismatch" in text and "MirrorGain" in text and "chip 3" in text and "change sign" in text
    assert len(text.splitlines()) == 5


AFTER = {
    "noise": (ProgrammingNoise(sigma=0.05), False),
    "rounding": (Quantised(5, limit=2.0), False),
    "stuck": (Faults(stuck_max=0.1), False),
    "aged memory": (Drift(age=1e5), False),
    "factors": (Mismatch(0.3), True),
    "power law": (Drift(age=1e5, nu=0.05, spread=0.02), True),
    "open": (Faults(stuck_zero=0.1), True),
    "neurons": (NeuronSpread(0.3, 0.1), True),
    "more gains": (Mismatch(0.3, structure="column"), True),
}


@pytest.mark.parametrize("part", AFTER)
def test_the_class_of_a_stack_depends_on_its_order(part):
    """Before the gains anything that keeps `A = Aᵀ` leaves a gauge. After them only factors do: whatever else acts on
    the devices makes the gains unknown. Known gains are exact in one class, and not applied in the other."""
    other, commutes = AFTER[part]
    mirrors = MirrorGain(0.2, 0.2)
    for parts, gauge in (({"a": other, "m": mirrors}, True), ({"m": mirrors, "a": other}, commutes)):
        device = Substrate(chip=2, known_gains=True, **parts)
        assert device.reciprocity == ("gauge" if gauge else "breaks")
        assert ("not applied" in device.describe()) == (not gauge)
        p = problem("symmetric")
        model = eqx.filter_jit(device.deploy)(p.model)
        _, J, D, g = dense(model, p.x, p.y)
        gain = np.ones(g.shape[-1])
        for name, one in parts.items():
            if one.reciprocity == "gauge":
                gain = gain * np.asarray(flat(one.gauge(p.model.network.biases, key=chip_key(2, name))))
        error = relative_error(tangent(J, D, gain * np.asarray(g)) / gain, adjoint(J, D, g))
        assert (error < 1e-11) == gauge
        nudged = device.nudge(model).readout
        assert (nudged is model.readout) == (not gauge)


def test_holomorphic_is_that_of_the_network():
    """Neurons on a device are analytic where those of the network are."""
    model, *_ = deployed("symmetric", part=NeuronSpread())
    assert model.network.holomorphic
    network = eqprop.DenseNetwork(6, {"out": 3}, [("in", "out")], activation=jax.nn.relu, key=jax.random.key(0))
    device = Substrate(part=NeuronSpread()).deploy(eqprop.Model(network, eqprop.SquaredError()))
    assert not device.network.holomorphic


def test_an_ideal_device_changes_nothing():
    """The same update to the last bit."""
    p = problem("asymmetric")
    trainer = eqprop.Trainer(SETTLE, eqprop.FiniteNudge(stencil=eqprop.centred(0.1), relaxation=SETTLE), optax.sgd(0.1))
    states = [
        eqx.filter_jit(t.step)(t.init(p.model, key=jax.random.key(0)), (p.x, p.y))[0]
        for t in (trainer, trainer.on(Substrate()))
    ]
    assert gap(states[0].model, states[1].model) == 0


def test_estimators_see_the_device():
    """A training step on a mismatched chip is that of the effective network: same error vectors and updates."""
    p = problem("symmetric")
    estimator = eqprop.FiniteNudge(stencil=eqprop.cauchy(0.3, 6), relaxation=SETTLE)
    trainer = eqprop.Trainer(SETTLE, estimator, optax.sgd(1.0)).on(Substrate(chip=5, part=Mismatch(0.4)))
    state, _ = eqx.filter_jit(trainer.step)(trainer.init(p.model, key=jax.random.key(0)), (p.x, p.y))
    model, x, y = deployed("symmetric", part=Mismatch(0.4))
    _, expected = estimate(estimator, model, x, y)
    took = jax.tree.map(lambda a, b: a - b, *(eqx.filter(m, eqx.is_inexact_array) for m in (p.model, state.model)))
    assert gap(took, expected) < 1e-13
