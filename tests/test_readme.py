"""The Python of README and of the page on parts of one's own runs as it is printed, and does what they say."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop
from helpers import ROOT, gap, problem, unchecked
from runs import as_users_run, run_python

pytestmark = pytest.mark.bounded


def run(path, folder) -> dict:
    """The names that all blocks of a page leave, run one after the other in single precision."""
    names: dict = {"__name__": path.stem}
    with as_users_run(), unchecked(), contextlib.chdir(folder):
        jax.config.update("jax_enable_x64", False)
        assert run_python(path, names) >= 2
        if path.stem == "README":
            names["loaded"] = eqprop.load("digits.npz")
    return names


@pytest.fixture(scope="module")
def readme(tmp_path_factory):
    return run(ROOT / "README.md", tmp_path_factory.mktemp("readme"))


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return run(ROOT / "docs" / "own.md", tmp_path_factory.mktemp("own"))


def test_the_network_learns_and_settles(readme):
    """Ten epochs end above 90 % of unseen digits, nearly all settled, with error vectors that homeostasis has aligned;
    the saved model is the trained one, and an example's trajectory says that it settles."""
    history, alignment = readme["history"], readme["alignment"]
    assert history["validation_accuracy"][-1] > 0.9 and history["unsettled_fraction"][-1] < 0.05
    assert alignment["cosine_hidden"] > 0.99
    assert readme["x"].dtype == jnp.float32 and len(history.records) == 10
    assert eqx.tree_equal(readme["loaded"], history.model)


def test_a_network_relaxation_and_defect_of_ones_own(own):
    """The ring's fixed point solves its equations, whichever relaxation finds it; the teaching signal is that of the
    loss; the reading takes up a part of a neighbour."""
    ring, out = own["ring"], np.asarray(own["state"]["out"])
    rates = np.tanh(out)
    expected = 0.4 * np.roll(rates, 1) + 0.3 * np.roll(rates, -1) + np.ones(4) @ np.asarray(ring.into)
    np.testing.assert_allclose(out, expected, atol=1e-4)
    assert own["solution"].result == eqprop.RESULTS.successful
    np.testing.assert_allclose(own["solution"].state["out"], out, atol=1e-4)
    slope = 1 / (1 + np.exp(-(1 + rates - rates[3])))
    slope[3] -= slope.sum()
    np.testing.assert_allclose(own["teaching"]["out"], slope, atol=1e-4)
    reading = own["Crosstalk"]()({"out": jnp.array([1.0, 0.0, 0.0])}, phase=0, chip=None, run=None)
    np.testing.assert_allclose(reading["out"], [1.0, 0.05, 0.0], atol=1e-7)
    assert own["device"].reciprocity == "none"


def test_its_equilibrium_has_gradients_all_the_way(own):
    """Of encoder, network and head."""
    leaves = jax.tree.leaves(eqx.filter(own["gradients"], eqx.is_inexact_array))
    assert all(jnp.all(jnp.isfinite(leaf)) and jnp.any(leaf != 0) for leaf in leaves if leaf.ndim == 2)


def test_its_estimator_is_a_centred_nudge(own):
    """Two steps of training with either end at the same parameters, with as many steps of relaxation."""
    p, relaxation = problem("asymmetric"), eqprop.Sweep(tol=1e-9)
    ends = []
    for estimator in (
        own["TwoPoint"](relaxation=relaxation, beta=0.1),
        eqprop.FiniteNudge(stencil=eqprop.centred(0.1), relaxation=relaxation),
    ):
        trainer = eqprop.Trainer(relaxation, estimator, optax.sgd(0.1))
        state, step = trainer.init(p.model, key=jax.random.key(0)), eqx.filter_jit(trainer.step)
        state, _ = step(state, (p.x, p.y))
        state, metrics = step(state, (p.x, p.y))
        assert metrics["unsettled_fraction"] == 0.0
        ends.append((state.model, metrics))
    assert gap(ends[0][0], ends[1][0]) < 1e-12
    np.testing.assert_allclose(ends[0][1]["nudged_steps"], ends[1][1]["nudged_steps"])


def test_its_estimator_reports_either_phase(own):
    """A nudge that does not settle leaves the example out."""
    p, relaxation = problem("asymmetric"), eqprop.Sweep(tol=1e-9)
    short = own["TwoPoint"](relaxation=eqprop.Sweep(tol=1e-9, max_steps=2), beta=0.1)
    trainer = eqprop.Trainer(relaxation, short, optax.sgd(0.1))
    state, metrics = eqx.filter_jit(trainer.step)(trainer.init(p.model, key=jax.random.key(0)), (p.x, p.y))
    assert metrics["usable_fraction"] == 0.0 and gap(state.model, p.model) == 0.0
