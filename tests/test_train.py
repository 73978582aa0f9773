"""The training step: relax, respond, one gradient of a mean, optax; populations, unsettled examples, evaluation."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop
from eqprop import (
    AsymmetricNudge,
    BackpropThroughTime,
    ExactHomeostasis,
    FiniteNudge,
    FixedSteps,
    OscillatingNudge,
    Picard,
    RecurrentBackprop,
    SkewHomeostasis,
    SoftmaxReadout,
    Sweep,
    TangentResponse,
    Trainer,
)
from helpers import (
    SETTLE,
    Ring,
    Tied,
    chain,
    estimate,
    flat,
    free_phase,
    gap,
    gradient,
    problem,
    relative_error,
    respond,
    scaled,
    unchecked,
)

TOL = 1e-12
"""The same arithmetic in another order of compilation."""

KEY = jax.random.key(5)
RELAX = Picard(tol=1e-10, max_steps=500)


TRACES = []


@eqx.filter_jit
def step(trainer, state, batch):
    TRACES.append(trainer)
    return trainer.step(state, batch)


alignment = eqx.filter_jit(Trainer.alignment)


as_optax_computes = jax.numpy_dtype_promotion("standard")
"""Optax counts steps in integers, and multiplies them with numbers."""


def arrays(tree):
    """Its numbers: parameters and optimiser, without keys."""
    return [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]


def test_a_step_is_optax_with_the_gradient_by_hand():
    """Surrogates averaged, homeostasis added with its coefficient, one update; metrics are those before it."""
    p = problem("asymmetric")
    estimator = RecurrentBackprop(relaxation=RELAX)
    optimiser = optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(0.1, momentum=0.9))
    trainer = Trainer(RELAX, estimator, optimiser, ExactHomeostasis(coefficient=3.0))
    state, metrics = step(trainer, trainer.init(p.model, key=KEY), (p.x, p.y))

    free = free_phase(p.model, p.x, RELAX)
    response = respond(estimator, p.model, p.x, p.y, free)
    task = gradient(estimator, p.model, p.x, p.y, response)
    one = jax.tree.map(lambda v: v[0], free.state)
    penalty = lambda m: ExactHomeostasis()(m.network.at(p.x[0]), one, key=KEY)
    asymmetry = eqx.filter_grad(penalty)(p.model)
    total = jax.tree.map(lambda a, b: a + 3.0 * b, task, asymmetry)
    params = eqx.filter(p.model, eqx.is_inexact_array)
    updates, _ = optimiser.update(total, optimiser.init(params), params)
    assert gap(state.model, eqx.apply_updates(p.model, updates)) < TOL
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(flat(total)), rtol=TOL)
    losses = jax.vmap(p.model.readout.loss)(p.model.network.rates(free.state), p.y)
    np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=TOL)
    np.testing.assert_allclose(metrics["homeostasis"], penalty(p.model), rtol=TOL)
    np.testing.assert_allclose(metrics["nudged_steps"], np.mean(response.num_steps))
    assert int(state.step) == 1 and metrics["unsettled_fraction"] == metrics["bounded_fraction"] == 0.0


class Still(eqprop.AbstractNetwork):
    """Settles to rates equal to the input, whatever it is."""

    activation: ClassVar[Any] = staticmethod(eqprop.linear)
    holomorphic: ClassVar[bool] = True

    def embed(self, x):
        return {"out": x}

    def drive(self, s, current):
        return {"out": 0.0 * s["out"] + current["out"].astype(s["out"].dtype)}


def test_evaluation_of_known_scores():
    """Loss, accuracy and top-5 of scores that are the inputs; ties and infinities count against the network."""
    scores = jnp.stack([jnp.arange(8.0), -jnp.arange(8.0), jnp.zeros(8), jnp.arange(8.0), jnp.full(8, jnp.nan)])
    labels = jnp.asarray([7, 4, 0, 1, 0])  # right, fifth best, a tie, seventh best, nothing
    trainer = Trainer(RELAX, RecurrentBackprop(relaxation=RELAX), optax.sgd(0.1))
    measured = jax.jit(lambda x, y: trainer.evaluate(eqprop.Model(Still(), eqprop.SquaredError()), (x, y)))
    metrics = measured(scores[:4], labels[:4])
    assert metrics["accuracy"] == 0.25 and metrics["top5"] == 0.5 and metrics["unsettled_fraction"] == 0.0
    expected = 0.5 * np.sum((np.asarray(scores[:4]) - np.eye(8)[np.asarray(labels[:4])]) ** 2, axis=1).mean()
    np.testing.assert_allclose(metrics["loss"], expected, rtol=TOL)
    wrong = measured(scores[3:], labels[3:])
    assert wrong["accuracy"] == 0.0 and wrong["top5"] == 0.0 and wrong["unsettled_fraction"] == 0.5


class Explosive(Still):
    """Settles for inputs below ¼, and explodes above: `u ← u² + x`."""

    gain: jax.Array

    def drive(self, s, current):
        return {"out": self.gain * s["out"] ** 2 + current["out"]}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("fault", ["diverged", "unsettled"])
def test_an_example_that_did_not_settle_is_counted_and_left_out(fault, keep):
    """The gradient is the mean over the other examples, with no NaN; `keep_unsettled` takes in what is merely slow."""
    model = eqprop.Model(Explosive(jnp.ones(2)), eqprop.SquaredError())
    # 0.2499 decays with a rate of 0.02: it does not settle in 100 steps, and does not explode.
    bad = 3.0 if fault == "diverged" else 0.2499
    x, y = jnp.asarray([[0.1, 0.05], [bad, 0.1], [0.02, 0.2]]), jnp.zeros((3, 2))
    relax = Picard(tol=1e-10, max_steps=100)
    trainer = Trainer(relax, RecurrentBackprop(relaxation=relax), optax.sgd(1.0), keep_unsettled=keep)
    state = trainer.init(model, key=KEY)
    new, metrics = step(trainer, state, (x, y))
    taken = jnp.asarray([0, 1, 2] if keep and fault == "unsettled" else [0, 2])
    free = free_phase(model, x[taken], relax)
    response = respond(trainer.estimator, model, x[taken], y[taken], free)
    expected = gradient(trainer.estimator, model, x[taken], y[taken], response)
    update = jax.tree.map(lambda a, b: a - b, *(eqx.filter(m, eqx.is_array) for m in (model, new.model)))
    assert np.all(np.isfinite(flat(arrays(new))))
    assert gap(update, expected) < TOL
    np.testing.assert_allclose(metrics["unsettled_fraction"], 1 / 3)
    assert all(np.isfinite(value) for value in metrics.values())


@as_optax_computes
def test_a_batch_of_which_nothing_settles_leaves_model_and_optimiser_alone():
    """Decay of the weights and of the optimiser's moments included; the step is counted."""
    model = eqprop.Model(Explosive(jnp.ones(2)), eqprop.SquaredError())
    trainer = Trainer(RELAX, RecurrentBackprop(relaxation=RELAX), optax.adamw(0.1, weight_decay=0.1))
    state, metrics = step(trainer, trainer.init(model, key=KEY), (jnp.full((2, 2), 0.1), jnp.ones((2, 2))))
    assert metrics["skipped_steps"] == 0.0 and gap(state.model, model) > 0.0
    new, metrics = step(trainer, state, (jnp.full((2, 2), 3.0), jnp.zeros((2, 2))))
    assert gap((new.model, new.optimiser), (state.model, state.optimiser)) == 0.0 and int(new.step) == 2
    assert metrics["unsettled_fraction"] == metrics["skipped_steps"] == 1.0
    assert metrics["gradient_norm"] == metrics["usable_fraction"] == metrics["loss"] == 0.0


def test_homeostasis_that_needs_no_state_acts_where_nothing_settled():
    """One plain step against the gradient of the closed form, and nothing else."""
    p = problem("asymmetric")
    trainer = Trainer(RELAX, RecurrentBackprop(relaxation=RELAX), optax.sgd(1.0), ExactHomeostasis(coefficient=0.5))
    new, metrics = step(trainer, trainer.init(p.model, key=KEY), (p.x * jnp.nan, p.y))
    assert metrics["skipped_steps"] == 0.0 and metrics["usable_fraction"] == 0.0
    field = p.model.network.at(p.x[0])
    value = lambda m: 0.5 * ExactHomeostasis()(m.network.at(p.x[0]), field.initial_state(), key=KEY)
    penalty = eqx.filter_jit(eqx.filter_grad(value))(p.model)
    assert gap(changed(p.model, new.model), penalty) < TOL


def test_homeostasis_acts_alone_at_a_warm_start():
    """The first step is the gradient of the penalty, the second that of both."""
    p = problem("asymmetric")
    form, estimator = ExactHomeostasis(coefficient=0.5), RecurrentBackprop(relaxation=RELAX)
    trainer = Trainer(RELAX, estimator, optax.sgd(1.0), form, warm_start=1)
    first, _ = step(trainer, trainer.init(p.model, key=KEY), (p.x, p.y))
    penalty = eqx.filter_jit(
        eqx.filter_grad(lambda m: 0.5 * form(m.network.at(p.x[0]), m.network.at(p.x[0]).initial_state(), key=KEY))
    )
    assert gap(changed(p.model, first.model), penalty(p.model)) < TOL
    second, metrics = step(trainer, first, (p.x, p.y))
    both = jax.tree.map(jnp.add, estimate(estimator, first.model, p.x, p.y)[1], penalty(first.model))
    assert gap(changed(first.model, second.model), both) < 1e-8 and metrics["usable_fraction"] == 1.0
    # The optimiser of the second step has forgotten the first.
    adam = Trainer(RELAX, estimator, optax.adam(0.1), form, warm_start=1)
    after = [step(adam, adam.init(p.model, key=KEY), (p.x, p.y))[0]]
    after.append(step(adam, after[0], (p.x, p.y))[0])
    alone = Trainer(RELAX, estimator, optax.adam(0.1), form)
    new, _ = step(alone, alone.init(after[0].model, key=KEY), (p.x, p.y))
    assert gap(after[1].model, new.model) < TOL
    wrong: list[Any] = [-1, 2.5]
    for steps in wrong:
        with pytest.raises(ValueError, match=f"warm_start is {steps}; expected a number of steps"), unchecked():
            Trainer(RELAX, estimator, optax.sgd(1.0), warm_start=steps)  # pyright: ignore[reportArgumentType]


def changed(model, new):
    """By how much parameters went down: with plain descent of rate one, the gradient."""
    return jax.tree.map(lambda a, b: a - b, *(eqx.filter(m, eqx.is_inexact_array) for m in (model, new)))


def fixed_probe(key, shape, dtype):
    """The same noise in every draw, so that a penalty can be worked out by hand."""
    del key
    return jnp.cos(jnp.arange(np.prod(shape), dtype=dtype)).reshape(shape)


LEFT_OUT = {
    "finite_nudge": FiniteNudge(stencil=eqprop.centred(0.1), relaxation=RELAX),
    "rbp": RecurrentBackprop(relaxation=RELAX),
    "bptt": BackpropThroughTime(relaxation=FixedSteps(40)),
}


@pytest.mark.parametrize("method", LEFT_OUT)
def test_what_is_no_number_reaches_no_parameter(method):
    """With an input or a target that is NaN or infinite, the gradient is that of the other examples, homeostasis of a
    drive that is nonlinear in the rates included."""
    estimator, form = LEFT_OUT[method], SkewHomeostasis(coefficient=0.3, probe=fixed_probe)
    model = eqprop.Model(Ring(jax.random.key(1)), SoftmaxReadout(4, 3, key=KEY))
    x = jax.random.normal(jax.random.key(2), (5, 6))
    y = jax.nn.one_hot(jnp.arange(5) % 3, 3, dtype=float)
    others = jnp.asarray([0, 1, 3, 4])
    trainer = Trainer(RELAX, estimator, optax.sgd(1.0), form)
    state = trainer.init(model, key=KEY)

    free = free_phase(model, x[others], RELAX)
    response = respond(estimator, model, x[others], y[others], free)
    noise = {name: fixed_probe(None, (4,), x.dtype) for name in ("hidden", "out")}

    @eqx.filter_jit
    @eqx.filter_grad
    def penalty(model, states):
        return 0.3 * jnp.mean(jax.vmap(lambda x, u: form.one_draw(model.network.at(x), u, noise))(x[others], states))

    task = gradient(estimator, model, x[others], y[others], response)
    expected = jax.tree.map(jnp.add, task, penalty(model, free.state))
    faults = {
        "NaN in x": (x.at[2, 1].set(jnp.nan), y),
        "infinity in x": (x.at[2, 1].set(jnp.inf), y),
        "NaN in y": (x, y.at[2, 0].set(jnp.nan)),
        "infinity in y": (x, y.at[2, 0].set(-jnp.inf)),
    }
    for name, batch in faults.items():
        new, metrics = step(trainer, state, batch)
        assert gap(changed(model, new.model), expected) < TOL, name
        assert metrics["usable_fraction"] == 0.8 and all(np.isfinite(value) for value in metrics.values())
        assert metrics["invalid_fraction"] == (0.2 if name.endswith("y") else 0.0)


@pytest.mark.parametrize("method", ["bptt", "tangent"])
def test_an_example_that_explodes_is_not_relaxed_again(method):
    """A linear network with gains of 30: the square of all examples but the one at rest is beyond what a number can
    be."""
    network = scaled(chain(90.0, key=KEY, sizes=(6, 5, 3), activation=eqprop.linear), 30.0)
    model = eqprop.Model(network, eqprop.SquaredError())
    estimator = {"bptt": BackpropThroughTime(FixedSteps(60)), "tangent": TangentResponse(relaxation=Sweep())}[method]
    x, y = 1e200 * jax.random.normal(KEY, (4, 6)).at[0].set(0.0), jnp.ones((4, 3))
    trainer = Trainer(Sweep(max_steps=400), estimator, optax.sgd(1.0))
    new, metrics = step(trainer, trainer.init(model, key=KEY), (x, y))
    assert all(np.isfinite(value) for value in metrics.values())
    if method == "tangent":  # whose linear system explodes for all of them
        assert metrics["skipped_steps"] == 1.0 and gap(new.model, model) == 0.0
    else:
        assert metrics["usable_fraction"] == 0.25
        alone = estimate(estimator, model, x[:1], y[:1])[1]
        assert relative_error(changed(model, new.model), alone) < 1e-9


# Targets.


def test_whole_numbers_in_a_vector_are_targets():
    """One-hot vectors of integers train as the same numbers in float, and counts are evaluated as such."""
    p = problem("asymmetric")
    trainer = Trainer(RELAX, LEFT_OUT["rbp"], optax.sgd(1.0))
    state = trainer.init(p.model, key=KEY)
    as_float, as_int = (step(trainer, state, (p.x, p.y.astype(dtype))) for dtype in (float, int))
    assert gap(as_float[0].model, as_int[0].model) < TOL and gap(as_float[1], as_int[1]) < TOL
    counts = eqprop.Model(p.model.network, eqprop.SquaredError())
    evaluate = eqx.filter_jit(trainer.evaluate)
    as_float, as_int = (evaluate(counts, (p.x, (2 * p.y).astype(dtype))) for dtype in (float, int))
    assert gap(as_float, as_int) < TOL


def test_classes_out_of_range_are_refused_where_they_can_be_seen():
    p = problem("asymmetric")
    trainer = Trainer(RELAX, LEFT_OUT["rbp"], optax.sgd(1.0))
    state = trainer.init(p.model, key=KEY)
    for y, seen in ((jnp.asarray([1, 2, 3]), "from 1 to 3"), (jnp.asarray([0, -1, 0]), "from -1 to 0")):
        for use in (
            lambda batch: trainer.step(state, batch),
            lambda batch: trainer.evaluate(p.model, batch),
            lambda batch: trainer.alignment(p.model, batch, key=KEY),
        ):
            with pytest.raises(ValueError, match=f"{seen}, but the readout has 3: expected whole numbers from 0 to 2"):
                use((p.x, y))


def test_classes_out_of_range_are_counted_and_left_out_in_compiled_functions():
    p = problem("asymmetric")
    trainer = Trainer(RELAX, LEFT_OUT["rbp"], optax.sgd(1.0))
    new, metrics = step(trainer, trainer.init(p.model, key=KEY), (p.x, jnp.asarray([2, 3, 0])))
    # As if that example were left out for another reason, which has a test of its own.
    other, _ = step(trainer, trainer.init(p.model, key=KEY), (p.x.at[1].set(jnp.nan), jnp.asarray([2, 0, 0])))
    assert gap(new.model, other.model) < TOL and gap(new.model, p.model) > 0.0
    np.testing.assert_allclose([metrics["invalid_fraction"], metrics["usable_fraction"]], [1 / 3, 2 / 3])
    assert metrics["unsettled_fraction"] == 0.0
    evaluate = eqx.filter_jit(trainer.evaluate)
    some = evaluate(p.model, (p.x, jnp.asarray([2, -1, 0])))
    each = [evaluate(p.model, (jnp.stack([p.x[i]] * 3), jnp.full(3, label))) for i, label in ((0, 2), (2, 0))]
    assert all(np.isfinite(value) for value in some.values())
    np.testing.assert_allclose(some["invalid_fraction"], 1 / 3)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(some[name], np.mean([one[name] for one in each]), rtol=1e-9)


def test_a_compiled_function_may_close_over_a_batch():
    p = problem("asymmetric")
    trainer = Trainer(RELAX, LEFT_OUT["rbp"], optax.sgd(1.0))
    batch = p.x, jnp.asarray([0, 1, 2])
    found = eqx.filter_jit(lambda model: trainer.evaluate(model, batch))(p.model)
    np.testing.assert_allclose(found["loss"], trainer.evaluate(p.model, batch)["loss"], rtol=1e-12)


def test_arrays_of_numpy_and_single_examples():
    """The first are taken without compilation too, and the second refused with what to write."""
    p = problem("asymmetric")
    trainer = Trainer(RELAX, LEFT_OUT["rbp"], optax.sgd(1.0))
    batch = np.asarray(p.x), np.asarray([0, 1, 2])
    ours, _ = trainer.gradient(p.model, batch, key=KEY)
    assert gap(ours, trainer.gradient(p.model, (p.x, jnp.asarray([0, 1, 2])), key=KEY)[0]) == 0.0
    with pytest.raises(ValueError, match=r"expected a batch: x\[None\], y\[None\]"):
        trainer.evaluate(p.model, (p.x[0], jnp.asarray(1)))


def test_an_empty_batch_is_refused():
    p = problem("asymmetric")
    trainer = Trainer(RELAX, LEFT_OUT["rbp"], optax.sgd(1.0))
    state = trainer.init(p.model, key=KEY)
    for use in (
        lambda batch: trainer.step(state, batch),
        lambda batch: trainer.evaluate(p.model, batch),
        lambda batch: trainer.alignment(p.model, batch, key=KEY),
    ):
        with pytest.raises(ValueError, match="0 inputs and 0 targets; expected as many of each, and at least one"):
            use((p.x[:0], p.y[:0]))
        with pytest.raises(ValueError, match="3 inputs and 2 targets"):
            use((p.x, p.y[:2]))


def test_what_is_no_network_is_refused():
    network: Any = eqx.nn.Linear(6, 3, key=KEY)
    with pytest.raises(ValueError, match="Linear is no network. Let it subclass eqprop.AbstractNetwork"), unchecked():
        eqprop.Model(network, eqprop.SquaredError())  # pyright: ignore[reportArgumentType]


# Optimisers and states.


@as_optax_computes
def test_an_optimiser_gets_the_loss():
    """Polyak's step is as long as the loss over the squared gradient."""
    p = problem("asymmetric")
    trainer = Trainer(RELAX, LEFT_OUT["rbp"], optax.polyak_sgd(max_learning_rate=1e3))
    new, metrics = step(trainer, trainer.init(p.model, key=KEY), (p.x, p.y))
    length = np.linalg.norm(flat(changed(p.model, new.model)))
    np.testing.assert_allclose(length, metrics["loss"] / metrics["gradient_norm"], rtol=1e-9)
    plateau = Trainer(RELAX, LEFT_OUT["rbp"], optax.chain(optax.adam(1e-3), optax.contrib.reduce_on_plateau()))
    eqx.filter_eval_shape(plateau.step, plateau.init(p.model, key=KEY), (p.x, p.y))


@as_optax_computes
def test_an_optimiser_that_evaluates_an_objective_is_refused():
    with pytest.raises(ValueError, match="asks for more than a step has.*optax.lbfgs, do not fit"):
        Trainer(RELAX, LEFT_OUT["rbp"], optax.lbfgs()).init(problem("asymmetric").model, key=KEY)


@as_optax_computes
def test_a_state_is_written_and_read(tmp_path):
    """With Equinox's own functions, the key of all later steps included."""
    trainer = Trainer(RELAX, LEFT_OUT["rbp"], optax.adam(1e-3))
    state = trainer.init(problem("asymmetric").model, key=jax.random.key(7))
    eqx.tree_serialise_leaves(tmp_path / "state.eqx", state)
    other = trainer.init(problem("asymmetric", seed=1).model, key=jax.random.key(8))
    read = eqx.tree_deserialise_leaves(tmp_path / "state.eqx", other)
    assert gap(read, state) == 0.0 and gap(other, state) > 0.0
    assert jax.random.key_data(read.key).tolist() == jax.random.key_data(jax.random.key(7)).tolist()


# Alignment of small errors.


class Scaled(SoftmaxReadout):
    """A loss, and with it the teaching signal, times a number."""

    factor: jax.Array

    def __init__(self, readout, factor):
        self.kernel, self.bias, self.layers = readout.kernel, readout.bias, readout.layers
        self.factor = jnp.asarray(factor, readout.kernel.dtype)

    def loss(self, s, y):
        return self.factor.astype(s[self.layers[0]].dtype) * super().loss(s, y)

    def teaching(self, s, y):
        return jax.tree.map(lambda g: self.factor.astype(g.dtype) * g, super().teaching(s, y))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_alignment_does_not_depend_on_the_size_of_the_loss(dtype):
    """Of a linear response, when the teaching signal is ten thousand times weaker; an example without a teaching signal
    has no direction: it is counted, and is in no average."""
    p = problem("asymmetric")
    model, x, y = jax.tree.map(lambda v: v.astype(dtype) if eqx.is_array(v) else v, (p.model, p.x, p.y))
    relaxation = Sweep(tol=1e-5, rtol=1e-3)
    trainer = Trainer(relaxation, TangentResponse(relaxation=relaxation), optax.sgd(0.1))
    at = lambda factor, x, y: alignment(
        trainer, eqprop.Model(model.network, Scaled(model.readout, factor)), (x, y), key=KEY
    )
    strong, weak = at(1.0, x, y), at(1e-4, x, y)
    assert strong["cosine_hidden"] < 0.99 and strong["vanished_fraction"] == 0.0
    for name, value in strong.items():
        np.testing.assert_allclose(weak[name], value, rtol=1e-10 if dtype == jnp.float64 else 1e-4, err_msg=name)
    some = at(1.0, x, y.at[0].set(0.0))
    each = [at(1.0, jnp.stack([x[i]] * 3), jnp.stack([y[i]] * 3)) for i in (1, 2)]
    np.testing.assert_allclose(some["vanished_fraction"], 1 / 3, rtol=1e-6)
    for name in ("cosine_l1", "cosine_l2", "cosine_out", "cosine_hidden", "cosine_hidden_median"):
        np.testing.assert_allclose(some[name], (each[0][name] + each[1][name]) / 2, rtol=1e-4, err_msg=name)


def test_the_norm_bound_shortens_what_is_longer():
    """Each error vector above the bound gets its length, in its direction; the others are untouched; counted."""
    p = problem("asymmetric")
    free = free_phase(p.model, p.x)
    plain = respond(RecurrentBackprop(relaxation=SETTLE), p.model, p.x, p.y, free)
    lengths = np.asarray(jax.vmap(lambda d: jnp.linalg.norm(flat(d)))(plain.payload))
    bound = float(np.sort(lengths)[1])  # one of three is longer, one is equal
    bounded = respond(RecurrentBackprop(relaxation=SETTLE, norm_bound=bound * (1 + 1e-9)), p.model, p.x, p.y, free)
    factors = np.minimum(1.0, bound / lengths)
    expected = jax.tree.map(lambda d: d * factors.reshape(-1, 1), plain.payload)
    assert gap(bounded.payload, expected) < 1e-8
    np.testing.assert_array_equal(bounded.bounded, lengths > bound * (1 + 1e-9))
    trainer = Trainer(SETTLE, RecurrentBackprop(relaxation=SETTLE, norm_bound=bound * (1 + 1e-9)), optax.sgd(0.1))
    _, metrics = step(trainer, trainer.init(p.model, key=KEY), (p.x, p.y))
    np.testing.assert_allclose(metrics["bounded_fraction"], 1 / 3)


def member(seed):
    model_key, train_key, readout_key = jax.random.split(jax.random.key(seed), 3)
    model = eqprop.Model(chain(90.0, key=model_key), eqprop.SoftmaxReadout(3, 3, key=readout_key))
    return POPULATION.init(model, key=train_key)


POPULATION = Trainer(
    RELAX, FiniteNudge(stencil=eqprop.centred(0.1), relaxation=RELAX), optax.sgd(0.1, momentum=0.9), SkewHomeostasis()
)


def run(advance, trainer, state, steps=3):
    metrics = {}
    for k in range(steps):
        x = jax.random.normal(jax.random.fold_in(KEY, k), (4, 6))
        state, metrics = advance(trainer, state, (x, jnp.asarray([0, 1, 2, 0])))
    return state, metrics


def stacked(states):
    return jax.tree.map(lambda *v: jnp.stack(v) if eqx.is_array(v[0]) else v[0], *states)


def one_of(tree, index):
    return jax.tree.map(lambda v: v[index] if eqx.is_array(v) else v, tree)


def test_a_member_of_a_population_equals_the_lone_run():
    """Seeds as a leading axis: three steps of three members are the three runs."""
    states = [member(seed) for seed in range(3)]
    together = eqx.filter_jit(eqx.filter_vmap(Trainer.step, in_axes=(None, eqx.if_array(0), None)))
    population, metrics = run(together, POPULATION, stacked(states))
    for index in (0, 2):
        alone, lone_metrics = run(step, POPULATION, states[index])
        assert gap(arrays(one_of(population, index)), arrays(alone)) < TOL
        assert gap(one_of(metrics, index), lone_metrics) < TOL


def test_a_population_of_nudge_strengths():
    """Stencils stack: β as a leading axis of the trainer is one program."""
    radii, state = (0.05, 0.2), member(0)
    trainers = [eqx.tree_at(lambda t: t.estimator.stencil, POPULATION, eqprop.centred(radius)) for radius in radii]
    together = eqx.filter_jit(eqx.filter_vmap(Trainer.step, in_axes=(eqx.if_array(0), eqx.if_array(0), None)))
    population, _ = run(together, stacked(trainers), stacked([state, state]))
    for index, trainer in enumerate(trainers):
        alone, _ = run(step, trainer, state)
        assert gap(arrays(one_of(population, index)), arrays(alone)) < TOL


def test_a_step_is_traced_once():
    """Changing data, states and step numbers do not compile again."""
    state, _ = run(step, POPULATION, member(1), steps=1)
    traces = len(TRACES)
    run(step, POPULATION, state, steps=4)
    assert len(TRACES) == traces


def test_a_step_is_reproducible_and_its_noise_changes():
    """The key is folded with the step number: same state, same step; next step, new probes."""
    state = member(3)
    batch = jnp.ones((4, 6)), jnp.asarray([0, 1, 2, 0])
    first, again = step(POPULATION, state, batch), step(POPULATION, state, batch)
    assert gap(arrays(first), arrays(again)) == 0.0
    later = step(POPULATION, eqx.tree_at(lambda s: s.step, state, state.step + 1), batch)
    assert float(later[1]["homeostasis"]) != float(first[1]["homeostasis"])


@pytest.mark.parametrize(("name", "aligned"), [("symmetric", True), ("hopfield", True), ("asymmetric", False)])
def test_alignment(name, aligned):
    """Cosine one to the true error vectors on symmetric weights, and below it otherwise; asymmetry beside it."""
    p = problem(name)
    trainer = Trainer(SETTLE, TangentResponse(relaxation=SETTLE), optax.sgd(0.1))
    metrics = alignment(trainer, p.model, (p.x, p.y), key=KEY)
    names = {"functional_asymmetry", "vanished_fraction", "cosine_hidden", "cosine_hidden_median"}
    names |= {"cosine_l1", "cosine_l2", "cosine_out"}
    assert set(metrics) == names | ({"weight_angle"} if name != "hopfield" else set())
    if name != "hopfield":
        # The cosine of zero degrees is one to rounding, 1e-16: the angle is zero to its square root.
        assert (metrics["weight_angle"] < 1e-5) == aligned
    assert metrics["vanished_fraction"] == 0.0
    if aligned:
        assert all(abs(value - 1) < 1e-9 for key, value in metrics.items() if key.startswith("cosine"))
        assert metrics["functional_asymmetry"] == 0.0
    else:
        assert metrics["cosine_hidden"] < 0.99 and 0.1 < metrics["functional_asymmetry"] < 0.9
    with pytest.raises(ValueError, match="BackpropThroughTime estimates no error vector"):
        Trainer(SETTLE, BackpropThroughTime(relaxation=FixedSteps(3)), optax.sgd(0.1)).alignment(
            p.model, (p.x, p.y), key=KEY
        )


def test_an_estimator_without_a_free_phase_trains():
    """`OscillatingNudge` starts from rest: no free steps are spent, and the gradient is near RBP's at long periods."""
    p = problem("symmetric")
    estimator = OscillatingNudge(beta=0.1, period=100.0, warmup=1)
    results = {}
    for name, e in {"turning": estimator, "rbp": RecurrentBackprop(relaxation=RELAX)}.items():
        trainer = Trainer(RELAX, e, optax.sgd(1.0))
        new, metrics = step(trainer, trainer.init(p.model, key=KEY), (p.x, p.y))
        results[name] = jax.tree.map(lambda a, b: a - b, arrays(p.model), arrays(new.model))
        assert (metrics["free_steps"] == 0.0) == (name == "turning")
    # The lag is of order (ωτ)², with τ about 3.
    assert float(eqprop.metrics.cosine(results["turning"], results["rbp"])) > 0.99


OWN = {
    "nothing_said": lambda: eqprop.Model(Ring(jax.random.key(1)), eqprop.SoftmaxReadout(4, 3, key=KEY)),
    "own_activation": lambda: eqprop.Model(
        Tied(weights=0.15 * jax.random.normal(KEY, (4, 4))), eqprop.SoftmaxReadout(4, 3, key=KEY)
    ),
}


@pytest.mark.parametrize(
    ("method", "own"),
    [(FiniteNudge, "nothing_said"), (AsymmetricNudge, "own_activation"), (RecurrentBackprop, "own_activation")],
)
def test_networks_of_ones_own_train(method, own):
    """Subclasses of `AbstractNetwork`, one with activation and blocks of its own, learn three examples."""
    x, y = problem("asymmetric").x, jnp.asarray([0, 1, 2])
    estimator = (
        RecurrentBackprop(relaxation=RELAX) if method is RecurrentBackprop else method(eqprop.centred(0.01), RELAX)
    )
    trainer = Trainer(RELAX, estimator, optax.sgd(0.1, momentum=0.9), SkewHomeostasis(coefficient=0.01))
    state = trainer.init(OWN[own](), key=KEY)
    losses = []
    for _ in range(30):
        state, metrics = step(trainer, state, (x, y))
        losses.append(float(metrics["loss"]))
        assert metrics["unsettled_fraction"] == 0.0
    assert losses[-1] < 0.8 * losses[0]
