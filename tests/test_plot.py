"""Pictures: the numbers that they draw."""

import sys
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from matplotlib import pyplot

import eqprop as eq
from helpers import SETTLE, Rectified, flat, oracle, problem

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def named(panel, label: str):
    """The one line or set of points with that label, or one that begins so."""
    return next(item for item in [*panel.lines, *panel.collections] if str(item.get_label()).startswith(label))


def drawn(panel) -> None:
    """Nothing of the figure overflows, warns or lacks a label."""
    panel.figure.canvas.draw()
    assert panel.get_xlabel() and panel.get_ylabel()


def test_a_trajectory_is_drawn_as_it_was():
    """The residual, zeros left out of the logarithmic axis, and the rates that moved most of every layer."""
    p = problem("asymmetric")
    t = eqx.filter_jit(eq.trace)(p.model, p.x[0], eq.Sweep(max_steps=40))
    above, below = eq.plot.trajectory(t, neurons=2)
    residual = np.asarray(t.residual)
    np.testing.assert_array_equal(above.lines[0].get_ydata(), np.where(residual > 0, residual, np.nan))
    assert above.get_yscale() == "log" and above.get_title(loc="left") == "settled (40 sweeps)"
    assert [text.get_text() for text in below.get_legend().get_texts()] == ["l1", "l2", "out"]
    assert len(below.lines) == 6
    moved = np.argmax(np.ptp(np.asarray(t.rates["l2"]), axis=0))
    np.testing.assert_array_equal(named(below, "l2").get_ydata(), t.rates["l2"][:, moved])
    assert below.get_xlabel() == "time (sweeps)"
    drawn(below)
    _, single = pyplot.subplots()
    assert eq.plot.trajectory(t, single) is single and len(single.lines) == 1


def test_a_batch_of_trajectories_is_refused():
    p = problem("asymmetric")
    t = eqx.filter_jit(eqx.filter_vmap(lambda x: eq.trace(p.model, x, eq.FixedSteps(16))))(p.x)
    with pytest.raises(ValueError, match="residual of shape .*expected one example's"):
        eq.plot.trajectory(t)


def test_errors_are_points_of_truth_and_estimate():
    """Several by name or one alone, with the cosine of each layer; those of other layers are refused."""
    keys = jax.random.split(jax.random.key(0), 4)
    truth = {"l10": jax.random.normal(keys[0], (7,)), "l2": jax.random.normal(keys[1], (3, 4))}
    estimate = {"l10": 2.0 * truth["l10"], "l2": truth["l2"] + jax.random.normal(keys[2], (3, 4))}
    axes = eq.plot.errors({"good": truth, "bad": estimate}, truth)
    for panel, layer in zip(axes, ("l2", "l10"), strict=True):
        points = named(panel, "bad").get_offsets()
        np.testing.assert_array_equal(points, np.stack([np.ravel(truth[layer]), np.ravel(estimate[layer])], axis=1))
        a, b = np.ravel(truth[layer]), np.ravel(estimate[layer])
        cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        labels = [text.get_text() for text in panel.get_legend().get_texts()]
        assert labels == ["good: cosine 1.000", f"bad: cosine {cosine:.3f}"] and layer in panel.get_xlabel()
    drawn(axes[0])
    assert len(eq.plot.errors(estimate, truth)[0].collections) == 1
    with pytest.raises(ValueError, match="'estimate' has layers .*the reference has"):
        eq.plot.errors({"l10": truth["l10"]}, truth)
    with pytest.raises(ValueError, match=r"There are 1 axes for 2 layers \(l2, l10\)"):
        eq.plot.errors(truth, truth, axes[0])


def test_the_circle_shows_the_rates_at_its_nodes():
    """Real at `β = r`, where a relaxation in real arithmetic agrees, and mirrored in between; the tangent circle has
    the radius `r |δ|` of a dense solve; the first Taylor magnitudes are the free rate and `r |δ|`."""
    p, radius = problem("asymmetric"), 0.1
    x, y = p.x[0], p.y[0]
    orbit, taylor = eq.plot.circle(p.model, x, y, radius=radius, relaxation=SETTLE, num_points=8)
    rates = named(orbit, "s(β)").get_xydata() @ [1.0, 1.0j]
    dense = oracle(*p)
    size = p.model.network.initial_state(p.model.network.embed(x))["out"].size
    delta, free = (np.asarray(values[0])[-size:] for values in (dense.tangent, dense.s))
    neuron = np.argmax(np.abs(delta))
    np.testing.assert_allclose(rates[:8], np.conj(np.roll(rates[7::-1][:8], 1)), atol=1e-13)
    nudged = SETTLE((lambda u: p.model.at(x, y).drift(u, radius)), p.model.network.at(x).initial_state()).state
    np.testing.assert_allclose(rates[0], p.model.network.rates(nudged)["out"][neuron], atol=1e-12)
    around = named(orbit, "tangent").get_xydata() @ [1.0, 1.0j]
    np.testing.assert_allclose(np.abs(around - free[neuron]), radius * abs(delta[neuron]), rtol=1e-8)
    magnitudes = taylor.lines[0].get_ydata()
    np.testing.assert_allclose(magnitudes[:2], [free[neuron], radius * abs(delta[neuron])], rtol=1e-4)
    assert f"out[{neuron}]" in orbit.get_xlabel()
    drawn(orbit)


def test_nodes_that_did_not_settle_are_marked_and_networks_that_are_not_analytic_refused():
    p = problem("asymmetric")
    hasty = eq.Picard(tol=1e-12, rtol=1e-9, max_steps=3)
    orbit, _ = eq.plot.circle(p.model, p.x[0], p.y[0], radius=0.3, relaxation=hasty, num_points=4, layer="l1", neuron=2)
    assert len(named(orbit, "not settled").get_xdata()) == 4 and "l1[2]" in orbit.get_xlabel()
    rectified = eq.Model(Rectified(weights=jnp.eye(4)), eq.SquaredError())
    with pytest.raises(ValueError, match="Rectified is not holomorphic"):
        eq.plot.circle(rectified, p.x[0], jnp.zeros(4), radius=0.1, relaxation=SETTLE)


@pytest.mark.parametrize("name", ["asymmetric", "hopfield"])
def test_the_spectrum_is_that_of_finite_differences(name):
    p = problem(name)
    panel = eq.plot.spectrum(p.model, p.x[0], SETTLE)
    dense = oracle(*p)
    drift, unravel = p.model.network.at(p.x[0]).drift, ravel_pytree(p.model.network.at(p.x[0]).initial_state())[1]
    of_flat, u, step = jax.jit(lambda u: flat(drift(unravel(u)))), dense.u[0], 1e-5
    columns = [(of_flat(u + step * e) - of_flat(u - step * e)) / (2 * step) for e in jnp.eye(u.size)]
    jacobian = np.stack(columns, axis=1)
    values = named(panel, "stable").get_offsets() @ np.array([1.0, 1.0j])
    expected = np.linalg.eigvals(jacobian)
    order = lambda v: v[np.lexsort((v.imag.round(6), v.real.round(6)))]
    np.testing.assert_allclose(order(np.asarray(values)), order(expected), atol=1e-6)
    ring = named(panel, "smallest singular").get_xydata()
    np.testing.assert_allclose(np.linalg.norm(ring, axis=1), np.linalg.svd(jacobian)[1].min(), rtol=1e-6)
    assert "settle" not in panel.get_xlabel()
    drawn(panel)


def test_unstable_modes_are_crosses():
    """`F = W u + x − u` with the eigenvalues of `W` chosen, of which two are above one."""
    weights = jnp.diag(jnp.asarray([2.0, 1.5, 0.0, -1.0]))

    class Linear(eq.AbstractNetwork):
        activation: ClassVar[Any] = staticmethod(eq.linear)
        holomorphic: ClassVar[bool] = True

        def embed(self, x):
            return {"out": x}

        def drive(self, s, current):
            return {"out": s["out"] * jnp.diag(weights) + current["out"]}

    panel = eq.plot.spectrum(eq.Model(Linear(), eq.SquaredError()), jnp.ones(4), eq.FixedSteps(3))
    np.testing.assert_allclose(sorted(named(panel, "unstable").get_offsets()[:, 0]), [0.5, 1.0], atol=1e-12)
    np.testing.assert_allclose(sorted(named(panel, "stable").get_offsets()[:, 0]), [-2.0, -1.0], atol=1e-12)
    assert "did not settle" in panel.get_xlabel()


def test_what_cannot_be_drawn_says_why(monkeypatch):
    p = problem("asymmetric")
    wide = eq.Model(eq.DenseNetwork.chain([6, 2100, 4], key=jax.random.key(0)), eq.SquaredError())
    with pytest.raises(ValueError, match="2104 neurons; a dense spectrum is drawn of 2000 at most"):
        eq.plot.spectrum(wide, p.x[0], SETTLE)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="Matplotlib, which is missing: pip install matplotlib"):
        eq.plot.errors({"out": jnp.ones(3)}, {"out": jnp.ones(3)})
