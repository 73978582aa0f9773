"""The training step: relax, respond, one gradient of a mean, optax; populations, unsettled examples, evaluation."""

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
    Sweep,
    TangentResponse,
    Trainer,
)
from helpers import SETTLE, Ring, Tied, chain, flat, free_phase, gap, gradient, problem, respond

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
    penalty = lambda m: ExactHomeostasis()(m.network, one, key=KEY)
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


class Still(eqx.Module):
    """Settles to rates equal to the input, whatever it is."""

    activation = staticmethod(eqprop.linear)

    def embed(self, x):
        return {"out": x}

    def drive(self, s):
        return {"out": 0.0 * s["out"]}


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

    def drive(self, s):
        return {"out": self.gain * s["out"] ** 2}


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


def test_a_batch_of_which_nothing_settles_leaves_the_model_alone():
    model = eqprop.Model(Explosive(jnp.ones(2)), eqprop.SquaredError())
    trainer = Trainer(RELAX, RecurrentBackprop(relaxation=RELAX), optax.sgd(1.0))
    new, metrics = step(trainer, trainer.init(model, key=KEY), (jnp.full((2, 2), 3.0), jnp.zeros((2, 2))))
    assert gap(new.model, model) == 0.0 and metrics["unsettled_fraction"] == 1.0 and metrics["gradient_norm"] == 0.0


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
    names = {"functional_asymmetry", "cosine_hidden", "cosine_l1", "cosine_l2", "cosine_out"}
    assert set(metrics) == names | ({"weight_angle"} if name != "hopfield" else set())
    if name != "hopfield":
        # The cosine of zero degrees is one to rounding, 1e-16: the angle is zero to its square root.
        assert (metrics["weight_angle"] < 1e-5) == aligned
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
    estimator = OscillatingNudge(radius=0.1, period=100.0, warmup=1)
    results = {}
    for name, e in {"turning": estimator, "rbp": RecurrentBackprop(relaxation=RELAX)}.items():
        trainer = Trainer(RELAX, e, optax.sgd(1.0))
        new, metrics = step(trainer, trainer.init(p.model, key=KEY), (p.x, p.y))
        results[name] = jax.tree.map(lambda a, b: a - b, arrays(p.model), arrays(new.model))
        assert (metrics["free_steps"] == 0.0) == (name == "turning")
    # The lag is of order (ωτ)², with τ about 3.
    assert float(eqprop.metrics.cosine(results["turning"], results["rbp"])) > 0.99


OWN = {
    "plain_module": lambda: eqprop.Model(Ring(jax.random.key(1)), eqprop.SoftmaxReadout(4, 3, key=KEY)),
    "subclass": lambda: eqprop.Model(
        Tied(weights=0.15 * jax.random.normal(KEY, (4, 4))), eqprop.SoftmaxReadout(4, 3, key=KEY)
    ),
}


@pytest.mark.parametrize("own", OWN)
@pytest.mark.parametrize("method", [FiniteNudge, RecurrentBackprop, AsymmetricNudge])
def test_networks_of_ones_own_train(own, method):
    """A plain module and a subclass of `AbstractNetwork`, unknown to the library, learn three examples."""
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


def test_no_example_waits_for_the_slowest_and_none_ends_elsewhere():
    """A batch of 16 whose examples leave after two steps for groups of 4 and then of one, against one to the end."""
    p = problem("asymmetric")
    x = jax.random.normal(jax.random.key(1), (16, *p.x.shape[1:]))
    y = jnp.arange(16) % 3
    relaxation = Sweep(tol=1e-12)
    estimator = FiniteNudge(stencil=eqprop.centred(0.1), relaxation=relaxation)
    trainers = [Trainer(relaxation, estimator, optax.sgd(0.1), patience=patience) for patience in (None, 2)]
    states = [trainer.init(p.model, key=jax.random.key(0)) for trainer in trainers]
    (waits, slow), (leaves, fast) = (
        eqx.filter_jit(t.step)(state, (x, y)) for t, state in zip(trainers, states, strict=True)
    )
    assert slow["unsettled_fraction"] == fast["unsettled_fraction"] == 0
    # What it did before it left is counted: the free phase goes on from there, the nudged phases begin again.
    assert fast["free_steps"] <= slow["free_steps"] + 3 and fast["nudged_steps"] > slow["nudged_steps"]
    for a, b in zip(jax.tree.leaves(waits.model), jax.tree.leaves(leaves.model), strict=True):
        if eqx.is_array(a):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


def test_patience_is_a_number_of_steps():
    with pytest.raises(ValueError, match="patience is 0; expected a number of steps"):
        Trainer(Sweep(), FiniteNudge(stencil=eqprop.centred(0.1), relaxation=Sweep()), optax.sgd(0.1), patience=0)
