"""Activations against their defining formulas, on the real axis and off it, with their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop
from eqprop.activation import _sine_and_cosine

POINTS = np.random.default_rng(0).normal(size=(2, 500)) * np.array([[3.0], [1.2]])
COMPLEX = jnp.asarray(POINTS[0] + 1j * POINTS[1])
REAL = jnp.asarray(POINTS[0])


def plain_dsilu(z):
    silu = lambda v: v / (1 + jnp.exp(-v))
    return 0.5 * (silu(z) - silu(z - 2))


FORMULAS = {
    "shifted_sigmoid": lambda z: 1 / (1 + jnp.exp(2 - 4 * z)),
    "dsilu": plain_dsilu,
    "tanh": lambda z: jnp.sinh(z) / jnp.cosh(z),
    "linear": lambda z: z,
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("z", [REAL, COMPLEX], ids=["real", "complex"])
def test_values_and_slopes_are_those_of_the_formula(name, z):
    activation, formula = getattr(eqprop, name), FORMULAS[name]
    holomorphic = bool(jnp.iscomplexobj(z))
    # Relative to the value: near a pole both are large.
    np.testing.assert_allclose(activation(z), formula(z), rtol=1e-12, atol=1e-13)
    slope, expected = (jax.vmap(jax.grad(f, holomorphic=holomorphic))(z) for f in (activation, formula))
    np.testing.assert_allclose(slope, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["shifted_sigmoid", "tanh"])
def test_nothing_overflows_and_zero_has_its_slope(name):
    activation = getattr(eqprop, name)
    ends = activation(jnp.asarray([800.0 + 1j, -800.0 + 1j]))
    np.testing.assert_allclose(ends, [1, 0 if name == "shifted_sigmoid" else -1], atol=1e-15)
    centre = 0.5 if name == "shifted_sigmoid" else 0.0
    assert jax.grad(activation, holomorphic=True)(centre + 0j) == pytest.approx(1.0)


def test_the_published_centres():
    assert eqprop.shifted_sigmoid(jnp.asarray(0.0)) == pytest.approx(1 / (1 + np.e**2))
    assert eqprop.dsilu(jnp.asarray(1.0)) == pytest.approx(0.5)


def test_single_precision_sine_and_cosine_to_two_units_of_rounding():
    b = np.linspace(-1000, 1000, 200_001).astype(np.float32)
    sine, cosine = _sine_and_cosine(jnp.asarray(b))
    assert sine.dtype == jnp.float32
    np.testing.assert_allclose(sine, np.sin(b.astype(float)), rtol=0, atol=1.3e-7)
    np.testing.assert_allclose(cosine, np.cos(b.astype(float)), rtol=0, atol=1.3e-7)
