"""What the theory says of every estimator, measured against dense linear algebra at the same fixed point."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop
from eqprop import (
    AsymmetricNudge,
    BackpropThroughTime,
    ContrastiveHebbian,
    DyadicNudge,
    FiniteNudge,
    FixedSteps,
    OscillatingNudge,
    RecurrentBackprop,
    TangentResponse,
)
from helpers import (
    ASYMMETRIC,
    FD_TOL,
    SETTLE,
    SYMMETRIC,
    Problem,
    audit,
    chain,
    estimate,
    flat_batch,
    free_phase,
    gap,
    gradient,
    loss_gradient,
    oracle,
    problem,
    relative_error,
    respond,
    scaled,
    slope,
    surrogate_gradient,
)

LINEAR_TOL = 1e-11
"""Of a linear system relaxed to 1e-14, against a dense solve: a condition number of some ten."""

CAUCHY_TOL = 1e-10
"""Of sixteen points at a radius well inside the radius of convergence: rounding over the radius."""

RADIUS = 0.05
"""Small enough that (RADIUS/R)^16 is below rounding for every problem, R being at least 0.6."""


def delta_error(estimator, p: Problem, reference) -> float:
    response = respond(estimator, *p, free_phase(p.model, p.x))
    return relative_error(flat_batch(response.payload), reference)


@pytest.mark.parametrize("name", ASYMMETRIC)
def test_tangent_and_rbp_are_transposes_of_each_other(name):
    """`M⁻¹ g` and `M⁻ᵀ g`, each to rounding, where they differ by tens of percent."""
    p = problem(name)
    exact = oracle(*p)
    assert relative_error(exact.tangent, exact.rbp) > 0.03
    assert delta_error(TangentResponse(relaxation=SETTLE), p, exact.tangent) < LINEAR_TOL
    assert delta_error(RecurrentBackprop(relaxation=SETTLE), p, exact.rbp) < LINEAR_TOL


@pytest.mark.parametrize("name", ["asymmetric", pytest.param("conv", marks=pytest.mark.slow), "hopfield"])
def test_rbp_is_the_gradient_of_the_loss(name):
    """The surrogate's gradient with RBP is that of the loss of the fixed point: `+⟨δ, ∂F/∂θ⟩`, to be subtracted."""
    p = problem(name)
    _, grad = estimate(RecurrentBackprop(relaxation=SETTLE), *p)
    assert gap(grad, loss_gradient(*p)) < FD_TOL


def test_rbp_without_feedback_is_backpropagation(getkey):
    """The gradient of a feedforward network, written out layer by layer."""
    p = problem("asymmetric")
    network = eqprop.DenseNetwork.chain((6, 5, 4, 3), reciprocal=False, key=getkey())

    def loss(model, x, y):
        s = x
        for a, b in (("in", "l1"), ("l1", "l2"), ("l2", "out")):
            s = model.network.activation(s @ model.network.kernels[a, b] + model.network.biases[b])
        logits = s @ model.readout.kernel + model.readout.bias
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(logits), axis=1))

    model = eqprop.Model(network, p.model.readout)
    _, grad = estimate(RecurrentBackprop(relaxation=SETTLE), model, p.x, p.y)
    with jax.numpy_rank_promotion("allow"):
        assert gap(grad, eqx.filter_grad(loss)(model, p.x, p.y)) < LINEAR_TOL


@pytest.mark.parametrize("name", ["symmetric", pytest.param("conv", marks=pytest.mark.slow)])
def test_positive_nudges_repel_from_the_target(name):
    """The loss at `s*(β)` grows with β, with slope `⟨g, ds*/dβ⟩ > 0`."""
    p = problem(name)
    exact = oracle(*p)

    @jax.jit
    def loss(beta):
        def one(x, y):
            u = SETTLE((lambda u: p.model.at(x, y).drift(u, beta)), p.model.network.at(x).initial_state()).state
            return p.model.readout.loss(p.model.network.rates(u), y)

        return jax.vmap(one)(p.x, p.y)

    h = 1e-3
    below, at, above = loss(-h), loss(0.0), loss(h)
    assert np.all(below < at) and np.all(at < above)
    np.testing.assert_allclose((above - below) / (2 * h), jnp.sum(exact.g * exact.tangent, axis=1), rtol=1e-4)


@pytest.mark.parametrize(
    ("num_points", "radii"),
    [(1, (0.01, 0.02)), (2, (0.02, 0.04)), (3, (0.05, 0.1)), (4, (0.05, 0.1)), (6, (0.1, 0.2))],
)
def test_bias_of_finite_nudges_has_the_order_of_the_stencil(num_points, radii):
    """log(error) against log(radius): slope 1 one-sided, 2 centred, N on N points."""
    p = problem("asymmetric")
    tangent = oracle(*p).tangent
    errors = [
        delta_error(FiniteNudge(stencil=eqprop.cauchy(r, num_points), relaxation=SETTLE), p, tangent) for r in radii
    ]
    order = slope(np.log(radii), np.log(errors))
    print(f"N = {num_points}: order {order:.3f}, errors {errors}")
    assert abs(order - num_points) < 0.1 * max(num_points, 2)


def test_bias_falls_geometrically_with_the_points_until_rounding():
    """error ∝ (r/R)^N: the slope in N gives R within a factor 1.3 of the audit's; rounding is its floor."""
    p, radius = problem("asymmetric"), 0.2
    tangent = oracle(*p).tangent
    points = [2, 3, 4, 6]
    errors = [delta_error(FiniteNudge(stencil=eqprop.cauchy(radius, n), relaxation=SETTLE), p, tangent) for n in points]
    R = radius * np.exp(-slope(points, np.log(errors)))
    estimator = FiniteNudge(stencil=eqprop.cauchy(radius, 4), relaxation=SETTLE)
    audited = audit(*p, estimator=estimator, relaxation=SETTLE, reference=SETTLE)
    print(f"errors {errors}, R from slope {R:.3f}, audited {audited.convergence_radius}")
    assert 1 / 1.3 < R / float(audited.convergence_radius.min()) < 1.3
    assert delta_error(FiniteNudge(stencil=eqprop.cauchy(RADIUS, 16), relaxation=SETTLE), p, tangent) < CAUCHY_TOL


@pytest.mark.parametrize("name", ASYMMETRIC)
@pytest.mark.parametrize(
    "method",
    [
        lambda: AsymmetricNudge(stencil=eqprop.cauchy(RADIUS, 16), relaxation=SETTLE),
        lambda: DyadicNudge(relaxation=SETTLE),
    ],
    ids=["asymmetric_nudge", "dyadic"],
)
def test_nudges_that_are_exact_without_symmetry(name, method):
    """They equal RBP on asymmetric weights, where the plain nudge is off by its asymmetry."""
    p = problem(name)
    exact = oracle(*p)
    error = delta_error(method(), p, exact.rbp)
    plain = delta_error(FiniteNudge(stencil=eqprop.cauchy(RADIUS, 16), relaxation=SETTLE), p, exact.rbp)
    print(f"{name}: exact method {error:.1e}, plain nudge {plain:.2f}")
    assert error < CAUCHY_TOL
    assert abs(plain - relative_error(exact.tangent, exact.rbp)) < CAUCHY_TOL and plain > 0.03


AGREEING = {
    "finite_nudge": lambda: FiniteNudge(stencil=eqprop.cauchy(RADIUS, 16), relaxation=SETTLE),
    "asymmetric_nudge": lambda: AsymmetricNudge(stencil=eqprop.cauchy(RADIUS, 16), relaxation=SETTLE),
    "tangent": lambda: TangentResponse(relaxation=SETTLE),
    "rbp": lambda: RecurrentBackprop(relaxation=SETTLE),
    "dyadic": lambda: DyadicNudge(relaxation=SETTLE),
    "bptt": lambda: BackpropThroughTime(relaxation=FixedSteps(500)),
    "contrastive": lambda: ContrastiveHebbian(stencil=eqprop.cauchy(RADIUS, 16), relaxation=SETTLE),
}


PAIRS = [(name, method) for name in SYMMETRIC for method in AGREEING if name == "hopfield" or method != "contrastive"]
"""The contrast of energies is for the Hopfield network only."""


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_all_estimators_agree_on_symmetric_weights(name, method):
    """One parameter gradient, that of the dense solve, whatever the route."""
    p = problem(name)
    exact = oracle(*p)
    assert relative_error(exact.tangent, exact.rbp) < LINEAR_TOL
    _, grad = estimate(AGREEING[method](), *p)
    assert relative_error(grad, surrogate_gradient(*p, exact.u, exact.rbp)) < CAUCHY_TOL


def test_contrast_of_energies_has_the_order_of_its_stencil():
    """The Hebbian contrast at β = 0.1 and 0.2, centred: an error of order β², not a wrong rule."""
    p = problem("hopfield")
    exact = oracle(*p)
    truth = surrogate_gradient(*p, exact.u, exact.rbp)
    betas = (0.1, 0.2)
    errors = [
        relative_error(estimate(ContrastiveHebbian(stencil=eqprop.centred(b), relaxation=SETTLE), *p)[1], truth)
        for b in betas
    ]
    assert abs(slope(np.log(betas), np.log(errors)) - 2) < 0.2


ODE_TOL = 1e-7
"""Of a fifth-order solver at 0.05 time constants a step."""


@eqx.filter_jit
def _oscillate(p, period, turns):
    estimator = OscillatingNudge(beta=0.1, period=period, warmup=turns, steps_per_period=int(20 * period))
    start = eqx.filter_vmap(lambda x: p.model.network.at(x).initial_state())(p.x)
    solution = eqprop.Solution(start, jnp.zeros(()), jnp.zeros((), int), eqprop.RESULTS.successful)
    return eqx.filter_vmap(
        lambda x, y, u: estimator.respond(p.model.at(x, y), eqx.tree_at(lambda f: f.state, solution, u))
    )(p.x, p.y, start)


def test_the_oscillating_nudge_is_a_first_harmonic():
    """Without a free phase: mean `u*`, error `Re D (iω − J)⁻¹ g`, and a lag of order ω² to the tangent response."""
    p = problem("asymmetric")
    exact = oracle(*p)
    periods, lags = (30.0, 60.0), []
    for period, turns in zip(periods, (6, 3), strict=True):
        omega = 2 * np.pi / period
        system = (1j * omega * np.eye(exact.u.shape[1]))[None] - exact.J.astype(complex)
        harmonic = exact.D * jnp.linalg.solve(system, exact.g.astype(complex)[..., None])[..., 0].real
        response = _oscillate(p, period, turns)
        assert relative_error(flat_batch(response.state), exact.u) < ODE_TOL
        assert relative_error(flat_batch(response.payload), harmonic) < ODE_TOL
        assert np.all(response.result == eqprop.RESULTS.successful)
        lags.append(relative_error(flat_batch(response.payload), exact.tangent))
    order = slope(np.log(periods), np.log(lags))
    print(f"lags {lags}, order {order:.2f}")
    assert abs(order + 2) < 0.3


@pytest.mark.parametrize("name", ["asymmetric", pytest.param("conv", marks=pytest.mark.slow)])
def test_backpropagation_through_time_is_a_neumann_sum(name):
    """`T` steps from a settled state give `Σ_{k<T} (D Aᵀ)ᵏ D g`; many give RBP."""
    p = problem(name)
    exact = oracle(*p)
    for steps in (3, 500):
        term = delta = exact.D * exact.g
        for _ in range(min(steps, 500) - 1):
            term = exact.D * jnp.einsum("bij,bi->bj", exact.A, term)
            delta = delta + term
        _, grad = estimate(BackpropThroughTime(relaxation=FixedSteps(steps)), *p)
        assert relative_error(grad, surrogate_gradient(*p, exact.u, delta)) < LINEAR_TOL
        if steps == 500:
            assert relative_error(delta, exact.rbp) < LINEAR_TOL


@pytest.mark.parametrize("num_points", [1, 2, 4])
def test_a_linear_network_against_its_closed_form(num_points, getkey):
    """With `σ(u) = u` and squared error, `s*(β) = (1 − A − β P)⁻¹ (c − β P y)`: stencil by stencil, no relaxation."""
    network = scaled(chain(90.0, key=getkey(), activation=eqprop.linear), 0.4)
    model = eqprop.Model(network, eqprop.SquaredError())
    x, y = jax.random.normal(getkey(), (3, 6)), jax.random.normal(getkey(), (3, 3))
    stencil = eqprop.cauchy(0.2, num_points, on_axis=True)
    response = respond(FiniteNudge(stencil=stencil, relaxation=SETTLE), model, x, y, free_phase(model, x))

    k = {name: np.asarray(kernel) for name, kernel in network.kernels.items()}
    A = np.zeros((12, 12))
    A[5:9, :5], A[:5, 5:9] = k["l1", "l2"].T, k["l2", "l1"].T
    A[9:, 5:9], A[5:9, 9:] = k["l2", "out"].T, k["out", "l2"].T
    P = np.diag([0.0] * 9 + [1.0] * 3)
    for example in range(3):
        c = np.concatenate([np.asarray(x[example]) @ k["in", "l1"], np.zeros(7)])
        target = np.concatenate([np.zeros(9), np.asarray(y[example])])
        at = lambda b, c=c, target=target: np.linalg.solve(np.eye(12) - A - b * P, c - b * P @ target)
        circle = [0.2 * np.exp(2j * np.pi * t / num_points) for t in range(num_points)]
        delta = sum((at(b) - at(0.0)) / b for b in circle) / num_points
        ours = np.asarray(flat_batch(response.payload)[example])
        np.testing.assert_allclose(ours, delta.real, atol=1e-12)
        assert np.max(np.abs(delta.imag)) < 1e-12


def test_gradient_of_a_batch_is_the_mean_of_its_examples():
    """The surrogates are averaged, so that one `grad` serves the batch."""
    p = problem("asymmetric")
    estimator = RecurrentBackprop(relaxation=SETTLE)
    response, grad = estimate(estimator, *p)
    singles = [
        gradient(
            estimator, p.model, p.x[i : i + 1], p.y[i : i + 1], jax.tree.map(lambda v, i=i: v[i : i + 1], response)
        )
        for i in range(3)
    ]
    mean = jax.tree.map(lambda *v: sum(v[1:], start=v[0]) / 3, *[eqx.filter(s, eqx.is_array) for s in singles])
    assert gap(grad, mean) < 1e-15
