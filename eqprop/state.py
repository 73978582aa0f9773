"""The state of a training."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt32

from eqprop.model import Model


class TrainState(eqx.Module):
    """All that a training step reads and writes. It is a tree of plain arrays, which Equinox can write to a file."""

    model: Model
    optimiser: optax.OptState
    key_data: UInt32[Array, "..."]
    step: Int[Array, "..."]
    key_impl: str = eqx.field(static=True)

    def __init__(self, model: Model, optimiser: optax.OptState, key: PRNGKeyArray, step: Int[Array, "..."]):
        self.model, self.optimiser, self.step = model, optimiser, step
        self.key_data, self.key_impl = jax.random.key_data(key), str(jax.random.key_impl(key))

    def advanced(self, updated: Bool[Array, ""], model: Model, optimiser: optax.OptState) -> "TrainState":
        """The state one step later, with the new model and optimiser if it was `updated`, else with the old ones."""

        def choose(new: Any, old: Any) -> Any:
            return jnp.where(updated, new, old) if eqx.is_array(new) else new

        model, optimiser = jax.tree.map(choose, (model, optimiser), (self.model, self.optimiser))
        return TrainState(model, optimiser, self.key, self.step + 1)

    @property
    def key(self) -> PRNGKeyArray:
        """The key from which those of all steps are derived."""
        return jax.random.wrap_key_data(self.key_data, impl=self.key_impl)
