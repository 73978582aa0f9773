"""Networks trained for a study that looks into them: a run, reused if it is finished, and its checkpoints."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array
from omegaconf import DictConfig

from eqprop import Model, Trainer
from eqprop.run import runtime
from eqprop.run.build import Task, build
from eqprop.run.compose import compose
from eqprop.run.loop import model_of
from eqprop.run.record import run_path
from eqprop.run.study.records import Record, read_run
from eqprop.run.train import run

T = TypeVar("T")


class Trained(NamedTuple):
    """A finished run."""

    label: str
    cfg: DictConfig
    task: Task

    @property
    def record(self) -> Record:
        """Its record, for the provenance of what is measured on it."""
        return read_run(run_path(self.cfg), self.label)[0]


def train(label: str, words: Sequence[str]) -> Trained:
    """Run it, or find it.

    **Raises:** `FileNotFoundError` without the data set.
    """
    cfg = compose(words)
    run(cfg)
    runtime.configure(cfg)
    return Trained(label, cfg, build(cfg))


def models(trained: Trained) -> list[tuple[float, Model]]:
    """Epochs and models: the initial one, and those of the checkpoints that were kept."""
    cfg, task = trained.cfg, trained.task
    found = [(0.0, task.initial(cfg.seed).model)]
    for path in sorted((run_path(cfg) / "checkpoints").glob("step-*.eqx")):
        model, header = model_of(cfg, task, path)
        found.append((header["position"] / len(task.batches), model))
    return found


def images(trained: Trained, count: int) -> tuple[Array, Array]:
    """The first images of the validation split, else of the training images, and what the loss sees of their labels.

    Diagnostics look at these: the test images are measured once, by the run itself."""
    split = (trained.task.dataset.validation or trained.task.dataset.train)[:count]
    return trained.task.preprocess(split.images), trained.task.target(jnp.asarray(split.labels))


@eqx.filter_jit
def predicted(trainer: Trainer, model: Model, x: Array) -> Array:
    """The class that a model takes every image for, by the free phase of its trainer."""

    def one(x: Array) -> Array:
        field = model.network.at(x)
        settled = trainer.relaxation(field.drift, field.initial_state(), blocks=field.blocks)
        return jnp.argmax(model.readout.predict(field.rates(settled.state)))

    return jax.lax.map(one, x, batch_size=500)


@contextmanager
def precision(name: str) -> Iterator[jnp.dtype]:
    """float64 or float32 throughout, and back to what it was."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", name == "float64")
    try:
        yield jnp.dtype(name)
    finally:
        jax.config.update("jax_enable_x64", before)


@contextmanager
def short_compilation() -> Iterator[None]:
    """For programs that take longer to compile than to run: most optimisations are left out."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


def cast(tree: T, dtype: jnp.dtype) -> T:
    """The same numbers in another precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)
