"""Homeostasis: every form estimates `½‖A − Aᵀ‖²/n`, with its gradient, and leaves the state alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop
from eqprop import ExactHomeostasis, ForwardHomeostasis, SkewHomeostasis
from helpers import FD_TOL, chain, finite_differences, flat, free_phase, gap, oracle, problem

DRAWS = 4096
STANDARD_ERRORS = 4.0
"""A correct mean strays this far once in sixteen thousand; keys are fixed, so a pass stays a pass."""

PROBES = {"gaussian": jax.random.normal, "signs": jax.random.rademacher}


def at(name):
    """Network, potentials of its first example, and `½‖A − Aᵀ‖²/n` from the dense Jacobian."""
    p = problem(name)
    A = np.asarray(oracle(*p).A[0])
    u = jax.tree.map(lambda leaf: leaf[0], free_phase(p.model, p.x).state)
    return p.model.network, u, 0.5 * np.sum((A - A.T) ** 2) / len(A)


@eqx.filter_jit
def draws(form, network, u, key):
    return jax.vmap(lambda k: form(network, u, key=k))(jax.random.split(key, DRAWS))


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("form", [ForwardHomeostasis, SkewHomeostasis])
@pytest.mark.parametrize("name", ["asymmetric", "conv"])
def test_draws_average_to_the_exact_value(name, form, probe):
    """Gaussian noise and random signs alike, within their standard error."""
    network, u, exact = at(name)
    values = np.asarray(draws(form(num_probes=1, probe=PROBES[probe]), network, u, jax.random.key(7)))
    error = values.std() / np.sqrt(DRAWS)
    assert error < 0.1 * exact
    assert abs(values.mean() - exact) < STANDARD_ERRORS * error


@pytest.mark.parametrize("name", ["symmetric", "asymmetric", "loop", "hopfield"])
def test_the_closed_form(name):
    """Equals the dense Jacobian's, for reciprocal edges, lone edges and layers that feed themselves."""
    network, u, exact = at(name)
    assert abs(float(ExactHomeostasis()(network, u, key=jax.random.key(0))) - exact) < 1e-14
    assert isinstance(network, eqprop.AbstractLinearNetwork)
    plus, minus = network.symmetry_norms()
    A = np.asarray(oracle(*problem(name)).A[0])
    np.testing.assert_allclose([plus, minus], [np.sum((A + A.T) ** 2), np.sum((A - A.T) ** 2)], atol=1e-13)


@pytest.mark.parametrize(
    ("name", "form"),
    [("loop", ExactHomeostasis()), ("asymmetric", ForwardHomeostasis(num_probes=1)), ("conv", SkewHomeostasis())],
    ids=["exact", "forward", "skew"],
)
def test_gradients_against_finite_differences(name, form):
    """With respect to all parameters, at a frozen state and a fixed key."""
    network, u, _ = at(name)
    key, (params, static) = jax.random.key(3), eqx.partition(network, eqx.is_inexact_array)
    value = lambda params: form(eqx.combine(params, static), u, key=key)
    grad = jax.jit(jax.grad(value))(params)
    assert max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(grad)) > 0.01
    # A penalty of order one to ten, and so are its rounding errors.
    assert gap(grad, finite_differences(value, params)) < 10 * FD_TOL
    assert gap(grad.biases, jax.tree.map(jnp.zeros_like, grad.biases)) == 0.0


@pytest.mark.parametrize("form", [ForwardHomeostasis(), SkewHomeostasis(), ExactHomeostasis()])
def test_no_gradient_reaches_the_state(form):
    """`s*` is held constant, where the drive is nonlinear as well."""
    network, u, _ = at("asymmetric" if isinstance(form, ExactHomeostasis) else "conv")
    grad = jax.grad(lambda u: form(network, u, key=jax.random.key(0)))(u)
    assert not np.any(flat(grad))


def test_variance_near_symmetry():
    """At 5 degrees between forward and feedback weights, one skew draw is far quieter than one published draw."""
    network = chain(5.0, key=jax.random.key(1))
    u = network.embed(jnp.ones(6))
    variances = {
        (form, probe): float(np.var(draws(form(num_probes=1, probe=PROBES[probe]), network, u, jax.random.key(2))))
        for form, probe in [(ForwardHomeostasis, "gaussian"), (SkewHomeostasis, "gaussian"), (SkewHomeostasis, "signs")]
    }
    published = variances[ForwardHomeostasis, "gaussian"]
    ratios = [published / variances[SkewHomeostasis, probe] for probe in ("gaussian", "signs")]
    print(f"variance of the published draw over that of a skew draw: {ratios}")
    assert min(ratios) > 20
    symmetric, u, _ = at("conv_symmetric")
    assert float(jnp.max(draws(SkewHomeostasis(), symmetric, u, jax.random.key(2)))) < 1e-28


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="num_probes is 0; expected at least one probe"):
        SkewHomeostasis(num_probes=0)
    network, u, _ = at("conv")
    for refused in (ExactHomeostasis().check, lambda n: ExactHomeostasis()(n, u, key=jax.random.key(0))):
        with pytest.raises(ValueError, match="ConvNetwork depends on the state. Use SkewHomeostasis"):
            refused(network)


def test_the_coefficient_is_left_to_the_trainer():
    network, u, exact = at("asymmetric")
    assert abs(float(eqprop.ExactHomeostasis(coefficient=7.0)(network, u, key=jax.random.key(0))) - exact) < 1e-14
