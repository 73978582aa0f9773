"""A model, a network with its readout, and one example of it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, PyTree, Scalar, Shaped

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._tree import AnyState
from eqprop.network.base import AbstractNetwork, Field
from eqprop.readout import AbstractReadout, Batch, Target


class Model(eqx.Module):
    """A network with its readout: all that is trained."""

    network: AbstractNetwork
    readout: AbstractReadout

    def __check_init__(self):
        if not isinstance(self.network, AbstractNetwork):
            raise ValueError(
                f"{type(self.network).__name__} is no network. Let it subclass eqprop.AbstractNetwork, with the fields "
                "activation and holomorphic and the methods embed(x) -> current and drive(s, current) -> input."
            )

    def at(self, x: Shaped[Array, "..."], y: Target) -> "Example":
        """One example with its target; `x` is embedded here, and not again."""
        return self.bind(self.network.embed(x), y)

    def bind(self, current: PyTree, y: Target) -> "Example":
        """One example whose input has been embedded."""
        return Example(Field(self.network, current), self.readout, y)


class Example(eqx.Module):
    """One example of a model, with its target: what an estimator measures."""

    field: Field
    readout: AbstractReadout
    y: Target
    in_metric: bool = eqx.field(static=True, default=False)
    """Whether the nudge of each layer is divided by its weight in the metric (see `in_scale`)."""

    @property
    def blocks(self) -> Blocks | None:
        """The blocks of a nudged phase or a linear response, in which the layers that are read act on themselves."""
        blocks, layers = self.field.blocks, sorted(self.field.initial_state())
        return None if blocks is None else blocks.nudged(layers.index(name) for name in self.readout.layers)

    def teaching(self, s: AnyState) -> AnyState:
        """`∂ℓ/∂s` as it nudges the network."""
        signal = self.readout.teaching(s, self.y)
        return _tree.scale_layers(self._ratios(-1), signal) if self.in_metric else signal

    def loss(self, s: AnyState) -> Scalar:
        """`ℓ(s, y)`."""
        return self.readout.loss(s, self.y)

    def drift(self, u: AnyState, beta: Inexact[Array, ""] | float) -> AnyState:
        """`F(u) + β ∂ℓ/∂s`. Positive `β` repels the output from the target."""
        return _tree.add(self.field.drift(u), _tree.scale(beta, self.teaching(self.field.rates(u))))

    def nudged_in_metric(self) -> "Example":
        """This example under a nudge from which the metric brings the response to the scale of the true gradient.

        With `m A = (m A)ᵀ` and `M = diag(1/σ′) − A`, `Mᵀ = m M m⁻¹`, so that `M⁻ᵀ g = m M⁻¹ m⁻¹ g`: the true error
        vector is `m` times the response to a nudge by `m⁻¹ g`. Up to a common factor, a nudge of one layer is itself.
        """
        several = len({(self.field.network.metric or {}).get(name) for name in self.readout.layers}) > 1
        return Example(self.field, self.readout, self.y, in_metric=several)

    def in_scale(self, delta: AnyState) -> AnyState:
        """A response in the scale of the true gradient: `m_l / m_L` times itself, `L` being the first layer read."""
        return _tree.scale_layers(self._ratios(1), delta)

    def out_of_scale(self, delta: AnyState) -> AnyState:
        """The inverse of `in_scale`."""
        return _tree.scale_layers(self._ratios(-1), delta)

    def _ratios(self, power: int) -> dict[str, float] | None:
        metric = self.field.network.metric
        first = self.readout.layers[0]
        return None if metric is None else {name: (m / metric[first]) ** power for name, m in metric.items()}


def checked(model: Model, batch: Batch) -> tuple[Shaped[Array, "batch ..."], Array]:
    """The batch as arrays of JAX.

    **Raises:** `ValueError` for a single example, for an empty batch, for another number of targets than of inputs, for
    classes out of range where they can be seen, and for a drive whose layers or shapes are not those of the state.
    """
    x, y = map(jnp.asarray, batch)
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError(f"The input has shape {x.shape} and the target {y.shape}; expected a batch: x[None], y[None].")
    if x.shape[0] == 0 or x.shape[0] != y.shape[0]:
        raise ValueError(
            f"A batch has {x.shape[0]} inputs and {y.shape[0]} targets; expected as many of each, and at least one."
        )
    eqx.filter_eval_shape(_check_drive, model.network, x[0])
    if y.ndim == 1 and jnp.issubdtype(y.dtype, jnp.integer) and _tree.is_concrete(y):
        initial = lambda m, x: m.readout.predict(m.network.rates(m.network.at(x).initial_state()))
        classes = eqx.filter_eval_shape(initial, model, x[0]).size
        seen = np.asarray(y)  # with NumPy: JAX would trace the minimum of a batch that a compiled function closes over
        if not 0 <= seen.min() <= seen.max() < classes:
            raise ValueError(
                f"The classes of a batch go from {seen.min()} to {seen.max()}, but the readout has {classes}: "
                f"expected whole numbers from 0 to {classes - 1}. Count them from 0, or change the readout."
            )
    return x, y


def _check_drive(network: AbstractNetwork, x: Array) -> None:
    """**Raises:** `ValueError` if the drive is not of the layers and shapes of the state."""
    field = network.at(x)
    state = field.initial_state()
    expected = {name: v.shape for name, v in state.items()}
    try:
        given: Any = {name: v.shape for name, v in jax.eval_shape(field.drive, field.rates(state)).items()}
    except (AttributeError, TypeError, ValueError) as error:
        given = str(error)
    if given != expected:
        raise ValueError(
            f"The drive of a {type(network).__name__} has to have the layers and shapes of its state, {expected}; it "
            f"gave: {given}"
        )


def check_teaching(model: Model, x: Shaped[Array, "..."], y: Target) -> None:
    """**Raises:** `ValueError` if the teaching signal that a readout gives by hand is not the gradient of its loss, at
    the rates of one example before it relaxes."""
    s = model.network.rates(model.network.at(x).initial_state())
    given = model.readout.teaching(s, y)
    derived = AbstractReadout.teaching(model.readout, s, y)
    difference, scale = _tree.norm(_tree.subtract(given, derived)), _tree.norm(derived)
    eps = float(jnp.finfo(jnp.result_type(*given.values())).eps)
    if not float(difference) <= 1e3 * eps * max(float(scale), 1.0):
        raise ValueError(
            f"{type(model.readout).__name__}.teaching differs from the gradient of its loss by {float(difference):.3g} "
            f"of {float(scale):.3g}. Correct it, or leave it out: the gradient of loss is the default."
        )
