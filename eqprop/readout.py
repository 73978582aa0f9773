"""What the output means: prediction, loss and teaching signal. And the model, a network with its readout."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Bool, Float, Inexact, Integer, Num, PRNGKeyArray, Scalar, Shaped

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._tree import AnyState, Drift, product, real_linear
from eqprop.network.base import AbstractNetwork

Target = Num[Array, " classes"] | Integer[Array, ""]
"""A vector of targets, of any numbers, or the number of a class: a scalar integer and nothing else is one."""

Batch = tuple[Shaped[Array, "batch ..."], Array]
"""Inputs, and targets: class numbers `(batch,)`, or vectors of numbers `(batch, classes)`."""


class AbstractReadout(eqx.Module):
    """Reads one layer of the rates. All methods see one example."""

    layer: AbstractVar[str]
    """The layer read and nudged."""

    @abc.abstractmethod
    def predict(self, s: AnyState) -> Float[Array, " classes"]:
        """Scores; the largest is the predicted class."""

    @abc.abstractmethod
    def loss(self, s: AnyState, y: Target) -> Scalar:
        """`ℓ(s, y)`, of one example, undivided."""

    def teaching(self, s: AnyState, y: Target) -> AnyState:
        """The teaching signal `∂ℓ/∂s`, analytic in `s`; zero outside `layer`. By default the gradient of `loss`."""
        return _tree.holomorphic_grad(lambda s: self.loss(s, y), s)


class SquaredError(AbstractReadout):
    """`ℓ = ½ ‖s_out − y‖²`; the rates of the layer are the scores."""

    layer: str = eqx.field(static=True, default="out")

    def predict(self, s: AnyState) -> Float[Array, " classes"]:
        return _layer(s, self.layer).reshape(-1)

    def loss(self, s: AnyState, y: Target) -> Scalar:
        scores = self.predict(s)
        return 0.5 * jnp.sum((scores - _targets(y, scores)) ** 2)

    def teaching(self, s: AnyState, y: Target) -> AnyState:
        out = _layer(s, self.layer)
        return _only(s, self.layer, out - _targets(y, out.reshape(-1)).reshape(out.shape))


class SoftmaxReadout(AbstractReadout):
    """Cross-entropy of a linear readout with weights of its own, outside the recurrent network:

        logits = s_out R + r,      ℓ = −Σ_k y_k log softmax(logits)_k,      ∂ℓ/∂s_out = R (softmax(logits) Σy − y).

    Its weights are trained by the ordinary gradient of `ℓ` at fixed rates.
    """

    kernel: Float[Array, "features classes"]
    bias: Float[Array, " classes"]
    layer: str = eqx.field(static=True)

    def __init__(self, features: int, classes: int, *, layer: str = "out", key: PRNGKeyArray):
        """**Arguments:** `features`, the number of neurons in `layer`; `classes`; `key` for the LeCun-normal kernel."""
        self.kernel = jax.nn.initializers.lecun_normal()(key, (features, classes), float)
        self.bias = jnp.zeros(classes)
        self.layer = layer

    def predict(self, s: AnyState) -> Float[Array, " classes"]:
        return self._logits(_layer(s, self.layer))

    def loss(self, s: AnyState, y: Target) -> Scalar:
        scores = self.predict(s)
        return -jnp.sum(_targets(y, scores) * jax.nn.log_softmax(scores))

    def teaching(self, s: AnyState, y: Target) -> AnyState:
        out = _layer(s, self.layer)
        logits = self._logits(out)
        targets = _targets(y, logits)
        shift = jax.lax.stop_gradient(jnp.max(logits.real))
        weights = jnp.exp(logits - shift.astype(logits.dtype))
        error = weights / jnp.sum(weights) * jnp.sum(targets) - targets
        signal = real_linear(lambda z: product(z, self.kernel.T), error)
        return _only(s, self.layer, signal.reshape(out.shape))

    def _logits(self, out: Inexact[Array, "..."]) -> Inexact[Array, " classes"]:
        if out.size != self.kernel.shape[0]:
            raise ValueError(
                f"The layer {self.layer!r} has {out.size} neurons, but the readout expects "
                f"{self.kernel.shape[0]}. Set the readout's features to {out.size}."
            )
        logits = real_linear(lambda z: product(z, self.kernel), out.reshape(-1))
        return logits + self.bias.astype(logits.dtype)


class Model(eqx.Module):
    """A network with its readout: all that is trained."""

    network: AbstractNetwork
    readout: AbstractReadout

    def __check_init__(self):
        if not isinstance(self.network, AbstractNetwork):
            raise ValueError(
                f"{type(self.network).__name__} is no network. Let it subclass eqprop.AbstractNetwork, with the fields "
                "activation and holomorphic and the methods embed(x) -> current and drive(s) -> input."
            )

    def blocks(self, u: AnyState) -> Blocks | None:
        """The network's blocks for a nudged phase or a linear response: the layer that is read, which the nudge lets
        act on itself, is in the first of them."""
        blocks = self.network.blocks
        return None if blocks is None else blocks.beginning_with(sorted(u).index(self.readout.layer))

    def in_scale(self, delta: AnyState) -> AnyState:
        """An error vector in the scale of the true gradient, `m_l / m_L` times that which a nudge of layer `L` causes.

        With `m A = (m A)ᵀ` and `M = diag(1/σ′) − A`, `Mᵀ = m M m⁻¹`, so that `M⁻ᵀ g = m M⁻¹ m⁻¹ g`: the true error
        vector is the response itself times the ratio of the metrics.
        """
        return _tree.scale_layers(self._ratios(1), delta)

    def out_of_scale(self, delta: AnyState) -> AnyState:
        """The inverse of `in_scale`."""
        return _tree.scale_layers(self._ratios(-1), delta)

    def _ratios(self, power: int) -> dict[str, float] | None:
        metric, layer = self.network.metric, self.readout.layer
        return None if metric is None else {name: (m / metric[layer]) ** power for name, m in metric.items()}

    def free_drift(self, x: Shaped[Array, "..."]) -> Drift:
        """`F(u)` for the input `x`; the current is computed once."""
        current = self.network.embed(x)
        return lambda u: self.network.drift(u, current)

    def nudged_drift(self, x: Shaped[Array, "..."], y: Target, beta: Inexact[Array, ""] | float) -> Drift:
        """`F(u) + β ∂ℓ/∂s`. Positive `β` repels the output from the target."""
        under = self.drift_under(x, y)
        return lambda u: under(beta, u)

    def drift_under(
        self, x: Shaped[Array, "..."], y: Target
    ) -> Callable[[Inexact[Array, ""] | float, AnyState], AnyState]:
        """`β, u ↦ F(u) + β ∂ℓ/∂s`, for nudges that change while the network runs; the current is computed once."""
        free = self.free_drift(x)
        return lambda beta, u: _tree.add(free(u), _tree.scale(beta, self.readout.teaching(self.network.rates(u), y)))

    def initial_state(self, x: Shaped[Array, "..."]) -> AnyState:
        """Potentials before relaxation."""
        return self.network.initial_state(self.network.embed(x))


def _layer(s: AnyState, layer: str) -> Inexact[Array, "..."]:
    if layer not in s:
        raise ValueError(f"The readout reads layer {layer!r}, but the network has {', '.join(s)}.")
    return s[layer]


def _only(s: AnyState, layer: str, signal: Inexact[Array, "..."]) -> AnyState:
    return {**_tree.zeros_like(s), layer: signal}


def _targets(y: Target, scores: Inexact[Array, " classes"]) -> Inexact[Array, " classes"]:
    if is_class(y):
        return jax.nn.one_hot(y, scores.size, dtype=scores.dtype)
    if y.shape != scores.shape:
        raise ValueError(
            f"The target has shape {y.shape}, but the readout has {scores.size} scores. Give a vector of "
            f"{scores.size} targets, or the number of a class as an integer."
        )
    return y.astype(scores.dtype)


def is_class(y: Target) -> bool:
    """Whether a target is the number of a class: a scalar integer. Vectors of integers are targets like any others."""
    return y.ndim == 0 and jnp.issubdtype(y.dtype, jnp.integer)


def is_valid(y: Target, classes: int) -> Bool[Array, ""]:
    """Whether a target is one: a class within range, or a vector of finite numbers."""
    return (y >= 0) & (y < classes) if is_class(y) else jnp.all(jnp.isfinite(y))


def checked(model: Model, batch: Batch) -> Batch:
    """**Raises:** `ValueError` for an empty batch, for another number of targets than of inputs, and for classes out of
    range where they can be seen."""
    x, y = batch
    if x.shape[0] == 0 or x.shape[0] != y.shape[0]:
        raise ValueError(
            f"A batch has {x.shape[0]} inputs and {y.shape[0]} targets; expected as many of each, and at least one."
        )
    if y.ndim == 1 and jnp.issubdtype(y.dtype, jnp.integer) and _tree.is_concrete(y):
        scores = lambda m, x: m.readout.predict(m.network.rates(m.initial_state(x)))
        classes = eqx.filter_eval_shape(scores, model, x[0]).size
        if not 0 <= int(y.min()) <= int(y.max()) < classes:
            raise ValueError(
                f"The classes of a batch go from {int(y.min())} to {int(y.max())}, but the readout has {classes}: "
                f"expected whole numbers from 0 to {classes - 1}. Count them from 0, or change the readout."
            )
    return x, y
