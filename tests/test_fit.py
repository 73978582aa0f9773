"""The loop around training steps: the same steps as by hand, however they are grouped, interrupted and resumed."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop as eq
from eqprop.data import digits
from eqprop.fit import grouped
from helpers import gap, problem, unchecked

KEY = jax.random.key(11)
TOL = 1e-12
"""The same arithmetic in two compiled programs."""


class Quick(eq.Trainer):
    """Trains the readout on the inputs themselves, with noise: compiled in no time."""

    def step(self, state, batch):
        x, y = batch
        noise = 1e-3 * jax.random.normal(jax.random.fold_in(state.key, state.step), x.shape)
        loss, gradient = eqx.filter_value_and_grad(self._loss)(state.model, (x + noise, y))
        updates, optimiser = self.optimiser.update(gradient, state.optimiser)
        new = eq.TrainState(eqx.apply_updates(state.model, updates), optimiser, state.key, state.step + 1)
        return new, {"loss": loss, "first": x[0, 0], "input_max": jnp.max(x)}

    def evaluate(self, model, batch, *, key=None):
        x, y = batch
        correct = jnp.argmax(logits(model, x), axis=1).astype(y.dtype) == y
        return {"accuracy": jnp.mean(correct, dtype=float), "input_max": jnp.max(x), "mean": jnp.mean(x)}

    def _loss(self, model, batch):
        scores = logits(model, batch[0])
        targets = jax.nn.one_hot(batch[1], scores.shape[1], dtype=float)
        return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(scores), axis=1))


def logits(model: Any, x):
    return x[..., :3] @ model.readout.kernel + model.readout.bias[None]


QUICK = Quick(eq.Picard(), eq.RecurrentBackprop(relaxation=eq.Picard()), optax.sgd(0.1, momentum=0.9))
MODEL = problem("asymmetric").model
X = np.random.default_rng(0).normal(size=(23, 6))
Y = np.arange(23) % 3


def quick(trainer=QUICK, model=MODEL, data=(X, Y), **settings) -> eq.History:
    return eq.fit(trainer, model, data, **{"epochs": 3, "batch_size": 4, "key": KEY, **settings})


def by_hand(trainer, model, batch, *, epochs, batch_size, size, shuffle=True):
    """The state after all steps, and the metrics of each."""
    state_key, order_key = jax.random.split(KEY)
    state, step, metrics = trainer.init(model, key=state_key), eqx.filter_jit(trainer.step), []
    for epoch in range(1, epochs + 1):
        order = np.arange(size)
        if shuffle:
            order = np.asarray(jax.random.permutation(jax.random.fold_in(order_key, epoch), size))
        for start in range(0, size - batch_size + 1, batch_size):
            state, one = step(state, batch(order[start : start + batch_size]))
            metrics.append(one)
    return state, metrics


def without_seconds(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history.records]


# The loop.


@pytest.mark.parametrize("shuffle", [True, False])
def test_fit_takes_the_steps_of_a_loop_by_hand(shuffle):
    """Five batches of four an epoch, three examples left out; records are means, and maxima of maxima."""
    batch = lambda rows: (jnp.asarray(X[rows]), jnp.asarray(Y[rows]))
    state, metrics = by_hand(QUICK, MODEL, batch, epochs=3, batch_size=4, size=23, shuffle=shuffle)
    history = quick(shuffle=shuffle)
    assert gap(history.state, state) < TOL and int(history.state.step) == 15
    for name, over in {"loss": np.mean, "first": np.mean, "input_max": np.max}.items():
        expected = over(np.array([one[name] for one in metrics]).reshape(3, 5), axis=1)
        np.testing.assert_allclose(history[name], expected, rtol=TOL)
    assert history["epoch"].tolist() == [1, 2, 3] and gap(history.model, state.model) < TOL
    assert np.all(history["seconds"] > 0)


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_how_steps_are_grouped_changes_nothing(steps_per_call):
    one, other = quick(), quick(steps_per_call=steps_per_call)
    assert gap(one.state, other.state) < TOL
    np.testing.assert_allclose(one["loss"], other["loss"], rtol=TOL)


def test_steps_with_convolutions_go_one_by_one_on_a_cpu():
    conv = eq.ConvNetwork.chain((8, 8, 1), [4], key=KEY)
    assert grouped(conv, 50) == 1 and grouped(MODEL.network, 50) == 50


def test_a_call_compiles_two_programs_at_most():
    """One for groups of steps and one for what remains of them, in all epochs and later calls."""
    traces = []

    class Counted(Quick):
        def step(self, state, batch):
            traces.append(batch)
            return super().step(state, batch)

    trainer = Counted(QUICK.relaxation, QUICK.estimator, QUICK.optimiser)
    for steps_per_call, programs in ((5, 1), (2, 3), (2, 3)):
        quick(trainer, steps_per_call=steps_per_call)
        assert len(traces) == programs


def test_the_model_given_is_not_changed():
    before = jax.tree.map(lambda leaf: np.array(leaf) if eqx.is_array(leaf) else leaf, MODEL)
    history = quick()
    assert gap(before, MODEL) == 0.0 and gap(before, history.model) > 0.0


def test_validation_is_of_every_example():
    """By the sizes of the batches, the leftover included, with the model of the epoch."""
    models = []
    x, y = X[:10], Y[:10]
    history = quick(validation=(x, y), on_epoch=lambda record, state: models.append(state.model))
    for model, record in zip(models, history.records, strict=True):
        whole = QUICK.evaluate(model, (jnp.asarray(x), jnp.asarray(y)))
        for name, value in whole.items():
            np.testing.assert_allclose(record[f"validation_{name}"], value, rtol=TOL)
    few = quick(epochs=1, validation=(X[:2], Y[:2]))  # fewer than a batch
    np.testing.assert_allclose(few["validation_mean"], X[:2].mean(), rtol=TOL)


def test_a_history_prints_as_a_table():
    history = quick(epochs=40, validation=(X, Y))
    lines = str(history).splitlines()
    assert lines[0].split() == ["epoch", "loss", "validation_accuracy", "seconds"]
    assert len(lines) == 13 and lines[1].split()[0] == "1" and lines[-1].split()[0] == "40"
    with pytest.raises(KeyError, match="accuracy was not recorded; there are epoch, .*validation_accuracy"):
        history["accuracy"]


# Interruption.


class Interrupted(Exception):
    pass


def interrupt(record, state):
    if record["epoch"] == 2:
        raise Interrupted


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    """To the last bit, in state and records, with groups of steps that do not divide an epoch."""
    settings: Any = {"validation": (X, Y), "steps_per_call": 2, "epochs": 4}
    whole = quick(**settings)
    with pytest.raises(Interrupted):
        quick(**settings, folder=tmp_path / "run", on_epoch=interrupt)
    seen = []
    resumed = quick(**settings, folder=tmp_path / "run", on_epoch=lambda record, _: seen.append(record["epoch"]))
    assert seen == [3, 4] and eqx.tree_equal(resumed.state, whole.state, typematch=True)
    assert without_seconds(resumed) == without_seconds(whole)
    again = quick(**settings, folder=tmp_path / "run", on_epoch=interrupt)  # nothing is left to do
    assert eqx.tree_equal(again.state, whole.state) and again.records == resumed.records
    more = quick(**{**settings, "epochs": 6}, folder=str(tmp_path / "run"))
    assert eqx.tree_equal(more.state, quick(**{**settings, "epochs": 6}).state)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["fit.npz"]


def test_a_callback_ends_the_training(tmp_path):
    stop = lambda record, state: record["epoch"] == 2 and int(state.step) == 10
    history = quick(folder=tmp_path, on_epoch=stop)
    assert len(history.records) == 2 and eqx.tree_equal(history.state, quick(epochs=2).state)


OTHERS = {
    "batch_size: '4' there, '5' here": {"batch_size": 5},
    "shuffle: 'True' there, 'False' here": {"shuffle": False},
    "key: ": {"key": jax.random.key(12)},
    r"data: .*\[23,6\].*\[20,6\]": {"data": (X[:20], Y[:20])},
    "other numbers of data: ": {"data": (X + 1.0, Y)},
    "validation: 'None' there": {"validation": (X, Y)},
    "trainer: .*max_steps=7": {
        "trainer": Quick(eq.Picard(), eq.RecurrentBackprop(relaxation=eq.Picard(max_steps=7)), QUICK.optimiser)
    },
    "optimiser: .*trace": {"trainer": Quick(QUICK.relaxation, QUICK.estimator, optax.sgd(0.1))},
    "other numbers of model: ": {"model": eqx.tree_at(lambda m: m.readout.bias, MODEL, jnp.ones(3))},
    "model: .* there, .*'l3'": {"model": eq.Model(eq.DenseNetwork.chain([6, 5, 4, 3, 3], key=KEY), MODEL.readout)},
}


def test_a_folder_of_another_run_is_refused(tmp_path):
    """With what differs, and untouched."""
    quick(folder=tmp_path)
    content = (tmp_path / "fit.npz").read_bytes()
    for message, other in OTHERS.items():
        with pytest.raises(ValueError, match=f"of another run, with other .*{message.removeprefix('other ')}"):
            quick(folder=tmp_path, **other)
    with pytest.raises(ValueError, match="has 3 epochs already; expected epochs=2"):
        quick(folder=tmp_path, epochs=2)
    assert (tmp_path / "fit.npz").read_bytes() == content


# What is refused.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs is 0; expected a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"steps_per_call": -1}, "steps_per_call is -1"),
        ({"batch_size": 24}, "batch_size is 24, but there are 23 examples"),
        ({"data": (X, Y[:5])}, r"data has inputs of shape \(23, 6\) and targets of shape \(5,\)"),
        ({"data": (X[:0], Y[:0])}, "data has inputs .* expected as many of each, and at least one"),
        ({"data": (X, Y, Y)}, "data has 3 parts; expected a pair"),
        ({"data": (1.0, 2)}, "data has inputs of shape \\(\\)"),
        ({"validation": (X[:, :2], Y)}, r"validation has examples float64 of shape \(2,\); expected float64 of shape"),
        ({"validation": (X, Y[:5])}, "validation has inputs"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message), unchecked():
        quick(folder=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


# Digits.


def test_pixels_are_scaled_alike():
    """Whole numbers divided by the largest of the training images, in validation too."""
    data = digits()
    model = eq.Model(eq.DenseNetwork.chain([64, 3], key=KEY), eq.SoftmaxReadout(3, 10, key=KEY))
    images = eq.fit(
        RowTrainer(QUICK.relaxation, QUICK.estimator, optax.sgd(0.0)),
        model,
        data.train,
        epochs=1,
        batch_size=100,
        validation=data.test,
        key=KEY,
    )
    assert images["input_max"] == 1.0 and images["validation_input_max"] <= 1.0
    np.testing.assert_allclose(images["validation_mean"], data.test.images[:, 0].mean() / 16, rtol=TOL)


class RowTrainer(Quick):
    """Sees the first row of every image."""

    def step(self, state, batch):
        return super().step(state, (batch[0][:, 0], batch[1] % 3))

    def evaluate(self, model, batch, *, key=None):
        return super().evaluate(model, (batch[0][:, 0], batch[1]))


def test_digits_are_learned(tmp_path):
    """By a relaxing network: 93 % of unseen digits after five epochs, the steps of the first of them as by hand."""
    network_key, readout_key = jax.random.split(jax.random.key(0))
    network = eq.DenseNetwork.chain([64, 48, 24], angle=0.0, feedback_gain=0.2, key=network_key)
    model = eq.Model(network, eq.SoftmaxReadout(24, 10, key=readout_key))
    relaxation = eq.FixedSteps(8)
    trainer = eq.Trainer(
        relaxation, eq.BackpropThroughTime(relaxation=relaxation), optax.sgd(0.3, momentum=0.9), keep_unsettled=True
    )
    data = digits()
    x, y = jnp.asarray(data.train.images).astype(float) / 16.0, jnp.asarray(data.train.labels)
    settings: Any = {"batch_size": 50, "validation": data.test[:350], "key": KEY, "folder": tmp_path}
    first = eq.fit(trainer, model, data.train, epochs=1, **settings)
    state, _ = by_hand(trainer, model, lambda rows: (x[rows], y[rows]), epochs=1, batch_size=50, size=len(y))
    assert gap(first.state, state) < 1e-10
    history = eq.fit(trainer, model, data.train, epochs=5, **settings)
    assert history["validation_accuracy"][-1] > 0.93
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    eq.save(tmp_path / "model.npz", history.model, {"accuracy": history["validation_accuracy"][-1]})
    assert eqx.tree_equal(eq.load(tmp_path / "model.npz"), history.model, typematch=True)
