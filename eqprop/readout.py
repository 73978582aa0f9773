"""What the output means: prediction, loss and teaching signal."""

import abc
import functools
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Bool, Float, Inexact, Integer, Num, PRNGKeyArray, Scalar, Shaped

from eqprop import _tree
from eqprop._tree import AnyState, product, real_linear

Target = Num[Array, " classes"] | Integer[Array, ""]
"""A vector of targets, of any numbers, or the number of a class: a scalar integer and nothing else is one."""

Batch = tuple[Shaped[Array | np.ndarray, "batch ..."], Array | np.ndarray]
"""Inputs, of JAX or of NumPy, and targets: class numbers `(batch,)`, or vectors of numbers `(batch, classes)`."""


class AbstractReadout(eqx.Module):
    """Reads layers of the rates. A readout of your own needs `layers`, `predict` and `loss`. All methods see one
    example, but `summary`."""

    layers: AbstractVar[tuple[str, ...]]
    """The layers that are read and nudged; all others count as hidden."""

    def device_kernel(self) -> Any:
        """The kernel that devices would hold; `None` without one."""
        return None

    @abc.abstractmethod
    def predict(self, s: AnyState) -> Inexact[Array, " classes"]:
        """Scores; the largest is the predicted class."""

    @abc.abstractmethod
    def loss(self, s: AnyState, y: Target) -> Scalar:
        """`ℓ(s, y)`, of one example, undivided."""

    def teaching(self, s: AnyState, y: Target) -> AnyState:
        """The teaching signal `∂ℓ/∂s`, analytic in `s`; zero outside `layers`. By default the gradient of `loss`."""
        return _tree.holomorphic_grad(lambda s: self.loss(s, y), s)

    def measures(self, scores: Float[Array, " classes"], y: Target) -> dict[str, Float[Array, ""]]:
        """What is measured of a prediction besides the loss, to be averaged over examples: by default whether the
        highest score is the class of `y` (`accuracy`), and whether one of the highest five is (`top5`). A single
        score tells no classes apart, and has neither."""
        if scores.size == 1:
            return {}
        right = {"accuracy": correct(scores, y), "top5": correct(scores, y, k=5)}
        return {name: value.astype(scores.dtype) for name, value in right.items()}

    def summary(self, means: Mapping[str, Any]) -> dict[str, Any]:
        """What is reported of the averages over a data set of `measures`, and of other metrics, which pass."""
        return dict(means)


class SquaredError(AbstractReadout):
    """`ℓ = ½ ‖s_out − y‖²`; the rates of the layer are the scores of classes, or, in a regression, the prediction."""

    layers: tuple[str, ...] = eqx.field(static=True)
    regression: bool = eqx.field(static=True)

    def __init__(self, *, layer: str = "out", regression: bool = False):
        """**Arguments:** `layer`, the one that is read; `regression`, whether targets are numbers to be predicted, so
        that `rmse` and `r2` are reported in place of accuracies."""
        self.layers, self.regression = (layer,), regression

    def predict(self, s: AnyState) -> Inexact[Array, " classes"]:
        return _layer(s, self.layers[0]).reshape(-1)

    def loss(self, s: AnyState, y: Target) -> Scalar:
        scores = self.predict(s)
        return 0.5 * jnp.sum((scores - _targets(y, scores)) ** 2)

    def teaching(self, s: AnyState, y: Target) -> AnyState:
        out = _layer(s, self.layers[0])
        return _only(s, self.layers[0], out - _targets(y, out.reshape(-1)).reshape(out.shape))

    def measures(self, scores: Float[Array, " classes"], y: Target) -> dict[str, Float[Array, ""]]:
        if not self.regression:
            return super().measures(scores, y)
        y = _targets(y, scores)
        return {"squared_error": jnp.mean((scores - y) ** 2), "target": jnp.mean(y), "target_square": jnp.mean(y**2)}

    def summary(self, means: Mapping[str, Any]) -> dict[str, Any]:
        """In a regression `rmse`, the root of the mean squared error of an output, and
        `r2 = 1 − (mean squared error) / (variance of the targets)`, over examples and outputs together."""
        if not self.regression:
            return super().summary(means)
        rest = dict(means)
        error, target, square = (rest.pop(name) for name in ("squared_error", "target", "target_square"))
        return {**rest, "rmse": error**0.5, "r2": 1 - error / (square - target**2)}


class JointReadout(AbstractReadout):
    """Several readouts at once, `ℓ = Σ ℓᵢ`, each nudging its own layer: deep supervision, or more than one head. The
    first one predicts."""

    readouts: tuple[AbstractReadout, ...]
    layers: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, *readouts: AbstractReadout):
        """**Arguments:** the readouts, at least one.

        **Raises:** `ValueError` for none.
        """
        if not readouts:
            raise ValueError("A JointReadout has no readouts. Give at least one.")
        self.readouts = readouts
        self.layers = tuple(dict.fromkeys(name for readout in readouts for name in readout.layers))

    def predict(self, s: AnyState) -> Inexact[Array, " classes"]:
        return self.readouts[0].predict(s)

    def loss(self, s: AnyState, y: Target) -> Scalar:
        return functools.reduce(jnp.add, [readout.loss(s, y) for readout in self.readouts])

    def teaching(self, s: AnyState, y: Target) -> AnyState:
        return functools.reduce(_tree.add, [readout.teaching(s, y) for readout in self.readouts])

    def measures(self, scores: Float[Array, " classes"], y: Target) -> dict[str, Float[Array, ""]]:
        return self.readouts[0].measures(scores, y)

    def summary(self, means: Mapping[str, Any]) -> dict[str, Any]:
        return self.readouts[0].summary(means)


class SoftmaxReadout(AbstractReadout):
    """Cross-entropy of a linear readout with weights of its own, outside the recurrent network:

        logits = s_out R + r,      ℓ = −Σ_k y_k log softmax(logits)_k,      ∂ℓ/∂s_out = R (softmax(logits) Σy − y).

    Its weights are trained by the ordinary gradient of `ℓ` at fixed rates.
    """

    kernel: Float[Array, "features classes"]
    bias: Float[Array, " classes"]
    layers: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, features: int, classes: int, *, layer: str = "out", key: PRNGKeyArray):
        """**Arguments:** `features`, the number of neurons in `layer`; `classes`; `key` for the LeCun-normal kernel."""
        self.kernel = jax.nn.initializers.lecun_normal()(key, (features, classes), float)
        self.bias = jnp.zeros(classes)
        self.layers = (layer,)

    def device_kernel(self) -> Any:
        return self.kernel

    def predict(self, s: AnyState) -> Float[Array, " classes"]:
        return self._logits(_layer(s, self.layers[0]))

    def loss(self, s: AnyState, y: Target) -> Scalar:
        scores = self.predict(s)
        return -jnp.sum(_targets(y, scores) * jax.nn.log_softmax(scores))

    def teaching(self, s: AnyState, y: Target) -> AnyState:
        out = _layer(s, self.layers[0])
        logits = self._logits(out)
        targets = _targets(y, logits)
        shift = jax.lax.stop_gradient(jnp.max(logits.real))
        weights = jnp.exp(logits - shift.astype(logits.dtype))
        error = weights / jnp.sum(weights) * jnp.sum(targets) - targets
        signal = real_linear(lambda z: product(z, self.kernel.T), error)
        return _only(s, self.layers[0], signal.reshape(out.shape))

    def _logits(self, out: Inexact[Array, "..."]) -> Inexact[Array, " classes"]:
        if out.size != self.kernel.shape[0]:
            raise ValueError(
                f"The layer {self.layers[0]!r} has {out.size} neurons, but the readout expects "
                f"{self.kernel.shape[0]}. Set the readout's features to {out.size}."
            )
        logits = real_linear(lambda z: product(z, self.kernel), out.reshape(-1))
        return logits + self.bias.astype(logits.dtype)


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


def correct(scores: Float[Array, " classes"], y: Target, k: int = 1) -> Bool[Array, ""]:
    """Whether the class of `y` is among the `k` highest scores; ties count against it.

    Scores that are not finite are never correct, and a class out of range never is.
    """
    label = y if is_class(y) else jnp.argmax(y)
    rivals = jnp.sum(scores >= scores[label]) - 1
    return (rivals < k) & jnp.all(jnp.isfinite(scores)) & is_valid(y, scores.size)


def is_class(y: Target) -> bool:
    """Whether a target is the number of a class: a scalar integer. Vectors of integers are targets like any others."""
    return y.ndim == 0 and jnp.issubdtype(y.dtype, jnp.integer)


def is_valid(y: Target, classes: int) -> Bool[Array, ""]:
    """Whether a target is one: a class within range, or a vector of finite numbers."""
    return (y >= 0) & (y < classes) if is_class(y) else jnp.all(jnp.isfinite(y))
