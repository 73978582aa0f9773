"""Stencils: weights, degrees of exactness, conjugate symmetry, cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop

TOL = 1e-13
"""Sums of a dozen terms of order one, some divided by a radius of a half."""

POINTS = range(1, 10)


def value(stencil, function):
    values = np.asarray(function(np.asarray(stencil.nodes)), stencil.nodes.dtype)
    return float(stencil.derivative(jnp.asarray(values), jnp.asarray(function(0.0))))


@pytest.mark.parametrize("num_points", POINTS)
def test_exact_on_polynomials_below_the_aliased_degree(num_points):
    """`N` points differentiate `β^n` exactly for `n ≤ N`, and take `β^(N+1)` for `r^N`; turned by half a step, for
    `−r^N`."""
    on_axis, turned = eqprop.cauchy(0.5, num_points, on_axis=True), eqprop.cauchy(0.5, num_points)
    for degree in range(num_points + 1):
        for stencil in (on_axis, turned):
            assert abs(value(stencil, lambda b, n=degree: 3.0 * b**n) - (3.0 if degree == 1 else 0.0)) < TOL
    next_power = lambda b: b ** (num_points + 1)
    assert abs(value(on_axis, next_power) - 0.5**num_points) < TOL
    assert abs(value(turned, next_power) - (0.5 if num_points == 1 else -(0.5**num_points))) < TOL


@pytest.mark.parametrize("on_axis", [False, True], ids=["turned", "on_axis"])
@pytest.mark.parametrize("num_points", [n for n in POINTS if n > 1])
def test_half_a_circle_stands_for_the_whole(num_points, on_axis):
    """The upper half gives the sum over all points, for a random analytic function."""
    coefficients = np.random.default_rng(num_points).normal(size=12)
    function = lambda b: sum(c * b**n for n, c in enumerate(coefficients)) + np.exp(b)
    angles = (2 * np.arange(num_points) + (0 if on_axis else 1)) * np.pi / num_points
    whole = sum((function(b) - function(0.0)) / b for b in 0.5 * np.exp(1j * angles)) / num_points
    assert abs(whole.imag) < TOL
    assert abs(value(eqprop.cauchy(0.5, num_points, on_axis=on_axis), function) - whole.real) < TOL


@pytest.mark.parametrize("num_points", POINTS)
def test_weights_and_cost(num_points):
    """Weights of two points or more cancel constants; an even circle has no real node, and costs `N` relaxations."""
    stencil = eqprop.cauchy(0.3, num_points)
    assert stencil.holomorphic == (num_points > 1) == jnp.iscomplexobj(stencil.nodes)
    assert stencil.num_points == num_points and stencil.nodes.size == (num_points + 1) // 2
    assert np.all(np.abs(np.imag(stencil.nodes)) > 0.05) == (num_points % 2 == 0)
    np.testing.assert_allclose(np.abs(stencil.nodes), 0.3, rtol=1e-15)
    if num_points > 1:
        assert abs(float(jnp.sum(stencil.weights).real)) < TOL


def test_names_of_the_real_stencils():
    """One-sided and centred are the first two circles; a negative radius turns them."""
    function = np.exp
    assert abs(value(eqprop.one_sided(0.1), function) - (np.exp(0.1) - 1) / 0.1) < TOL
    assert abs(value(eqprop.one_sided(-0.1), function) - (1 - np.exp(-0.1)) / 0.1) < TOL
    assert abs(value(eqprop.centred(0.1), function) - np.sinh(0.1) / 0.1) < TOL


def test_trees_with_many_axes():
    """Every leaf is differentiated on its own, whatever its shape."""
    stencil = eqprop.cauchy(0.5, 6)
    matrix = np.arange(6.0).reshape(2, 3)
    nodes = np.asarray(stencil.nodes)
    values = {"a": jnp.asarray(np.exp(nodes[:, None, None] * matrix)), "b": jnp.asarray(nodes**2)}
    derivative = stencil.derivative(values)
    # The error of N points on exp(mβ) is m^(N+1) r^N / (N+1)! at leading order.
    np.testing.assert_allclose(derivative["a"], matrix, atol=1.2 * 5**7 * 0.5**6 / 5040)
    assert derivative["a"].dtype == float and abs(float(derivative["b"])) < TOL


@pytest.mark.parametrize("num_points", [0, -2])
def test_no_points(num_points):
    with pytest.raises(ValueError, match=f"num_points is {num_points}; a stencil has at least one point"):
        eqprop.cauchy(0.1, num_points)


@pytest.mark.parametrize("radius", [0.0, float("nan"), float("inf")])
def test_no_radius(radius):
    with pytest.raises(ValueError, match=f"The beta is {radius}; .* finite strength other than zero"):
        eqprop.cauchy(radius, 4)


@pytest.mark.parametrize("make", [lambda r: eqprop.cauchy(r, 4), eqprop.centred, lambda r: eqprop.chebyshev(r, 4)])
@pytest.mark.parametrize("zero", [0, np.float32(0), np.float64(0), jnp.asarray(0.0), jnp.asarray(jnp.nan)])
def test_no_radius_of_any_type(zero, make):
    """Whatever can be looked at is; an estimate would not be a number, nor would what a step makes of it."""
    with pytest.raises(ValueError, match="finite strength other than zero"):
        make(zero)


@pytest.mark.parametrize("radius", [1e-39, 1e-38, np.float64(1e-60), -1e-39, 1e38])
def test_a_radius_without_an_inverse(radius):
    """In single precision the weights of the first would be infinite, and those of the last be lost; double precision
    has room for them."""
    with jax.enable_x64(False), pytest.raises(ValueError, match="finite inverse in float32"):
        eqprop.centred(radius)
    assert float(eqprop.centred(radius).weights[0]) == pytest.approx(0.5 / radius, rel=1e-15)
    with jax.enable_x64(False):
        assert np.isfinite(eqprop.centred(1e-37).weights).all()


def test_one_point_needs_the_origin():
    stencil = eqprop.one_sided(0.1)
    with pytest.raises(ValueError, match="A one-sided stencil needs g\\(0\\)"):
        stencil.derivative(stencil.nodes)


def test_a_numpy_radius_and_a_traced_one_serve_as_well():
    expected = eqprop.cauchy(0.3, 4)
    for stencil in (eqprop.cauchy(np.float64(0.3), 4), jax.jit(lambda r: eqprop.cauchy(r, 4))(0.3)):
        np.testing.assert_allclose(stencil.nodes, expected.nodes, rtol=1e-15)
        np.testing.assert_allclose(stencil.weights, expected.weights, rtol=1e-15)
