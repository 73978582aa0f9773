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
from eqprop import RESULTS, Anderson, FixedSteps, Flow, Picard, Sweep
from eqprop._tree import norm, to_complex
from helpers import SETTLE, flat, flat_batch, gap, oracle, problem

TOL = 1e-9
"""Asked of the residual. A state is then off by it times `‖J⁻¹‖`, some ten here."""

STATE_TOL = 20 * TOL

RELAXATIONS = {
    "picard": Picard(tol=TOL),
    "damped": Picard(tol=TOL, damping=0.5),
    "sweep": Sweep(tol=TOL),
    "anderson": Anderson(tol=TOL),
    "fixed_steps": FixedSteps(200, tol=TOL),
    "flow": Flow(tol=TOL),
}


BETA = 0.1 + 0.1j


@functools.cache
def settled(name):
    """The first example's fixed points: free, and under a complex nudge."""
    p = problem(name)
    u0 = p.model.initial_state(p.x[0])
    nudged = p.model.nudged_drift(p.x[0], p.y[0], jnp.asarray(BETA))
    free = jax.jit(lambda u: SETTLE(p.model.free_drift(p.x[0]), u).state)(u0)
    assert gap(flat(free), oracle(*p).u[0]) < 1e-12
    return free, jax.jit(lambda u: SETTLE(nudged, u).state)(to_complex(u0))


@pytest.mark.parametrize("name", ["asymmetric", "conv"])
@pytest.mark.parametrize("method", RELAXATIONS)
def test_every_relaxation_reaches_the_fixed_point(method, name):
    """Of the free drift in real, and of a drift nudged off the real axis in complex arithmetic; the residual is
    `‖F(u)‖` at the state returned."""
    p, relaxation = problem(name), RELAXATIONS[method]
    x, y, beta = p.x[0], p.y[0], jnp.asarray(BETA)

    @jax.jit
    def run(u0):
        drift = p.model.nudged_drift(x, y, beta) if jnp.iscomplexobj(flat(u0)) else p.model.free_drift(x)
        solution = relaxation(drift, u0)
        return solution, norm(drift(solution.state))

    u0 = p.model.initial_state(x)
    for start, expected in zip((u0, to_complex(u0)), settled(name), strict=True):
        solution, measured = run(start)
        assert solution.result == RESULTS.successful and solution.residual <= TOL
        np.testing.assert_allclose(solution.residual, measured, rtol=1e-6, atol=1e-15)
        assert gap(solution.state, expected) < STATE_TOL


ITERATIONS = {name: RELAXATIONS[name] for name in ("picard", "sweep", "anderson", "flow")}


EXPLOSIVE = {
    "grows": lambda v: v**2 + 1.0,
    "leaves_its_domain": lambda v: 1.0 + jnp.sqrt(0.7 - v),
}


@pytest.mark.parametrize("fault", EXPLOSIVE)
@pytest.mark.parametrize("method", ITERATIONS)
def test_an_explosion_is_reported_and_its_best_state_returned(method, fault):
    """Without a fixed point: `diverged` as soon as the residual is no number, with a finite state and its own
    residual. Anderson's steps, taken back when they do not help, may also linger."""
    drift = lambda u: jax.tree.map(EXPLOSIVE[fault], u)
    u0 = {"a": jnp.asarray([0.5]), "b": jnp.asarray([-2.0])}
    solution = ITERATIONS[method](drift, u0)
    assert np.all(np.isfinite(flat(solution.state)))
    np.testing.assert_allclose(solution.residual, norm(drift(solution.state)), rtol=1e-12)
    assert solution.result != RESULTS.successful and solution.residual <= norm(drift(u0))
    if method in ("picard", "sweep") or (method, fault) == ("anderson", "leaves_its_domain"):
        assert solution.result == RESULTS.diverged and solution.num_steps < 100


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
    solution = relaxation(drift, {"a": jnp.asarray([3.0, 0.0]), "b": jnp.asarray([2.0])})
    assert solution.result == RESULTS.max_steps_reached
    np.testing.assert_allclose(solution.residual, norm(drift(solution.state)), rtol=1e-12)
    if method != "flow":
        assert int(solution.num_steps) == (7 if method == "fixed_steps" else 2)


@pytest.mark.parametrize("method", ["picard", "anderson"])
def test_batched_equals_looped(method):
    """Under `vmap` every example stops on its own: same states and same number of steps as alone."""
    p, relaxation = problem("asymmetric"), RELAXATIONS[method]
    run = jax.jit(lambda x: relaxation(p.model.free_drift(x), p.model.initial_state(x)))
    scales = jnp.asarray([0.0, 1.0, 10.0])[:, None]
    batched, alone = jax.jit(jax.vmap(run))(scales * p.x), [run(x) for x in scales * p.x]
    assert len(set(np.asarray(batched.num_steps).tolist())) > 1
    for i, solution in enumerate(alone):
        assert int(solution.num_steps) == int(batched.num_steps[i])
        assert gap(solution.state, jax.tree.map(lambda v, i=i: v[i], batched.state)) < 1e-13


def test_a_cycle_of_period_two():
    """Two neurons that excite each other swap their states for ever under synchronous undamped steps; sweeps and
    damped steps settle."""
    network = eqprop.DenseNetwork(
        1, {"a": 1, "b": 1}, [("in", "a"), ("a", "b"), ("b", "a")], activation=eqprop.tanh, key=jax.random.key(0)
    )
    network = eqx.tree_at(lambda n: n.kernels, network, jax.tree.map(lambda k: jnp.full_like(k, 2.0), network.kernels))
    current, start = network.embed(jnp.zeros(1)), {"a": jnp.asarray([1.0]), "b": jnp.asarray([-0.8])}
    drift = lambda u: network.drift(u, current)
    cycling = Picard(tol=TOL)(drift, start)
    assert cycling.result == RESULTS.max_steps_reached and cycling.residual > 1.0
    for relaxation in (Picard(tol=TOL, damping=0.5), Sweep(tol=TOL)):
        solution = relaxation(drift, start)
        assert solution.result == RESULTS.successful
        a, b = (float(solution.state[name][0]) for name in "ab")
        assert abs(2 * np.tanh(a) - b) < TOL and abs(2 * np.tanh(b) - a) < TOL


def test_sweeps_settle_a_chain_in_about_half_the_steps():
    """On a chain, a sweep is a synchronous step of either half."""
    p = problem("asymmetric")
    steps = [
        int(jax.jit(lambda x, r=r: r(p.model.free_drift(x), p.model.initial_state(x)))(p.x[0]).num_steps)
        for r in (Picard(tol=TOL), Sweep(tol=TOL))
    ]
    assert steps[1] <= 0.6 * steps[0] + 1


def test_anderson_beats_picard_on_a_stiff_linear_problem():
    """Rates of decay from 0.02 to 1: a fraction of the steps, to the dense solution."""
    rates, rotation = jnp.geomspace(0.02, 1.0, 8), np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    L, c = jnp.asarray(rotation * np.asarray(rates) @ rotation.T), jnp.ones(8)
    drift = lambda u: c - L @ u
    slow, fast = (r(drift, jnp.zeros(8)) for r in (Picard(tol=TOL, max_steps=5000), Anderson(tol=TOL, depth=8)))
    print(f"Picard {slow.num_steps}, Anderson {fast.num_steps} steps")
    assert fast.result == slow.result == RESULTS.successful
    assert int(fast.num_steps) < 0.1 * int(slow.num_steps)
    # A residual of 1e-9 over the slowest rate.
    assert gap(fast.state, jnp.linalg.solve(L, c)) < 2 * TOL / 0.02


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
    complex_ = Anderson(tol=TOL)(lambda z: a * z**2 * 0.1 + c * (0.3 + 0.0j) - z, jnp.zeros(2, complex))
    z = complex_.state
    assert complex_.result == RESULTS.successful
    assert float(jnp.max(jnp.abs(a * z**2 * 0.1 + c * (0.3 + 0.0j) - z))) < TOL


@pytest.mark.parametrize(
    "make", [lambda n: FixedSteps(n), lambda n: Picard(tol=0.0, max_steps=n)], ids=["fixed", "picard"]
)
def test_compile_time_does_not_grow_with_the_steps(make):
    """Twenty steps and two thousand are one loop: within noise, a factor 3 and half a second."""
    p = problem("asymmetric")

    def compile_seconds(steps):
        run = jax.jit(lambda x: make(steps)(p.model.free_drift(x), p.model.initial_state(x)))
        start = time.perf_counter()
        run.lower(p.x[0]).compile()
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
        (lambda: Sweep(tol=-1.0), "tol=-1.0.*expected tol of at least 0"),
        (lambda: Anderson(tol=float("nan")), "tol=nan"),
        (lambda: Flow(horizon=0.0), "horizon=0.0.*expected a horizon above 0"),
        (lambda: Flow(controller=diffrax.ConstantStepSize()), "needs dt0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_flow_takes_a_solver_with_a_constant_step():
    """Euler's method at step one is Picard's undamped step."""
    p = problem("asymmetric")
    flow = Flow(tol=TOL, solver=diffrax.Euler(), controller=diffrax.ConstantStepSize(), dt0=1.0)
    run = lambda r: jax.jit(jax.vmap(lambda x: r(p.model.free_drift(x), p.model.initial_state(x))))(p.x)
    ours, picard = run(flow), run(Picard(tol=TOL))
    assert np.all(ours.result == RESULTS.successful)
    assert gap(flat_batch(ours.state), flat_batch(picard.state)) < STATE_TOL


def test_anderson_takes_back_a_step_out_of_the_domain():
    """A drift that is undefined for u ≤ 0: an accelerated step overshoots there, and the root is found all the same."""
    drift = lambda u: jnp.where(u > 0, -0.05 * u * jnp.log(100 * u), jnp.nan)
    solution = Anderson(tol=1e-10, max_steps=200)(drift, jnp.asarray([1.0, 2.0]))
    assert solution.result == RESULTS.successful
    np.testing.assert_allclose(solution.state, 0.01, rtol=1e-7)
