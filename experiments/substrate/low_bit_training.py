"""Training in place of weights that have few levels: remedies against oscillation, and the share that oscillates."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from eqprop import Model, Substrate, Trainer, TrainState
from eqprop.data import Batches, Preprocess, batch_key
from eqprop.run.build import Task
from eqprop.substrate import (
    Compander,
    FreezeConfident,
    Oscillation,
    Quantised,
    freeze_oscillating,
    oscillation_fraction,
)
from eqprop.substrate.kernels import kernels_of

LIMIT = 0.25
"""The weight of one device fully on."""
WINDOW = 100
"""Updates over which oscillating weights are counted: those that turn back at least twice."""
CALM = 0.7
"""The part of a training after which confident weights are frozen."""
MARGIN, ALL = 0.01, 0.5
"""The margin of `FreezeConfident`, and that which freezes nothing."""

IN_PLACE, STATISTICAL, FROZEN, CONFIDENT, COMPANDED = ROWS = (
    "in place",
    "statistical scale",
    "oscillating weights frozen",
    "confident weights frozen",
    "compander",
)

Windows = Iterator[tuple[Array, Array, Array]]
"""Images, labels and keys of so many batches."""


class Training:
    """One way to train weights of some bits, or of float precision (`bits=None`), on a task."""

    def __init__(self, task: Task, row: str, bits: int | None):
        self.task, self.row, self.bits = task, row, bits
        self._trainer = task.trainer
        if bits is not None and row == FROZEN:
            rule = optax.chain(task.trainer.optimiser, freeze_oscillating(levels(row, bits)))
            self._trainer = dataclasses.replace(task.trainer, optimiser=rule)
        self._levels = None if bits is None else levels(row, bits)
        self._compander = Compander(LIMIT) if row == COMPANDED else None

    def run(self, epochs: int, seed: int) -> tuple[TrainState, dict[str, Any]]:
        """The state in the end, and what was seen: accuracy on test images, the share of `oscillating` weights by
        window, the share of weights that are `frozen` in the end, and the mean share of `unsettled` examples."""
        parts, seen = list(windows(self.task, epochs, seed)), (self.task.preprocess, self.task.target)
        state = self._on(ALL).init(self.task.initial(seed).model, key=jax.random.key(seed))
        shares, unsettled, frozen = [], [], 0.0
        for k, part in enumerate(parts):
            calms = self.row == CONFIDENT and k >= math.floor(CALM * len(parts))
            trainer = self._on(MARGIN if calms else ALL)
            state, share, missed = _window(seen, (self._levels, self._compander), trainer, state, part)
            shares.append(float(share))
            unsettled.append(float(missed))
        if self.row == CONFIDENT and self._levels is not None:
            frozen = confident_fraction(kernels_of(state.model), self._levels)
        elif self.row == FROZEN:
            memory = state.optimiser[0][1]  # pyright: ignore[reportIndexIssue]
            assert isinstance(memory, Oscillation)
            frozen = float(memory.fraction(above=1.0))
        found = {"accuracy": self.accuracy(state), "oscillating": shares, "frozen": frozen}
        return state, {**found, "unsettled": float(np.mean(unsettled))}

    def accuracy(self, state: TrainState) -> float:
        """On test images, of a state of this training or of another one that is rounded as this one."""
        test = self.task.dataset.test
        batch = self.task.preprocess(test.images), self.task.target(jnp.asarray(test.labels))
        return float(_evaluate(self._on(ALL), state.model, batch)["accuracy"])

    def _on(self, margin: float) -> Trainer:
        return self._trainer if self.bits is None else self._trainer.on(device(self.row, self.bits, margin))


def levels(row: str, bits: int) -> Quantised:
    """The quantisation of a row."""
    return Quantised(bits=bits, limit=None if row == STATISTICAL else LIMIT)


def device(row: str, bits: int, margin: float = ALL) -> Substrate:
    """What a row runs on. The margin is an array, so that one program trains before and after weights are frozen."""
    few, companded = levels(row, bits), row == COMPANDED
    freeze = FreezeConfident(few, jnp.asarray(margin))
    return Substrate(aware=companded, range=Compander(LIMIT) if companded else None, weights=few, freeze=freeze)


def windows(task: Task, epochs: int, seed: int) -> Windows:
    """All batches of a training, so many at a time; a rest of the last epoch that fills no window is left out."""
    batches = Batches(task.dataset.train, task.batches.batch_size, seed, drop_last=True)
    taken = []
    for epoch in range(epochs):
        for step, batch in enumerate(batches.epoch(epoch)):
            taken.append((batch.images, batch.labels, batch_key(seed, epoch, step)))
            if len(taken) == WINDOW:
                images, labels, keys = zip(*taken, strict=True)
                yield jnp.asarray(np.stack(images)), jnp.asarray(np.stack(labels)), jnp.stack(keys)
                taken.clear()


def pooled_fraction(courses: dict[Any, Array], few: Quantised) -> Array:
    """The share of oscillating weights, of all kernels whose values after each update are given."""
    shares = jnp.stack([oscillation_fraction(course, few) for course in courses.values()])
    sizes = jnp.array([course[0].size for course in courses.values()], shares.dtype)
    return jnp.sum(shares * sizes) / jnp.sum(sizes)


def confident_fraction(kernels: dict[Any, Array], few: Quantised) -> float:
    """The share of weights that are farther than `MARGIN` from every threshold between two levels."""
    places = jnp.concatenate([few.place(w).ravel() for w in kernels.values()])
    return float(jnp.mean(jnp.abs(places - jnp.floor(places) - 0.5) > MARGIN))


@eqx.filter_jit
def _window(
    task: tuple[Preprocess, Callable[[Array], Array]],
    quantisation: tuple[Quantised | None, Compander | None],
    trainer: Trainer,
    state: TrainState,
    batches: tuple[Array, Array, Array],
) -> tuple[TrainState, Array, Array]:
    """The state after a window, the share of weights that oscillated in it, and that of unsettled examples."""
    (preprocess, target), (few, compander) = task, quantisation
    arrays, static = eqx.partition(state, eqx.is_array)

    def held(model: Model) -> dict[Any, Array]:
        kernels = {} if few is None else kernels_of(model)
        return kernels if compander is None else {name: compander.compress(w) for name, w in kernels.items()}

    def step(arrays: PyTree, batch: tuple[Array, Array, Array]) -> tuple[PyTree, tuple]:
        images, labels, key = batch
        state, measured = trainer.step(eqx.combine(arrays, static), (preprocess(images, key=key), target(labels)))
        return eqx.filter(state, eqx.is_array), (held(state.model), measured["unsettled_fraction"])

    arrays, (courses, unsettled) = jax.lax.scan(step, arrays, batches)
    share = jnp.zeros(()) if few is None else pooled_fraction(courses, few)
    return eqx.combine(arrays, static), share, jnp.mean(unsettled)


@eqx.filter_jit
def _evaluate(trainer: Trainer, model: Model, batch: tuple[Array, Array]) -> dict[str, Array]:
    return trainer.evaluate(model, batch)
