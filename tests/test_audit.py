"""The audit: parts that add up, each zero where its cause is absent, and the radius of convergence."""

import warnings
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop
from eqprop import FiniteNudge, Picard
from helpers import SETTLE, Rectified, audit, chain, oracle, problem, relative_error, slope

CLOSURE_TOL = 1e-10
"""Four relaxations to 1e-14, one of them over a radius of 0.1, relative to an error vector of order 0.1."""


def until(tol, rtol):
    """Relaxations that share one program."""
    return eqx.tree_at(lambda r: (r.tol, r.rtol), SETTLE, (jnp.asarray(tol), jnp.asarray(rtol)))


TIGHT, POOR = until(SETTLE.tol, SETTLE.rtol), until(1e-2, 0.5)


def run(p, radius=0.1, relaxation=TIGHT):
    estimator = FiniteNudge(stencil=eqprop.cauchy(radius, 4), relaxation=relaxation)
    return audit(*p, estimator=estimator, relaxation=relaxation, reference=SETTLE)


@pytest.mark.parametrize(
    ("name", "relaxation"),
    [
        ("symmetric", TIGHT),
        ("asymmetric", TIGHT),
        ("asymmetric", POOR),
        pytest.param("conv", POOR, marks=pytest.mark.slow),
    ],
)
def test_the_parts_add_up(name, relaxation):
    """`δ − δ_RBP` is finite relaxation + finite nudge + asymmetry, to rounding, for a poor relaxation as well; each
    part against the dense solve."""
    exact = oracle(*problem(name))
    report = run(problem(name), relaxation=relaxation)
    assert np.all(report.settled) and float(jnp.max(report.closure)) < CLOSURE_TOL
    assert float(jnp.max(report.leakage)) < CLOSURE_TOL
    tight = relaxation is TIGHT
    assert np.all((report.finite_relaxation < CLOSURE_TOL) == tight)
    for index in range(3):
        expected = relative_error(exact.tangent[index], exact.rbp[index])
        assert abs(float(report.asymmetry[index]) - expected) < CLOSURE_TOL
        if tight:
            a, b = np.asarray(exact.tangent[index]), np.asarray(exact.rbp[index])
            cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
            # The bias of four points at this radius is some 1e-4 of the error vector.
            assert abs(float(report.cosine[index]) - cosine) < 1e-3
    if name == "symmetric":
        assert float(jnp.max(report.asymmetry)) < CLOSURE_TOL


def test_the_finite_nudge_scales_as_the_stencil():
    """Part two is of order r^N; the others do not move."""
    radii = (0.05, 0.1)
    reports = [run(problem("asymmetric"), radius) for radius in radii]
    parts = [float(report.finite_nudge[0]) for report in reports]
    assert abs(slope(np.log(radii), np.log(parts)) - 4) < 0.2
    np.testing.assert_allclose(reports[0].asymmetry, reports[1].asymmetry, rtol=1e-9)
    assert [float(report.radius[0]) for report in reports] == list(radii)


@pytest.mark.parametrize("angle", [0.0, 90.0])
def test_the_parts_add_up_in_a_metric(angle, capsys):
    """With weak feedback the estimate is `m_l / m_L` times the response; what is left of the difference to the truth is
    the asymmetry of `m A`, which vanishes at the angle 0. A report prints as its table."""
    network = chain(angle, key=jax.random.key(3), feedback_gain=0.3)
    p = problem("asymmetric")
    p = p._replace(model=eqprop.Model(network, p.model.readout))
    exact, report = oracle(*p), run(p)
    assert np.all(report.settled) and float(jnp.max(report.closure)) < CLOSURE_TOL
    ratio = np.repeat([0.3**-2, 0.3**-1, 1.0], [5, 4, 3])
    for index in range(3):
        expected = relative_error(ratio * np.asarray(exact.tangent[index]), exact.rbp[index])
        assert abs(float(report.asymmetry[index]) - expected) < CLOSURE_TOL
        assert (expected < CLOSURE_TOL) == (angle == 0) and relative_error(exact.tangent[index], exact.rbp[index]) > 0.1
    print(report)
    printed = capsys.readouterr().out
    assert printed == report.table() + "\n" and "| asymmetry | " in printed and "nan" not in printed


def test_an_audit_of_a_network_that_is_not_analytic():
    """There is no circle: leakage and radius are left out, all else is as ever, and there is no warning."""
    key = jax.random.key(0)
    model = eqprop.Model(Rectified(weights=0.15 * jax.random.normal(key, (4, 4))), eqprop.SquaredError())
    x, y = jax.random.normal(key, (3, 6)), jnp.ones((3, 4))
    estimator = FiniteNudge(stencil=eqprop.centred(0.2), relaxation=SETTLE)
    report = audit(model, x, y, estimator=estimator, relaxation=SETTLE, reference=SETTLE)
    assert np.all(np.isnan(report.leakage)) and np.all(np.isnan(report.convergence_radius))
    assert np.all(report.settled) and float(jnp.max(report.closure)) < CLOSURE_TOL
    assert report.warnings() == []


def test_an_audit_finds_what_is_not_analytic():
    """A field of which half is conjugated solves the same equations on the real line, and other ones beside it."""
    weights = 0.15 * jax.random.normal(jax.random.key(0), (4, 4))

    def field(u, x):
        half = 0.5 * (jnp.tanh(u["out"]) + jnp.tanh(jnp.conj(u["out"])))
        return {"out": half @ weights.astype(half.dtype) + x.astype(half.dtype) - u["out"]}

    model = eqprop.Model(eqprop.VectorField(field, {"out": 4}, holomorphic=True), eqprop.SquaredError())
    estimator = FiniteNudge(stencil=eqprop.centred(0.05), relaxation=SETTLE)
    x, y = jax.random.normal(jax.random.key(1), (3, 4)), jnp.ones((3, 4))
    report = audit(model, x, y, estimator=estimator, relaxation=SETTLE, reference=SETTLE)
    assert np.all(report.settled) and float(jnp.min(report.leakage)) > 0.05
    assert "Some function of the network is not analytic" in " ".join(report.warnings())


def test_what_has_no_direction_and_what_no_recurrence():
    """A vanished vector has no cosine; a network of one layer is symmetric."""
    a, zero = {"out": jnp.ones(3)}, {"out": jnp.zeros(3)}
    assert np.isnan(eqprop.metrics.cosine(a, zero)) and np.isnan(eqprop.metrics.cosine(zero, a))
    assert float(eqprop.metrics.cosine(a, {"out": jnp.full(3, 1e-200)})) == pytest.approx(1.0, abs=1e-15)
    network = eqprop.DenseNetwork(6, {"out": 3}, [("in", "out")], key=jax.random.key(0))
    assert float(eqprop.metrics.functional_asymmetry(network.at(jnp.ones(6)), zero)) == 0


def test_beyond_settled_examples_nothing_is_claimed():
    """A reference that cannot settle says so in `settled`, and the table leaves those examples out."""
    estimator = FiniteNudge(stencil=eqprop.centred(0.1), relaxation=SETTLE)
    report = audit(*neuron(), estimator=estimator, relaxation=SETTLE, reference=Picard(tol=1e-14, max_steps=3))
    assert not np.any(report.settled) and "nan" in report.table()


# One neuron with a load on itself, `u = w σ(u) + c + β (s − y)`: the branch points of `u(β)` are where `F_u = 0`.


class Neuron(eqprop.AbstractNetwork):
    """`du/dt = w s + x − u` with `s = tanh u`."""

    weight: jax.Array
    activation: Any = eqx.field(static=True, default=eqprop.tanh)
    holomorphic: ClassVar[bool] = True

    def embed(self, x):
        return {"out": x}

    def drive(self, s, current):
        return {"out": self.weight.astype(s["out"].dtype) * s["out"] + current["out"].astype(s["out"].dtype)}


WEIGHT, INPUT, TARGET = 0.4, 0.3, -0.6


def neuron(batch=1):
    model = eqprop.Model(Neuron(weight=jnp.asarray(WEIGHT)), eqprop.SquaredError())
    return model, jnp.full((batch, 1), INPUT), jnp.full((batch, 1), TARGET)


def branch_point_radius() -> float:
    """The least |β| at which `F = −u + (w + β) tanh u + c − β y` and `F_u = (w + β)/cosh² u − 1` vanish together, by
    Newton's method from a lattice of complex starts: `F_u = 0` gives `β(u)`, and `F(u, β(u)) = 0` is one equation.

    A start may find the pole of tanh, or nothing; what counts is where both equations hold.
    """
    beta = lambda u: np.cosh(u) ** 2 - WEIGHT
    F = lambda u: -u + (WEIGHT + beta(u)) * np.tanh(u) + INPUT - beta(u) * TARGET
    found = []
    for start in (a + 1j * b for a in np.linspace(-3, 3, 13) for b in np.linspace(-3, 3, 13)):
        u = start
        for _ in range(60):
            h = 1e-6
            derivative = (F(u + h) - F(u - h)) / (2 * h)
            if abs(derivative) < 1e-12:
                break
            u = u - F(u) / derivative
            if not abs(u) < 20:
                break
        if abs(u) < 20 and abs(F(u)) < 1e-9:
            found.append(abs(beta(u)))
    return float(min(found))


def test_radius_of_convergence_of_one_neuron():
    """The audit's estimate from Taylor coefficients, against the nearest branch point; well inside there is nothing to
    warn of."""
    model, x, y = neuron()
    R = branch_point_radius()
    estimator = FiniteNudge(stencil=eqprop.cauchy(0.5 * R, 4), relaxation=SETTLE)
    report = audit(model, x, y, estimator=estimator, relaxation=SETTLE, reference=SETTLE, num_points=48)
    print(f"branch point at |β| = {R:.4f}, audited {float(report.convergence_radius[0]):.4f}")
    assert abs(float(report.convergence_radius[0]) / R - 1) < 0.15
    assert report.warnings() == []


def test_a_linear_neuron_has_a_simple_pole():
    """With `σ(u) = u`, `s*(β) = (c − β y)/(1 − w − β)`: R = 1 − w exactly, and Taylor coefficients are geometric."""
    _, x, y = neuron()
    model = eqprop.Model(Neuron(weight=jnp.asarray(WEIGHT), activation=eqprop.linear), eqprop.SquaredError())
    estimator = FiniteNudge(stencil=eqprop.cauchy(0.2, 4), relaxation=SETTLE)
    report = audit(model, x, y, estimator=estimator, relaxation=SETTLE, reference=SETTLE)
    np.testing.assert_allclose(report.convergence_radius, 1 - WEIGHT, rtol=1e-3)


def test_the_warning_beyond_the_radius():
    """Outside a compiled program, where phases cease to settle as well."""
    model, x, y = neuron()
    estimator = FiniteNudge(stencil=eqprop.centred(1.5 * branch_point_radius()), relaxation=SETTLE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = eqprop.audit(model, x, y, estimator=estimator, relaxation=SETTLE, reference=SETTLE)
    messages = [str(w.message) for w in caught]
    assert messages == report.warnings()
    assert any("radius of convergence" in message and "Shrink" in message for message in messages)


def test_beyond_the_radius_no_function_is_blamed():
    """The jump at a branch cut is no sign of a function that is not analytic; well inside there is none."""
    model, x, y = neuron()
    estimator = FiniteNudge(stencil=eqprop.centred(1.3 * branch_point_radius()), relaxation=SETTLE)
    report = eqx.filter_jit(audit)(model, x, y, estimator=estimator, relaxation=SETTLE, reference=SETTLE)
    assert np.all(report.settled) and float(jnp.max(report.leakage)) < CLOSURE_TOL
    assert "analytic" not in " ".join(report.warnings())
