"""Examples on the device, and the rows of their batches."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, Shaped

Rows = Int[Array, "_ _"]
"""The examples of several batches, one batch a row."""


@runtime_checkable
class Images(Protocol):
    """Images with labels, such as a split of `eqprop.data`."""

    @property
    def images(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray: ...


class Examples(eqx.Module):
    """Inputs with their targets. Pixels stay the whole numbers that they are until a batch is taken."""

    x: Shaped[Array, "n ..."]
    y: Shaped[Array, "n ..."]
    maximum: float | None = eqx.field(static=True)
    """What pixels are divided by; `None`: inputs are taken as they are."""

    @classmethod
    def of(cls, name: str, data: Sequence[Any] | Images, like: "Examples | None" = None) -> "Examples":
        """Put a pair `(x, y)`, or images with labels, on the device; pixels are scaled as those of `like`.

        **Raises:** `ValueError` for arrays that are empty, of unequal lengths, or not of the kind of `like`.
        """
        is_images = isinstance(data, Images)
        if not is_images and len(data) != 2:
            raise ValueError(f"{name} has {len(data)} parts; expected a pair of arrays (x, y).")
        x, y = (jnp.asarray(part) for part in ((data.images, data.labels) if is_images else data))
        if x.ndim == 0 or x.shape[0] == 0 or x.shape[:1] != y.shape[:1]:
            shapes = f"inputs of shape {x.shape} and targets of shape {y.shape}"
            raise ValueError(f"{name} has {shapes}; expected as many of each, and at least one.")
        if like is not None:
            if (x.shape[1:], x.dtype) != (like.x.shape[1:], like.x.dtype):
                expected = f"{like.x.dtype} of shape {like.x.shape[1:]} as in data"
                raise ValueError(f"{name} has examples {x.dtype} of shape {x.shape[1:]}; expected {expected}.")
            return cls(x, y, like.maximum)
        scaled = is_images and jnp.issubdtype(x.dtype, jnp.integer)
        return cls(x, y, max(float(x.max()), 1.0) if scaled else None)

    def batch(self, rows: Int[Array, " batch"]) -> tuple[Shaped[Array, "batch ..."], Shaped[Array, "batch ..."]]:
        """What `Trainer.step` takes."""
        x = self.x[rows]
        return (x if self.maximum is None else x.astype(float) / self.maximum), self.y[rows]

    def chunks(self, batch_size: int, calls: int, key: PRNGKeyArray | None = None) -> list[Rows]:
        """All complete batches, `calls` of them at a time, in the order of `key` or as the examples are."""
        order = jnp.arange(len(self.x)) if key is None else jax.random.permutation(key, len(self.x))
        rows = order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)
        return [rows[start : start + calls] for start in range(0, len(rows), calls)]

    def leftover(self, batch_size: int) -> list[Rows]:
        """What no complete batch has, as one smaller batch, if there is any."""
        count = len(self.x) % batch_size
        return [jnp.arange(len(self.x) - count, len(self.x))[None]] if count else []
