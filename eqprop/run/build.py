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
import optax
from jaxtyping import Array
from omegaconf import DictConfig, OmegaConf

from eqprop import Model, Substrate, Trainer, TrainState
from eqprop.data import Batches, Dataset, Preprocess, hold_out, subset
from eqprop.device import AbstractSubstrate
from eqprop.readout import SquaredError
from eqprop.run.runtime import Placement


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
    shape = [*dataset.image_shape, 1][:3]  # images of one channel may lack its axis
    if dataset.num_classes != cfg.data.num_classes or shape != list(cfg.data.image_shape):
        raise ValueError(
            f"{dataset.name} has {dataset.num_classes} classes and images of shape {shape}, but "
            f"the configuration says data.num_classes={cfg.data.num_classes} and "
            f"data.image_shape={list(cfg.data.image_shape)}. Correct the configuration."
        )
    if (dataset.num_classes is None) != bool(cfg.readout.get("regression")):
        kind, word = ("targets", "regression") if dataset.num_classes is None else ("classes", "softmax")
        raise ValueError(f"{dataset.name} has {kind}, and the readout is not made for them: set readout={word}.")
    dataset = _chosen(dataset, cfg)
    batches = Batches(dataset.train, cfg.batch_size, cfg.data.seed, drop_last=True)
    schedule = instantiate(cfg.schedule)(1.0, *_decay_steps(cfg, len(batches)))
    model = _model(cfg, jax.random.key(cfg.seed))
    optimiser = instantiate(cfg.optimiser)(model, schedule)
    plasticity, homeostasis = instantiate(cfg.plasticity), instantiate(cfg.homeostasis)
    if plasticity is not None:
        if homeostasis is not None:
            raise ValueError("plasticity=same_update averages the gradient of homeostasis away: set homeostasis=none.")
        optimiser = optax.chain(plasticity(model), optimiser)
    trainer = Trainer(
        relaxation=instantiate(cfg.relaxation),
        estimator=instantiate(cfg.estimator),
        optimiser=optimiser,
        homeostasis=homeostasis,
        coarse=instantiate(cfg.coarse),
        keep_unsettled=cfg.keep_unsettled,
        warm_start=cfg.warm_start,
    ).on(device_of(cfg))

    def initial(seed: int) -> TrainState:
        key = jax.random.key(seed)
        return trainer.init(_model(cfg, key), key=jax.random.fold_in(key, 2))

    state = initial(cfg.seed)
    example = preprocess(dataset.train.images[: cfg.batch_size], key=None)
    labels = jax.numpy.asarray(dataset.train.labels[: cfg.batch_size])
    placement = Placement(cfg.population, cfg.batch_size, cfg.runtime.devices)
    task = Task(dataset, batches, preprocess, trainer, initial, _target(cfg), placement)
    # One abstract step finds every mismatch of shapes and every wrong combination at no cost.
    eqx.filter_eval_shape(trainer.step, state, (example, task.target(labels)))
    return task


def instantiate(node: DictConfig | None) -> Any:
    """Hydra's `instantiate`, with plain containers, and errors that people can read. A null is `None`."""
    if node is None:
        return None
    try:
        return hydra.utils.instantiate(node, _convert_="all")
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, (ValueError, OSError)):
            raise cause from None
        raise ValueError(f"{node.get('_target_')}: {cause or error}") from error


def own_chips(cfg: DictConfig) -> bool:
    """Whether every member of a population has a chip of its own, of the number of its seed."""
    return cfg.substrate is not None and cfg.substrate.get("chip") == "member"


def device_of(cfg: DictConfig) -> AbstractSubstrate | None:
    """The device; with a chip for every member, that of the first one.

    **Raises:** `ValueError` if the number of the chip is not a whole one.
    """
    if cfg.substrate is None or "chip" not in cfg.substrate:
        return instantiate(cfg.substrate)
    chip = cfg.seed if own_chips(cfg) else cfg.substrate.chip
    if type(chip) is not int or chip < 0:
        raise ValueError(
            f"substrate.chip is {chip}; expected a whole number of at least 0, or member, for a chip of its own for "
            "each member of a population."
        )
    device = instantiate(OmegaConf.merge(cfg.substrate, {"chip": chip}))  # pyright: ignore[reportArgumentType]
    if own_chips(cfg) and not isinstance(device, Substrate):
        raise ValueError(f"substrate.chip=member needs an eqprop.Substrate, not a {type(device).__name__}.")
    return device


def nothing(**ignored: Any) -> None:
    """What a choice of none makes, whatever an experiment sets of it."""
    del ignored


def _model(cfg: DictConfig, key: Array) -> Model:
    network_key, readout_key = jax.random.split(jax.random.fold_in(key, 1))
    network = instantiate(cfg.network)(key=network_key)
    readout = instantiate(cfg.readout)
    if not isinstance(readout, SquaredError):
        example = jax.ShapeDtypeStruct(tuple(cfg.data.image_shape), np.float32)
        shapes = jax.eval_shape(lambda x: network.at(x).initial_state(), example)
        layer = readout.keywords.get("layer", "out")
        if layer not in shapes:
            raise ValueError(f"The readout reads layer {layer!r}, but the network has {', '.join(shapes)}.")
        readout = readout(features=shapes[layer].size, key=readout_key)
    return Model(network, readout)


def _chosen(dataset: Dataset, cfg: DictConfig) -> Dataset:
    """The data set with validation images held out of the training images, and so many left as are asked for."""
    try:
        if cfg.data.validation is not None and dataset.validation is None:  # a folder of images may bring its own
            dataset = hold_out(dataset, cfg.data.validation, cfg.data.seed)
    except ValueError as error:
        raise ValueError(f"data.validation: {error}") from error
    size = cfg.data.train_examples
    if size is None:
        return dataset
    if type(size) is not int or not cfg.batch_size <= size <= len(dataset.train):
        raise ValueError(
            f"data.train_examples is {size}; expected a whole number from batch_size, {cfg.batch_size}, to the "
            f"{len(dataset.train)} examples there are, or null for all of them."
        )
    return dataclasses.replace(dataset, train=subset(dataset.train, size, cfg.data.seed))


def _decay_steps(cfg: DictConfig, batches: int) -> tuple[int, ...]:
    """How long a schedule falls: over the steps that follow a warm start, with which the optimiser starts anew."""
    constant = cfg.schedule._target_ == "optax.constant_schedule"
    return () if constant else (max(cfg.epochs * batches - cfg.warm_start, 1),)


def _target(cfg: DictConfig) -> Callable[[Array], Array]:
    smoothing, classes = cfg.label_smoothing, cfg.data.num_classes
    if not smoothing or classes is None:
        return lambda labels: labels
    return lambda labels: (1 - smoothing) * jax.nn.one_hot(labels, classes) + smoothing / classes


def _check_numbers(cfg: DictConfig) -> None:
    whole = {"epochs": 1, "population": 1, "batch_size": 1, "seed": 0}
    whole |= {"evaluation.batch_size": 1, "evaluation.every": 1, "evaluation.alignment_examples": 1, "run.keep": 1}
    for name, least in whole.items():
        given = OmegaConf.select(cfg, name)
        if type(given) is not int or given < least:
            raise ValueError(f"{name} is {given}; expected a whole number of at least {least}.")
    if cfg.evaluation.measure not in ("last", "best"):
        raise ValueError(f"evaluation.measure is {cfg.evaluation.measure}; expected last or best.")
    if cfg.evaluation.measure == "best" and cfg.data.validation is None:
        raise ValueError(
            "evaluation.measure=best needs validation images to choose by; set data.validation, as to 0.1."
        )
    for name, below in {"label_smoothing": 1.0, "max_unsettled": math.nextafter(1.0, 2.0)}.items():
        given = cfg[name]
        if not isinstance(given, (int, float)) or not 0 <= given < below:
            raise ValueError(f"{name} is {given}; expected a number from 0 to {'below ' * (below == 1.0)}1.")
