"""Gradients to be compared, and the float64 oracle that tells how wrong they are."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import eqprop as eq
from experiments.bench.settings import our_trainer

Params = dict[str, Any]


class Reference(NamedTuple):
    """The oracle's gradient of each batch, and the share of examples on which it does not exist."""

    gradients: list[Params]
    unsettled: float


def recorder() -> optax.GradientTransformation:
    """An optimiser that moves nothing and keeps the gradient as its state: what `Trainer.step` would have used."""

    def init(params: optax.Params) -> optax.OptState:
        return jax.tree.map(jnp.zeros_like, params)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        return jax.tree.map(jnp.zeros_like, updates), updates

    return optax.GradientTransformation(init, update)


def step_gradients(trainer: eq.Trainer, model: eq.Model, batches: list[tuple]) -> tuple[list[Params], float]:
    """The gradient of a training step with a `recorder` for the network's parameters, batch by batch, and the share of
    examples that did not settle."""
    start, step = trainer.init(model, key=jax.random.key(0)), eqx.filter_jit(trainer.step)
    gradients, unsettled = [], []
    for batch in batches:
        state, metrics = step(start, batch)
        gradient: Any = state.optimiser
        network = {"w": gradient.network.kernels, "b": gradient.network.biases}
        gradients.append(jax.tree.map(np.asarray, network))
        unsettled.append(float(metrics["unsettled_fraction"]))
    return gradients, float(np.mean(unsettled))


def reference(kind: str, estimator: str, model: eq.Model, batches: list[tuple]) -> Reference:
    """The same estimator in float64, relaxed until rounding. Its error is the task's: homeostasis is left out."""
    plain = jax.tree.map(np.asarray, (model, batches))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, np.float64 if a.dtype == np.float32 else a.dtype), plain)
        trainer = our_trainer(kind, estimator, recorder(), homeostatic=False, reference=True)
        return Reference(*step_gradients(trainer, *wide))


def median_error(gradients: list[Params], true: list[Params]) -> float:
    """The median of `relative_error` over batches. One image near a bifurcation, whose nudged state can end on either
    of two branches, decides over the error of its whole batch: hence no mean."""
    return float(np.median([relative_error(a, b) for a, b in zip(gradients, true, strict=True)]))


def relative_error(gradient: Params, true: Params) -> float:
    """`‖g − g*‖₂ / ‖g*‖₂` over the network's parameters."""
    pairs = list(zip(jax.tree.leaves(gradient), jax.tree.leaves(true), strict=True))
    wrong = sum(float(np.sum((np.asarray(a, np.float64) - b) ** 2)) for a, b in pairs)
    return float(np.sqrt(wrong / sum(float(np.sum(np.asarray(b, np.float64) ** 2)) for _, b in pairs)))
