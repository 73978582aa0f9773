"""The published convolutional network: 3x3 convolutions, softmax pooling, feedback through the transposed map."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, Shaped

from eqprop import _tree
from eqprop._blocks import Blocks, Edge
from eqprop._tree import AnyState, precision, real_linear
from eqprop.activation import dsilu
from eqprop.network.base import AbstractNetwork, Activation, check_gain, is_analytic, level_metric
from eqprop.network.graph import INPUT, coloured, rotate, scaled

WINDOW = 2
"""Pooling windows are 2x2 with stride 2."""


class ConvNetwork(AbstractNetwork):
    """A chain `in → conv1 ⇄ conv2 ⇄ … ⇄ out` of convolutions `C` and softmax pooling `P`. With `a` before `b`:

        drive(s)_b ∋ P(C_ab(s_a)),      drive(s)_a ∋ γ ∂/∂s_a ⟨P(C_ba(s_a)), s_b⟩ at fixed s_b.

    The feedback of `b` into `a` is the transposed map of "convolve, then pool" at the present rates of `a`, with
    kernels of its own. States are `(height, width, channels)`. All convolutions are 3x3, padded to the same size
    except the last, which is unpadded. Biases live in the current: softmax pooling passes a constant through,
    `P(v + b) = P(v) + b`. With tied kernels `m A` is symmetric for the metric `m = γ^level`, `γ` being `feedback_gain`.

    Laborieux & Zenke (ICLR 2024); the defaults are theirs.
    """

    kernels: dict[Edge, Float[Array, "3 3 _ _"]]
    """`(3, 3, channels of a, channels of b)` of `(a, b)`, and for feedback in the same orientation of `(b, a)`."""
    biases: dict[str, Float[Array, " _"]]
    """One bias a channel."""
    activation: Activation = eqx.field(static=True)
    image_shape: tuple[int, int, int] = eqx.field(static=True)
    feedback_gain: float = eqx.field(static=True)
    holomorphic: bool = eqx.field(static=True)

    def __init__(
        self,
        image_shape: Sequence[int] = (32, 32, 3),
        channels: Sequence[int] = (128, 256, 512, 512),
        *,
        angle: float = 90.0,
        feedback_gain: float = 1.0,
        init_scale: float = 1.0,
        activation: Activation = dsilu,
        holomorphic: bool | None = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `image_shape`: `(height, width, channels)` of an example.
        - `channels`: of each convolution; the last layer is `out`.
        - `angle`: degrees between feedback and forward kernels at the start; 0 ties them, 90 is independent.
        - `feedback_gain`: `γ`, above 0 and up to 1.
        - `init_scale`: factor of the kernels at the start. Weak feedback leaves room for more than 1.
        - `activation`, `holomorphic`: as for `DenseNetwork`.
        - `key`: kernels are drawn LeCun-normal times `init_scale`, biases are zero.

        **Raises:** `ValueError` if the images are too small or uneven for that many poolings.
        """
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape is {tuple(image_shape)}; give (height, width, channels).")
        names = _names(channels)
        for extent in image_shape[:2]:
            _check_extent(extent, len(channels))
        widths = dict(zip(names, [image_shape[2], *channels], strict=True))
        init = jax.nn.initializers.lecun_normal()
        self.kernels = {}
        for a, b, k in zip(names[:-1], names[1:], jax.random.split(key, len(channels)), strict=True):
            forward, feedback = jax.random.split(k)
            shape = (3, 3, widths[a], widths[b])
            self.kernels[a, b] = init(forward, shape, float)
            if a != names[0]:
                independent = init(feedback, shape, float)
                self.kernels[b, a] = rotate(independent, self.kernels[a, b], angle)
        self.kernels = {edge: scaled(kernel, init_scale) for edge, kernel in self.kernels.items()}
        self.biases = {name: jnp.zeros(widths[name]) for name in names[1:]}
        self.activation = activation
        self.image_shape = (image_shape[0], image_shape[1], image_shape[2])
        self.feedback_gain = check_gain(feedback_gain)
        self.holomorphic = is_analytic(activation, holomorphic)

    @property
    def levels(self) -> dict[str, int]:
        """The level of every layer: its distance from the input."""
        return {name: level for level, name in enumerate(_names(self.biases)) if level}

    @property
    def metric(self) -> dict[str, float] | None:
        return level_metric(self.levels, self.feedback_gain)

    @property
    def blocks(self) -> Blocks:
        return coloured(self.levels, self._edges())

    def embed(self, x: Shaped[Array, "height width channels"]) -> AnyState:
        if x.shape != self.image_shape:
            raise ValueError(
                f"The image has shape {x.shape}, but the network expects {self.image_shape} (height, width, "
                "channels). Set the network's image_shape; a batch goes through jax.vmap."
            )
        names = _names(self.biases)
        kernel = self.kernels[names[0], names[1]]
        v = convolve(x.astype(kernel.dtype), kernel, names[1] == "out")
        current = {names[1]: softmax_pool(v) + self.biases[names[1]][None, None]}
        height, width = current[names[1]].shape[:2]
        for name in names[2:]:
            cut = 2 if name == "out" else 0
            height, width = (height - cut) // WINDOW, (width - cut) // WINDOW
            bias = self.biases[name]
            current[name] = jnp.broadcast_to(bias[None, None], (height, width, bias.size))
        return current

    def drive(self, s: AnyState, current: AnyState) -> AnyState:
        incoming = _tree.cast_like(current, s)
        for a, b in self._edges():
            unpadded = b == "out"
            forward, feedback = self.kernels[a, b], self.kernels[b, a]
            incoming[b] = incoming[b] + softmax_pool(convolve(s[a], forward, unpadded))
            v = convolve(s[a], feedback, unpadded)
            back = convolve_transposed(softmax_pool_transposed(v, s[b]), feedback, unpadded)
            incoming[a] = incoming[a] + scaled(back, self.feedback_gain)
        return incoming

    def device_kernels(self) -> dict[Edge, Any]:
        return self.kernels

    def feedback_edges(self) -> tuple[Edge, ...]:
        return tuple((b, a) for a, b in self._edges())

    def reciprocal_pairs(self) -> list[tuple[Array, Array]]:
        return [(self.kernels[a, b], self.kernels[b, a]) for a, b in self._edges()]

    def _edges(self) -> list[Edge]:
        names = list(self.levels)
        return list(zip(names[:-1], names[1:], strict=True))


def convolve(s: Inexact[Array, "h w a"], kernel: Float[Array, "3 3 a b"], unpadded: bool) -> Inexact[Array, "h2 w2 b"]:
    """The 3x3 cross-correlation of a real or complex image with a real kernel."""
    padding = "VALID" if unpadded else "SAME"
    return real_linear(lambda z: _conv(z, kernel, padding), s)


def convolve_transposed(
    w: Inexact[Array, "h2 w2 b"], kernel: Float[Array, "3 3 a b"], unpadded: bool
) -> Inexact[Array, "h w a"]:
    """The transposed linear map of `convolve`: the flipped kernel, its channels swapped."""
    padding = [(2, 2), (2, 2)] if unpadded else "SAME"
    flipped = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return real_linear(lambda z: _conv(z, flipped, padding), w)


def _conv(z: Array, kernel: Array, padding: str | list[tuple[int, int]]) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(z, kernel, (1, 1), padding, dimension_numbers=layout, precision=precision())


def softmax_pool(v: Inexact[Array, "h w c"]) -> Inexact[Array, "h/2 w/2 c"]:
    """`P(v) = Σ p v`, `p = softmax(v)` over each 2x2 window and channel: analytic, between mean and maximum."""
    windows = _windows(v)
    return jnp.sum(_probabilities(windows) * windows, axis=(1, 3))


def softmax_pool_transposed(v: Inexact[Array, "h w c"], s: Inexact[Array, "h/2 w/2 c"]) -> Inexact[Array, "h w c"]:
    """`(∂P/∂v)ᵀ s`, in closed form: `∂P/∂vᵢ = pᵢ (1 + vᵢ − P)` within a window."""
    windows = _windows(v)
    p = _probabilities(windows)
    pooled = jnp.sum(p * windows, axis=(1, 3), keepdims=True)
    return (p * (1.0 + windows - pooled) * s[:, None, :, None]).reshape(v.shape)


def _windows(v: Array) -> Array:
    height, width, channels = v.shape
    return v.reshape(height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)


def _probabilities(windows: Array) -> Array:
    # The shift cancels. A real maximum keeps the complex case free of comparisons of complex numbers.
    shift = jax.lax.stop_gradient(jnp.max(windows.real, axis=(1, 3), keepdims=True))
    weights = jnp.exp(windows - shift.astype(windows.dtype))
    return weights / jnp.sum(weights, axis=(1, 3), keepdims=True)


def _names(layers: Sequence[int] | dict[str, Array]) -> list[str]:
    return [INPUT, *(f"conv{i}" for i in range(1, len(layers))), "out"]


def _check_extent(extent: int, depth: int) -> None:
    given = extent
    for layer in range(1, depth + 1):
        extent -= 2 if layer == depth else 0
        if extent < WINDOW or extent % WINDOW:
            raise ValueError(
                f"An image of {given} pixels a side does not pool by 2 through {depth} layers: layer {layer} "
                f"would pool {extent}. Take images of 32 pixels for four layers, or fewer layers."
            )
        extent //= WINDOW
