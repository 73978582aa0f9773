"""Networks trained for a figure that looks into them: a run, reused if it is finished, and its checkpoints."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from hydra import compose, initialize_config_dir
from jaxtyping import Array
from omegaconf import DictConfig

from eqprop import Model
from experiments import runtime
from experiments.build import Task, build
from experiments.checkpoint import load
from experiments.cli import CONFIGS
from experiments.loop import Programs
from experiments.paper.drawing import Data, Missing, where
from experiments.record import environment, read_summary, run_path, settings
from experiments.train import run

T = TypeVar("T")

BRIEF = {
    "quick": ("experiment=fashion_mnist_settled", "epochs=1", "data.train_examples=3000"),
    "cpu": ("experiment=fashion_mnist_settled", "epochs=1", "data.train_examples=20000"),
    "full": ("experiment=fashion_mnist_settled", "epochs=2"),
}
"""The network that the figures of nudges and of settling look at: trained briefly, so that it is no longer the gentle
one of the initialisation."""


class Trained(NamedTuple):
    """A finished run."""

    cfg: DictConfig
    task: Task


def train(overrides: Sequence[str], rerun: bool = False) -> Trained:
    """Run it, or find it.

    **Raises:** `Missing` without the data set.
    """
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", [*overrides, f"run.overwrite={str(rerun).lower()}"])
    try:
        run(cfg)
        runtime.configure(cfg)
        return Trained(cfg, build(cfg))
    except FileNotFoundError as error:
        raise Missing(str(error)) from error


def models(trained: Trained) -> list[tuple[float, Model]]:
    """Epochs and models: the initial one, and those of the checkpoints that were kept."""
    cfg, task = trained
    state = task.initial(cfg.seed)
    sums = Programs(cfg, task).zeros(state, next(task.batches.epoch(0)))
    found = [(0.0, state.model)]
    for path in sorted((run_path(cfg) / "checkpoints").glob("step-*.eqx")):
        (saved, _), header = load(path, (state, sums))
        found.append((header["position"] / len(task.batches), saved.model))
    return found


def test_images(trained: Trained, count: int) -> tuple[Array, Array]:
    """The first images of the test split, and what the loss sees of their labels."""
    split = trained.task.dataset.test[:count]
    return trained.task.preprocess(split.images), trained.task.target(jnp.asarray(split.labels))


def provenance(trained: Trained) -> Data:
    """Where the network comes from."""
    cfg, task = trained
    summary = read_summary(run_path(cfg)) or {}
    return {
        "config": settings(cfg),
        "seeds": [cfg.seed],
        "test_accuracy": summary.get("test_accuracy"),
        "unsettled_fraction": summary.get("unsettled_fraction"),
        **where(environment(cfg, task.dataset.checksums)),
    }


@contextmanager
def precision(name: str) -> Iterator[jnp.dtype]:
    """float64 or float32 throughout, and back to what it was."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", name == "float64")
    try:
        yield jnp.dtype(name)
    finally:
        jax.config.update("jax_enable_x64", before)


def cast(tree: T, dtype: jnp.dtype) -> T:
    """The same numbers in another precision."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)
