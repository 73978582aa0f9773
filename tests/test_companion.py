"""Companions against explicit loops in NumPy, against dense solves, and against what they promise of a prediction."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop
from eqprop import FiniteNudge, RecurrentBackprop, TangentResponse
from eqprop.companion import Averaged, Symmetrised, align_classes, tangential
from helpers import (
    SETTLE,
    Problem,
    chain,
    conv,
    estimate,
    flat_batch,
    free_phase,
    gap,
    loss_gradient,
    oracle,
    relative_error,
    respond,
    slope,
    surrogate_gradient,
    unchecked,
)

KEYS = jax.random.split(jax.random.key(0), 6)

# Tangential updates.


def length(v) -> float:
    return float(np.sqrt(np.sum(np.asarray(v) ** 2)))


def projected(p, g, w, delta=0.1) -> tuple[str, np.ndarray]:
    """The rule, channel by channel; and which of its cases it is."""
    channels, whole = range(w.shape[-1]), [(...,)]
    for case, parts in [("channels", [(..., c) for c in channels]), ("whole", whole)]:
        cosines = [abs(np.sum(g[part] * w[part])) / (length(g[part]) * length(w[part])) for part in parts]
        if max(cosines) < delta / np.sqrt(w[parts[0]].size):
            p = p.copy()
            for part in parts:
                p[part] -= np.sum(p[part] * w[part]) / np.sum(w[part] ** 2) * w[part]
            return case, p
    return "passes", p


def tangent(p, g, w) -> Any:
    """The updates of the library, which has no state."""
    rule = tangential()
    return rule.update(p, rule.init(w), w, grad=g)[0]


@pytest.mark.parametrize("shape", [(6, 4), (3, 3, 2, 5)])
def test_tangential_updates_against_a_loop(shape):
    """All three cases: gradients perpendicular to every channel, to the whole kernel only, and to neither."""
    p, g, w = (np.asarray(jax.random.normal(key, shape)) for key in KEYS[:3])
    radial = np.sum(g * w, axis=tuple(range(len(shape) - 1)), keepdims=True)
    squares = np.sum(w**2, axis=tuple(range(len(shape) - 1)), keepdims=True)
    by_channel, as_one = g - radial / squares * w, g - np.sum(g * w) / np.sum(w**2) * w
    for case, gradient in [("channels", by_channel), ("whole", as_one), ("passes", g)]:
        tree = [{"kernel": jnp.asarray(v), "bias": jnp.asarray(v[..., 0].ravel())} for v in (p, gradient, w)]
        updates = tangent(*tree)
        found, expected = projected(p, gradient, w)
        assert found == case
        np.testing.assert_allclose(updates["kernel"], expected, atol=1e-14)
        np.testing.assert_array_equal(updates["bias"], tree[0]["bias"])


def test_columns_of_zeros_are_no_trouble():
    w = jnp.array([[0.0, 1.0], [0.0, 0.0]])
    p, g = jnp.ones((2, 2)), jnp.array([[1.0, 0.0], [1.0, 0.0]])
    updates = tangent(p, g, w)
    np.testing.assert_array_equal(updates, [[1.0, 0.0], [1.0, 1.0]])


def scale_invariant(w):
    """A loss that depends on the direction of every channel only."""
    target = jax.random.normal(KEYS[3], w.shape)
    return jnp.sum((w / jnp.linalg.norm(w, axis=0, keepdims=True) - target) ** 2)


def test_the_length_of_a_kernel_changes_by_second_order_only():
    """By Pythagoras `‖w + p‖² = ‖w‖² + ‖p‖²` for each channel, and the length changes by the square of the step."""
    w, momentum = (jax.random.normal(key, (6, 3)) for key in KEYS[:2])
    g = jax.grad(scale_invariant)(w)
    p, w = np.asarray(tangent(momentum, g, w)), np.asarray(w)
    np.testing.assert_allclose(np.sum((w + p) ** 2, axis=0), np.sum(w**2, axis=0) + np.sum(p**2, axis=0), rtol=1e-14)
    steps = np.array([1e-3, 2e-3, 4e-3])
    growth = lambda p: [abs(length(w + step * p) - length(w)) for step in steps]
    assert abs(slope(np.log(steps), np.log(growth(p))) - 2) < 1e-2
    assert abs(slope(np.log(steps), np.log(growth(momentum))) - 1) < 1e-2


def test_kernels_grow_less_by_momentum():
    """The squared length of a kernel is that at the start plus the sum of squared steps; without the rule it grows
    more than twice as much."""

    @jax.jit
    def trained(w, rules):
        def one(carry, _):
            w, m = carry
            g = jax.grad(scale_invariant)(w)
            m = 0.9 * m + g
            step = -0.05 * jnp.where(rules, tangent(m, g, w), m)
            return (w + step, m), jnp.sum(step**2)

        (last, _), squares = jax.lax.scan(one, (w, jnp.zeros_like(w)), length=60)
        return last, jnp.sum(squares)

    w = jax.random.normal(KEYS[0], (6, 3))
    (plain, _), (slower, squares) = trained(w, False), trained(w, True)
    np.testing.assert_allclose(length(slower) ** 2, length(w) ** 2 + squares, rtol=1e-12)
    print(length(w), length(slower), length(plain), scale_invariant(w), scale_invariant(slower), scale_invariant(plain))
    assert length(slower) ** 2 - length(w) ** 2 < 0.5 * (length(plain) ** 2 - length(w) ** 2)


def test_the_trainer_gives_the_gradient():
    """One step of a model is the loop over its kernels, after the first step of Adam, `g/(|g| + ε)`."""
    network = chain(90.0, sizes=(6, 4, 3), key=KEYS[0])
    model = eqprop.Model(network, eqprop.SoftmaxReadout(3, 3, key=KEYS[1]))
    batch = jax.random.normal(KEYS[2], (3, 6)), jnp.array([0, 1, 2])
    optimiser = optax.chain(optax.scale_by_adam(), tangential(1.0), optax.scale(-1e-2))
    trainer = eqprop.Trainer(SETTLE, RecurrentBackprop(relaxation=SETTLE), optimiser)

    @eqx.filter_jit
    def step(model, batch):
        state = trainer.init(model, key=KEYS[3])
        gradient, _ = trainer.gradient(model, batch, key=jax.random.fold_in(state.key, state.step))
        return gradient, trainer.step(state, batch)[0].model

    with jax.numpy_dtype_promotion("standard"):  # optax's schedules are not strict
        gradient, after = step(model, batch)
    leaves = [jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)) for tree in (gradient, model, after)]
    differs = False
    for g, w, new in zip(*(map(np.asarray, tree) for tree in leaves), strict=True):
        p = g / (np.abs(g) + 1e-8)
        case, expected = projected(p, g, w, 1.0) if w.ndim > 1 else ("", p)
        differs |= w.ndim > 1 and case != projected(p, p, w, 1.0)[0]
        np.testing.assert_allclose(new, w - 1e-2 * expected, atol=1e-9)
    assert differs, "updates in place of the gradient would do as well"


@pytest.mark.parametrize("params, extra", [(None, {"grad": jnp.ones((2, 2))}), (jnp.ones((2, 2)), {})])
def test_tangential_needs_parameters_and_gradient(params, extra):
    with pytest.raises(ValueError, match="compares the gradient with the parameters"):
        tangential().update(jnp.ones((2, 2)), optax.EmptyState(), params, **extra)


def test_a_bound_is_positive():
    with pytest.raises(ValueError, match="delta is 0.0; expected a number above 0"):
        tangential(0.0)


# Weight aligning.


def test_aligned_classes_against_a_loop():
    readout = eqprop.SoftmaxReadout(5, 6, key=KEYS[0])
    readout = eqx.tree_at(lambda r: (r.kernel, r.bias), readout, (readout.kernel.at[:, 3:].mul(4.0), jnp.arange(6.0)))
    old, new = [0, 2], [5, 3]
    aligned = align_classes(readout, old, new)
    kernel = np.array(readout.kernel)
    factor = np.mean([length(kernel[:, k]) for k in old]) / np.mean([length(kernel[:, k]) for k in new])
    for k in new:
        kernel[:, k] *= factor
    np.testing.assert_allclose(aligned.kernel, kernel, rtol=1e-15)
    np.testing.assert_array_equal(aligned.bias, readout.bias)
    again = align_classes(aligned, old, new)
    np.testing.assert_allclose(again.kernel, aligned.kernel, rtol=1e-14)


def test_new_classes_without_weights_stay():
    readout = eqprop.SoftmaxReadout(5, 3, key=KEYS[0])
    readout = eqx.tree_at(lambda r: r.kernel, readout, readout.kernel.at[:, 2].set(0.0))
    np.testing.assert_array_equal(align_classes(readout, range(2), [2]).kernel, readout.kernel)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ([0, 1], [1, 2], "every class once"),
        ([0, 0], [2], "every class once"),
        ([], [2], "at least one class in each"),
        ([0], [], "at least one class in each"),
        ([0, 1], [3], "classes from 0 to 2"),
        ([-1], [2], "classes from 0 to 2"),
    ],
)
def test_classes_that_cannot_be_aligned_are_refused(old, new, message):
    with pytest.raises(ValueError, match=message):
        align_classes(eqprop.SoftmaxReadout(5, 3, key=KEYS[0]), old, new)


# Invariant predictions.


def turned(x: np.ndarray, turns: int) -> np.ndarray:
    """Rotated pixel by pixel: what was in column `j` from the right is in row `j`."""
    for _ in range(turns):
        x = np.stack([x[:, -1 - j] for j in range(x.shape[1])])
    return x


def mirrored(x: np.ndarray) -> np.ndarray:
    return np.stack([x[:, -1 - j] for j in range(x.shape[1])], axis=1)


TRANSFORMED = {
    "rotations": lambda x: [turned(x, k) for k in range(4)],
    "mirrors": lambda x: [x, mirrored(x)],
    "all": lambda x: [turned(y, k) for y in (x, mirrored(x)) for k in range(4)],
}


def upside_down(x):
    return x[::-1]


def same(x):
    return x


def made(network, shape, group, features=3) -> Problem:
    readout = Averaged(eqprop.SoftmaxReadout(features, 3, key=KEYS[1]))
    network = eqx.tree_at(
        lambda n: n.biases, network, jax.tree.map(lambda b: 0.2 * jax.random.normal(KEYS[4], b.shape), network.biases)
    )
    x = jax.random.normal(KEYS[2], (2, *shape))
    y = jax.nn.one_hot(jnp.array([0, 2]), 3, dtype=float)
    return Problem(eqprop.Model(Symmetrised(network, group), readout), x, y)


PROBLEMS = {
    "dense rotations": lambda: made(chain(90.0, sizes=(9, 5, 3), key=KEYS[0]), (3, 3), "rotations"),
    "dense mirrors": lambda: made(chain(0.0, sizes=(12, 5, 3), feedback_gain=0.5, key=KEYS[0]), (3, 4), "mirrors"),
    "dense all": lambda: made(chain(0.0, sizes=(9, 5, 3), key=KEYS[0]), (3, 3), "all"),
    "conv all": lambda: made(conv(90.0, key=KEYS[0]), (8, 8, 2), "all", features=4),
    "conv mirrors": lambda: made(conv(90.0, key=KEYS[0]), (8, 8, 2), "mirrors", features=4),
}


def predictions(model, x) -> np.ndarray:
    """Of settled states."""
    states = free_phase(model, jnp.asarray(x)).state
    return np.asarray(jax.jit(jax.vmap(lambda u: model.readout.predict(model.network.rates(u))))(states))


@pytest.mark.parametrize("name", ["dense rotations", "dense mirrors", "dense all", "conv all"])
def test_predictions_are_invariant_under_the_group(name):
    """Exactly, on settled states; those of the network alone are not. The state is permuted, and nothing else."""
    model, x, _ = PROBLEMS[name]()
    network: Any = model.network
    images = np.stack(TRANSFORMED[network.group](np.asarray(x[0])))
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(network.transformations) == len(images)
    found = predictions(model, images)
    assert np.max(np.abs(found - found[0])) < 1e-12
    readout: Any = model.readout
    alone = predictions(eqprop.Model(network.network, readout.readout), images)
    assert np.max(np.abs(alone - alone[0])) > 1e-3


def test_a_group_of_functions():
    model, x, _ = made(chain(90.0, sizes=(6, 5, 3), key=KEYS[0]), (6,), (same, upside_down))
    first, second = predictions(model, jnp.stack([x[0], x[0, ::-1]]))
    assert np.max(np.abs(first - second)) < 1e-12


def test_every_copy_is_the_network_at_its_image():
    """Embedding, drive and drift; the Jacobian has one block a copy."""
    model, x, _ = PROBLEMS["dense rotations"]()
    network: Any = model.network
    current = network.embed(x[0])
    u = jax.tree.map(lambda c: jax.random.normal(KEYS[3], c.shape), current)
    s = network.rates(u)
    drive, drift = network.drive(s, current), network.drift(u, current)
    for copy, image in enumerate(TRANSFORMED["rotations"](np.asarray(x[0]))):
        one = lambda tree, copy=copy: jax.tree.map(lambda v: v[copy], tree)
        inner = network.network.embed(jnp.asarray(image))
        assert gap(one(current), inner) < 1e-14
        assert gap(one(drive), network.network.drive(one(s), inner)) < 1e-14
        assert gap(one(drift), network.network.drift(one(u), inner)) < 1e-14
    ones = jax.tree.map(lambda v: jnp.zeros_like(v).at[1].set(1.0), s)
    forward, _ = network.at(x[0]).jacobian(s)
    assert all(float(jnp.max(jnp.abs(jnp.delete(leaf, 1, axis=0)))) == 0 for leaf in forward(ones).values())


@pytest.mark.parametrize(
    "name, estimator, transposed",
    [
        ("dense rotations", TangentResponse(relaxation=SETTLE), False),
        ("dense rotations", FiniteNudge(stencil=eqprop.cauchy(0.05, 8), relaxation=SETTLE), False),
        # Kernels are tied: through the metric the response is the true error vector.
        ("dense mirrors", TangentResponse(relaxation=SETTLE), True),
        ("conv mirrors", FiniteNudge(stencil=eqprop.cauchy(0.05, 8), relaxation=SETTLE), False),
    ],
)
def test_responses_of_a_symmetrised_network_against_dense_solves(name, estimator, transposed):
    """`M⁻¹ g` with the group axis among the neurons; a circle of 8 nudges of size 0.05 errs by its eighth power."""
    p = PROBLEMS[name]()
    exact = oracle(*p)
    found = flat_batch(respond(estimator, *p, free_phase(p.model, p.x)).payload)
    assert relative_error(found, exact.rbp if transposed else exact.tangent) < 1e-9


@pytest.mark.parametrize("name", ["dense rotations", "conv mirrors"])
def test_gradients_of_a_symmetrised_network(name):
    """Every kernel, summed over the copies, with the error vector `M⁻ᵀ g` of a dense solve."""
    p = PROBLEMS[name]()
    exact = oracle(*p)
    _, gradient = estimate(RecurrentBackprop(relaxation=SETTLE), *p)
    assert gap(gradient, surrogate_gradient(*p, exact.u, exact.rbp)) < 1e-11


def test_the_gradient_is_that_of_the_loss():
    """By finite differences of the loss at the fixed point, readout and all."""
    p = made(chain(90.0, sizes=(4, 3, 3), key=KEYS[0]), (2, 2), "rotations")
    _, gradient = estimate(RecurrentBackprop(relaxation=SETTLE), *p)
    assert gap(gradient, loss_gradient(*p)) < 1e-8


@pytest.mark.parametrize("readout", [eqprop.SquaredError(), eqprop.SoftmaxReadout(3, 3, key=KEYS[1])])
def test_teaching_of_the_mean_is_analytic(readout):
    """The gradient of the loss at real rates. Off the real axis it is analytic: its mean over a circle about a real
    state is its value there, as Cauchy's formula has it."""
    averaged, y = Averaged(readout), jnp.array([0.0, 1.0, 0.0])
    s, direction = ({"l1": jax.random.normal(key, (4, 2)), "out": jax.random.normal(key, (4, 3))} for key in KEYS[:2])
    real = averaged.teaching(s, y)
    assert gap(real, jax.grad(lambda s: averaged.loss(s, y))(s)) < 1e-14
    circle = jnp.asarray(0.1 * np.exp(2j * np.pi * np.arange(16) / 16))
    along = lambda z: jax.tree.map(lambda a, d: a.astype(complex) + z * d.astype(complex), s, direction)
    nodes = jax.vmap(lambda z: averaged.teaching(along(z), y))(circle)
    assert gap(jax.tree.map(lambda v: jnp.mean(v, axis=0), nodes), jax.tree.map(np.complex128, real)) < 1e-13
    if isinstance(readout, eqprop.SquaredError):  # a loss that takes complex rates has the default, too
        default = eqprop.AbstractReadout.teaching(averaged, along(circle[3]), y)
        assert gap(averaged.teaching(along(circle[3]), y), default) < 1e-14


def test_what_readouts_and_networks_say_passes_through():
    model, x, y = PROBLEMS["dense mirrors"]()
    network: Any = model.network
    inner = network.network
    assert network.metric == inner.metric and network.metric is not None and network.blocks == inner.blocks
    assert network.holomorphic and network.activation is inner.activation
    assert network.feedback_edges() == inner.feedback_edges() and network.device_kernels() is inner.kernels
    assert gap(network.reciprocal_pairs(), inner.reciprocal_pairs()) == 0
    regression = Averaged(eqprop.SquaredError(regression=True))
    trainer = eqprop.Trainer(eqprop.Sweep(tol=1e-8), TangentResponse(relaxation=SETTLE), optax.sgd(1e-2))
    measured = eqx.filter_jit(trainer.evaluate)(eqprop.Model(network, regression), (x, y))
    assert float(measured["unsettled_fraction"]) == 0 and "rmse" in regression.summary(measured)
    assert regression.device_kernel() is None and model.readout.device_kernel() is not None


def test_a_symmetrised_network_is_trained():
    """With tangential updates and homeostasis, on whole images and classes."""
    model, x, _ = PROBLEMS["dense rotations"]()
    optimiser = optax.chain(optax.scale_by_adam(), tangential(), optax.scale(-1e-2))
    trainer = eqprop.Trainer(SETTLE, RecurrentBackprop(relaxation=SETTLE), optimiser, eqprop.SkewHomeostasis())

    @eqx.filter_jit
    def train(model):
        arrays, static = eqx.partition(trainer.init(model, key=KEYS[0]), eqx.is_array)

        def step(arrays, _):
            state, measured = trainer.step(eqx.combine(arrays, static), (x, jnp.array([0, 2])))
            return eqx.filter(state, eqx.is_array), (measured["loss"], measured["usable_fraction"])

        return jax.lax.scan(step, arrays, length=5)[1]

    with jax.numpy_dtype_promotion("standard"):  # optax's schedules are not strict
        losses, usable = train(model)
    assert np.all(np.diff(losses) < 0) and np.all(np.asarray(usable) == 1)


def test_a_symmetrised_model_is_saved(tmp_path):
    model, x, _ = PROBLEMS["dense all"]()
    eqprop.save(tmp_path / "model.npz", model)
    np.testing.assert_array_equal(predictions(eqprop.load(tmp_path / "model.npz"), x), predictions(model, x))


@pytest.mark.parametrize(
    "group, shape, message",
    [
        ("turns", (3, 3), "group is 'turns'; expected one of rotations, mirrors, all"),
        ((), (3, 3), "no elements"),
        ("all", (9,), r"shape \(9,\), but all transform an image"),
        ("rotations", (1, 9), r"shape \(1, 9\), but transformed it has \(1, 9\), \(9, 1\)"),
    ],
)
def test_groups_and_inputs_that_do_not_fit_are_refused(group, shape, message):
    with pytest.raises(ValueError, match=message), unchecked():
        Symmetrised(chain(90.0, sizes=(9, 5, 3), key=KEYS[0]), group).embed(jnp.ones(shape))
