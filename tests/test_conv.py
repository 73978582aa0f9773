"""Convolutional networks on graphs: edges and poolings, shortcuts, tied kernels, signals that reach the last layer."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import eqprop
from eqprop import ConvEdge, ConvNetwork, Field, FiniteNudge, RecurrentBackprop, SkewHomeostasis, TangentResponse
from helpers import (
    SETTLE,
    Problem,
    estimate,
    flat,
    flat_batch,
    free_phase,
    gap,
    oracle,
    relative_error,
    respond,
    surrogate_gradient,
)

KEYS = jax.random.split(jax.random.key(0), 6)


# Edges.

SHAPED = list(itertools.product([None, 1, 3, 4], [1, 2], ["SAME", "VALID"]))


@pytest.mark.parametrize("pooling", ["softmax", "average", "max", "none"])
def test_pooling_against_each_window_alone(pooling):
    v = jax.random.normal(KEYS[0], (6, 9, 2))
    edge = ConvEdge("a", "b", None, pooling=pooling, window=3)
    pooled = edge.pool(v)
    for i, j, c in np.ndindex(*pooled.shape):
        window = np.asarray(v)[3 * i : 3 * i + 3, 3 * j : 3 * j + 3, c] if pooling != "none" else np.asarray(v)[i, j, c]
        weights = np.exp(window)
        expected = {
            "softmax": np.sum(weights * window) / np.sum(weights),
            "average": np.mean(window),
            "max": np.max(window),
            "none": window,
        }[pooling]
        np.testing.assert_allclose(pooled[i, j, c], expected, rtol=1e-14)
    s = jax.random.normal(KEYS[1], pooled.shape)
    (expected,) = jax.vjp(edge.pool, v)[1](s)
    np.testing.assert_allclose(edge.pool_transposed(v, s), expected, atol=1e-14)


@pytest.mark.parametrize("size, stride, padding", SHAPED)
def test_the_transposed_convolution_is_the_transposed_matrix(size, stride, padding):
    """Of the dense matrix of an edge, also on complex images; the shape is that which the edge says."""
    edge = ConvEdge("a", "b", size, stride, padding)
    kernel = None if size is None else jax.random.normal(KEYS[0], (size, size, 2, 3))
    image = jnp.zeros((5, 6, 2))
    dense = jax.jacfwd(lambda s: edge.convolve(s, kernel))(image)
    shape = edge.shape((5, 6, 2), 2 if size is None else 3)
    assert dense.shape == (*shape, *image.shape)
    w = jax.lax.complex(jax.random.normal(KEYS[1], shape), jax.random.normal(KEYS[2], shape))
    expected = jnp.tensordot(w, dense.astype(complex), axes=3)
    np.testing.assert_allclose(edge.convolve_transposed(w, kernel, image), expected, atol=1e-13)


# Networks.

EDGES = [
    ConvEdge("in", "a", pooling="softmax"),
    ConvEdge("a", "b", 2, stride=2),
    ConvEdge("b", "out", 3, padding="SAME", pooling="average"),
    ConvEdge("a", "out", 1, pooling="max", window=4),
    ConvEdge("out", "a2", None),
    ConvEdge("b", "a2", 1, pooling="softmax"),
]
LAYERS = {"a": 2, "b": 3, "out": 2, "a2": 2}
"""Skips, a layer behind the one that is read, every pooling, kernels of every size."""


def graph(*, key, **settings):
    return ConvNetwork((8, 8, 1), LAYERS, EDGES, init_scale=0.5, key=key, **settings)


def residual(*, key, **settings):
    return ConvNetwork.residual((4, 4, 1), 2, ((2, 1), (3, 1)), init_scale=0.5, key=key, **settings)


def made(build, **settings) -> Problem:
    network = build(key=KEYS[0], **settings)
    features = dict(network.shape_items)["out"]
    model = eqprop.Model(network, eqprop.SoftmaxReadout(int(np.prod(features)), 3, key=KEYS[1]))
    x = jax.random.normal(KEYS[2], (2, *network.image_shape))
    return Problem(model, x, jax.nn.one_hot(jnp.array([0, 2]), 3, dtype=float))


def test_levels_shapes_and_names_of_the_residual_network():
    """One stem, and twelve layers in six blocks: thirteen. Shortcuts have a kernel only where shapes change."""
    network = eqx.filter_eval_shape(lambda key: ConvNetwork.residual(key=key), KEYS[0])
    shapes, levels = dict(network.shape_items), network.levels
    assert len(network.biases) == 13 and sorted(levels.values()) == list(range(1, 14))
    assert shapes["stem"] == (32, 32, 64) and shapes["stage2_1a"] == (16, 16, 128) and shapes["out"] == (8, 8, 256)
    plain = [edge for edge in network.edges if edge.kernel_size is None]
    assert [str(edge) for edge in plain[:2]] == ["stem -> stage1_1b", "stage1_1b -> stage1_2b"] and len(plain) == 4
    assert {str(edge) for edge in network.edges if edge.kernel_size == 1} == {
        "stage1_2b -> stage2_1b",
        "stage2_2b -> stage3_1b",
    }
    assert len(network.feedback_edges()) == 14 and len(network.kernels) == 1 + 2 * 14
    # No layer of a block acts on another one, shortcuts among them.
    assert network.blocks.independent and len(network.blocks.order) == 3


def test_the_published_chain_is_as_it_was():
    network = ConvNetwork.chain((32, 32, 3), (4, 5, 6, 6), key=KEYS[0])
    shapes = dict(network.shape_items)
    assert list(shapes) == ["in", "conv1", "conv2", "conv3", "out"] and shapes["out"] == (1, 1, 6)
    assert network.edges[-1] == ConvEdge("conv3", "out", padding="VALID", pooling="softmax")


def strided(*, key, **settings):
    """Strides that do not divide images, kernels of even size, both paddings, a shortcut."""
    edges = [
        ConvEdge("in", "a"),
        ConvEdge("a", "b", 2, stride=2, padding="SAME"),
        ConvEdge("b", "out", 3, padding="VALID"),
        ConvEdge("a", "c", None, stride=2),
        ConvEdge("b", "c", 5),
        ConvEdge("c", "a2", 3, stride=3),
    ]
    layers = {"a": 2, "b": 3, "out": 2, "c": 2, "a2": 1}
    return ConvNetwork((7, 8, 1), layers, edges, init_scale=0.5, key=key, **settings)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("pooling", ["softmax", "average", "max", "none"])
def test_transposed_products_are_those_of_the_dense_jacobian(pooling, tied):
    """Of the drive and of the drift; shortcuts have no kernel, and strides are of two."""
    network = residual(key=KEYS[0], pooling=pooling, tied=tied, feedback_gain=0.3)
    field = Field(network, network.embed(jax.random.normal(KEYS[1], (4, 4, 1))))
    u, unravel = ravel_pytree(field.initial_state())
    u, v = jax.random.normal(KEYS[2], (2, u.size))
    for function, product, at in (
        (field.drift, field.drift_transposed(unravel(u)), u),
        (field.drive, field.jacobian(unravel(u))[1], u),
    ):
        dense = jax.jacfwd(lambda z, f=function: ravel_pytree(f(unravel(z)))[0])(at)
        np.testing.assert_allclose(ravel_pytree(product(unravel(v)))[0], dense.T @ v, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("gain", [1.0, 0.3])
@pytest.mark.parametrize("build", [strided, residual])
def test_asymmetry_without_pooling_has_a_closed_form(build, gain):
    """Against the dense Jacobian in the metric; and none where an edge pools."""
    network = build(key=KEYS[0], feedback_gain=gain)
    field = network.at(jax.random.normal(KEYS[2], network.image_shape))
    s, unravel = ravel_pytree(field.initial_state())
    A = np.asarray(jax.jit(jax.jacfwd(lambda s: flat(field.drive(unravel(s)))))(s))
    shapes, levels = dict(network.shape_items), network.levels
    root = np.concatenate([np.full(np.prod(shapes[name]), gain ** (levels[name] / 2)) for name in sorted(levels)])
    A = root[:, None] * A / root
    norms = network.symmetry_norms()
    np.testing.assert_allclose(norms, [np.sum((A + A.T) ** 2), np.sum((A - A.T) ** 2)], rtol=1e-12)  # pyright: ignore[reportArgumentType]
    penalty = eqprop.ExactHomeostasis()(field, unravel(s), key=KEYS[0])
    np.testing.assert_allclose(penalty, 0.5 * np.sum((A - A.T) ** 2) / len(A), rtol=1e-12)


def test_asymmetry_with_pooling_has_none():
    network = graph(key=KEYS[0])
    assert network.symmetry_norms() is None
    with pytest.raises(ValueError, match="this ConvNetwork has none.*SkewHomeostasis"):
        eqprop.ExactHomeostasis().check(network)
    norms = residual(key=KEYS[0], tied=True).symmetry_norms()
    assert norms is not None and norms[0] > 0 and norms[1] == 0


@pytest.mark.parametrize("extra", [("b", "a"), ("b", "b")])
def test_an_edge_that_is_there_already_is_refused(extra):
    edges = [ConvEdge("in", "a"), ConvEdge("a", "b"), ConvEdge(*extra)]
    with pytest.raises(ValueError, match=f"both directions already: leave out {extra[0]} -> {extra[1]}"):
        ConvNetwork((4, 4, 1), {"a": 2, "b": 2}, edges, key=KEYS[0])


@pytest.mark.parametrize("build", [graph, residual])
def test_tied_networks_are_symmetric_in_the_metric(build):
    """`Â = Âᵀ` as dense matrices at random rates, at γ = 0.3; untied ones are not."""
    for tied in (True, False):
        network = build(key=KEYS[0], tied=tied, feedback_gain=0.3)
        field = network.at(jax.random.normal(KEYS[2], network.image_shape))
        u = ravel_pytree(field.initial_state())[1](jax.random.normal(KEYS[3], flat(field.initial_state()).shape))
        s, unravel = ravel_pytree(field.rates(u))
        A = np.asarray(jax.jacfwd(lambda s, field=field, unravel=unravel: flat(field.drive(unravel(s))))(s))
        level = np.concatenate([np.full(leaf.size, network.levels[name]) for name, leaf in sorted(u.items())])
        A = 0.3 ** (level[:, None] / 2) * A * 0.3 ** (-level / 2)
        assert np.allclose(A, A.T, atol=1e-14) == tied
        penalty = SkewHomeostasis()(field, u, key=KEYS[4])
        assert (float(penalty) < 1e-28) == tied
        assert not tied or set(network.kernels) == {(e.source, e.target) for e in network.edges if e.kernel_size}


@pytest.mark.parametrize("build", [graph, residual])
@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_responses_of_tied_networks_are_recurrent_backpropagation(build, gain):
    """Dense `M⁻ᵀ g`, by the tangent response and by RBP, and to the order of the nudge by finite ones."""
    p = made(build, tied=True, feedback_gain=gain)
    exact, free = oracle(*p), free_phase(p.model, p.x)
    for estimator, tol in [
        (TangentResponse(relaxation=SETTLE), 1e-10),
        (RecurrentBackprop(relaxation=SETTLE), 1e-10),
        (FiniteNudge(stencil=eqprop.centred(1e-3), relaxation=SETTLE), 1e-5),
    ]:
        response = respond(estimator, *p, free)
        assert relative_error(flat_batch(response.payload), exact.rbp) < tol


def test_gradients_of_an_untied_residual_network():
    """Every kernel of both directions, with the error vector of a dense solve."""
    p = made(residual, feedback_gain=0.5)
    exact = oracle(*p)
    _, gradient = estimate(RecurrentBackprop(relaxation=SETTLE), *p)
    assert gap(gradient, surrogate_gradient(*p, exact.u, exact.rbp)) < 1e-11


def test_circles_of_nudges_on_a_residual_network():
    """Complex states through strides, shortcuts and poolings: N = 6 errs by the sixth power of the radius."""
    p = made(residual, tied=True, pooling="average")
    exact, free = oracle(*p).tangent, free_phase(p.model, p.x)
    errors = [
        relative_error(
            flat_batch(respond(FiniteNudge(stencil=eqprop.cauchy(beta, 6), relaxation=SETTLE), *p, free).payload), exact
        )
        for beta in (0.1, 0.2)
    ]
    assert abs(np.log2(errors[1] / errors[0]) - 6) < 0.5


@pytest.mark.parametrize(
    "settings, reason",
    [({"activation": eqprop.clipped_relu}, "activation"), ({"activation": eqprop.hard_sigmoid}, "activation")],
)
def test_what_is_not_analytic_takes_real_nudges_only(settings, reason):
    network = residual(key=KEYS[0], **settings)
    assert not network.holomorphic, reason
    with pytest.raises(ValueError, match="ConvNetwork is not holomorphic. Nudge it by FiniteNudge"):
        FiniteNudge(stencil=eqprop.cauchy(0.1, 4), relaxation=SETTLE).check(network)
    FiniteNudge(stencil=eqprop.centred(0.1), relaxation=SETTLE).check(network)


def test_maximum_pooling_is_not_analytic():
    assert not graph(key=KEYS[0]).holomorphic and residual(key=KEYS[0], pooling="softmax").holomorphic
    assert not ConvNetwork.chain((8, 8, 2), (3, 4), pooling="max", key=KEYS[0]).holomorphic


def test_piecewise_linear_activations():
    u = jnp.array([-1.0, 0.0, 0.25, 1.0, 1.5, 3.0])
    np.testing.assert_array_equal(eqprop.clipped_relu(u), [0.0, 0.0, 0.25, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(eqprop.hard_sigmoid(u), [0.0, 0.0, 0.125, 0.5, 0.75, 1.0])


# Signals.


def smooth_images(count: int, extent: int) -> jax.Array:
    """Images whose neighbouring pixels are alike, of mean zero and spread one."""
    coarse = jax.random.normal(KEYS[5], (count, extent // 4, extent // 4, 3))
    images = jax.image.resize(coarse, (count, extent, extent, 3), "linear")
    return (images - jnp.mean(images)) / jnp.std(images)


def spread_by_layer(network: ConvNetwork, x: jax.Array) -> dict[str, float]:
    """Standard deviation of the settled rates over images, about the mean of every neuron."""
    settled = free_phase(eqprop.Model(network, eqprop.SquaredError()), x, eqprop.Sweep(tol=1e-4, max_steps=500))
    assert not np.any(settled.result != eqprop.RESULTS.successful)
    rates = jax.vmap(network.rates)(settled.state)
    return {name: float(jnp.std(s - jnp.mean(s, axis=0, keepdims=True))) for name, s in rates.items()}


@pytest.mark.parametrize("activation", [eqprop.dsilu, eqprop.clipped_relu])
def test_signals_reach_the_last_of_thirteen_layers(activation):
    """With `init_scale=None` the rates of every layer differ from image to image by a part of their range, as those of
    the first one do, also once homeostasis has brought both kernels of a pair to their mean; as drawn, next to nothing
    is left of the image behind smooth activations."""
    x = smooth_images(4, 16)
    stages = ((8, 2), (8, 2), (8, 2))
    build = lambda scale: ConvNetwork.residual(
        (16, 16, 3), 8, stages, init_scale=scale, feedback_gain=0.1, activation=activation, key=KEYS[0]
    )
    network = build(None)
    mean = {(a, b): 0.5 * (k + network.kernels.get((b, a), k)) for (a, b), k in network.kernels.items()}
    aligned = spread_by_layer(eqx.tree_at(lambda n: n.kernels, network, mean), x)
    spread, drawn = spread_by_layer(network, x), spread_by_layer(build(1.0), x)
    assert len(spread) == 13
    for each in (spread, aligned):
        assert 0.08 < min(each.values()) and max(each.values()) < 0.5
    assert activation is not eqprop.dsilu or drawn["out"] < 0.3 * spread["out"]


def test_scales_are_set_for_every_seed_alike():
    """Under `vmap` over keys too: a member of a population is the network made alone."""
    build = lambda key: eqx.filter(ConvNetwork.chain((8, 8, 2), (3, 4), init_scale=None, key=key), eqx.is_array)
    alone = [build(key) for key in KEYS[:2]]
    together = eqx.filter_vmap(build)(KEYS[:2])
    for member, one in enumerate(alone):
        assert gap(jax.tree.map(lambda leaf, m=member: leaf[m], together), one) < 1e-13


# What is refused.

REFUSED = {
    "edge to nowhere": (lambda: ConvNetwork((8, 8, 1), {"out": 2}, [ConvEdge("in", "outt")], key=KEYS[0]), "outt"),
    "no path": (
        lambda: ConvNetwork((8, 8, 1), {"a": 2, "out": 2}, [ConvEdge("in", "a")], key=KEYS[0]),
        "No path of edges leads from 'in' to out",
    ),
    "shapes that disagree": (
        lambda: ConvNetwork(
            (8, 8, 1),
            {"a": 2, "out": 2},
            [ConvEdge("in", "a"), ConvEdge("a", "out", stride=2), ConvEdge("in", "out")],
            key=KEYS[0],
        ),
        r"edge in -> out makes images of \(8, 8, 2\), but 'out' has \(4, 4, 2\) by another",
    ),
    "identity between unlike channels": (
        lambda: ConvNetwork((8, 8, 1), {"out": 2}, [ConvEdge("in", "out", None)], key=KEYS[0]),
        "in -> out has no kernel, but joins 1 channels to 2. Give it kernel_size=1",
    ),
    "window": (lambda: ConvEdge("in", "out", window=0), "window of the edge in -> out is 0; expected at least 1"),
    "stride": (lambda: ConvEdge("in", "out", stride=0), "stride of the edge in -> out is 0; expected at least 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_built_is_refused(name):
    build, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        build()


def test_edges_are_given_as_fields_too():
    network = ConvNetwork((8, 8, 1), {"out": 2}, [{"source": "in", "target": "out", "stride": 2}], key=KEYS[0])
    assert network.edges == (ConvEdge("in", "out", stride=2),)
