"""Sparse networks against dense ones, graphs against their definitions, and memory and time that grow with edges."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop
from eqprop import ExactHomeostasis, FiniteNudge, RecurrentBackprop, SparseNetwork, TangentResponse, topology
from helpers import (
    SETTLE,
    Problem,
    estimate,
    flat,
    flat_batch,
    free_phase,
    gap,
    loss_gradient,
    oracle,
    relative_error,
    respond,
)

KEYS = jax.random.split(jax.random.key(0), 4)


def made(edges=None, gain=0.5, **settings) -> Problem:
    """Twelve neurons, three of them outputs; most edges one way, some in pairs, one loop of a neuron on itself."""
    if edges is None:
        edges = np.concatenate([topology.random(12, 3, 0), [[4, 4]]]).astype(np.int32)
    network = SparseNetwork(
        6, 12, edges, topology.inputs(6, range(8), 2, 0), outputs=3, gain=gain, key=KEYS[0], **settings
    )
    network = eqx.tree_at(lambda n: n.biases, network, 0.2 * jax.random.normal(KEYS[1], (12,)))
    x = jax.random.normal(KEYS[2], (3, 6))
    y = jax.nn.one_hot(jnp.array([0, 2, 1]), 3, dtype=float)
    return Problem(eqprop.Model(network, eqprop.SquaredError()), x, y)


def dense(network: Any) -> np.ndarray:
    """`A`, from the list of edges."""
    A = np.zeros((12, 12))
    for source, target, weight in zip(*np.asarray(network.edges).T, network.weights, strict=True):
        A[target, source] += weight
    return A


def test_the_drive_is_the_dense_product():
    p = made()
    network: Any = p.model.network
    A, x = dense(network), np.asarray(p.x[0])
    K = np.zeros((12, 6))
    K[*np.asarray(network.input_edges).T[::-1]] = network.input_weights
    s = np.asarray(jax.random.normal(KEYS[3], (12,)))
    state = {"hidden": jnp.asarray(s[:9]), "out": jnp.asarray(s[9:])}
    expected = A @ s + K @ x + np.asarray(network.biases)
    np.testing.assert_allclose(flat(network.at(p.x[0]).drive(state)), expected, atol=1e-14)
    forward, transposed = network.at(p.x[0]).jacobian(state)
    np.testing.assert_allclose(flat(forward(state)), A @ s, atol=1e-14)
    np.testing.assert_allclose(flat(transposed(state)), A.T @ s, atol=1e-14)


def test_estimators_against_dense_solves():
    """All that is asked of every network: `M⁻¹ g`, `M⁻ᵀ g`, circles of nudges, and gradients by finite differences."""
    p = made()
    exact, free = oracle(*p), free_phase(p.model, p.x)
    for estimator, expected, tol in [
        (TangentResponse(relaxation=SETTLE), exact.tangent, 1e-11),
        (RecurrentBackprop(relaxation=SETTLE), exact.rbp, 1e-11),
        (FiniteNudge(stencil=eqprop.cauchy(0.05, 8), relaxation=SETTLE), exact.tangent, 1e-8),
    ]:
        assert relative_error(flat_batch(respond(estimator, *p, free).payload), expected) < tol
    _, gradient = estimate(RecurrentBackprop(relaxation=SETTLE), *p)
    assert gap(gradient, loss_gradient(*p)) < 1e-8


def test_asymmetry_and_pairs():
    """The closed form against the dense matrix; pairs are found, and their weights make the angle."""
    network: Any = made().model.network
    A = dense(network)
    expected = np.sum((A + A.T) ** 2), np.sum((A - A.T) ** 2)
    np.testing.assert_allclose(network.symmetry_norms(), expected, rtol=1e-13)
    field = network.at(jnp.zeros(6))
    exact = ExactHomeostasis()(field, field.initial_state(), key=KEYS[0])
    np.testing.assert_allclose(exact, 0.5 * expected[1] / 12, rtol=1e-13)
    ((first, second),) = network.reciprocal_pairs()
    both = [(A[i, j], A[j, i]) for i in range(12) for j in range(i) if A[i, j] and A[j, i]]
    found, expected = (sorted(np.sort(pairs, axis=1).tolist()) for pairs in (np.stack([first, second], 1), both))
    assert found == expected
    one_way = made(edges=topology.ring(12)).model.network
    assert one_way.reciprocal_pairs() == []
    with pytest.raises(ValueError, match="reciprocal pairs"):
        eqprop.metrics.weight_angle(one_way)


def test_homeostasis_and_same_updates_train_it():
    """Both bring the pairs of a graph together, under jit."""
    p = made(edges=topology.both_ways(topology.small_world(12, 2, 0.2, 0)))
    for homeostasis, optimiser in [
        (ExactHomeostasis(coefficient=1.0), optax.adam(3e-2)),
        (None, optax.chain(eqprop.same_update(p.model), optax.adamw(1e-2, weight_decay=3.0))),
    ]:
        trainer = eqprop.Trainer(SETTLE, RecurrentBackprop(relaxation=SETTLE), optimiser, homeostasis)
        with jax.numpy_dtype_promotion("standard"):
            state = trainer.init(p.model, key=KEYS[0])
        step = eqx.filter_jit(trainer.step)
        before = float(eqprop.metrics.weight_angle(state.model.network))
        with jax.numpy_dtype_promotion("standard"):  # optax's schedules are not strict
            for _ in range(150):
                state, _ = step(state, (p.x, p.y))
        after = float(eqprop.metrics.weight_angle(state.model.network))
        print(before, after)
        assert before > 60 and after < 5


def test_signs_of_neurons():
    excites = topology.excitatory(12, 0.75, 0)
    network: Any = made(signs=excites).model.network
    signs = np.sign(np.asarray(network.weights))
    np.testing.assert_array_equal(signs > 0, excites[np.asarray(network.edges)[:, 0]])
    assert excites.sum() == 9


def test_a_large_graph_in_memory_that_grows_with_its_edges():
    """XLA's own count of what a drive and its transpose take: no array of neurons squared, and no more than some
    numbers an edge."""

    def peak(neurons: int) -> int:
        edges = topology.random(neurons, 10, 0)
        network = SparseNetwork(16, neurons, edges, topology.inputs(16, range(neurons), 1, 0), outputs=10, key=KEYS[0])

        def products(network, x, s):
            forward, transposed = network.at(x).jacobian(s)
            return forward(s), transposed(s)

        s = network.at(jnp.zeros(16)).initial_state()
        arrays, static = eqx.partition(network, eqx.is_array)
        compiled = jax.jit(lambda n, x, s: products(eqx.combine(n, static), x, s)).lower(arrays, jnp.zeros(16), s)
        memory = compiled.compile().memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes + memory.argument_size_in_bytes

    small, large = peak(1000), peak(4000)
    print(small, large)
    assert large < 5 * small and large < 4000 * 10 * 8 * 16


# Graphs.


def degrees(edges: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(edges.ravel(), minlength=count)


def test_rings_and_lattices():
    np.testing.assert_array_equal(degrees(topology.ring(7, 2), 7), 4)
    assert {tuple(e) for e in topology.ring(4).tolist()} == {(0, 1), (1, 2), (2, 3), (0, 3)}
    open_, closed = topology.lattice((3, 4)), topology.lattice((3, 4), periodic=True)
    assert len(open_) == 2 * 4 + 3 * 3 and len(closed) == 24
    np.testing.assert_array_equal(degrees(closed, 12), 4)
    rows = np.abs(np.diff(np.stack(np.unravel_index(open_.ravel(), (3, 4))).reshape(2, -1, 2), axis=2)).sum((0, 2))
    np.testing.assert_array_equal(rows, 1)


def test_small_worlds_are_between_rings_and_random_graphs():
    """As many edges at any probability; none is rewired at 0, and about all at 1."""
    ring = {tuple(e) for e in topology.ring(200, 3).tolist()}
    for rewired, low, high in [(0.0, 0, 0), (0.2, 80, 160), (1.0, 540, 600)]:
        edges = {tuple(e) for e in topology.small_world(200, 3, rewired, 0).tolist()}
        assert len(edges) == 600 and low <= len(edges - ring) <= high


def test_random_graphs_have_so_many_edges_drawn_evenly():
    edges = topology.random(500, 10, 3)
    assert len(edges) == len(np.unique(edges, axis=0)) == 5000
    assert np.all(edges[:, 0] != edges[:, 1])
    incoming = np.bincount(edges[:, 1], minlength=500)
    assert abs(incoming.var() / 10 - 1) < 0.3  # binomial
    np.testing.assert_array_equal(edges, topology.random(500, 10, 3))


def test_the_probability_falls_with_the_distance():
    """The number of edges by distance, over that of pairs there are, falls by e a length."""
    positions = np.random.default_rng(0).random((2000, 2))
    edges = topology.distance_dependent(positions, 5, 0.1, 0)
    assert len(edges) == 10000
    pairs = np.random.default_rng(1).integers(2000, size=(400000, 2))
    lengths = [np.linalg.norm(positions[e[:, 0]] - positions[e[:, 1]], axis=1) for e in (edges, pairs)]
    bins = np.array([0.05, 0.15, 0.25, 0.35, 0.45])
    ratio = np.log(np.histogram(lengths[0], bins)[0] / np.histogram(lengths[1], bins)[0])
    np.testing.assert_allclose(np.diff(ratio), -1, atol=0.2)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: topology.ring(4, 2), "ring of 4 has no 2 neighbours"),
        (lambda: topology.lattice(()), "at least one axis"),
        (lambda: topology.small_world(10, 2, 1.5, 0), "rewired is 1.5; expected a probability"),
        (lambda: topology.random(5, 4, 0), "20 edges were asked for among 5"),
        (lambda: topology.distance_dependent(np.arange(8.0)[:, None], 3, 1e-3, 0), "too few pairs lie near"),
        (lambda: topology.inputs(3, [0], 4, 0), "degree is 4"),
        (lambda: topology.excitatory(3, 2.0, 0), "fraction is 2.0"),
        (lambda: made(edges=np.array([[0, 12]], np.int32)), "edges has to name entries below 12 and 12"),
        (lambda: made(edges=np.array([[0, 1], [0, 1]], np.int32)), "edges has an edge twice"),
        (lambda: made().model.network.at(jnp.zeros(5)), "has 5 entries, but the network expects 6"),
        (
            lambda: SparseNetwork(6, 3, topology.ring(3), topology.inputs(6, [0], 2, 0), outputs=3, key=KEYS[0]),
            "outputs is 3 of 3",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
