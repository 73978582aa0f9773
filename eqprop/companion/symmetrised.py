"""Predictions that do not change when an image is turned or mirrored: copies of a network, averaged over a group."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PyTree, Scalar, Shaped

from eqprop._blocks import Blocks, Edge
from eqprop._tree import AnyState
from eqprop.network.base import AbstractNetwork, Activation
from eqprop.readout import AbstractReadout, Target

Transformation = Callable[[Shaped[Array, "..."]], Shaped[Array, "..."]]
"""Of one input, to one of the same shape."""

Group = Literal["rotations", "mirrors", "all"] | tuple[Transformation, ...]
"""Four rotations by right angles; an image and its mirror image, left to right; all eight symmetries of the square; or
all elements of a group, each once."""


def _turned(turns: int, mirrored: bool) -> Transformation:
    """A transformation of the first two axes."""
    return lambda x: jnp.rot90(jnp.flip(x, axis=1) if mirrored else x, turns)


GROUPS: dict[str, tuple[Transformation, ...]] = {
    "rotations": tuple(_turned(turns, False) for turns in range(4)),
    "mirrors": tuple(_turned(0, mirrored) for mirrored in (False, True)),
    "all": tuple(_turned(turns, mirrored) for mirrored in (False, True) for turns in range(4)),
}
"""The elements of the groups that have a name."""


class Symmetrised(AbstractNetwork):
    """Copies of one network, with the same parameters, of which each sees the input transformed by one element of a
    group `G`:

        drive(s, embed(x))_g = drive(s_g, embed(g x)),      g in G.

    Every layer of the state has a leading axis of `|G|` copies, in the order of the group. The copies do not act on
    each other. An element `h` of the group that transforms `x` permutes the copies and does no more. A function of the
    settled state that does not depend on their order is therefore invariant. `Averaged` makes one of a readout.

    Blocks, metric and reciprocal pairs are those of the network. A step of a relaxation costs `|G|` times that of the
    network. `ExactHomeostasis` does not take this network; `SkewHomeostasis` does.

    It is frame averaging with the whole group as the frame, Puny et al. (ICLR 2022, arXiv 2110.03336).
    """

    network: AbstractNetwork
    group: Group = eqx.field(static=True)

    def __init__(self, network: AbstractNetwork, group: Group = "all"):
        """**Arguments:**

        - `network`: any.
        - `group`: by its name, for images `(height, width)` or `(height, width, channels)`, which have to be square if
            they are rotated; or its elements as functions. That functions form a group is not checked: the identity has
            to be one of them, and any two after each other another one.

        **Raises:** `ValueError` for a name that is none, and for no elements.
        """
        if isinstance(group, str) and group not in GROUPS:
            raise ValueError(f"group is {group!r}; expected one of {', '.join(GROUPS)}, or a tuple of functions.")
        if not group:
            raise ValueError("group has no elements. Give at least the identity.")
        self.network, self.group = network, group

    @property
    def transformations(self) -> tuple[Transformation, ...]:
        """The elements of the group."""
        return GROUPS[self.group] if isinstance(self.group, str) else self.group

    @property
    def activation(self) -> Activation:  # pyright: ignore
        """That of the network."""
        return self.network.activation

    @property
    def holomorphic(self) -> bool:  # pyright: ignore
        """As the network is."""
        return self.network.holomorphic

    @property
    def metric(self) -> dict[str, float] | None:
        return self.network.metric

    @property
    def blocks(self) -> Blocks | None:
        return self.network.blocks

    def embed(self, x: Shaped[Array, "..."]) -> PyTree:
        """What the network computes of every transformed input, with a leading axis of `|G|`.

        **Raises:** `ValueError` for an input that is no image, or that has another shape when it is transformed.
        """
        if isinstance(self.group, str) and x.ndim not in (2, 3):
            raise ValueError(
                f"The input has shape {x.shape}, but {self.group} transform an image (height, width[, channels]). Do "
                "not flatten it: dense networks do so themselves."
            )
        seen = [transformation(x) for transformation in self.transformations]
        if any(image.shape != x.shape for image in seen):
            shapes = ", ".join(str(shape) for shape in dict.fromkeys(image.shape for image in seen))
            raise ValueError(
                f"The input has shape {x.shape}, but transformed it has {shapes}. Give square images, or a group that "
                "keeps the shape, such as 'mirrors'."
            )
        return jax.vmap(self.network.embed)(jnp.stack(seen))

    def drive(self, s: AnyState, current: PyTree) -> AnyState:
        return jax.vmap(self.network.drive)(s, current)

    def drift(self, u: AnyState, current: PyTree) -> AnyState:
        return jax.vmap(self.network.drift)(u, current)

    def initial_state(self, current: PyTree) -> AnyState:
        return jax.vmap(self.network.initial_state)(current)

    def rates(self, u: AnyState) -> AnyState:
        return jax.vmap(self.network.rates)(u)

    def device_kernels(self) -> dict[Edge, Any]:
        return self.network.device_kernels()

    def feedback_edges(self) -> tuple[Edge, ...]:
        return self.network.feedback_edges()

    def reciprocal_pairs(self) -> list[tuple[Array, Array]]:
        return self.network.reciprocal_pairs()


class Averaged(AbstractReadout):
    """A readout of the mean rates of all copies in a `Symmetrised` network:

        ℓ(s, y) = ℓ₀(s̄, y),      s̄ = Σ_g s_g / |G|,      ∂ℓ/∂s_g = ∂ℓ₀/∂s̄ / |G|.

    Every layer of `s` has the shape `(|G|, ...)`, and the wrapped readout sees layers of the shape `(...)`. The
    prediction of a settled model is invariant under the group, up to rounding and to what is left of the residual.

    Puny et al. (ICLR 2022, arXiv 2110.03336).
    """

    readout: AbstractReadout

    def __init__(self, readout: AbstractReadout):
        """**Arguments:** `readout`, of one copy: it decides on layers, loss and measures."""
        self.readout = readout

    @property
    def layers(self) -> tuple[str, ...]:  # pyright: ignore
        """Those of the readout."""
        return self.readout.layers

    def device_kernel(self) -> Any:
        return self.readout.device_kernel()

    def predict(self, s: AnyState) -> Inexact[Array, " classes"]:
        return self.readout.predict(_mean(s))

    def loss(self, s: AnyState, y: Target) -> Scalar:
        return self.readout.loss(_mean(s), y)

    def teaching(self, s: AnyState, y: Target) -> AnyState:
        """The teaching signal of the readout at the mean rates, over `|G|`, the same for every copy. It is analytic
        where that of the readout is."""
        (signal,) = jax.linear_transpose(_mean, s)(self.readout.teaching(_mean(s), y))
        return signal

    def measures(self, scores: Float[Array, " classes"], y: Target) -> dict[str, Float[Array, ""]]:
        return self.readout.measures(scores, y)

    def summary(self, means: Mapping[str, Any]) -> dict[str, Any]:
        return self.readout.summary(means)


def _mean(s: AnyState) -> AnyState:
    """Over the copies."""
    return jax.tree.map(lambda layer: jnp.mean(layer, axis=0), s)
