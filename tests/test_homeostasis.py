"""Homeostasis: every form estimates `½‖Â − Âᵀ‖²/n` in the network's metric, from all of a batch or a share of it, with
its gradient, and leaves the state alone."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import eqprop
from eqprop import ExactHomeostasis, ForwardHomeostasis, SkewHomeostasis
from eqprop.homeostasis import mean_penalty
from helpers import FD_TOL, Ring, chain, finite_differences, flat, free_phase, gap, oracle, problem

DRAWS = 4096
KEY = jax.random.key(0)
STANDARD_ERRORS = 4.0
"""A correct mean strays this far once in sixteen thousand; keys are fixed, so a pass stays a pass."""

PROBES = {"gaussian": jax.random.normal, "signs": jax.random.rademacher}


def at(name):
    """Network, potentials of its first example, and `½‖A − Aᵀ‖²/n` from the dense Jacobian."""
    p = problem(name)
    A = np.asarray(oracle(*p).A[0])
    u = jax.tree.map(lambda leaf: leaf[0], free_phase(p.model, p.x).state)
    return p.model.network.at(p.x[0]), u, 0.5 * np.sum((A - A.T) ** 2) / len(A)


@eqx.filter_jit
def draws(form, field, u, key):
    return jax.vmap(lambda k: form(field, u, key=k))(jax.random.split(key, DRAWS))


@pytest.mark.parametrize(
    ("name", "form", "probe"),
    [
        *(("asymmetric", form, probe) for form in (ForwardHomeostasis, SkewHomeostasis) for probe in PROBES),
        ("conv", SkewHomeostasis, "signs"),
    ],
)
def test_draws_average_to_the_exact_value(name, form, probe):
    """Gaussian noise and random signs alike, within their standard error."""
    field, u, exact = at(name)
    values = np.asarray(draws(form(num_probes=1, probe=PROBES[probe]), field, u, jax.random.key(7)))
    error = values.std() / np.sqrt(DRAWS)
    assert error < 0.1 * exact
    assert abs(values.mean() - exact) < STANDARD_ERRORS * error


@pytest.mark.parametrize("name", ["symmetric", "asymmetric", "loop", "hopfield"])
def test_the_closed_form(name):
    """Equals the dense Jacobian's, for reciprocal edges, lone edges and layers that feed themselves."""
    field, u, exact = at(name)
    assert abs(float(ExactHomeostasis()(field, u, key=jax.random.key(0))) - exact) < 1e-14
    assert isinstance(field.network, eqprop.AbstractLinearNetwork)
    plus, minus = field.network.symmetry_norms()
    A = np.asarray(oracle(*problem(name)).A[0])
    np.testing.assert_allclose([plus, minus], [np.sum((A + A.T) ** 2), np.sum((A - A.T) ** 2)], atol=1e-13)


@pytest.mark.parametrize(
    ("name", "form"),
    [("loop", ExactHomeostasis()), ("asymmetric", ForwardHomeostasis(num_probes=1)), ("conv", SkewHomeostasis())],
    ids=["exact", "forward", "skew"],
)
def test_gradients_against_finite_differences(name, form):
    """With respect to all parameters, at a frozen state and a fixed key."""
    field, u, _ = at(name)
    key, (params, static) = jax.random.key(3), eqx.partition(field.network, eqx.is_inexact_array)
    value = lambda params: form(eqprop.Field(eqx.combine(params, static), field.current), u, key=key)
    grad = jax.jit(jax.grad(value))(params)
    assert max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(grad)) > 0.01
    # A penalty of order one to ten, and so are its rounding errors.
    assert gap(grad, finite_differences(value, params)) < 10 * FD_TOL
    assert gap(grad.biases, jax.tree.map(jnp.zeros_like, grad.biases)) == 0.0


@pytest.mark.parametrize("form", [ForwardHomeostasis(), SkewHomeostasis(), ExactHomeostasis()])
def test_no_gradient_reaches_the_state(form):
    """`s*` is held constant, where the drive is nonlinear as well."""
    field, u, _ = at("asymmetric" if isinstance(form, ExactHomeostasis) else "conv")
    grad = jax.grad(lambda u: form(field, u, key=jax.random.key(0)))(u)
    assert not np.any(flat(grad))


def test_variance_near_symmetry():
    """At 5 degrees between forward and feedback weights, one skew draw is far quieter than one published draw."""
    field = chain(5.0, key=jax.random.key(1)).at(jnp.ones(6))
    u = field.current
    variances = {
        (form, probe): float(np.var(draws(form(num_probes=1, probe=PROBES[probe]), field, u, jax.random.key(2))))
        for form, probe in [(ForwardHomeostasis, "gaussian"), (SkewHomeostasis, "gaussian"), (SkewHomeostasis, "signs")]
    }
    published = variances[ForwardHomeostasis, "gaussian"]
    ratios = [published / variances[SkewHomeostasis, probe] for probe in ("gaussian", "signs")]
    print(f"variance of the published draw over that of a skew draw: {ratios}")
    assert min(ratios) > 20
    symmetric, u, _ = at("conv_symmetric")
    assert float(jnp.max(draws(SkewHomeostasis(), symmetric, u, jax.random.key(2)))) < 1e-28


# In the metric of weak feedback.


def skipping(*, key):
    """A graph with edges that skip layers, up and down, and a layer that feeds itself."""
    forward = [("in", "l1"), ("l1", "l2"), ("l2", "out"), ("l1", "out"), ("in", "out"), ("l2", "l2")]
    backward = [("l2", "l1"), ("out", "l2"), ("out", "l1")]
    layers = {"l1": 5, "l2": 4, "out": 3}
    return eqprop.DenseNetwork(6, layers, forward, feedback=backward, feedback_gain=0.3, key=key)


WEAK = {
    "chain": lambda key: chain(90.0, key=key, feedback_gain=0.3),
    "skipping": lambda key: skipping(key=key),
    "conv": lambda key: eqprop.ConvNetwork.chain((8, 8, 2), (3, 4), feedback_gain=0.3, key=key),
}


def weak(name):
    """Network, potentials, and the dense `Â = m^½ A m^−½` at them, `m` being 0.3 to the power of the level."""
    network = WEAK[name](jax.random.key(4))
    x = jnp.ones((8, 8, 2) if name == "conv" else 6)
    field = network.at(x)
    u = field.initial_state()
    noise = 0.3 * jax.random.normal(jax.random.key(5), flat(u).shape)
    u = ravel_pytree(u)[1](noise)
    level = {"l1": 1, "l2": 2, "conv1": 1, "out": 2 if name == "conv" else 3}
    root = np.concatenate([np.full(leaf.size, 0.3 ** (level[layer] / 2)) for layer, leaf in sorted(u.items())])
    s, unravel = ravel_pytree(network.rates(u))
    A = np.asarray(jax.jit(jax.jacfwd(lambda s: flat(field.drive(unravel(s)))))(s))
    return field, u, root[:, None] * A / root


@pytest.mark.parametrize("name", ["chain", "skipping"])
def test_the_closed_form_in_the_metric(name):
    """Edges up and down by one level or two, which act with gains of 1, 0.3 and 0.09."""
    field, u, A = weak(name)
    expected = [np.sum((A + A.T) ** 2), np.sum((A - A.T) ** 2)]
    np.testing.assert_allclose(field.network.symmetry_norms(), expected, rtol=1e-13)
    exact = ExactHomeostasis()(field, u, key=jax.random.key(0))
    np.testing.assert_allclose(exact, 0.5 * expected[1] / len(A), rtol=1e-13)
    asymmetry = eqprop.metrics.functional_asymmetry(field, u)
    np.testing.assert_allclose(asymmetry, np.sqrt(expected[1]) / np.sum(np.sqrt(expected)), rtol=1e-13)


@pytest.mark.parametrize("name", WEAK)
def test_products_in_the_metric(name):
    """With the Jacobian and its transpose, against the dense matrix; tied weights make it symmetric."""
    field, u, A = weak(name)
    forward, transposed = field.metric_jacobian(field.rates(u))
    v = jax.random.normal(jax.random.key(6), (len(A),))
    unravel = ravel_pytree(u)[1]
    np.testing.assert_allclose(flat(jax.jit(forward)(unravel(v))), A @ v, atol=1e-13)
    np.testing.assert_allclose(flat(jax.jit(transposed)(unravel(v))), A.T @ v, atol=1e-13)
    assert not np.allclose(A, A.T, atol=0.01)


def test_tied_weights_are_symmetric_in_the_metric():
    field, u, _ = weak("conv")
    kernels = field.network.kernels  # pyright: ignore[reportAttributeAccessIssue]
    where = lambda f: f.network.kernels["out", "conv1"]
    tied = eqx.tree_at(where, field, kernels["conv1", "out"])
    assert float(SkewHomeostasis()(tied, u, key=jax.random.key(0))) < 1e-28
    # Not by the metric of one: the feedback is weaker than the forward path.
    forward, transposed = tied.jacobian(tied.rates(u))
    assert gap(forward(u), transposed(u)) > 0.01


@pytest.mark.parametrize("form", [ForwardHomeostasis, SkewHomeostasis])
def test_draws_average_to_the_exact_value_in_the_metric(form):
    field, u, A = weak("conv")
    values = np.asarray(draws(form(num_probes=1), field, u, jax.random.key(7)))
    exact, error = 0.5 * np.sum((A - A.T) ** 2) / len(A), values.std() / np.sqrt(DRAWS)
    assert error < 0.1 * exact
    assert abs(values.mean() - exact) < STANDARD_ERRORS * error


# From a share of a batch.


def fixed_probe(key, shape, dtype):
    """The same noise in every draw: what is random is the choice of examples."""
    del key
    return jnp.cos(jnp.arange(np.prod(shape), dtype=dtype)).reshape(shape)


@pytest.mark.parametrize("left_out", [0, 3], ids=["all_usable", "three_left_out"])
def test_a_share_of_the_batch_is_unbiased(left_out):
    """Its gradient, averaged over choices, is that of all usable examples within the standard error; from all of the
    batch it is that; and no example that is left out is ever chosen, be it no number."""
    model = eqprop.Model(Ring(jax.random.key(1)), eqprop.SoftmaxReadout(4, 3, key=jax.random.key(2)))
    states = {name: jax.random.normal(jax.random.key(i), (8, 4)) for i, name in enumerate(("hidden", "out"))}
    usable = jnp.arange(8) >= left_out

    @eqx.filter_jit
    def gradients(share, keys):
        form = SkewHomeostasis(probe=fixed_probe, share=share)

        def one(key):
            value = lambda m: mean_penalty(form, m.network, jnp.ones((8, 6)), states, usable, choose=key, key=key)
            return flat(eqx.filter_grad(value)(model).network.weights)

        return jax.vmap(one)(keys)

    noise = {name: fixed_probe(None, (4,), float) for name in states}
    penalty = lambda m: jnp.mean(
        jax.vmap(lambda u: SkewHomeostasis().one_draw(m.network.at(jnp.ones(6)), u, noise))(
            jax.tree.map(lambda v: v[left_out:], states)
        )
    )
    full = np.asarray(flat(eqx.filter_jit(eqx.filter_grad(penalty))(model).network.weights))
    keys = jax.random.split(jax.random.key(9), 2000)
    values = np.asarray(gradients(0.3, keys))  # of eight, three
    error = values.std(axis=0) / np.sqrt(len(values))
    assert np.max(error) > 1e-5  # choices differ
    assert np.all(np.abs(values.mean(axis=0) - full) < STANDARD_ERRORS * error)
    np.testing.assert_allclose(gradients(1.0, keys[:2]), np.stack([full, full]), rtol=0, atol=1e-13)


def test_fewer_usable_examples_than_the_share_are_all_taken():
    """The mean over those that there are."""
    model = eqprop.Model(Ring(jax.random.key(1)), eqprop.SquaredError())
    states = {name: jax.random.normal(jax.random.key(i), (8, 4)) for i, name in enumerate(("hidden", "out"))}
    form, usable = SkewHomeostasis(probe=fixed_probe, share=0.5), jnp.arange(8) % 4 == 1
    keys = dict(choose=jax.random.key(0), key=jax.random.key(1))
    penalty = eqx.filter_jit(mean_penalty)(form, model.network, jnp.ones((8, 6)), states, usable, **keys)
    each = [
        form(model.network.at(jnp.ones(6)), {k: v[i] for k, v in states.items()}, key=jax.random.key(0)) for i in (1, 5)
    ]
    np.testing.assert_allclose(penalty, np.mean(each), rtol=1e-13)


def test_bad_settings_are_refused():
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"share is {share}; expected a part of the batch, above 0 and up to 1"):
            SkewHomeostasis(share=share)
    with pytest.raises(ValueError, match="num_probes is 0; expected at least one probe"):
        SkewHomeostasis(num_probes=0)
    field, u, _ = at("conv")
    for refused in (lambda f: ExactHomeostasis().check(f.network), lambda f: ExactHomeostasis()(f, u, key=KEY)):
        with pytest.raises(ValueError, match="this ConvNetwork has none.*Use SkewHomeostasis"):
            refused(field)


def test_the_coefficient_is_left_to_the_trainer():
    field, u, exact = at("asymmetric")
    assert abs(float(eqprop.ExactHomeostasis(coefficient=7.0)(field, u, key=jax.random.key(0))) - exact) < 1e-14


def test_the_size_of_the_coupling_is_a_weight_decay():
    """The gradient of `E‖Jε‖²/n` is `2 γ K/n` for every recurrent kernel, which the study of ablations matches."""
    key, gain = jax.random.key(0), 0.25
    network = eqprop.DenseNetwork.chain([5, 12, 11, 7], feedback_gain=gain, key=key)
    penalty = eqprop.ForwardHomeostasis(num_probes=4000, terms="norm")

    def size(network):
        field = network.at(jnp.ones(5))
        return penalty(field, field.initial_state(), key=key)

    gradient = eqx.filter_grad(size)(network)
    for edge, kernel in network.recurrent.items():
        share = jnp.sum(gradient.kernels[edge] * kernel) / jnp.sum(kernel**2)
        assert abs(float(share) / (2 * gain / 30) - 1) < 0.05
