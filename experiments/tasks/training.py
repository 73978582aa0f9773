"""Learning of classes that come in turns: one after another, with a small memory, with aligned classes, or at once."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eqprop import Model, SoftmaxReadout, Trainer, TrainState
from eqprop.companion import align_classes
from eqprop.data import Batches, batch_key, in_turns, subset
from eqprop.data.dataset import Split, join
from eqprop.run.build import Task
from eqprop.run.study.trained import predicted

TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))
"""The classes of every task, in order."""
KEPT = 25
"""One in so many images of an earlier class is kept: as Zhao et al. (CVPR 2020) keep 20 of 500 on CIFAR-100."""
ALONE, MEMORY, ALIGNED, AT_ONCE = ROWS = "one after another", "with a memory", "memory, aligned", "all at once"


def run(task: Task, row: str, epochs: int, seed: int) -> dict[str, Any]:
    """Accuracies `before` and `after` classes are aligned, by tasks learned and task; they differ in one row only. The
    `factors` that classes were aligned by, and the mean share of `unsettled` training examples."""
    model, test = task.initial(seed).model, task.dataset.test
    parts = [part.train for part in in_turns(task.dataset, TASKS)]
    memories = [subset(part, len(part) // KEPT, seed) for part in parts] if row in (MEMORY, ALIGNED) else []
    before, after, factors, shares = [], [], [], []
    for k, part in enumerate([task.dataset.train] if row == AT_ONCE else parts):
        model, unsettled = learn(task, model, join([part, *memories[:k]], part.source), epochs, seed)
        shares.append(unsettled)
        before.append(accuracies(task, model, test))
        after.append(before[-1])
        if row == ALIGNED and k > 0:
            assert isinstance(model.readout, SoftmaxReadout)
            readout, factor = aligned(model.readout, k)
            model = Model(model.network, readout)
            factors.append(factor)
            after[-1] = accuracies(task, model, test)
    found = {"before": np.array(before), "after": np.array(after)}
    return {**found, "factors": factors, "unsettled": float(np.mean(shares))}


def learn(task: Task, model: Model, split: Split, epochs: int, seed: int) -> tuple[Model, float]:
    """The model after so many epochs of a split, from a fresh optimiser; and the share of unsettled examples."""
    state, unsettled = task.trainer.init(model, key=jax.random.key(seed)), []
    batches = Batches(split, task.batches.batch_size, seed, drop_last=True)
    for epoch in range(epochs):
        for step, batch in enumerate(batches.epoch(epoch)):
            x = task.preprocess(batch.images, key=batch_key(seed, epoch, step))
            state, measured = _step(task.trainer, state, (x, task.target(jnp.asarray(batch.labels))))
            unsettled.append(measured["unsettled_fraction"])
    return state.model, float(np.mean(unsettled))


def aligned(readout: SoftmaxReadout, k: int) -> tuple[SoftmaxReadout, float]:
    """The readout with the classes of task `k` aligned to those of earlier tasks, and the factor."""
    new = align_classes(readout, sum(TASKS[:k], ()), TASKS[k])
    after, before = (float(jnp.linalg.norm(r.kernel[:, TASKS[k][0]])) for r in (new, readout))
    return new, after / before


def accuracies(task: Task, model: Model, split: Split) -> np.ndarray:
    """On the images of every task. All ten classes are choices, however many have been learned."""
    right = np.asarray(predicted(task.trainer, model, task.preprocess(split.images, key=None))) == split.labels
    return np.array([np.mean(right[np.isin(split.labels, classes)]) for classes in TASKS])


@eqx.filter_jit
def _step(trainer: Trainer, state: TrainState, batch: tuple[Array, Array]) -> tuple[TrainState, dict[str, Array]]:
    return trainer.step(state, batch)
