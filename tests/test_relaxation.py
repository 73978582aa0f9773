"""Relaxations: one fixed point, an honest residual, an honest status, whatever the method."""

import functools
import time

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop
from eqprop import RESULTS, Anderson, FixedSteps, Flow, Momentum, Newton, Picard, Sweep
from eqprop._tree import max_norm, to_complex
from helpers import SETTLE, flat, flat_batch, gap, loop, oracle, problem, scaled, unchecked

TOL = 1e-9
"""Asked of the residual. A state is then off by it times `‖J⁻¹‖`, some ten here."""

STATE_TOL = 20 * TOL

RELAXATIONS = {
    "picard": Picard(tol=TOL),
    "damped": Picard(tol=TOL, damping=0.5),
    "momentum": Momentum(tol=TOL),
    "sweep": Sweep(tol=TOL),
    "anderson": Anderson(tol=TOL),
    "fixed_steps": FixedSteps(200, tol=TOL),
    "flow": Flow(tol=TOL),
}


BETA = 0.1 + 0.1j


def settle(relaxation, drift, u0, blocks=None):
    """One relaxation, compiled whole."""
    return jax.jit(lambda u0: relaxation(drift, u0, blocks=blocks))(u0)


@functools.cache
def settled():
    """The first example's fixed points: free, and under a complex nudge."""
    p = problem("asymmetric")
    u0 = p.model.network.at(p.x[0]).initial_state()
    nudged = lambda u: p.model.at(p.x[0], p.y[0]).drift(u, jnp.asarray(BETA))
    free = jax.jit(lambda u: SETTLE(p.model.network.at(p.x[0]).drift, u).state)(u0)
    assert gap(flat(free), oracle(*p).u[0]) < 1e-12
    return free, jax.jit(lambda u: SETTLE(nudged, u).state)(to_complex(u0))


@pytest.mark.parametrize("method", RELAXATIONS)
def test_every_relaxation_reaches_the_fixed_point(method):
    """Of the free drift in real, and of a drift nudged off the real axis in complex arithmetic, by the blocks of the
    network; the residual is the largest `|F(u)|` at the state returned."""
    p, relaxation = problem("asymmetric"), RELAXATIONS[method]
    x, y, beta = p.x[0], p.y[0], jnp.asarray(BETA)

    @jax.jit
    def run(u0):
        nudged = jnp.iscomplexobj(flat(u0))
        drift = (lambda u: p.model.at(x, y).drift(u, beta)) if nudged else p.model.network.at(x).drift
        solution = relaxation(drift, u0, blocks=p.model.at(x, y).blocks if nudged else p.model.network.blocks)
        return solution, max_norm(drift(solution.state))

    u0 = p.model.network.at(x).initial_state()
    for start, expected in zip((u0, to_complex(u0)), settled(), strict=True):
        solution, measured = run(start)
        assert solution.result == RESULTS.successful and solution.residual <= TOL
        np.testing.assert_allclose(solution.residual, measured, rtol=1e-6, atol=1e-14)
        assert gap(solution.state, expected) < STATE_TOL


ITERATIONS = {name: RELAXATIONS[name] for name in ("picard", "sweep", "anderson")}


EXPLOSIVE = {
    "grows": lambda v: v**2 + 1.0,
    "leaves_its_domain": lambda v: 1.0 + jnp.sqrt(0.7 - v),
}


@pytest.mark.parametrize("fault", EXPLOSIVE)
@pytest.mark.parametrize("method", ITERATIONS)
def test_an_explosion_is_reported_and_the_start_returned(method, fault):
    """Without a fixed point: `diverged` as soon as the residual is no number, which is said, with the state at the
    start. Anderson's steps, taken back when they leave the domain, may also linger."""
    drift = lambda u: jax.tree.map(EXPLOSIVE[fault], u)
    u0 = {"a": jnp.asarray([0.5]), "b": jnp.asarray([-2.0])}
    solution = settle(ITERATIONS[method], drift, u0)
    if method == "anderson" and fault == "leaves_its_domain":
        assert solution.result != RESULTS.successful and np.all(np.isfinite(flat(solution.state)))
    else:
        assert solution.result == RESULTS.diverged and solution.num_steps < 100
        assert not np.isfinite(solution.residual) and gap(solution.state, u0) == 0.0


@pytest.mark.parametrize("fault", EXPLOSIVE)
def test_an_explosion_of_a_flow_returns_a_finite_state_and_its_residual(fault):
    drift = lambda u: jax.tree.map(EXPLOSIVE[fault], u)
    u0 = {"a": jnp.asarray([0.5]), "b": jnp.asarray([-2.0])}
    solution = settle(Flow(tol=TOL), drift, u0)
    assert solution.result != RESULTS.successful and solution.residual <= max_norm(drift(u0))
    np.testing.assert_allclose(solution.residual, max_norm(drift(solution.state)), rtol=1e-12)


def test_fixed_steps_report_the_explosion_of_their_last_state():
    """They return the last state, as published, infinite or not; the status says so."""
    solution = FixedSteps(50)(lambda u: u**2 + 1.0, jnp.asarray([0.5]))
    assert solution.result == RESULTS.diverged and not np.isfinite(solution.residual)


@pytest.mark.parametrize("method", RELAXATIONS)
def test_too_few_steps_are_reported(method):
    """A slow decay stopped early: `max_steps_reached`, the residual as measured, the steps counted."""
    short = {"flow": Flow(tol=TOL, horizon=2.0), "fixed_steps": FixedSteps(7, tol=TOL)}.get(method)
    relaxation = short or eqx.tree_at(lambda r: r.max_steps, RELAXATIONS[method], 2)
    drift = lambda u: jax.tree.map(lambda v: 0.1 * (jnp.cos(v) - v), u)
    solution = settle(relaxation, drift, {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray([2.0])})
    assert solution.result == RESULTS.max_steps_reached
    np.testing.assert_allclose(solution.residual, max_norm(drift(solution.state)), rtol=1e-12)
    if method != "flow":
        assert int(solution.num_steps) == (7 if method == "fixed_steps" else 2)


def test_the_last_state_is_returned_though_one_before_it_was_nearer():
    """A residual that grows by a tenth at every step: five steps end at the fifth state."""
    spiral = 1.1 * jnp.asarray([[0.0, -1.0], [1.0, 0.0]])
    u0 = jnp.asarray([1.0, 0.5])
    solution = settle(Picard(max_steps=5), lambda u: spiral @ u - u, u0)
    assert gap(solution.state, jnp.linalg.matrix_power(spiral, 5) @ u0) < 1e-15
    assert solution.result == RESULTS.max_steps_reached and int(solution.num_steps) == 5


SLOW = {"strong": 0.2, "weak": 0.1}
"""Rates of decay of two layers, of which the second is a million times weaker."""


def two_layers(u):
    return {name: rate * ({"strong": 1.0, "weak": 1e-6}[name] - u[name]) for name, rate in SLOW.items()}


@pytest.mark.parametrize("method", ["picard", "sweep", "anderson"])
def test_every_layer_settles_relative_to_the_distance_it_moved(method):
    """`max |F| ≤ min(tol, rtol · max |u − u₀|)` holds of each layer at the end, and not of both a look before."""
    relaxation = eqx.tree_at(lambda r: (r.tol, r.max_steps), ITERATIONS[method], (1e-5, 500))
    u0 = {name: jnp.zeros(2) for name in SLOW}

    def within(solution):
        drift, u = two_layers(solution.state), solution.state
        return [
            float(jnp.max(jnp.abs(drift[name]))) <= min(1e-5, 1e-2 * float(jnp.max(jnp.abs(u[name])))) for name in u
        ]

    end = settle(relaxation, two_layers, u0)
    assert end.result == RESULTS.successful and all(within(end))
    before = eqx.tree_at(lambda r: r.max_steps, relaxation, int(end.num_steps) - (1 if method == "picard" else 2))
    assert not all(within(settle(before, two_layers, u0)))
    # A residual of 1% of the answer over the rate of decay.
    assert abs(float(end.state["weak"][0]) - 1e-6) < 0.11 * 1e-6


@pytest.mark.parametrize("method", ["picard", "sweep", "anderson"])
def test_a_tolerance_of_zero_is_rounding(method):
    """The drift of each layer is brought to four units of rounding of its largest potential, and that has settled."""
    relaxation = eqx.tree_at(lambda r: r.tol, ITERATIONS[method], 0.0)
    drift = lambda u: jax.tree.map(lambda v: 0.5 * (jnp.cos(v) - v), u)
    solution = settle(relaxation, drift, {"a": jnp.ones(3)})
    assert solution.result == RESULTS.successful and solution.residual <= 4 * 2.3e-16


def queued(relaxation):
    """Forty relaxations of six neurons in two layers, whose gains, and so speeds, differ widely, and of which one is
    not a number."""
    keys = jax.random.split(jax.random.key(11), 3)
    weights = jnp.linalg.qr(jax.random.normal(keys[0], (6, 6)))[0]
    gains = jnp.concatenate([jnp.linspace(0.0, 0.5, 30), jnp.linspace(0.6, 0.98, 10)])
    currents = 0.05 * jax.random.normal(keys[1], (40, 6)).at[17].set(jnp.nan)
    order = jax.random.permutation(keys[2], 40)

    def run(gain, current):
        def drift(u):
            v = gain * weights @ jnp.tanh(jnp.concatenate([u["a"], u["b"]])) + current
            return {"a": v[:4] - u["a"], "b": v[4:] - u["b"]}

        return relaxation(drift, {"a": jnp.zeros(4), "b": jnp.zeros(2)})

    return run, gains[order], currents[order]


@pytest.mark.parametrize("method", ITERATIONS)
def test_batched_equals_looped(method):
    """Forty examples of very different speed, which go on in groups when most have settled: each ends exactly as it
    would alone, after as many steps."""
    run, *examples = queued(eqx.tree_at(lambda r: (r.tol, r.max_steps), ITERATIONS[method], (1e-8, 300)))
    batched = jax.jit(jax.vmap(run))(*examples)
    alone = jax.jit(lambda *batch: jax.lax.map(lambda one: run(*one), batch))(*examples)
    steps = np.asarray(batched.num_steps)
    np.testing.assert_array_equal(steps, alone.num_steps)
    np.testing.assert_array_equal(batched.result == RESULTS.successful, alone.result == RESULTS.successful)
    np.testing.assert_array_equal(batched.result == RESULTS.diverged, alone.result == RESULTS.diverged)
    assert np.sum(batched.result == RESULTS.diverged) == 1 and np.max(steps) > 3 * np.median(steps)
    assert gap(batched.state, alone.state) < 1e-13


def test_a_batch_of_batches_equals_one_batch():
    """Nested `vmap`, as of a population."""
    run, gains, currents = queued(Sweep(tol=1e-8))
    once = jax.jit(jax.vmap(run))(gains, currents)
    twice = jax.jit(jax.vmap(jax.vmap(run)))(gains.reshape(5, 8), currents.reshape(5, 8, 6))
    np.testing.assert_array_equal(twice.num_steps.reshape(40), once.num_steps)
    assert gap(jax.tree.map(lambda v: v.reshape(40, -1), twice.state), once.state) < 1e-13


def test_what_is_compared_takes_as_many_steps():
    """Several relaxations of one example, such as the nodes of a stencil, stop together, when the slowest has settled;
    each example of a batch stops on its own."""

    def nodes(shift):
        drift = lambda node, u: jnp.tanh(0.9 * u) * node + shift - u
        return Sweep(tol=1e-8).together(drift, jnp.linspace(0.1, 1.0, 6), jnp.zeros((6, 3)))

    shifts = jnp.linspace(0.1, 2.0, 9)
    batch = jax.jit(jax.vmap(nodes))(shifts)
    alone = jax.jit(lambda shifts: jax.lax.map(nodes, shifts))(shifts)
    steps = np.asarray(batch.num_steps)
    np.testing.assert_array_equal(steps, alone.num_steps)
    assert np.all(steps == steps[:, :1]) and len(set(steps[:, 0].tolist())) > 1
    assert np.all(batch.result == RESULTS.successful)
    assert batch.state.shape == (9, 6, 3) and gap(batch.state, alone.state) < 1e-13
    driven = jnp.tanh(0.9 * batch.state) * jnp.linspace(0.1, 1.0, 6)[None, :, None]
    drift = driven + shifts[:, None, None] - batch.state
    np.testing.assert_allclose(batch.residual[:, 0], jnp.max(jnp.abs(drift), axis=(1, 2)), rtol=1e-6, atol=1e-15)


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (lambda q: Picard(tol=q), [1e-3, 1e-9]),
        (lambda q: Sweep(rtol=q), [1e-2, 1e-6]),
        (lambda q: Anderson(damping=q, tol=TOL), [0.5, 1.0]),
        (lambda q: Sweep(damping=q, tol=TOL), [0.4, 1.0]),
    ],
    ids=["picard_tol", "sweep_rtol", "anderson_damping", "sweep_damping"],
)
def test_settings_may_be_swept_under_vmap(make, values):
    """A tolerance or a damping that is traced takes the steps of the same number alone."""
    drift = lambda u: {"a": jnp.cos(u["b"]) - u["a"], "b": 0.7 * jnp.sin(u["a"]) - u["b"]}
    u0 = {"a": jnp.ones(2), "b": jnp.zeros(2)}
    run = lambda value: make(value)(drift, u0)
    with unchecked():
        together = jax.jit(jax.vmap(run))(jnp.asarray(values))
    alone = [jax.jit(lambda u0, value=value: make(value)(drift, u0))(u0) for value in values]
    assert len(set(np.asarray(together.num_steps).tolist())) == 2
    for index, solution in enumerate(alone):
        assert int(solution.num_steps) == int(together.num_steps[index])
        assert gap(solution.state, jax.tree.map(lambda v, index=index: v[index], together.state)) < 1e-13


@pytest.mark.parametrize(
    "make",
    [
        lambda q: eqprop.FiniteNudge(stencil=eqprop.centred(0.1), relaxation=Sweep(), norm_bound=q),
        lambda q: eqprop.FiniteNudge(stencil=eqprop.cauchy(q, 4), relaxation=Sweep()),
        lambda q: Newton(tol=q),
        lambda q: eqprop.substrate.Mismatch(q),
        lambda q: eqprop.LockIn(beta=q),
        lambda q: eqprop.ExactHomeostasis(coefficient=q),
    ],
    ids=["norm_bound", "radius", "newton", "mismatch", "lock_in", "coefficient"],
)
def test_settings_that_are_traced_pass_their_checks(make):
    with unchecked():
        jax.vmap(lambda q: (make(q), q)[1])(jnp.asarray([1e-4, 1e-3]))


# Blocks.


def named_chain(names, *, width=3):
    """A chain of layers with these names, the same kernels whatever they are."""
    edges = list(zip(["in", *names[:-1]], names, strict=True))
    feedback = [(b, a) for a, b in edges[1:]]
    network = eqprop.DenseNetwork(
        width, dict.fromkeys(names, width), edges, feedback=feedback, key=jax.random.key(len(names))
    )
    return scaled(network, 0.7)


@pytest.mark.parametrize("hidden", [9, 10, 12, 20])
def test_a_chain_settles_the_same_way_whatever_its_layers_are_called(hidden):
    """Two independent blocks, every second layer, by the order of the chain and not by name."""
    own = [f"l{index}" for index in range(1, hidden + 1)] + ["out"]
    shuffled = np.random.default_rng(hidden).permutation([f"n{index}" for index in range(hidden + 1)]).tolist()
    ends = []
    for names in (own, shuffled):
        network = named_chain(names)
        blocks, leaves = network.blocks, sorted(names)
        assert blocks.independent and len(blocks.order) == 2
        members = [{leaves[leaf] for leaf in block} for block in blocks.order]
        assert members == [set(names[0::2]), set(names[1::2])]

        @jax.jit
        def run(x, network=network, blocks=blocks):
            current = network.embed(x)
            drift = lambda u: network.drift(u, current)
            solution = Sweep(tol=1e-12)(drift, network.initial_state(current), blocks=blocks)
            return solution, max_norm(drift(solution.state))

        solution, measured = run(jnp.asarray([1.0, -2.0, 0.5]))
        assert solution.result == RESULTS.successful and measured <= 1e-12
        ends.append((int(solution.num_steps), [solution.state[name] for name in names]))
    assert ends[0][0] == ends[1][0] and gap(ends[0][1], ends[1][1]) < 1e-14


def test_layers_that_act_on_each_other_are_in_different_blocks():
    """A graph with a skip edge needs three; a layer that feeds itself is not independent. The residual that a sweep
    finds is that of all layers."""
    network = loop(key=jax.random.key(0))
    pairs = {("l1", "l2"), ("l2", "out"), ("l1", "out")}
    names = ["l1", "l2", "out"]
    for kernels in (network.kernels, {edge: k for edge, k in network.kernels.items() if edge != ("l2", "l2")}):
        graph = eqx.tree_at(lambda n: n.kernels, network, kernels)
        blocks = graph.blocks
        block_of = {names[leaf]: index for index, block in enumerate(blocks.order) for leaf in block}
        assert sorted(block_of) == names and all(block_of[a] != block_of[b] for a, b in pairs)
        assert blocks.independent == (("l2", "l2") not in kernels)
        current = graph.embed(jnp.ones(6))
        drift = lambda u, graph=graph, current=current: graph.drift(u, current)
        for order in (blocks, blocks.nudged([2]), blocks.ordered("forward"), blocks.ordered("backward")):
            solution = settle(Sweep(tol=1e-6), drift, graph.initial_state(current), order)
            assert solution.result == RESULTS.successful
            np.testing.assert_allclose(solution.residual, max_norm(drift(solution.state)), rtol=1e-6)


@pytest.mark.parametrize("relaxation", [Sweep(tol=TOL, damping=0.5), Anderson(tol=TOL, damping=0.5)])
def test_a_damped_sweep_of_one_layer(relaxation):
    drift = lambda u: {"out": jnp.cos(u["out"]) - u["out"]}
    solution = settle(relaxation, drift, {"out": jnp.zeros(3)})
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.state["out"], 0.7390851332151607, atol=STATE_TOL)


@pytest.mark.parametrize("method", ["sweep", "anderson"])
def test_a_first_residual_that_overflows_is_left_behind(method):
    """The second layer's drift is infinite until the first has moved; and of two numbers of 1e20, which float32 can
    hold, the norm is infinite and the largest is not."""
    drift = lambda u: {"a": 1.0 - u["a"], "b": jnp.exp(u["a"]) - u["b"]}
    solution = settle(RELAXATIONS[method], drift, {"a": jnp.full(2, 1e4), "b": jnp.zeros(2)})
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.state["b"], np.e, rtol=1e-9)
    large = jnp.asarray([1e20, -1e20], jnp.float32)
    loose = eqx.tree_at(lambda r: r.tol, RELAXATIONS[method], 1e-5)
    solution = settle(loose, lambda u: large - u, jnp.zeros_like(large))
    assert solution.result == RESULTS.successful and gap(solution.state, large) == 0.0


def test_a_cycle_of_period_two():
    """Two neurons that excite each other swap their states for ever under synchronous undamped steps; sweeps and
    damped steps settle."""
    network = eqprop.DenseNetwork(
        1, {"a": 1, "b": 1}, [("in", "a"), ("a", "b"), ("b", "a")], activation=eqprop.tanh, key=jax.random.key(0)
    )
    network = eqx.tree_at(lambda n: n.kernels, network, jax.tree.map(lambda k: jnp.full_like(k, 2.0), network.kernels))
    current, start = network.embed(jnp.zeros(1)), {"a": jnp.asarray([1.0]), "b": jnp.asarray([-0.8])}
    drift = lambda u: network.drift(u, current)
    cycling = settle(Picard(tol=TOL), drift, start)
    assert cycling.result == RESULTS.max_steps_reached and cycling.residual > 1.0
    for relaxation in (Picard(tol=TOL, damping=0.5), Sweep(tol=TOL)):
        solution = settle(relaxation, drift, start)
        assert solution.result == RESULTS.successful
        a, b = (float(solution.state[name][0]) for name in "ab")
        assert abs(2 * np.tanh(a) - b) < TOL and abs(2 * np.tanh(b) - a) < TOL


def test_sweeps_settle_a_chain_in_about_half_the_steps():
    """On a chain, a sweep is a synchronous step of either half."""
    p = problem("asymmetric")
    steps = [
        int(
            jax.jit(lambda x, r=r: r(p.model.network.at(x).drift, p.model.network.at(x).initial_state()))(
                p.x[0]
            ).num_steps
        )
        for r in (Picard(tol=TOL), Sweep(tol=TOL))
    ]
    assert steps[1] <= 0.6 * steps[0] + 1


def test_anderson_beats_picard_on_a_stiff_linear_problem():
    """Rates of decay from 0.02 to 1: a fraction of the steps, to the dense solution."""
    rates, rotation = jnp.geomspace(0.02, 1.0, 8), np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    L, c = jnp.asarray(rotation * np.asarray(rates) @ rotation.T), jnp.ones(8)
    drift = lambda u: c - L @ u
    slow, fast = (settle(r, drift, jnp.zeros(8)) for r in (Picard(tol=TOL, max_steps=5000), Anderson(tol=TOL, depth=8)))
    print(f"Picard {slow.num_steps}, Anderson {fast.num_steps} steps")
    assert fast.result == slow.result == RESULTS.successful
    assert int(fast.num_steps) < 0.1 * int(slow.num_steps)
    # A residual of 1e-9 over the slowest rate.
    assert gap(fast.state, jnp.linalg.solve(L, c)) < 2 * TOL / 0.02


def test_momentum_converges_at_the_rate_of_the_square_roots():
    """On curvatures from a to b, with the best momentum and damping, a step divides the error by `(√b + √a)/(√b − √a)`;
    best steps without inertia by `(b + a)/(b − a)` only."""
    a, b = 0.01, 1.0
    curvatures, c = jnp.linspace(a, b, 9), jnp.ones(9)
    drift = lambda u: c - curvatures * u
    rate = (b**0.5 - a**0.5) / (b**0.5 + a**0.5)
    damping = 4 / (a**0.5 + b**0.5) ** 2
    # The best damping here exceeds 1, which is refused: both are divided by 4, and the curvatures times 4.
    heavy = Momentum(tol=1e-10, rtol=0.0, damping=damping / 4, momentum=rate**2, max_steps=5000)
    solution = settle(heavy, lambda u: 4 * drift(u), jnp.zeros(9))
    plain = settle(Picard(tol=1e-10, rtol=0.0, damping=0.5, max_steps=5000), lambda u: 4 * drift(u) / 2, jnp.zeros(9))
    assert solution.result == plain.result == RESULTS.successful
    assert gap(solution.state, c / curvatures) < 1e-10 / a
    expected = np.log(1e-10) / np.log(rate)
    print(f"{solution.num_steps} steps with inertia, {expected:.0f} by the rate, {plain.num_steps} without")
    # At critical damping an error falls as k times the k-th power of the rate.
    assert 0.9 * expected < int(solution.num_steps) < 1.8 * expected < 0.1 * int(plain.num_steps)


def test_anderson_falls_back_where_acceleration_misleads():
    """A contraction with kinks at every turn: steps that help not are taken back, and it settles all the same."""
    Q = jnp.asarray(np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))[0])
    c = jnp.linspace(-1.0, 1.0, 12)

    def drift(u):
        v = Q @ u
        return 0.95 * jnp.where(v > 0, v, -0.3 * v) + 0.05 * jnp.sin(20 * v) / 20 + c - u

    plain, accelerated = (
        jax.jit(lambda u, r=r: r(drift, u))(jnp.zeros(12)) for r in (Picard(tol=TOL), Anderson(tol=TOL))
    )
    assert plain.result == accelerated.result == RESULTS.successful
    assert gap(plain.state, accelerated.state) < STATE_TOL


def test_complex_states_of_anderson_are_pairs_of_reals():
    """A complex problem and its stacked real form take the same steps."""
    a, c = 0.6 + 0.5j, jnp.asarray([1.0 + 2.0j, -0.5j])
    drift = lambda z: a * z**2 * 0.1 + c * (0.3 + 0.0j) - z
    complex_ = settle(Anderson(tol=TOL), drift, jnp.zeros(2, complex))
    z = complex_.state
    assert complex_.result == RESULTS.successful
    assert float(jnp.max(jnp.abs(drift(z)))) < TOL


@pytest.mark.parametrize(
    "make", [lambda n: FixedSteps(n), lambda n: Picard(tol=0.0, max_steps=n)], ids=["fixed", "picard"]
)
def test_compile_time_does_not_grow_with_the_steps(make):
    """Twenty steps and two thousand are one loop: within noise, a factor 3 and half a second."""

    def compile_seconds(steps):
        run = jax.jit(lambda u: make(steps)(lambda u: jax.tree.map(lambda v: jnp.cos(v) - v, u), u))
        start = time.perf_counter()
        run.lower({"a": jnp.zeros(3), "b": jnp.ones(2)}).compile()
        return time.perf_counter() - start

    compile_seconds(19)  # whatever is done once
    few, many = compile_seconds(20), compile_seconds(2000)
    print(f"compiled in {few:.2f} s and {many:.2f} s")
    assert many < 3 * few + 0.5


def test_reverse_mode_passes_through_fixed_steps():
    """Of `u ← u + (θ − u)/2` after T steps: `du/dθ = 1 − 2^−T`."""
    end = lambda theta: FixedSteps(10)(lambda u: 0.5 * (theta - u), jnp.zeros(())).state
    assert abs(float(jax.jit(jax.grad(end))(3.0)) - (1 - 2.0**-10)) < 1e-15


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FixedSteps(-1), "num_steps is -1; expected"),
        (lambda: Picard(damping=0.0), "damping is 0.0; expected a number above 0 and up to 1"),
        (lambda: Picard(damping=1.5), "damping is 1.5"),
        (lambda: Sweep(damping=-1.0), "damping is -1.0"),
        (lambda: Anderson(damping=2.0), "damping is 2.0"),
        (lambda: Anderson(depth=0), "depth=0.*depth of at least 1"),
        (lambda: Anderson(ridge=0.0), "ridge=0.0.*ridge above 0"),
        (lambda: Picard(max_steps=0), "max_steps=0; expected .*max_steps of at least 1"),
        (
            lambda: Picard(max_steps=2.5),  # pyright: ignore[reportArgumentType]
            "max_steps=2.5; expected .*max_steps of at least 1",
        ),
        (lambda: Sweep(rtol=1.0), "rtol is 1.0; expected a fraction of the response, from 0 to below 1"),
        (lambda: Picard(rtol=-0.1), "rtol is -0.1"),
        (lambda: Momentum(momentum=1.0), "momentum is 1.0; expected a number from 0"),
        (lambda: Anderson(every=0), "every is 0; expected a number of sweeps"),
        (lambda: Flow(tol=-1.0), "Flow got tol=-1.0"),
        (lambda: FixedSteps(3, tol=float("nan")), "FixedSteps got tol=nan"),
        (
            lambda: FixedSteps(2.5),  # pyright: ignore[reportArgumentType]
            "num_steps is 2.5; expected a number of steps",
        ),
        (lambda: Sweep(tol=-1.0), "tol=-1.0.*expected tol of at least 0"),
        (lambda: Anderson(tol=float("nan")), "tol=nan"),
        (lambda: Flow(horizon=0.0), "horizon=0.0.*expected a time above 0"),
        (lambda: Flow(controller=diffrax.ConstantStepSize()), "needs dt0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message), unchecked():
        make()


def test_flow_takes_a_solver_with_a_constant_step():
    """Euler's method at step one is Picard's undamped step."""
    p = problem("asymmetric")
    flow = Flow(tol=TOL, solver=diffrax.Euler(), controller=diffrax.ConstantStepSize(), dt0=1.0)
    run = lambda r: jax.jit(jax.vmap(lambda x: r(p.model.network.at(x).drift, p.model.network.at(x).initial_state())))(
        p.x
    )
    ours, picard = run(flow), run(Picard(tol=TOL))
    assert np.all(ours.result == RESULTS.successful)
    assert gap(flat_batch(ours.state), flat_batch(picard.state)) < STATE_TOL


def test_anderson_takes_back_a_step_out_of_the_domain():
    """A drift that is undefined for u ≤ 0: an accelerated step overshoots there, and the root is found all the same."""
    drift = lambda u: jnp.where(u > 0, -0.05 * u * jnp.log(100 * u), jnp.nan)
    solution = settle(Anderson(tol=1e-10, max_steps=200), drift, jnp.asarray([1.0, 2.0]))
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.state, 0.01, rtol=1e-7)
