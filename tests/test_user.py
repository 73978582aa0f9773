"""What users bring: energies, vector fields, readouts of several layers, settings under vmap, optimisers."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop
from eqprop import (
    AsymmetricNudge,
    ContrastiveHebbian,
    FiniteNudge,
    JointReadout,
    RecurrentBackprop,
    SkewHomeostasis,
    SoftmaxReadout,
    SquaredError,
    Sweep,
    TangentResponse,
    Trainer,
)
from eqprop._tree import cast_like, dot, real_linear, to_complex
from helpers import (
    SETTLE,
    chain,
    estimate,
    flat,
    free_phase,
    gap,
    hopfield,
    loss_gradient,
    oracle,
    problem,
    relative_error,
    respond,
    unchecked,
)

KEY = jax.random.key(3)


class Quadratic(eqx.Module):
    """`Φ(s, x) = Σ s_a K_ab s_b + ⟨current(x), s⟩`, from the parameters of a Hopfield network."""

    network: eqprop.HopfieldNetwork

    def __call__(self, s, x):
        total = dot(cast_like(self.network.embed(x), s), s)
        for (a, b), kernel in self.network.recurrent.items():
            total = total + jnp.sum(real_linear(lambda z, k=kernel: z @ k, s[a]) * s[b])
        return total


class Cubic(eqx.Module):
    """An energy whose input is not additive: `Φ = s_h W s_o + ¼ (s_h · x)² s_o,0 + ⟨b, s_h⟩`."""

    kernel: jax.Array
    bias: jax.Array

    def __call__(self, s, x):
        gate = jnp.sum(s["hidden"] * x.astype(s["hidden"].dtype))
        bilinear = jnp.sum(real_linear(lambda z: z @ self.kernel, s["hidden"]) * s["out"])
        return bilinear + 0.25 * gate**2 * s["out"][0] + jnp.sum(self.bias.astype(gate.dtype) * s["hidden"])


def cubic(dtype=float):
    energy = Cubic(0.3 * jax.random.normal(KEY, (4, 3), dtype), jnp.linspace(-0.5, 0.5, 4))
    network = eqprop.EnergyNetwork(energy, {"hidden": 4, "out": 3}, activation=eqprop.tanh, holomorphic=True)
    return eqprop.Model(network, SquaredError())


def test_an_energy_alone_is_the_network():
    """Its gradient is the drive that a Hopfield network gives by hand, at real and at complex rates; and so is every
    response and every gradient."""
    p = problem("hopfield")
    hand = p.model.network
    assert isinstance(hand, eqprop.HopfieldNetwork)
    shapes = {name: bias.shape for name, bias in hand.biases.items()}
    own = eqprop.EnergyNetwork(Quadratic(hand), shapes, activation=hand.activation, holomorphic=True)
    s = jax.tree.map(lambda b: jax.random.normal(KEY, b.shape), hand.biases)
    for rates in (s, jax.tree.map(lambda v: jax.lax.complex(v, 0.3 * v**2), s)):
        assert gap(own.at(p.x[0]).drive(rates), hand.at(p.x[0]).drive(rates)) < 1e-14
    estimator = ContrastiveHebbian(stencil=eqprop.cauchy(0.1, 4), relaxation=SETTLE)
    ours, theirs = (estimate(estimator, eqprop.Model(n, p.model.readout), p.x, p.y)[1] for n in (own, hand))
    kernels = ours.network.energy.network.kernels, theirs.network.kernels  # pyright: ignore
    assert gap(*kernels) < 1e-12


METHODS = {
    "contrastive": ContrastiveHebbian(stencil=eqprop.cauchy(0.03, 8), relaxation=SETTLE),
    "nudge": FiniteNudge(stencil=eqprop.cauchy(0.03, 8), relaxation=SETTLE),
    "tangent": TangentResponse(relaxation=SETTLE),
    "rbp": RecurrentBackprop(relaxation=SETTLE),
}


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_an_energy_that_its_input_gates(method):
    """Against finite differences of the loss at the free fixed point."""
    model, x = cubic(), jax.random.normal(KEY, (3, 4))
    y = 0.3 * jax.random.normal(jax.random.key(4), (3, 3))
    _, gradient = estimate(METHODS[method], model, x, y)
    assert relative_error(gradient, loss_gradient(model, x, y)) < 1e-7


def test_a_vector_field_of_ones_own():
    """`F = −u + W tanh(u) + x³`, without symmetry: recurrent backpropagation and AsymEP find the true gradient, and the
    audit closes."""

    class Swirl(eqx.Module):
        weights: jax.Array

        def __call__(self, u, x):
            turned = real_linear(lambda z: z @ self.weights, eqprop.tanh(u["out"]))
            return {"out": turned + x.astype(turned.dtype) ** 3 - u["out"]}

    field = Swirl(0.5 * jax.random.normal(KEY, (4, 4)))
    model = eqprop.Model(eqprop.VectorField(field, {"out": 4}, holomorphic=True), SquaredError())
    x, y = jax.random.normal(KEY, (3, 4)), jnp.ones((3, 4))
    true = loss_gradient(model, x, y)
    for method in (
        RecurrentBackprop(relaxation=SETTLE),
        AsymmetricNudge(stencil=eqprop.cauchy(0.02, 8), relaxation=SETTLE),
    ):
        assert relative_error(estimate(method, model, x, y)[1], true) < 1e-7
    report = eqx.filter_jit(eqprop.audit)(
        model, x, y, estimator=FiniteNudge(stencil=eqprop.cauchy(0.02, 4), relaxation=SETTLE), relaxation=SETTLE
    )
    assert report.settled.all() and report.closure.max() < 1e-9 and report.asymmetry.min() > 0.01


def test_a_vector_field_needs_layers():
    with pytest.raises(ValueError, match="The network has no layers"):
        eqprop.VectorField(lambda u, x: u, {})


# Readouts.


class Hinge(eqprop.AbstractReadout):
    """A loss alone, over two layers: nothing else is said."""

    layers: tuple[str, ...] = eqx.field(static=True, default=("out", "l1"))

    def predict(self, s):
        return s["out"]

    def loss(self, s, y):
        return jnp.sum((s["out"] - y.astype(s["out"].dtype)) ** 2) + jnp.sum(s["l1"] ** 3)


@pytest.mark.parametrize(("kind", "gain"), [("loss_alone", 1.0), ("joint", 0.4)])
def test_readouts_of_several_layers(kind, gain):
    """The gradient of what nudges two layers at once, by a circle and by the tangent, is that of finite differences of
    the loss; the layers count as read, and no other is called hidden."""
    network = chain(0.0, key=KEY, feedback_gain=gain)
    joint = JointReadout(SquaredError(), SoftmaxReadout(5, 3, layer="l1", key=KEY))
    model = eqprop.Model(network, Hinge() if kind == "loss_alone" else joint)
    x, y = jax.random.normal(KEY, (3, 6)), jax.nn.one_hot(jnp.arange(3), 3)
    true, circle = loss_gradient(model, x, y), eqprop.cauchy(0.01, 8)
    for method in (
        FiniteNudge(stencil=circle, relaxation=SETTLE),
        TangentResponse(relaxation=SETTLE),
        RecurrentBackprop(relaxation=SETTLE),
    ):
        assert relative_error(estimate(method, model, x, y)[1], true) < 1e-7
    sweep = Sweep(tol=1e-12, rtol=1e-9, max_steps=2000)
    nudge = FiniteNudge(stencil=circle, relaxation=sweep)
    assert relative_error(estimate(nudge, model, x, y)[1], true) < 1e-7
    trainer = Trainer(SETTLE, TangentResponse(relaxation=SETTLE), optax.sgd(0.1))
    aligned = eqx.filter_jit(trainer.alignment)(model, (x, y), key=KEY)
    assert abs(aligned["cosine_hidden"] - aligned["cosine_l2"]) < 1e-12


def test_teaching_is_checked_where_it_is_given():
    """That of the library's readouts is the gradient of their loss; a wrong one is refused, also by `fit`."""

    class Wrong(SquaredError):
        def teaching(self, s, y):
            return jax.tree.map(lambda g: 2 * g, super().teaching(s, y))

    network, x, y = chain(0.0, key=KEY), jnp.ones(6), jnp.ones(3)
    for readout in (SquaredError(), SoftmaxReadout(3, 3, key=KEY), Hinge(layers=("out", "l1"))):
        eqprop.check_teaching(eqprop.Model(network, readout), x, y)
    model = eqprop.Model(network, Wrong())  # pyright: ignore[reportCallIssue]
    with pytest.raises(ValueError, match="Wrong.teaching differs from the gradient of its loss by .* leave it out"):
        eqprop.check_teaching(model, x, y)
    trainer = Trainer(SETTLE, TangentResponse(relaxation=SETTLE), optax.sgd(0.1))
    with pytest.raises(ValueError, match="Wrong.teaching differs"):
        eqprop.fit(trainer, model, (jnp.ones((4, 6)), jnp.ones((4, 3))), epochs=1, batch_size=2, key=KEY)


# Settings as one compiled program.


def settings(q):
    """A trainer all of whose numbers depend on `q`."""
    free = Sweep(tol=1e-5 * q, rtol=1e-2 * q, damping=1.0 - 0.1 * q, max_steps=400)
    nudged = Sweep(tol=1e-6 * q, rtol=1e-3 * q, damping=1.0 - 0.2 * q, max_steps=400)
    estimator = FiniteNudge(stencil=eqprop.centred(0.2 * q), relaxation=nudged, norm_bound=0.1 * q)
    return Trainer(free, estimator, optax.sgd(0.1), SkewHomeostasis(coefficient=0.5 * q))


def test_a_sweep_over_settings_is_one_program():
    """Tolerances, damping, nudge, norm bound and coefficient under `vmap` give what each gives alone."""
    p = problem("asymmetric")

    def run(q):
        return settings(q).gradient(p.model, (p.x, p.y), key=KEY)

    qs = jnp.asarray([0.25, 0.5, 1.0])
    with unchecked():
        together, measured = eqx.filter_jit(eqx.filter_vmap(run))(qs)
    for index, q in enumerate((0.25, 0.5, 1.0)):
        alone, one = eqx.filter_jit(run)(q)
        assert gap(alone, jax.tree.map(lambda v, index=index: v[index], together)) < 1e-12
        assert one["free_steps"] == measured["free_steps"][index]
    assert len(set(np.asarray(measured["free_steps"]).tolist())) > 1


# Gradients and optimisers.


def test_the_gradient_is_that_of_a_step():
    p = problem("asymmetric")
    trainer = settings(1.0)
    state = trainer.init(p.model, key=KEY)
    key = jax.random.fold_in(KEY, 0)
    gradient, metrics = eqx.filter_jit(trainer.gradient)(p.model, (p.x, p.y), key=key)
    new, stepped = eqx.filter_jit(trainer.step)(state, (p.x, p.y))
    expected = eqx.apply_updates(p.model, jax.tree.map(lambda g: -0.1 * g, gradient))
    assert gap(new.model, expected) < 1e-14 and metrics.keys() == stepped.keys()
    for name in metrics:
        np.testing.assert_allclose(metrics[name], stepped[name], rtol=1e-12)


def test_accumulated_gradients_are_those_of_the_whole_batch():
    """Four parts of a batch under `optax.MultiSteps` make the step that the batch makes at once."""
    model = problem("asymmetric").model
    x, y = jax.random.normal(KEY, (8, 6)), jnp.arange(8) % 3
    base = Trainer(SETTLE, TangentResponse(relaxation=SETTLE), optax.adam(1e-2))
    every = optax.MultiSteps(optax.adam(1e-2), every_k_schedule=4).gradient_transformation()
    parts = dataclasses.replace(base, optimiser=every)
    with jax.numpy_dtype_promotion("standard"):
        whole, _ = eqx.filter_jit(base.step)(base.init(model, key=KEY), (x, y))
        state, step = parts.init(model, key=KEY), eqx.filter_jit(parts.step)
        for part in range(4):
            assert gap(state.model, model) == 0.0
            state, _ = step(state, (x[2 * part : 2 * part + 2], y[2 * part : 2 * part + 2]))
    assert gap(state.model, whole.model) < 1e-9


def test_an_optimiser_that_wants_the_loss():
    """`reduce_on_plateau` is told it, and halves its steps when it stands still."""
    p = problem("asymmetric")
    plateau = optax.chain(optax.sgd(0.0), optax.contrib.reduce_on_plateau(factor=0.5, patience=2))
    trainer = Trainer(SETTLE, TangentResponse(relaxation=SETTLE), plateau)
    with jax.numpy_dtype_promotion("standard"):  # as optax computes
        state, step = trainer.init(p.model, key=KEY), eqx.filter_jit(trainer.step)
        for _ in range(8):
            state, _ = step(state, (p.x, p.y))
    scales = [
        leaf.scale
        for leaf in jax.tree.leaves(state.optimiser, is_leaf=lambda v: hasattr(v, "scale"))
        if hasattr(leaf, "scale")
    ]
    assert scales and float(scales[0]) <= 0.25


# Examples whose free phase failed.


def test_an_example_whose_free_phase_failed_is_not_nudged():
    """It takes no nudged step; the others take what they take without it, and the gradient is theirs."""
    p = problem("asymmetric")
    free = eqprop.Picard(tol=1e-10, max_steps=60)
    steps = np.asarray(free_phase(p.model, p.x, eqprop.Picard(tol=1e-10, max_steps=500)).num_steps)
    free = eqprop.Picard(tol=1e-10, max_steps=int(steps.max()) - 1)
    estimator = FiniteNudge(stencil=eqprop.centred(0.1), relaxation=eqprop.Picard(tol=1e-10, max_steps=500))
    slow = int(steps.argmax())
    rest = jnp.asarray([i for i in range(3) if i != slow])
    trainer = Trainer(free, estimator, optax.sgd(0.1))
    gradient, metrics = eqx.filter_jit(trainer.gradient)(p.model, (p.x, p.y), key=KEY)
    others, without = eqx.filter_jit(trainer.gradient)(p.model, (p.x[rest], p.y[rest]), key=KEY)
    assert metrics["usable_fraction"] == pytest.approx(2 / 3)
    np.testing.assert_allclose(3 * metrics["nudged_steps"], 2 * without["nudged_steps"], rtol=1e-12)
    assert gap(gradient, others) < 1e-12
    kept = dataclasses.replace(trainer, keep_unsettled=True)
    _, all_of_them = eqx.filter_jit(kept.gradient)(p.model, (p.x, p.y), key=KEY)
    assert all_of_them["nudged_steps"] > metrics["nudged_steps"]


# Solvers of other libraries.


@pytest.mark.parametrize("name", ["asymmetric", "conv"])
def test_linear_responses_by_krylov(name):
    """GMRES and BiCGStab against the dense solve, transposed and not."""
    import lineax as lx

    p, true = problem(name), oracle(*problem(name))
    free = free_phase(p.model, p.x)
    solvers: list[Any] = [None, lx.BiCGStab(rtol=1e-13, atol=1e-13)]
    for solver in solvers[: 1 if name == "conv" else 2]:
        krylov = eqprop.Krylov(tol=1e-11, rtol=1e-11, solver=solver)
        for method, expected in (
            (RecurrentBackprop(relaxation=krylov), true.rbp),
            (TangentResponse(relaxation=krylov), true.tangent),
        ):
            response = respond(method, p.model, p.x, p.y, free)
            assert all(response.result == eqprop.RESULTS.successful)
            assert relative_error(jax.vmap(flat)(response.payload), expected) < 1e-10


def test_krylov_where_no_relaxation_settles():
    """A linear drift with an unstable mode has a fixed point that steps run away from."""
    A = jnp.asarray([[1.5, 0.2], [0.0, -3.0]])
    drift = lambda u: A @ u - u + 1.0
    solution = eqprop.Krylov(tol=1e-12, rtol=1e-12)(drift, jnp.zeros(2))
    assert solution.result == eqprop.RESULTS.successful
    np.testing.assert_allclose(solution.state, np.linalg.solve(np.eye(2) - np.asarray(A), np.ones(2)), rtol=1e-10)
    assert eqprop.Picard(tol=1e-10, max_steps=100)(drift, jnp.zeros(2)).result != eqprop.RESULTS.successful


@pytest.mark.parametrize("finder", ["Newton", "Dogleg", "LevenbergMarquardt"])
def test_root_finders_of_optimistix(finder):
    """The free fixed point in real arithmetic, and a nudged one off the real axis."""
    import optimistix as optx

    p, relaxation = problem("asymmetric"), eqprop.RootFind(getattr(optx, finder)(rtol=1e-12, atol=1e-12), tol=1e-10)
    field = p.model.network.at(p.x[0])
    free = eqx.filter_jit(lambda u: relaxation(field.drift, u))(field.initial_state())
    assert free.result == eqprop.RESULTS.successful
    assert gap(flat(free.state), oracle(*p).u[0]) < 1e-9
    example = p.model.at(p.x[0], p.y[0])
    drift = lambda u: example.drift(u, jnp.asarray(0.1 + 0.1j))
    start = to_complex(free.state)
    ours = eqx.filter_jit(lambda u: SETTLE(drift, u))(start)
    assert gap(eqx.filter_jit(lambda u: relaxation(drift, u))(start).state, ours.state) < 1e-9


@pytest.mark.parametrize("order", ["alternate", "forward", "backward"])
def test_every_order_of_a_sweep_reaches_the_fixed_point(order):
    """The first forward sweep is a feedforward pass: with feedback of next to nothing it is all there is to do."""
    for name in ("asymmetric", "loop", "conv"):
        p = problem(name)
        sweep = Sweep(tol=1e-13, rtol=1e-9, max_steps=2000, order=order)

        @eqx.filter_jit
        def run(field, sweep=sweep):
            return sweep(field.drift, field.initial_state(), blocks=field.blocks)

        solution = run(p.model.network.at(p.x[0]))
        assert solution.result == eqprop.RESULTS.successful
        assert gap(flat(solution.state), oracle(*p).u[0]) < 1e-11
    deep = chain(90.0, key=KEY, sizes=(6, *[5] * 8, 3), feedback_gain=1e-6)
    field = deep.at(jnp.ones(6))
    sweep = Sweep(tol=1e-3, rtol=1e-1, order=order, every=1)
    steps = int(sweep(field.drift, field.initial_state(), blocks=field.blocks).num_steps)
    assert steps == 1 if order == "forward" else steps > 3
    with unchecked(), pytest.raises(ValueError, match="order is 'sideways'; expected one of alternate, forward"):
        Sweep(order="sideways")  # pyright: ignore[reportArgumentType]


def test_hopfield_drive_is_the_gradient_of_its_interaction():
    network = hopfield(key=KEY)
    field = network.at(jnp.ones(6))
    s = jax.tree.map(lambda b: jax.random.normal(KEY, b.shape), network.biases)
    derived = eqprop.AbstractEnergyNetwork.drive(network, s, field.current)
    assert gap(derived, field.drive(s)) < 1e-14


def one_layer_short(u, x):
    return {"out": x - u["out"]}


def of_another_shape(u, x):
    return {"hidden": x - u["hidden"], "out": x - u["out"][:1]}


def a_layer_too_many(u, x):
    return {**one_layer_short(u, x), "hidden": x, "more": x}


@pytest.mark.parametrize("field", [one_layer_short, of_another_shape, a_layer_too_many])
def test_a_drive_with_other_layers_than_the_state_is_refused(field):
    network = eqprop.VectorField(field, {"hidden": 4, "out": 3})
    trainer = eqprop.Trainer(eqprop.Picard(), eqprop.RecurrentBackprop(relaxation=eqprop.Picard()), optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"drive of a VectorField .* of its state, {'hidden': \(4,\), 'out': \(3,\)}"):
        trainer.evaluate(eqprop.Model(network, SquaredError()), (jnp.ones((2, 4)), jnp.ones((2, 3))))


def test_a_single_score_has_no_accuracy():
    """It tells no classes apart: the loss is all there is to say."""
    network = eqprop.VectorField(lambda u, x: {"out": x - u["out"]}, {"out": 1})
    trainer = eqprop.Trainer(eqprop.Picard(), eqprop.RecurrentBackprop(relaxation=eqprop.Picard()), optax.sgd(0.1))
    found = trainer.evaluate(eqprop.Model(network, SquaredError()), (jnp.ones((2, 1)), jnp.zeros((2, 1))))
    assert "accuracy" not in found and found["loss"] == pytest.approx(0.5)
