"""Signatures of classes of chips: what training on chips of a class changes in the weights, added to other networks."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from eqprop import Model, Substrate, Trainer, TrainState, metrics
from eqprop.data import Batches, Preprocess, batch_key
from eqprop.run.build import Task
from eqprop.substrate import Mismatch

CHIPS = 32
"""Chips of a class on which a network is tuned, one after the other, an update each."""
UNSEEN = tuple(range(1000, 1020))
"""Numbers of the chips on which it is measured."""
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""By which signatures are multiplied."""
ITSELF, SAME, OTHER = NETWORKS = "itself", "same initial weights", "another seed"
"""Where a signature is added: to the network that it is from, and to two others that never saw a chip."""


def signature(tuned: Model, clean: Model) -> Model:
    """`θ_tuned − θ_clean`, of all parameters."""
    arrays = (eqx.filter(model, eqx.is_inexact_array) for model in (tuned, clean))
    return jax.tree.map(jnp.subtract, *arrays)


def patched(model: Model, change: Model, scale: float = 1.0) -> Model:
    """The model with `scale` times a signature added."""
    return eqx.apply_updates(model, jax.tree.map(lambda part: scale * part, change))


def random_signature(change: Model, seed: int) -> Model:
    """Normal numbers, as long as the signature array by array."""
    parts, structure = jax.tree.flatten(change)
    drawn = []
    for key, part in zip(jax.random.split(jax.random.key(seed), len(parts)), parts, strict=True):
        noise = jax.random.normal(key, part.shape, part.dtype)
        drawn.append(noise * (jnp.linalg.norm(part) / jnp.linalg.norm(noise)))
    return jax.tree.unflatten(structure, drawn)


class Class:
    """Chips whose devices, one for each direction, have a lognormal mismatch of one standard deviation `σ`. The program
    of a step and that of a measurement are compiled once for all classes."""

    def __init__(self, task: Task, sigma: float):
        self.task, self._sigma = task, jnp.asarray(sigma)

    def trained(self, state: TrainState, order: int, first: int, last: int) -> TrainState:
        """The state after epochs `first` to `last`, images in an order of its own."""
        batches = Batches(self.task.dataset.train, self.task.batches.batch_size, order, drop_last=True)
        seen = self.task.preprocess, self.task.target
        for epoch in range(first, last):
            for step, batch in enumerate(batches.epoch(epoch)):
                chip = (epoch * len(batches) + step) % CHIPS
                data = jnp.asarray(batch.images), jnp.asarray(batch.labels), batch_key(order, epoch, step)
                state = _step(seen, self.task.trainer, jnp.asarray(chip), self._sigma, state, data)
        return state

    def accuracy(self, model: Model, chips: Sequence[int] = UNSEEN) -> float:
        """The mean over chips, on test images."""
        test = self.task.dataset.test
        batch = self.task.preprocess(test.images), self.task.target(jnp.asarray(test.labels))
        return float(np.mean(_accuracies(self.task.trainer, jnp.asarray(chips), self._sigma, model, batch)))


def pair(task: Task, sigmas: Sequence[float], epochs: int, seed: int, order: int) -> tuple[Model, list[Model]]:
    """A network trained without mismatch, and one for each `σ` whose second half of the training was on chips."""
    ideal, half = Class(task, 0.0), epochs // 2
    state = task.trainer.init(task.initial(seed).model, key=jax.random.key(order))
    state = ideal.trained(state, order, 0, half)
    tuned = [Class(task, sigma).trained(state, order, half, epochs).model for sigma in sigmas]
    return ideal.trained(state, order, half, epochs).model, tuned


def run(task: Task, sigmas: Sequence[float], epochs: int, seed: int) -> dict[str, list[dict[str, Any]]]:
    """By network and class: accuracies on unseen chips alone, tuned itself, and by scale with the signature of the
    first network and with a random one; the cosine of the signature to that of the network's own tuning; accuracies
    without mismatch alone and with the signature."""
    begun = {ITSELF: (seed, seed), SAME: (seed, seed + 100), OTHER: (seed + 100, seed + 200)}
    trained = {name: pair(task, sigmas, epochs, *numbers) for name, numbers in begun.items()}
    first, first_tuned = trained[ITSELF]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in NETWORKS}
    for k, sigma in enumerate(sigmas):
        chips, ideal, change = Class(task, sigma), Class(task, 0.0), signature(first_tuned[k], first)
        for name, (alone, tuned) in trained.items():
            noise = random_signature(change, seed)
            courses = {
                what: [chips.accuracy(patched(alone, added, scale)) for scale in SCALES]
                for what, added in (("signature", change), ("random", noise))
            }
            without = {"alone": alone, "signature": patched(alone, change)}
            found[name].append(
                {
                    "alone": chips.accuracy(alone),
                    "tuned": chips.accuracy(tuned[k]),
                    **courses,
                    "cosine": float(metrics.cosine(change, signature(tuned[k], alone))),
                    "ideal": {what: ideal.accuracy(model, UNSEEN[:1]) for what, model in without.items()},
                }
            )
    return found


def _on(trainer: Trainer, chip: Array, sigma: Array) -> Trainer:
    return trainer.on(Substrate(chip=chip, mismatch=Mismatch(sigma, structure="per_direction")))


@eqx.filter_jit
def _step(
    task: tuple[Preprocess, Callable[[Array], Array]],
    trainer: Trainer,
    chip: Array,
    sigma: Array,
    state: TrainState,
    batch: tuple[Array, Array, Array],
) -> TrainState:
    (preprocess, target), (images, labels, key) = task, batch
    return _on(trainer, chip, sigma).step(state, (preprocess(images, key=key), target(labels)))[0]


@eqx.filter_jit
def _accuracies(trainer: Trainer, chips: Array, sigma: Array, model: Model, batch: tuple[Array, Array]) -> Array:
    return jax.lax.map(lambda chip: _on(trainer, chip, sigma).evaluate(model, batch)["accuracy"], chips)
