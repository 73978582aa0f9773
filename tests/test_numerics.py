"""The numerics have a number. These few results change when it should be raised.

Two steps of four estimators on a small network, in float64. A change beyond rounding means that one configuration
leads to other numbers than before: raise `eqprop.NUMERICS`, and put the new numbers into `numerics.json` by
`python tests/test_numerics.py`.
"""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop as eq

GOLDEN = Path(__file__).with_name("numerics.json")
SWEEP = eq.Sweep(tol=1e-10, max_steps=500)
ESTIMATORS = {
    "circle": eq.FiniteNudge(stencil=eq.cauchy(0.3, 4), relaxation=SWEEP, norm_bound=1.0),
    "asymmetric": eq.AsymmetricNudge(stencil=eq.centred(0.2), relaxation=eq.Picard(tol=1e-10, max_steps=500)),
    "dyadic": eq.DyadicNudge(relaxation=SWEEP),
    "rbp": eq.RecurrentBackprop(relaxation=SWEEP),
}


def result(name: str) -> list[float]:
    """Norms of all parameters after two steps with homeostasis."""
    network, readout, data = jax.random.split(jax.random.key(7), 3)
    model = eq.Model(
        eq.DenseNetwork.chain([6, 8, 5], feedback_gain=0.5, key=network), eq.SoftmaxReadout(5, 3, key=readout)
    )
    x, y = jax.random.normal(data, (8, 6)), jnp.arange(8) % 3
    trainer = eq.Trainer(SWEEP, ESTIMATORS[name], optax.sgd(0.5), homeostasis=eq.ExactHomeostasis(coefficient=0.1))
    state, step = trainer.init(model, key=data), eqx.filter_jit(trainer.step)
    for _ in range(2):
        state, _ = step(state, (x, y))
    leaves = jax.tree.leaves(eqx.filter(state.model, eqx.is_inexact_array))
    return [float(jnp.linalg.norm(leaf)) for leaf in leaves]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_results_are_those_of_the_present_numerics(name):
    golden = json.loads(GOLDEN.read_text())
    assert golden["numerics"] == eq.NUMERICS, "the numerics were raised: make tests/numerics.json anew"
    np.testing.assert_allclose(result(name), golden[name], rtol=1e-7, err_msg="raise eqprop.NUMERICS")


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    found = {"numerics": eq.NUMERICS, **{name: result(name) for name in ESTIMATORS}}
    GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
