"""Random graphs, relaxations, estimators, precisions and batches against NumPy: what holds for all of them.

The oracle knows kernels, edges and gains only. It forms `A` by hand and solves dense systems.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import Phase, given, settings, strategies as st

import eqprop
from eqprop.network.graph import coloured, levels_of
from helpers import relative_error

COMPILED = settings(
    max_examples=6, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)
"""Each example compiles programs of its own, a second or two: few of them, and a failing one is not made smaller."""

QUICK = settings(max_examples=200, deadline=None, derandomize=True, database=None)


class Graph(NamedTuple):
    sizes: dict[str, int]
    edges: list[tuple[str, str]]
    feedback: list[tuple[str, str]]
    gain: float
    angle: float
    seed: int


@st.composite
def graphs(draw, most=4):
    """Layers under shuffled names, every one reached from the input; further edges up; feedback against any of them."""
    count = draw(st.integers(1, most))
    names = draw(st.permutations([f"l{k}" for k in (1, 2, 10, 11, 9)][:count]))
    chain = list(zip(["in", *names[:-1]], names, strict=True))
    skips = [(a, b) for i, a in enumerate(["in", *names]) for b in names[i + 1 :]]
    edges = chain + draw(st.lists(st.sampled_from(skips), unique=True, max_size=3)) if skips else chain
    edges = list(dict.fromkeys(edges))
    inner = [(b, a) for a, b in edges if a != "in"]
    feedback = draw(st.lists(st.sampled_from(inner), unique=True)) if inner else []
    sizes = {name: draw(st.integers(1, 4)) for name in names}
    gain = draw(st.sampled_from([1.0, 0.5, 0.2, 0.05]))
    return Graph(sizes, edges, feedback, gain, draw(st.sampled_from([0.0, 30.0, 90.0])), draw(st.integers(0, 99)))


def made(graph: Graph, dtype=jnp.float64, everything_back: bool = False) -> eqprop.DenseNetwork:
    """The network, with kernels small enough that it contracts."""
    feedback = [(b, a) for a, b in graph.edges if a != "in"] if everything_back else graph.feedback
    network = eqprop.DenseNetwork(
        3,
        graph.sizes,
        graph.edges,
        feedback=feedback,
        angle=0.0 if everything_back else graph.angle,
        feedback_gain=graph.gain,
        activation=eqprop.tanh,
        key=jax.random.key(graph.seed),
    )
    return jax.tree.map(lambda k: (0.5 * k).astype(dtype) if eqx.is_array(k) else k, network)


def longest(graph: Graph) -> dict[str, int]:
    """Levels by relaxing every edge as often as there are layers."""
    level = dict.fromkeys(["in", *graph.sizes], 0)
    for _ in graph.sizes:
        for a, b in graph.edges:
            level[b] = max(level[b], level[a] + 1)
    return level


class Dense(NamedTuple):
    A: np.ndarray
    m: np.ndarray
    current: np.ndarray
    u: np.ndarray
    tangent: np.ndarray
    rbp: np.ndarray


def dense(graph: Graph, network: eqprop.DenseNetwork, x, layer: str, y) -> Dense:
    """Everything by NumPy: the fixed point by damped iteration, `M⁻¹ g` in the metric, `M⁻ᵀ g`, for `½‖s − y‖²`."""
    names, level = sorted(graph.sizes), longest(graph)
    start = dict(zip(names, np.cumsum([0, *[graph.sizes[n] for n in names]]), strict=False))
    total = sum(graph.sizes.values())
    A, current = np.zeros((total, total)), np.zeros(total)
    where = {n: slice(start[n], start[n] + graph.sizes[n]) for n in names}
    for name, kernel in network.kernels.items():
        a, b = name
        if a == "in":
            current[where[b]] += np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)
        else:
            gain = graph.gain ** max(level[a] - level[b], 0)
            A[where[b], where[a]] += gain * np.asarray(kernel, np.float64).T
    u = np.zeros(total)
    for _ in range(3000):
        u = u + 0.5 * (A @ np.tanh(u) + current - u)
    s = np.tanh(u)
    g = np.zeros(total)
    g[where[layer]] = s[where[layer]] - np.asarray(y, np.float64)
    M = np.diag(1 / (1 - s**2)) - A
    m = np.concatenate([np.full(graph.sizes[n], graph.gain ** float(level[n])) for n in names])
    own = graph.gain ** float(level[layer])
    return Dense(A, m, current, u, (m / own) * np.linalg.solve(M, g), np.linalg.solve(M.T, g))


def relaxations(tol, rtol):
    """All that go step by step, at any damping and interval of looking."""
    damping = st.sampled_from([1.0, 0.7])
    common = {"tol": st.just(tol), "rtol": st.just(rtol), "max_steps": st.just(3000), "damping": damping}
    every = st.integers(1, 4)
    return st.one_of(
        st.builds(eqprop.Picard, **common),
        st.builds(eqprop.Sweep, **common, every=every),
        st.builds(eqprop.Anderson, **common, every=every, depth=st.integers(1, 3)),
    )


def flat(state) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(state[name], np.float64)) for name in sorted(state)])


@COMPILED
@given(graph=graphs(), relaxation=relaxations(1e-12, 1e-2), single=st.booleans())
def test_any_relaxation_settles_any_graph(graph, relaxation, single):
    """To NumPy's fixed point; what it says of its residual is so."""
    network = made(graph, jnp.float32 if single else jnp.float64)
    layer, x = next(iter(graph.sizes)), jnp.asarray([0.4, -1.0, 0.7])
    oracle = dense(graph, network, x, layer, np.zeros(graph.sizes[layer]))
    model = eqprop.Model(network, eqprop.SquaredError(layer=layer))
    x = x.astype(network.biases[layer].dtype)
    solution = jax.jit(
        lambda x: relaxation(model.network.at(x).drift, model.network.at(x).initial_state(), blocks=network.blocks)
    )(x)
    assert solution.result == eqprop.RESULTS.successful
    assert all(leaf.dtype == x.dtype for leaf in jax.tree.leaves(solution.state))
    u = flat(solution.state)
    np.testing.assert_allclose(u, oracle.u, atol=3e-6 if single else 1e-10)
    drift = np.max(np.abs(oracle.A @ np.tanh(u) + oracle.current - u))
    assert abs(drift - float(solution.residual)) < (2e-6 if single else 1e-14)


@COMPILED
@given(graph=graphs(), relaxation=relaxations(1.0, 1e-9), strength=st.sampled_from([1.0, 1e-4, 1e-9]))
def test_any_estimator_is_its_dense_solve(graph, relaxation, strength):
    """The tangent response in the metric and RBP, whatever the strength of the teaching signal."""
    network = made(graph)
    layer, x = list(graph.sizes)[-1], jnp.asarray([0.4, -1.0, 0.7])
    free = dense(graph, network, x, layer, np.zeros(graph.sizes[layer]))
    names = sorted(graph.sizes)
    ends = np.cumsum([graph.sizes[n] for n in names])[names.index(layer)]
    y = np.tanh(free.u)[ends - graph.sizes[layer] : ends] - strength * np.linspace(0.5, 1.0, graph.sizes[layer])
    oracle = dense(graph, network, x, layer, y)
    model = eqprop.Model(network, eqprop.SquaredError(layer=layer))
    settle = eqprop.Picard(tol=0.0, max_steps=3000, damping=0.7)

    def run(x, y):
        settled = settle(model.network.at(x).drift, model.network.at(x).initial_state())
        estimators = eqprop.TangentResponse(relaxation=relaxation), eqprop.RecurrentBackprop(relaxation=relaxation)
        return [estimator.respond(model.at(x, y), settled) for estimator in estimators]

    tangent, rbp = jax.jit(run)(x, jnp.asarray(y))
    # What the teaching signal has lost to rounding before anything is relaxed.
    tol = 1e-6 + 1e-14 / strength
    assert tangent.result == rbp.result == eqprop.RESULTS.successful
    assert relative_error(flat(tangent.payload), oracle.tangent) < tol
    assert relative_error(flat(rbp.payload), oracle.rbp) < tol


@COMPILED
@given(graph=graphs(), points=st.sampled_from([2, 3, 4]))
def test_weak_feedback_is_exact_on_any_graph_that_is_symmetric(graph, points):
    """With `B = Wᵀ` for every edge, finite nudges in the metric tend to RBP at their order, at any gain."""
    network = made(graph, everything_back=True)
    layer, x = list(graph.sizes)[-1], jnp.asarray([0.4, -1.0, 0.7])
    y = np.linspace(-0.5, 0.8, graph.sizes[layer])
    oracle = dense(graph, network, x, layer, y)
    np.testing.assert_allclose(oracle.m[:, None] * oracle.A, (oracle.m[:, None] * oracle.A).T, atol=1e-15)
    model = eqprop.Model(network, eqprop.SquaredError(layer=layer))
    settle = eqprop.Sweep(tol=1e-14, rtol=1e-9, max_steps=3000)

    def run(x, y, radius):
        free = settle(model.network.at(x).drift, model.network.at(x).initial_state(), blocks=network.blocks)
        estimator = eqprop.FiniteNudge(stencil=eqprop.cauchy(radius, points), relaxation=settle)
        return estimator.respond(model.at(x, y), free)

    responses = [jax.jit(run)(x, jnp.asarray(y), jnp.asarray(radius)) for radius in (0.02, 0.01)]
    assert all(response.result == eqprop.RESULTS.successful for response in responses)
    # How large the bias is depends on how near a bifurcation is; how it falls with the radius does not.
    far, near = (relative_error(flat(response.payload), oracle.rbp) for response in responses)
    assert near < 1.3 * far / 2**points + 1e-8
    plus, minus = (float(v) for v in network.symmetry_norms())
    root = np.sqrt(oracle.m)
    hat = root[:, None] * oracle.A / root[None]
    np.testing.assert_allclose(plus, np.sum((hat + hat.T) ** 2), rtol=1e-12, atol=1e-15)
    assert minus < 1e-25


@COMPILED
@given(graph=graphs(), relaxation=relaxations(1e-8, 1e-2), size=st.integers(1, 40))
def test_any_batch_ends_as_its_examples_alone(graph, relaxation, size):
    """Same states and same steps, of inputs whose speeds differ by far."""
    network = made(graph)
    layer = next(iter(graph.sizes))
    model = eqprop.Model(network, eqprop.SquaredError(layer=layer))
    x = jnp.geomspace(1e-6, 30.0, size)[:, None] * jnp.asarray([[0.4, -1.0, 0.7]])
    run = lambda x: relaxation(model.network.at(x).drift, model.network.at(x).initial_state(), blocks=network.blocks)
    together, alone = jax.jit(jax.vmap(run))(x), jax.jit(lambda x: jax.lax.map(run, x))(x)
    np.testing.assert_array_equal(together.num_steps, alone.num_steps)
    # Two programs round apart, and Anderson's least squares magnify that: the tolerance is 1e-8.
    rounding = 1e-10 if isinstance(relaxation, eqprop.Anderson) else 1e-13
    pairs = zip(*map(jax.tree.leaves, (together.state, alone.state)), strict=True)
    assert max(float(np.max(np.abs(a - b))) for a, b in pairs) < rounding


@QUICK
@given(graph=graphs(most=5))
def test_blocks_colour_any_graph(graph):
    """No edge within a block, every layer once, levels by brute force, and no word on names."""
    order = list(graph.sizes)
    levels, expected = levels_of(order, graph.edges, "in"), longest(graph)
    assert levels == {name: expected[name] for name in order}
    inner = [edge for edge in graph.edges if edge[0] != "in"]
    blocks = coloured(levels, inner)
    names = sorted(order)
    assert sorted(leaf for block in blocks.order for leaf in block) == list(range(len(order)))
    block_of = {names[leaf]: index for index, block in enumerate(blocks.order) for leaf in block}
    assert all(block_of[a] != block_of[b] for a, b in inner) and blocks.independent
    renamed = {name: f"z{99 - index}" for index, name in enumerate(order)}
    again = coloured(
        {renamed[name]: level for name, level in levels.items()}, [(renamed[a], renamed[b]) for a, b in inner]
    )
    other = sorted(renamed.values())
    new = {other[leaf]: index for index, block in enumerate(again.order) for leaf in block}
    assert {renamed[name]: index for name, index in block_of.items()} == new
