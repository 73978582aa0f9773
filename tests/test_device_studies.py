"""Trainings of the studies of devices, on a tiny network: what they count and add, by hand and by loops."""

import math
from collections.abc import Iterator

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop
from eqprop.data import Batches, batch_key
from eqprop.run.build import Task, build
from eqprop.run.study.trained import short_compilation
from eqprop.substrate import Compander, Quantised
from eqprop.substrate.kernels import kernels_of
from experiments.substrate import low_bit_training as few, signature_training as chips
from runs import TINY, as_users_run, configuration

LEVELS = Quantised(bits=2, limit=3.0)
"""Levels at the whole numbers from -3 to 3."""


@pytest.fixture
def task() -> Iterator[Task]:
    """A tiny one, with the types of a run."""
    with as_users_run(), short_compilation():
        yield build(configuration(*TINY))


def model(*sizes: int, seed: int = 0) -> eqprop.Model:
    key, other = jax.random.split(jax.random.key(seed))
    return eqprop.Model(eqprop.DenseNetwork.chain(sizes, key=key), eqprop.SoftmaxReadout(sizes[-1], 3, key=other))


# Weights of few levels.


def test_shares_of_several_kernels():
    """One of two weights of the first kernel turns back, and one of six of the second: two of eight."""
    still = jnp.zeros((5, 6))
    turning = jnp.array([0.0, 1.0, 0.0, 1.0, 0.0])
    courses = {"a": jnp.stack([turning, jnp.arange(5.0) / 2], axis=1), "b": still.at[:, 2].set(turning)}
    assert float(few.pooled_fraction(courses, LEVELS)) == pytest.approx(2 / 8)
    places = {"a": jnp.array([0.0, 0.495, 0.52]), "b": jnp.array([[1.505, -0.498]])}  # three within a hundredth
    assert few.confident_fraction(places, LEVELS) == pytest.approx(2 / 5)


@pytest.mark.parametrize("row", [few.IN_PLACE, few.COMPANDED])
def test_a_training_in_place(task, monkeypatch, row):
    """Against a loop of steps on a device without any remedy, whose jumps are counted in NumPy."""
    monkeypatch.setattr(few, "WINDOW", 4)
    state, found = few.Training(task, row, 1).run(2, 3)
    companded, levels = row == few.COMPANDED, few.levels(row, 1)
    device = eqprop.Substrate(aware=companded, range=Compander(few.LIMIT) if companded else None, weights=levels)
    trainer = task.trainer.on(device)
    expected, course = trainer.init(task.initial(3).model, key=jax.random.key(3)), []
    step = eqx.filter_jit(trainer.step)
    batches = Batches(task.dataset.train, task.batches.batch_size, 3, drop_last=True)
    for epoch in range(2):
        for k, batch in enumerate(batches.epoch(epoch)):
            x = task.preprocess(batch.images, key=batch_key(3, epoch, k))
            expected, _ = step(expected, (x, task.target(jnp.asarray(batch.labels))))
            kernels = kernels_of(device.deploy(expected.model)).values()
            course.append(np.concatenate([np.ravel(w) for w in kernels]) / few.LIMIT)
    for ours, theirs in zip(jax.tree.leaves(state.model), jax.tree.leaves(expected.model), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert len(found["oscillating"]) == 2 and found["frozen"] == 0.0
    for k, share in enumerate(found["oscillating"]):
        jumps = np.sign(np.diff(np.round(course[4 * k : 4 * k + 4]), axis=0)).T
        turns = [any(a * b < 0 for a, b in zip(j[j != 0], j[j != 0][1:], strict=False)) for j in jumps]
        assert share == pytest.approx(np.mean(turns), abs=2 / len(turns))


def test_confident_weights_are_frozen_in_the_end(task, monkeypatch):
    """From the beginning, where that is asked for: weights away from thresholds end where they began."""
    monkeypatch.setattr(few, "WINDOW", 4)
    monkeypatch.setattr(few, "CALM", 0.0)
    state, found = few.Training(task, few.CONFIDENT, 2).run(1, 0)
    before, after = kernels_of(task.initial(0).model), kernels_of(state.model)
    levels, moved = few.levels(few.CONFIDENT, 2), 0
    for name, w in before.items():
        place = np.asarray(levels.place(w))
        held = np.abs(place - np.floor(place) - 0.5) > few.MARGIN
        np.testing.assert_array_equal(np.asarray(after[name])[held], np.asarray(w)[held])
        moved += int(np.sum(np.asarray(after[name]) != np.asarray(w)))
    assert moved > 0 and found["frozen"] > 0.95


# Signatures.


def test_a_signature_is_a_difference():
    """Added to the clean network it is the tuned one, half of it is half way, none of it changes nothing."""
    clean, tuned = model(4, 6, 5), model(4, 6, 5, seed=1)
    change = chips.signature(tuned, clean)
    parts = lambda m: jax.tree.leaves(eqx.filter(m, eqx.is_inexact_array))
    for scale in (0.0, 0.5, 1.0):
        for found, a, b in zip(parts(chips.patched(clean, change, scale)), parts(clean), parts(tuned), strict=True):
            np.testing.assert_allclose(found, a + scale * (b - a), atol=1e-14)
    assert eqprop.metrics.cosine(change, change) == pytest.approx(1.0)
    assert eqprop.metrics.cosine(change, jax.tree.map(lambda v: -2 * v, change)) == pytest.approx(-1.0)
    assert math.isnan(eqprop.metrics.cosine(change, chips.signature(clean, clean)))


def test_a_random_signature_is_as_long_array_by_array():
    change = chips.signature(model(4, 60, 50), model(4, 60, 50, seed=1))
    drawn, other = chips.random_signature(change, 0), chips.random_signature(change, 1)
    for a, b in zip(jax.tree.leaves(change), jax.tree.leaves(drawn), strict=True):
        assert float(jnp.linalg.norm(b)) == pytest.approx(float(jnp.linalg.norm(a)))
    count = sum(part.size for part in jax.tree.leaves(change))
    assert abs(eqprop.metrics.cosine(change, drawn)) < 10 / count**0.5 > abs(eqprop.metrics.cosine(drawn, other))


def test_a_class_without_mismatch_has_no_signature(task):
    """The tuned network is the clean one to the last bit, and a chip of the class is no device at all."""
    clean, (tuned, other) = chips.pair(task, (0.0, 1.0), epochs=2, seed=0, order=1)
    for part in jax.tree.leaves(chips.signature(tuned, clean)):
        np.testing.assert_array_equal(part, 0.0)
    assert eqprop.metrics.cosine(chips.signature(other, clean), chips.signature(other, clean)) == pytest.approx(1.0)
    batch = task.preprocess(task.dataset.test.images), task.target(jnp.asarray(task.dataset.test.labels))
    plain = float(eqx.filter_jit(task.trainer.evaluate)(clean, batch)["accuracy"])
    assert chips.Class(task, 0.0).accuracy(clean, (7, 8)) == pytest.approx(plain)


def test_no_chip_is_seen_in_training():
    assert not set(chips.UNSEEN) & set(range(chips.CHIPS))
