"""The library reproduces what the published code computes, recorded in float64 (see fixtures/README.md)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import eqprop
from eqprop.estimator import FiniteNudge, RecurrentBackprop, TangentResponse
from helpers import FIXTURES, SETTLE, SETTLE_TOL, Fixture, estimate, fixture, flat_batch, free_phase, gap, respond

TOL = 1e-11
"""As the files' README advises: both sides relax to rounding, and quotients at β = 0.05 divide it."""

DENSE = [name for name in FIXTURES if not name.startswith("conv")]
CONV = [name for name in FIXTURES if name.startswith("conv")]


@pytest.fixture(params=FIXTURES)
def case(request) -> Fixture:
    return fixture(request.param)


def test_free_fixed_point(case):
    """Potentials, rates, logits and loss of the free phase."""
    free = free_phase(case.model, case.x)
    rates = case.model.network.rates(free.state)
    assert gap(free.state, case.state("free/u")) < TOL
    assert gap(rates, case.state("free/s")) < TOL
    assert gap(jax.vmap(case.model.readout.predict)(rates), case.data["free/logits"]) < TOL
    assert gap(jax.vmap(case.model.readout.loss)(rates, case.y), case.data["free/loss_per_sample"]) < TOL
    assert gap(jax.vmap(case.model.readout.teaching)(rates, case.y)["out"], case.data["dl_ds/out"]) < TOL
    assert np.all(free.result == eqprop.RESULTS.successful) and np.max(free.residual) <= SETTLE_TOL


@pytest.mark.parametrize(
    "estimator", [TangentResponse(relaxation=SETTLE), RecurrentBackprop(relaxation=SETTLE)], ids=["tangent", "rbp"]
)
def test_linear_responses_and_gradients(case, estimator):
    """The derivative at β = 0 and the recurrent backpropagation, with their parameter gradients."""
    tangent = isinstance(estimator, TangentResponse)
    response, grad = estimate(estimator, case.model, case.x, case.y)
    assert gap(response.payload, case.state("response/N0" if tangent else "delta_rbp")) < TOL
    assert gap(grad, case.parameters("grad/N0" if tangent else "grad/rbp")) < TOL


@pytest.mark.parametrize("beta", [0.05, 0.5])
@pytest.mark.parametrize("num_points", [1, 2, 4, 6])
def test_finite_nudges_and_gradients(case, num_points, beta):
    """One-sided, centred and Cauchy estimates at a small and a large radius; gradients where they are recorded."""
    estimator = FiniteNudge(stencil=eqprop.cauchy(beta, num_points, on_axis=True), relaxation=SETTLE)
    if f"grad/N{num_points}_beta{beta}/readout/Dense_0/bias" in case.data:
        response, grad = estimate(estimator, case.model, case.x, case.y)
        assert gap(grad, case.parameters(f"grad/N{num_points}_beta{beta}")) < TOL
    else:
        response = respond(estimator, case.model, case.x, case.y, free_phase(case.model, case.x))
    assert gap(response.payload, case.state(f"response/N{num_points}_beta{beta}")) < TOL


@eqx.filter_jit
def _one_draw(form, case, u, noise):
    def objective(model):
        return jnp.mean(jax.vmap(lambda x, u, e: form.one_draw(model.network.at(x), u, e))(case.x, u, noise))

    return eqx.filter_value_and_grad(objective)(case.model)


@eqx.filter_jit
def _sum_over_basis(form, case, u):
    """An expectation over noise of unit covariance is a sum over basis vectors, for a quadratic form."""
    _, unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], u))
    size = flat_batch(u).shape[1]

    def add(total, neurons):
        def objective(model):
            noise = jax.vmap(unravel)(jax.nn.one_hot(neurons, size, dtype=float))
            one = lambda x, u: jax.vmap(lambda e: form.one_draw(model.network.at(x), u, e))(noise)
            draws = jax.vmap(one)(case.x, u)
            return jnp.sum(draws) / draws.shape[0]

        return jax.tree.map(jnp.add, total, eqx.filter_value_and_grad(objective)(case.model)), None

    zero = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), eqx.filter(case.model, eqx.is_inexact_array)))
    return jax.lax.scan(add, zero, jnp.arange(size).reshape(6, -1))[0]


def test_homeostasis_of_the_recorded_noise(case):
    """The published single-draw loss and its gradient."""
    loss, grad = _one_draw(
        eqprop.ForwardHomeostasis(), case, free_phase(case.model, case.x).state, case.state("homeo/eps")
    )
    assert gap(loss, case.data["homeo/loss"]) < TOL
    assert gap(grad, case.parameters("homeo/grad")) < TOL


def test_expected_homeostasis(case):
    """Its expectation: in closed form for dense networks, from the other estimator's basis sum for conv."""
    u = free_phase(case.model, case.x).state
    if isinstance(case.model.network, eqprop.ConvNetwork):
        loss, grad = _sum_over_basis(eqprop.SkewHomeostasis(), case, u)
    else:
        form = eqprop.ExactHomeostasis()
        one = jax.tree.map(lambda leaf: leaf[0], u)
        value = lambda m: form(m.network.at(case.x[0]), one, key=jax.random.key(0))
        loss, grad = eqx.filter_value_and_grad(value)(case.model)
    assert gap(loss, case.data["homeo/expected_loss"]) < TOL
    assert gap(grad, case.parameters("homeo/expected_grad")) < TOL


def _jacobian(case, vectors, transposed=False):
    """`J v` or `Jᵀ v` in rate coordinates at sample 0, for a batch of raveled vectors."""
    s = jax.tree.map(lambda leaf: leaf[0], case.model.network.rates(free_phase(case.model, case.x).state))
    unravel = ravel_pytree(s)[1]
    _, jvp = jax.linearize(case.model.network.at(case.x[0]).drive, s)
    apply = (lambda v: jax.linear_transpose(jvp, s)(v)[0]) if transposed else jvp
    return flat_batch(jax.jit(jax.vmap(apply))(jax.vmap(unravel)(vectors))) - vectors


@pytest.mark.parametrize("name", DENSE)
def test_dense_jacobian(name):
    """The rate Jacobian entry by entry, and the closed form of its symmetric and antisymmetric norms."""
    case = fixture(name)
    jacobian = _jacobian(case, jnp.eye(38)).T
    assert gap(jacobian, case.data["jac"][0]) < TOL
    assert isinstance(case.model.network, eqprop.DenseNetwork)
    plus, minus = case.model.network.symmetry_norms()
    # The recorded parts include the leak: S = ½(A + Aᵀ) − 1, and A has no diagonal here.
    assert abs(np.sqrt(float(plus) / 4 + 38) - case.data["jac_sym_fro"][0]) < TOL
    assert abs(np.sqrt(float(minus) / 4) - case.data["jac_antisym_fro"][0]) < TOL


@pytest.mark.parametrize("name", CONV)
def test_conv_jacobian(name):
    """Products with the Jacobian and its transpose, and its dense block of the last two layers."""
    case = fixture(name)
    eps = jnp.asarray(case.data["jac_sample0_eps"])
    noise = flat_batch({layer: jnp.asarray(v) for layer, v in case.state("homeo/eps").items()})[0]
    assert gap(_jacobian(case, noise[None])[0], eps) < TOL
    assert gap(_jacobian(case, noise[None], transposed=True)[0], case.data["jac_sample0_T_eps"]) < TOL
    block = _jacobian(case, jnp.eye(noise.size)[-102:])[:, -102:].T
    assert gap(block, case.data["jac_sample0_conv3_out"]) < TOL
