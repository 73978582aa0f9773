"""Tasks beyond classification: regressions and their measures, XOR, allostery, and classes that come in turns."""

import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import eqprop
import eqprop.data
from eqprop import FiniteNudge, Newton, RecurrentBackprop, SquaredError, Trainer, topology
from eqprop.circuit import Diodes, ResistorGraph
from eqprop.data import Dataset, Split
from eqprop.run.build import build
from eqprop.run.train import run
from helpers import Problem, flat, relative_error
from runs import as_users_run, configuration

KEYS = jax.random.split(jax.random.key(0), 4)


# Measures.


def test_r2_and_rmse_are_those_of_all_examples_together():
    """From averages over unequal batches, against the definitions on the whole set."""
    generator = np.random.default_rng(0)
    y, predicted = generator.normal(2.0, 3.0, (10, 2)), generator.normal(2.0, 3.0, (10, 2))
    readout = SquaredError(regression=True)
    measured = jax.vmap(readout.measures)(jnp.asarray(predicted), jnp.asarray(y))
    halves = [{k: float(jnp.mean(v[part])) for k, v in measured.items()} for part in (slice(0, 7), slice(7, 10))]
    means = {k: 0.7 * halves[0][k] + 0.3 * halves[1][k] for k in measured}
    reported = readout.summary({**means, "loss": 1.0})
    assert set(reported) == {"loss", "rmse", "r2"}
    np.testing.assert_allclose(reported["rmse"], np.sqrt(np.mean((y - predicted) ** 2)), rtol=1e-12)
    np.testing.assert_allclose(reported["r2"], 1 - np.mean((y - predicted) ** 2) / np.var(y), rtol=1e-12)


def test_linear_regression_is_learned_to_the_noise():
    """The best R² there is, of least squares on the same examples, within a part of a percent; by nudges alone."""
    dataset = eqprop.data.linear_regression(5, 2, examples=600, noise=0.3)
    network = eqprop.DenseNetwork.chain([5, 2], activation=eqprop.linear, key=KEYS[0])
    model = eqprop.Model(network, SquaredError(regression=True))
    relaxation = eqprop.Sweep(tol=1e-10)
    trainer = Trainer(relaxation, FiniteNudge(stencil=eqprop.centred(0.1), relaxation=relaxation), optax.adam(1e-2))
    x, y = (jnp.asarray(a, float) for a in (dataset.train.images, dataset.train.labels))
    test = tuple(jnp.asarray(a, float) for a in (dataset.test.images, dataset.test.labels))
    with jax.numpy_dtype_promotion("standard"):
        history = eqprop.fit(trainer, model, (x, y), epochs=30, batch_size=48, validation=test, key=KEYS[1])
    design = lambda images: np.concatenate([np.asarray(images)[:, 0], np.ones((len(images), 1))], axis=1)
    weights = np.linalg.lstsq(design(x), np.asarray(y), rcond=None)[0]
    targets = np.asarray(test[1])
    best = 1 - np.mean((targets - design(test[0]) @ weights) ** 2) / np.var(targets)
    print(best, history["validation_r2"][-1])
    assert 0.85 < best and abs(history["validation_r2"][-1] - best) < 5e-3
    assert "accuracy" not in history.records[-1] and "validation_rmse" in history.records[-1]


# Resistors on graphs.


def lattice(**settings) -> ResistorGraph:
    settings = {"inputs": [0, 8], "outputs": [2, 6], "rails": {4: 0.5}} | settings
    return ResistorGraph(9, topology.lattice((3, 3)), key=KEYS[0], **settings)


def laplacian(network: ResistorGraph) -> np.ndarray:
    L = network.leak * np.eye(network.nodes)
    for (a, b), g in zip(network.ends, np.abs(np.asarray(network.conductances)), strict=True):
        L[a, a] += g
        L[b, b] += g
        L[a, b] -= g
        L[b, a] -= g
    return L


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_voltages_solve_the_laplacian(leak):
    """Newton's step against the dense solve of Kirchhoff's law with the held nodes moved to the other side."""
    network, x = lattice(leak=leak), jnp.array([1.0, -0.4])
    field = network.at(x)
    solution = eqx.filter_jit(lambda f: Newton(tol=1e-13)(f.drift, f.initial_state()))(field)
    v = np.asarray(network.voltages(solution.state, field.current))
    held, free = [0, 8, 4], [1, 2, 3, 5, 6, 7]
    L = laplacian(network)
    expected = np.linalg.solve(L[np.ix_(free, free)], -L[np.ix_(free, held)] @ [1.0, -0.4, 0.5])
    np.testing.assert_allclose(v[free], expected, atol=1e-13)
    np.testing.assert_array_equal(v[held], [1.0, -0.4, 0.5])


@pytest.mark.parametrize("diodes", [None, Diodes(saturation=1e-4)])
def test_nudges_of_a_resistor_graph_give_the_gradient(diodes):
    """Centred nudges and RBP against finite differences of the loss of the settled circuit; `A = Aᵀ` makes them one."""
    network = lattice(diodes=diodes, leak=0.1)
    model, newton = eqprop.Model(network, SquaredError(regression=True)), Newton(tol=1e-11, rtol=1e-9)
    p = Problem(model, jnp.array([[1.0, -0.4], [0.3, 0.8]]), jnp.array([[0.1, 0.2], [0.5, 0.4]]))

    @jax.jit
    def loss(conductances):
        changed = eqx.tree_at(lambda m: m.network.conductances, model, conductances)

        def one(x, y):
            field = changed.network.at(x)
            return changed.readout.loss(field.rates(newton(field.drift, field.initial_state()).state), y)

        return jnp.mean(jax.vmap(one)(p.x, p.y))

    h, identity = 1e-4, jnp.eye(network.conductances.size)
    g = network.conductances
    numeric = jnp.stack([(loss(g + h * e) - loss(g - h * e)) / (2 * h) for e in identity])
    for estimator, tol in [
        (RecurrentBackprop(relaxation=newton), 1e-6),
        (FiniteNudge(stencil=eqprop.centred(1e-3), relaxation=newton), 1e-5),
    ]:
        trainer = Trainer(newton, estimator, optax.sgd(0.1))
        gradient: Any
        gradient, metrics = eqx.filter_jit(trainer.gradient)(model, (p.x, p.y), key=KEYS[1])
        assert float(metrics["usable_fraction"]) == 1.0
        assert relative_error(gradient.network.conductances, numeric) < tol
    field = network.at(p.x[0])
    s, unravel = ravel_pytree(field.initial_state())
    A = jax.jacfwd(lambda s: flat(field.drive(unravel(s))))(s + 0.1)
    np.testing.assert_allclose(A, A.T, atol=1e-13)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"inputs": [0, 9]}, "expected different nodes below that number"),
        ({"outputs": [0]}, "expected different nodes"),
        ({"outputs": []}, "at least one input and one output"),
        ({"leak": -1.0}, "leak is -1.0"),
    ],
)
def test_resistor_graphs_that_cannot_be_built(settings, message):
    with pytest.raises(ValueError, match=message):
        lattice(**settings)


def test_nodes_that_nothing_holds_are_named():
    edges = [(0, 1), (1, 2), (3, 4)]
    with pytest.raises(ValueError, match=r"Nothing holds the nodes \[3, 4\]"):
        ResistorGraph(5, edges, inputs=[0], outputs=[2], key=KEYS[0])
    ResistorGraph(5, edges, inputs=[0], outputs=[2], leak=0.1, key=KEYS[0])
    with pytest.raises(ValueError, match="an edge twice"):
        ResistorGraph(5, [(0, 1), (1, 0)], inputs=[0], outputs=[1], leak=0.1, key=KEYS[0])
    with pytest.raises(ValueError, match="has 2 entries, but the network holds 1"):
        ResistorGraph(2, [(0, 1)], inputs=[0], outputs=[1], key=KEYS[0]).at(jnp.zeros(2))


# The program.


@pytest.mark.bounded
def test_runs_of_physical_tasks(tmp_path):
    """Allostery on a lattice and XOR on diodes, by nudges: voltages within some percent of what was asked."""
    with as_users_run():
        for name, words in [("allostery", ["epochs=50"]), ("xor_resistive", ["epochs=200"])]:
            folder = tmp_path / name
            run(configuration(f"experiment={name}", f"run.dir='{folder}'", *words))
            summary = json.loads((folder / "summary.json").read_text())
            print(name, summary["test_rmse"], summary["test_r2"])
            assert summary["test_rmse"] < 0.06 and "test_accuracy" not in summary
            assert (folder / "learning_curve.png").exists()


def test_targets_need_a_readout_of_theirs():
    with pytest.raises(ValueError, match="friedman has targets.*set readout=regression"):
        build(configuration("data=friedman"))
    with pytest.raises(ValueError, match="digits has classes.*set readout=softmax"):
        build(configuration("readout=regression"))


# Data.


def test_friedman_is_what_it_says():
    dataset = eqprop.data.friedman(examples=4000, noise=0.0)
    x = np.concatenate([dataset.test.images, dataset.train.images])[:, 0] / np.sqrt(12) + 0.5
    y = np.concatenate([dataset.test.labels, dataset.train.labels])[:, 0]
    expected = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    np.testing.assert_allclose(y, (expected - 14.4) / 20 + 0.5, atol=1e-5)
    assert abs(y.mean() - 0.5) < 0.01 and abs(y.std() - 0.25) < 0.01
    assert np.all((0 <= x) & (x <= 1)) and dataset.image_shape == (1, 10, 1) and len(dataset.test) == 800


def test_the_noise_of_linear_regression_bounds_r2():
    dataset = eqprop.data.linear_regression(20, 3, examples=4000, noise=0.5)
    x, y = dataset.train.images[:, 0], dataset.train.labels
    residual = y - x @ np.linalg.lstsq(x, y - 0.5, rcond=None)[0] - 0.5
    assert abs(1 - residual.var() / y.var() - 1 / 1.25) < 0.03


def test_classes_come_in_turns():
    digits = eqprop.data.hold_out(eqprop.data.digits(), 0.1, 0)
    first, second = eqprop.data.in_turns(digits, [[0, 3], [7]])
    assert first.validation is not None
    assert {*first.train.labels} == {0, 3} and {*first.validation.labels} == {0, 3} and {*second.test.labels} == {7}
    assert len(second.train) == np.sum(digits.train.labels == 7) and first.num_classes == 10
    for wrong in ([[0], [0, 1]], [[10]], [[], [1]]):
        with pytest.raises(ValueError, match="different classes from 0 to 9"):
            eqprop.data.in_turns(digits, wrong)


@pytest.mark.parametrize(
    "x, y, message",
    [
        (np.zeros((3, 1, 2), np.float32), np.zeros((2, 1), np.float32), "give float32 arrays"),
        (np.zeros((3, 1, 2), np.uint8), np.zeros((3, 1), np.float32), "give float32 arrays"),
        (np.full((3, 1, 2), np.nan, np.float32), np.zeros((3, 1), np.float32), "not finite"),
    ],
)
def test_targets_are_checked(x, y, message):
    with pytest.raises(ValueError, match=message):
        Split(x, y)


def test_targets_and_classes_do_not_mix():
    split = Split(np.zeros((3, 1, 2), np.float32), np.zeros((3, 1), np.float32))
    with pytest.raises(ValueError, match="num_classes is null for targets"):
        Dataset("made", split, split, num_classes=2)
