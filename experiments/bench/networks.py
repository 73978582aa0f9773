"""The networks that are measured, trained from fixed seeds to an accuracy that the record states."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from omegaconf import DictConfig, OmegaConf

import eqprop as eq
from eqprop.data import Batches, Split
from eqprop.run.build import Task, build, instantiate
from eqprop.run.compose import compose
from eqprop.run.loop import model_of
from eqprop.run.record import CONFIG, read_summary

WHOLE = "data.validation=null"
"""Nothing is chosen by a benchmark."""
RECIPES = {
    "dense": ("experiment=fashion_mnist_settled", "epochs=1", WHOLE),
    "dense with homeostasis": (
        "experiment=fashion_mnist_homeostasis",
        "homeostasis.coefficient=10.0",
        "optimiser.learning_rate=1.0e-3",
        "epochs=1",
        WHOLE,
    ),
    "weak feedback": ("experiment=fashion_mnist_best", "epochs=1", WHOLE),
}
"""The published network tied at the start, the same from independent feedback weights, and the shipped one."""
QUICK = ("data=digits", "network.sizes=[64,16,10]", "batch_size=50", "epochs=4")
"""On the digits that the package ships, for a smoke test."""
CONV = "conv"
UNSEEN_EPOCH = 1000
"""Whose order decides the batches that are measured: one that no training here reaches."""


class Trained(NamedTuple):
    """A network with what it was trained by and on."""

    name: str
    model: eq.Model
    cfg: DictConfig
    task: Task
    accuracy: float
    """On all test images."""

    @property
    def beta(self) -> float:
        """The strength of its nudges."""
        return float(self.cfg.stencil.beta)

    @property
    def homeostasis(self) -> eq.AbstractHomeostasis:
        """Its own, or the exact one if it was trained without."""
        return self.task.trainer.homeostasis or eq.ExactHomeostasis()

    def batches(self, count: int, size: int | None = None) -> list[tuple[Array, Array]]:
        """Training batches of the network's own or a smaller size, as it reads them; targets are vectors."""
        size, classes = size or self.cfg.batch_size, self.cfg.data.num_classes
        epochs = (batch for epoch in range(count) for batch in self.task.batches.epoch(UNSEEN_EPOCH + epoch))
        found = []
        for (images, labels), _ in zip(epochs, range(count), strict=False):
            y = self.task.target(jnp.asarray(labels[:size]))
            y = jax.nn.one_hot(y, classes) if y.ndim == 1 else y
            found.append((self.task.preprocess(images[:size]), y))
        return found

    def facts(self) -> dict[str, Any]:
        """What the record says of it."""
        return {
            "test_accuracy": self.accuracy,
            "test_images": len(self.task.dataset.test),
            "data": self.cfg.data.label,
            "batch_size": self.cfg.batch_size,
            "beta": self.beta,
            "seed": self.cfg.seed,
        }


def made(overrides: Sequence[str]) -> tuple[DictConfig, Task]:
    """A shipped configuration with some overrides, and its objects."""
    cfg = compose(overrides)
    return cfg, build(cfg)


def recipe(name: str, *, quick: bool) -> tuple[str, ...]:
    """The overrides of one of `RECIPES`, on digits if `quick`."""
    return (*RECIPES[name], *(QUICK if quick else ()))


def advance(task: Task) -> Callable[[eq.TrainState, Any, Any], tuple[eq.TrainState, dict[str, Array]]]:
    """A training step on images and labels as they are stored."""
    return lambda state, images, labels: task.trainer.step(state, (task.preprocess(images), task.target(labels)))


def trained(name: str, *, quick: bool) -> Trained:
    """One of `RECIPES`, trained as it says."""
    cfg, task = made(recipe(name, quick=quick))
    state, step = task.initial(cfg.seed), eqx.filter_jit(advance(task))
    for images, labels in (batch for epoch in range(cfg.epochs) for batch in task.batches.epoch(epoch)):
        state, _ = step(state, images, labels)
    return Trained(name, state.model, cfg, task, evaluator(task)(state.model, task.dataset.test))


def from_run(folder: Path) -> Trained:
    """The convolutional network of a run folder, as its last checkpoint has it.

    **Raises:** `FileNotFoundError` or `ValueError` that says what the folder lacks.
    """
    cfg = _settings(folder)
    found = sorted((folder / "checkpoints").glob("step-*.eqx"))
    if not found:
        raise FileNotFoundError(f"{folder} has no checkpoint; train with: eqprop train experiment=cifar10_weak")
    task = build(cfg)
    if not isinstance(task.initial(cfg.seed).model.network, eq.ConvNetwork) or cfg.population != 1:
        raise ValueError(f"{folder} holds no lone run of a convolutional network; --conv-run needs one.")
    summary = read_summary(folder)
    if summary is None:
        raise ValueError(f"{folder} holds a run that is not finished; --conv-run needs its test accuracy.")
    return Trained(CONV, model_of(cfg, task, found[-1])[0], cfg, task, float(summary["test_accuracy"]))


def evaluator(task: Task) -> Callable[[eq.Model, Split], float]:
    """From a model and a split, the accuracy; compiled once."""
    program = eqx.filter_jit(lambda m, x, y: task.trainer.evaluate(m, (task.preprocess(x), task.target(y)))["accuracy"])

    def accuracy(model: eq.Model, split: Split) -> float:
        batches = Batches(split, min(1000, len(split)), 0, shuffle=False).epoch(0)
        return sum(len(y) * float(program(model, x, np.asarray(y))) for x, y in batches) / len(split)

    return accuracy


def sources(part: str, conv_run: Path | None, *, quick: bool) -> dict[str, dict[str, str]]:
    """The checksums of the files that a part of the benchmark reads, by the name of the data."""
    configs = []
    if part not in (CONV, "sparse"):
        overrides = () if part == "resident" else recipe("weak feedback", quick=quick)
        configs.append(compose(overrides))
    if conv_run is not None and part in (CONV, "curves"):
        configs.append(_settings(conv_run))
    return {cfg.data.label: dict(instantiate(cfg.data.load).checksums) for cfg in configs}


def _settings(folder: Path) -> DictConfig:
    path = folder / CONFIG
    if not path.exists():
        raise FileNotFoundError(f"{folder} is no run folder: it has no {CONFIG}. Give --conv-run a folder of a run.")
    # A run folder does not say how it is recorded, and nothing is recorded here.
    cfg = OmegaConf.merge(OmegaConf.load(path), {"run": {"keep": 1}})
    assert isinstance(cfg, DictConfig)
    return cfg
