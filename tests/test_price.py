"""The closed form of what noise leaves of an error vector, beside readings of networks that are relaxed."""

import jax
import jax.numpy as jnp
import numpy as np

import eqprop
from experiments.substrate import price


def test_noise_leaves_of_an_error_vector_what_the_closed_form_says():
    key = jax.random.key(1)
    network = eqprop.DenseNetwork.chain([12, 400, 400, 5], feedback_gain=0.1, key=key)
    model = eqprop.Model(network, eqprop.SoftmaxReadout(5, 5, key=key))
    x = jax.random.normal(key, (6, 12))
    found = price.readings(model, x, jnp.eye(5)[jnp.arange(6) % 5])
    measured, predicted = np.asarray(found["noise"]["measured"]), np.asarray(found["noise"]["closed form"])
    np.testing.assert_allclose(measured, predicted, atol=0.06)
    assert predicted[0] > 0.9 and predicted[-1] < 0.2  # the range has both ends
