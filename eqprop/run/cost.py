"""What a run would cost its device: energy and time of an inference and of a training example."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array
from omegaconf import DictConfig

from eqprop import Trainer, TrainState
from eqprop.run.build import Task
from eqprop.run.population import over_members
from eqprop.substrate import Cost, Substrate

COSTS = ("energy_inference_joules", "time_inference_seconds", "energy_training_joules", "time_training_seconds")


def cost_of(cfg: DictConfig, task: Task, state: TrainState) -> dict[str, Any]:
    """The costs by the names of `COSTS`, a number or one a member, and `cost_reasons` where some of them is not a
    number, which is then left out; empty for a device without a technology. They are those of the first batch of
    training images at the end of training."""
    substrate = task.trainer.substrate
    if not isinstance(substrate, Substrate) or substrate.technology is None:
        return {}

    def one(trainer: Trainer, state: Any, images: Array, labels: Array) -> Cost:
        batch = task.preprocess(images, key=None), task.target(labels)
        assert isinstance(trainer.substrate, Substrate)
        return trainer.substrate.cost(
            trainer, state.model, batch, optimiser_state=state.optimiser, key=jax.random.fold_in(state.key, 0)
        )

    lifted = over_members(cfg, task.trainer, one)
    split = task.dataset.train[: cfg.batch_size]
    placed = task.placement.batch(np.asarray(split.images), split.targets)
    found: Cost = eqx.filter_jit(lambda *given: task.placement.everywhere(lifted(*given)))(state, *placed)
    sums = lambda parts: np.asarray(sum(np.asarray(value) for value in parts.values()))
    pairs = ((part.joules, part.seconds) for part in (found.inference, found.training))
    values = dict(zip(COSTS, (sums(parts) for pair in pairs for parts in pair), strict=True))
    known: dict[str, Any] = {name: value.tolist() for name, value in values.items() if np.all(np.isfinite(value))}
    return known | ({"cost_reasons": list(found.reasons)} if found.reasons else {})
