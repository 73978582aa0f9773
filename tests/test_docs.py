"""The Python of docs/networks.md runs as it is printed, and its networks are what the page says, by dense oracles."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import eqprop
from eqprop import Newton, RecurrentBackprop, SquaredError, TangentResponse
from helpers import ROOT, flat
from runs import as_users_run, run_python

pytestmark = pytest.mark.bounded


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The names that the blocks leave, run one after the other in double precision."""
    names: dict = {"__name__": "networks"}
    with as_users_run(), contextlib.chdir(tmp_path_factory.mktemp("docs")):
        run_python(ROOT / "docs" / "networks.md", names)
    return names


@pytest.mark.parametrize("name", ["memory", "oscillators", "neurons"])
def test_error_vectors_of_networks_of_ones_own(page, name):
    """The tangent response and RBP against `M⁻ᵀ g` of the dense Jacobian: equal by symmetry, or in a metric that is
    negative for the recovery of a FitzHugh-Nagumo neuron, and not without it."""
    network, steps = page[name], Newton(tol=1e-12, rtol=1e-9)
    x, y = 0.3 * jax.random.normal(jax.random.key(1), (6,)), jnp.full(5 if name == "neurons" else 3, 0.2)
    example = eqprop.Model(network, SquaredError(regression=True)).at(x, y)

    @eqx.filter_jit
    def measured(example):
        free = steps(example.field.drift, example.field.initial_state())
        responses = [
            kind(relaxation=steps).estimate(example, free).delta for kind in (TangentResponse, RecurrentBackprop)
        ]
        raw = TangentResponse(relaxation=steps).error(example, free).delta
        return free, responses, raw

    free, responses, raw = measured(example)
    assert free.result == eqprop.RESULTS.successful
    u, unravel = ravel_pytree(free.state)
    slopes = jax.vmap(jax.grad(network.activation))(u)
    J = jax.jacfwd(lambda u: flat(example.field.drift(unravel(u))))(u)
    M = -J / slopes[None]  # J = A D − 1 = −M D
    g = flat(example.teaching(example.field.rates(free.state)))
    expected = jnp.linalg.solve(M.T, g)
    for response in responses:
        np.testing.assert_allclose(flat(response), expected, atol=1e-10)
    assert (name == "neurons") == (np.linalg.norm(flat(raw) - expected) > 0.1 * np.linalg.norm(expected))


def test_homeostasis_in_a_negative_metric(page):
    """The penalty of the FitzHugh-Nagumo pair vanishes, whose recovery has a negative weight."""
    field = page["neurons"].at(jnp.ones(6))
    penalty = eqprop.SkewHomeostasis(num_probes=4)(field, field.initial_state(), key=jax.random.key(0))
    assert abs(float(penalty)) < 1e-14


def test_what_is_learned_first_is_forgotten(page):
    after = np.array(page["after"])
    assert after[0, 0] > 0.8 and page["forgotten"] == after[0, 0] - after[1, 0] > 0.3
    assert page["after"][1][1] > 0.5


def test_networks_of_the_page_settle(page):
    for name, shape in [("sparse", (64,)), ("circuit", (2,))]:
        network = page[name]
        field = network.at(jnp.ones(shape))
        solution = eqx.filter_jit(lambda f: Newton()(f.drift, f.initial_state()))(field)
        assert solution.result == eqprop.RESULTS.successful


def test_forgetting_by_hand():
    table = np.array([[0.9, 0.1, 0.2], [0.6, 0.8, 0.1], [0.5, 0.4, 0.7]])
    np.testing.assert_allclose(eqprop.metrics.forgetting(table), (0.4 + 0.4) / 2)
    np.testing.assert_allclose(eqprop.metrics.mean_accuracy(table), 1.6 / 3)
    with pytest.raises(ValueError, match="1 task; expected two"):
        eqprop.metrics.forgetting(table[:1, :1])
