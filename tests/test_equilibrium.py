"""The fixed point as a function that JAX differentiates, between an encoder and a head, against finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop
from eqprop import FiniteNudge, RecurrentBackprop
from helpers import FD_TOL, SETTLE, chain, conv, finite_differences, gap, relative_error

KEYS = jax.random.split(jax.random.key(8), 6)
EXACT = RecurrentBackprop(relaxation=SETTLE)


class Block(eqx.Module):
    """An encoder, a network that relaxes, another one on top of it, a head."""

    encoder: eqx.nn.Linear
    first: eqprop.DenseNetwork
    second: eqprop.DenseNetwork
    head: eqx.nn.Linear

    def __call__(self, x, estimator):
        rest = lambda network, x, layers: eqprop.equilibrium(
            network, x, relaxation=SETTLE, estimator=estimator, layers=layers
        )
        s = rest(self.first, jnp.tanh(self.encoder(x)), ("l1", "out"))
        top = rest(self.second, jnp.concatenate([s["l1"], s["out"]]), ("out",))
        return self.head(top["out"])


def block(angle, gain=1.0):
    network = lambda sizes, key: chain(angle, key=key, sizes=sizes, feedback_gain=gain)
    encoder, head = eqx.nn.Linear(4, 6, key=KEYS[0]), eqx.nn.Linear(3, 2, key=KEYS[1])
    return Block(encoder, network((6, 5, 4), KEYS[2]), network((9, 4, 3), KEYS[3]), head)


X, Y = jax.random.normal(KEYS[4], (3, 4)), jax.random.normal(KEYS[5], (3, 2))


def loss(model, x, estimator=EXACT):
    return jnp.mean(jax.vmap(lambda x, y: jnp.sum((model(x, estimator) - y) ** 2))(x, Y))


@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_two_blocks_between_encoder_and_head(gain):
    """Gradients of all parameters and of the input, with independent feedback, are those of finite differences."""
    params, static = eqx.partition(block(90.0, gain), eqx.is_inexact_array)
    value = lambda params, x: loss(eqx.combine(params, static), x)
    by_params, by_x = jax.jit(jax.grad(value, argnums=(0, 1)))(params, X)
    assert gap(by_params, finite_differences(lambda p: value(p, X), params)) < 10 * FD_TOL
    assert gap(by_x, finite_differences(lambda x: value(params, x), X)) < 10 * FD_TOL


@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_a_nudge_in_place_of_the_exact_response(gain):
    """With tied weights a circle of eight gives the same gradient, also where two layers of different weight in the
    metric are nudged at once; with independent ones it does not."""
    nudge = FiniteNudge(stencil=eqprop.cauchy(0.02, 8), relaxation=SETTLE)
    grad = eqx.filter_jit(lambda model, estimator: eqx.filter_grad(loss)(model, X, estimator))
    tied, free = block(0.0, gain), block(90.0, gain)
    assert relative_error(grad(tied, nudge), grad(tied, EXACT)) < 1e-7
    assert relative_error(grad(free, nudge), grad(free, EXACT)) > 1e-3


def test_images_through_a_conv_network():
    """The gradient of the input of a convolution, in the shape of the image."""
    network, image = conv(90.0, key=KEYS[0]), jax.random.normal(KEYS[1], (8, 8, 2))
    total = lambda x: jnp.sum(eqprop.equilibrium(network, x, relaxation=SETTLE, estimator=EXACT)["out"] ** 2)
    direction = jax.random.normal(KEYS[2], image.shape)
    along = lambda t: total(image + t * direction)
    step = 1e-3
    expected = (along(-2 * step) - 8 * along(-step) + 8 * along(step) - along(2 * step)) / (12 * step)
    np.testing.assert_allclose(jnp.sum(jax.grad(total)(image) * direction), expected, atol=100 * FD_TOL)


def test_what_did_not_settle_has_no_gradient():
    """Neither in the parameters nor in the input, and it is no NaN."""
    short = eqprop.Picard(tol=1e-12, max_steps=2)
    total = lambda network, x: jnp.sum(
        eqprop.equilibrium(network, x, relaxation=short, estimator=RecurrentBackprop(relaxation=SETTLE))["out"]
    )
    network = chain(90.0, key=KEYS[0])
    by_network = eqx.filter_grad(total)(network, jnp.ones(6))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(eqx.filter(by_network, eqx.is_array)))
    assert not np.any(jax.grad(lambda x: total(network, x))(jnp.ones(6)))


def test_a_circle_needs_an_analytic_network():
    network = chain(0.0, key=KEYS[0], activation=jax.nn.relu)
    with pytest.raises(ValueError, match="DenseNetwork is not holomorphic"):
        eqprop.equilibrium(
            network,
            jnp.ones(6),
            relaxation=SETTLE,
            estimator=FiniteNudge(stencil=eqprop.cauchy(0.1, 4), relaxation=SETTLE),
        )
