"""The closed forms of what noise and converters leave of an error vector, beside networks that are relaxed."""

import jax
import jax.numpy as jnp
import numpy as np

import eqprop
from experiments.substrate import price


def test_readings_leave_of_an_error_vector_what_the_closed_forms_say():
    key = jax.random.key(1)
    network = eqprop.DenseNetwork.chain([12, 400, 400, 5], feedback_gain=0.1, key=key)
    model = eqprop.Model(network, eqprop.SoftmaxReadout(5, 5, key=key))
    x = jax.random.normal(key, (6, 12))
    found = price.readings(model, x, jnp.eye(5)[jnp.arange(6) % 5])
    falling = ("noise", slice(None), 0.2), ("bits", slice(None, 0, -1), 0.5)  # 4 bits move too few neurons for a mean
    for by, part, low in falling:
        measured, predicted = (np.asarray(found[by][kind])[part] for kind in ("measured", "closed form"))
        np.testing.assert_allclose(measured, predicted, atol=0.06)
        assert predicted[0] > 0.9 and predicted[-1] < low  # the range has both ends
