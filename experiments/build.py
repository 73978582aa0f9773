"""A configuration made into objects: data, models, trainer. What is wrong with it is said here, before any training."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import hydra.errors
import hydra.utils
import jax
import numpy as np
from jaxtyping import Array
from omegaconf import DictConfig, OmegaConf

from eqprop import Model, Trainer, TrainState
from eqprop.data import Batches, Dataset, Preprocess, Split, permutation
from eqprop.readout import SquaredError
from experiments.runtime import Placement


class Task(NamedTuple):
    """All that a training loop needs."""

    dataset: Dataset
    batches: Batches
    preprocess: Preprocess
    trainer: Trainer
    initial: Callable[[int], TrainState]
    """From a seed, the state to start from."""
    target: Callable[[Array], Array]
    """From labels, what the loss sees: themselves, or smoothed vectors."""
    placement: Placement


def build(cfg: DictConfig) -> Task:
    """**Raises:** `ValueError` or `FileNotFoundError` that says what to change."""
    _check_numbers(cfg)
    dataset: Dataset = instantiate(cfg.data.load)
    preprocess: Preprocess = instantiate(cfg.data.preprocess)
    if dataset.num_classes != cfg.data.num_classes or list(dataset.image_shape) != list(cfg.data.image_shape):
        raise ValueError(
            f"{dataset.name} has {dataset.num_classes} classes and images of shape {list(dataset.image_shape)}, but "
            f"the configuration says data.num_classes={cfg.data.num_classes} and "
            f"data.image_shape={list(cfg.data.image_shape)}. Correct the configuration."
        )
    dataset = _held_out(dataset, cfg)
    dataset = dataclasses.replace(dataset, train=_subset(dataset.train, cfg))
    batches = Batches(dataset.train, cfg.batch_size, cfg.data.seed, drop_last=True)
    schedule = instantiate(cfg.schedule)(1.0, *_decay_steps(cfg, len(batches)))
    model = _model(cfg, jax.random.key(cfg.seed))
    trainer = Trainer(
        relaxation=instantiate(cfg.relaxation),
        estimator=instantiate(cfg.estimator),
        optimiser=instantiate(cfg.optimiser)(model, schedule),
        homeostasis=None if cfg.homeostasis is None else instantiate(cfg.homeostasis),
        coarse=None if cfg.coarse is None else instantiate(cfg.coarse),
        keep_unsettled=cfg.keep_unsettled,
        warm_start=cfg.warm_start,
    ).on(None if cfg.substrate is None else instantiate(cfg.substrate))

    def initial(seed: int) -> TrainState:
        key = jax.random.key(seed)
        return trainer.init(_model(cfg, key), key=jax.random.fold_in(key, 2))

    state = initial(cfg.seed)
    example = preprocess(dataset.test.images[: cfg.batch_size], key=None)
    labels = jax.numpy.asarray(dataset.test.labels[: cfg.batch_size])
    placement = Placement(cfg.population, cfg.batch_size, cfg.runtime.devices)
    task = Task(dataset, batches, preprocess, trainer, initial, _target(cfg), placement)
    # One abstract step finds every mismatch of shapes and every wrong combination at no cost.
    eqx.filter_eval_shape(trainer.step, state, (example, task.target(labels)))
    return task


def instantiate(node: DictConfig) -> Any:
    """Hydra's `instantiate`, with plain containers, and errors that people can read."""
    try:
        return hydra.utils.instantiate(node, _convert_="all")
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, (ValueError, OSError)):
            raise cause from None
        raise ValueError(f"{node.get('_target_')}: {cause or error}") from error


def _model(cfg: DictConfig, key: Array) -> Model:
    network_key, readout_key = jax.random.split(jax.random.fold_in(key, 1))
    network = instantiate(cfg.network)(key=network_key)
    readout = instantiate(cfg.readout)
    if not isinstance(readout, SquaredError):
        example = jax.ShapeDtypeStruct(_input_shape(cfg), np.float32)
        shapes = jax.eval_shape(lambda x: network.at(x).initial_state(), example)
        layer = readout.keywords.get("layer", "out")
        if layer not in shapes:
            raise ValueError(f"The readout reads layer {layer!r}, but the network has {', '.join(shapes)}.")
        readout = readout(features=shapes[layer].size, key=readout_key)
    return Model(network, readout)


def _held_out(dataset: Dataset, cfg: DictConfig) -> Dataset:
    """The data set with the last `data.holdout` images of a fixed shuffle of the training images as its test."""
    size, train = cfg.data.holdout, dataset.train
    if size is None:
        return dataset
    if type(size) is not int or not 0 < size <= len(train) - cfg.batch_size:
        raise ValueError(
            f"data.holdout is {size}; expected a whole number from 1 to {len(train) - cfg.batch_size}, which leaves a "
            "batch to train on, or null for the test images."
        )
    order = permutation(len(train), cfg.data.seed)
    kept, held = np.sort(order[:-size]), np.sort(order[-size:])
    images = np.asarray(train.images)
    splits = (Split(images[rows], train.labels[rows], train.source) for rows in (kept, held))
    return dataclasses.replace(dataset, **dict(zip(("train", "test"), splits, strict=True)))


def _subset(train: Split, cfg: DictConfig) -> Split:
    """The first `data.train_examples` of a fixed shuffle in which the classes take turns, in the order of the files."""
    size = cfg.data.train_examples
    if size is None:
        return train
    if type(size) is not int or not cfg.batch_size <= size <= len(train):
        raise ValueError(
            f"data.train_examples is {size}; expected a whole number from batch_size, {cfg.batch_size}, to the "
            f"{len(train)} examples there are, or null for all of them."
        )
    order = permutation(len(train), cfg.data.seed)
    labels = train.labels[order]
    turn = np.empty(len(order), np.int64)  # how many of its class come before it
    for label in np.unique(labels):
        turn[labels == label] = np.arange(np.count_nonzero(labels == label))
    chosen = np.sort(order[np.argsort(turn, kind="stable")[:size]])
    return Split(np.asarray(train.images)[chosen], train.labels[chosen], train.source)


def _input_shape(cfg: DictConfig) -> tuple[int, ...]:
    flat = OmegaConf.select(cfg, "data.preprocess.flatten", default=False)
    return (cfg.data.input_size,) if flat else tuple(cfg.data.image_shape)


def _decay_steps(cfg: DictConfig, batches: int) -> tuple[int, ...]:
    return () if cfg.schedule._target_ == "optax.constant_schedule" else (cfg.epochs * batches,)


def _target(cfg: DictConfig) -> Callable[[Array], Array]:
    smoothing, classes = cfg.label_smoothing, cfg.data.num_classes
    if not smoothing:
        return lambda labels: labels
    return lambda labels: (1 - smoothing) * jax.nn.one_hot(labels, classes) + smoothing / classes


def _check_numbers(cfg: DictConfig) -> None:
    whole = {"epochs": 1, "population": 1, "batch_size": 1, "seed": 0}
    whole |= {"evaluation.batch_size": 1, "evaluation.every": 1, "evaluation.alignment_examples": 1, "run.keep": 1}
    for name, least in whole.items():
        given = OmegaConf.select(cfg, name)
        if type(given) is not int or given < least:
            raise ValueError(f"{name} is {given}; expected a whole number of at least {least}.")
    for name, below in {"label_smoothing": 1.0, "max_unsettled": math.nextafter(1.0, 2.0)}.items():
        given = cfg[name]
        if not isinstance(given, (int, float)) or not 0 <= given < below:
            raise ValueError(f"{name} is {given}; expected a number from 0 to {'below ' * (below == 1.0)}1.")
