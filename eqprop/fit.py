"""A training from beginning to end: epochs of batches on the device, validation, records, resumption."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from eqprop._checkpoint import Checkpoint
from eqprop._examples import Examples, Images, Rows
from eqprop.model import Model, check_teaching, checked
from eqprop.network import AbstractNetwork, ConvNetwork
from eqprop.state import TrainState
from eqprop.train import Trainer

Record = dict[str, float | int]
"""What an epoch measured, by name."""

Metrics = dict[str, Float[Array, " _"]]
"""Scalars of each of several batches."""


@dataclass(frozen=True, eq=False, repr=False)
class History:
    """What a training leaves. It prints as a table; `history["validation_accuracy"]` is a column of its records."""

    state: TrainState
    records: list[Record]
    """One an epoch."""

    @property
    def model(self) -> Model:
        """The trained model."""
        return self.state.model

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.records[-1]:
            raise KeyError(f"{name} was not recorded; there are {', '.join(self.records[-1])}.")
        return np.array([record[name] for record in self.records])

    def __repr__(self) -> str:
        names = "epoch loss accuracy r2 validation_loss validation_accuracy validation_r2".split()
        names += ["unsettled_fraction", "seconds"]
        names = [name for name in names if name in self.records[-1]]
        shown = np.unique(np.linspace(0, len(self.records) - 1, 12).round().astype(int))
        rows = ["  ".join(f"{self.records[i][name]:>{len(name)}.4g}" for name in names) for i in shown]
        return "\n".join(["  ".join(names), *rows])


def fit(
    trainer: Trainer,
    model: Model,
    data: Sequence[Any] | Images,
    *,
    epochs: int,
    batch_size: int = 100,
    validation: Sequence[Any] | Images | None = None,
    folder: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[Record, TrainState], bool | None] | None = None,
    key: PRNGKeyArray,
    steps_per_call: int | None = None,
    shuffle: bool = True,
) -> History:
    """Train a model on arrays:

        history = eq.fit(trainer, model, (x, y), epochs=10, validation=(x_test, y_test), key=key)

    An epoch is an order of the examples, drawn from `key` and its number, cut into batches. An incomplete last batch is
    left out. The arrays are put on the device once, and have to fit there.

    **Arguments:**

    - `trainer`: its `step` is taken with every batch, its `evaluate` validates.
    - `model`: where training starts; it is not changed.
    - `data`: a pair of arrays `(x, y)`, inputs and targets as `Trainer.step` takes them. Or images with labels, such as
        a split of `eqprop.data`; pixels that are whole numbers are divided by the largest of `data`.
    - `epochs`: how many, with those that `folder` has already.
    - `batch_size`: examples a step.
    - `validation`: as `data`; all of it is evaluated after every epoch.
    - `folder`: where state and records are kept after every epoch. The same call, or one with more epochs, goes on from
        there, and ends with the same numbers as one that was never interrupted.
    - `on_epoch`: called with record and state after every epoch, once they are kept; `True` ends the training.
    - `key`: of all that is random, the order and the steps.
    - `steps_per_call`: steps that one call of the compiled program takes; no result depends on it, but for rounding.
        By default 50, and 1 for convolutional networks on a CPU, which are several times faster so.
    - `shuffle`: without it, examples stay in the order given.

    **Returns:** a `History`. A record has `epoch`, from 1, and `seconds`; the means of the step's metrics; those of the
    validation under `validation_…`, by examples. Of metrics that end in `_max` it has the largest.

    **Raises:** `ValueError` for arrays that are empty or of unequal lengths, a batch larger than the data, counts below
    one, classes out of range, a teaching signal that is not the gradient of the loss, and a folder of another run, or
    of more epochs. What optax holds within functions, such as a learning rate, is not compared.
    """
    steps = grouped(model.network, 50) if steps_per_call is None else steps_per_call
    for name, count in {"epochs": epochs, "batch_size": batch_size, "steps_per_call": steps}.items():
        if count < 1:
            raise ValueError(f"{name} is {count}; expected a whole number of at least 1.")
    examples = Examples.of("data", data)
    held_out = None if validation is None else Examples.of("validation", validation, examples)
    size = len(examples.x)
    if batch_size > size:
        raise ValueError(f"batch_size is {batch_size}, but there are {size} examples; expected no more than these.")
    checked(model, (examples.x, examples.y))
    check_teaching(model, *jax.tree.map(lambda v: v[0], examples.batch(jnp.arange(1))))
    state_key, order_key = jax.random.split(key)
    # Without weak types: a state that comes from a step or a file is one to the same program.
    strong = lambda leaf: leaf.astype(leaf.dtype) if getattr(leaf, "weak_type", False) else leaf
    state, records, checkpoint = jax.tree.map(strong, trainer.init(model, key=state_key)), [], None
    if folder is not None:
        settings = {"batch_size": batch_size, "shuffle": shuffle, "key": str(jax.random.key_data(key))}
        trees = {"data": examples, "validation": held_out, "trainer": trainer, "model": model}
        checkpoint = Checkpoint.of(folder, settings, {**trees, "optimiser": state.optimiser})
        state, records = checkpoint.kept(state)
        if len(records) > epochs:
            raise ValueError(f"{folder} has {len(records)} epochs already; expected epochs={epochs} to be no fewer.")
    while len(records) < epochs:
        begin, epoch = time.perf_counter(), len(records) + 1
        order = jax.random.fold_in(order_key, epoch) if shuffle else None
        measured = []
        for rows in examples.chunks(batch_size, steps, order):
            state, metrics = _train(trainer, state, examples, rows)
            measured.append((rows, metrics))
        record = {"epoch": epoch, **model.readout.summary(_means(measured))}
        if held_out is not None:
            chunks = [*held_out.chunks(batch_size, len(held_out.x)), *held_out.leftover(batch_size)]
            evaluated = _means([(rows, _evaluate(trainer, state.model, held_out, rows)) for rows in chunks])
            record |= {f"validation_{name}": value for name, value in model.readout.summary(evaluated).items()}
        records = [*records, {**record, "seconds": time.perf_counter() - begin}]
        if checkpoint is not None:
            checkpoint.keep(state, records)
        if on_epoch is not None and on_epoch(records[-1], state):
            break
    return History(state, records)


def grouped(network: AbstractNetwork, usual: int) -> int:
    """Steps that a call of the compiled program should take: `usual` for most networks, and one where there are
    convolutions, which XLA brings into the form of its fast code for CPUs outside of loops only."""
    return 1 if isinstance(network, ConvNetwork) and jax.default_backend() == "cpu" else usual


@eqx.filter_jit
def _train(trainer: Trainer, state: TrainState, examples: Examples, rows: Rows) -> tuple[TrainState, Metrics]:
    """One step a row."""
    arrays, rest = eqx.partition(state, eqx.is_array)

    def step(arrays, row):
        state, metrics = trainer.step(eqx.combine(arrays, rest), examples.batch(row))
        return eqx.filter(state, eqx.is_array), metrics

    # A lone step is no loop.
    arrays, metrics = jax.lax.scan(step, arrays, rows, unroll=len(rows) == 1)
    return eqx.combine(arrays, rest), metrics


@eqx.filter_jit
def _evaluate(trainer: Trainer, model: Model, examples: Examples, rows: Rows) -> Metrics:
    return jax.lax.map(lambda row: trainer.evaluate(model, examples.batch(row)), rows)


def _means(parts: list[tuple[Rows, Metrics]]) -> Record:
    """Of all batches, by their sizes."""
    weights = np.concatenate([np.full(rows.shape[0], rows.shape[1]) for rows, _ in parts])
    columns = {name: np.concatenate([np.asarray(metrics[name], float) for _, metrics in parts]) for name in parts[0][1]}
    one = lambda name, values: values.max() if name.endswith("_max") else np.average(values, weights=weights)
    return {name: float(one(name, values)) for name, values in columns.items()}
