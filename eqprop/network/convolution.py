"""One edge of a convolutional network: convolve, then pool; and the transposed map at given rates."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from eqprop._tree import precision, real_linear
from eqprop.network.graph import INPUT

Pooling = Literal["softmax", "average", "max", "none"]
Image = tuple[int, int, int]
"""`(height, width, channels)`."""
_LAYOUT = ("NHWC", "HWIO", "NHWC")


@dataclasses.dataclass(frozen=True)
class ConvEdge:
    """An edge `s ↦ P(C(s))` of a `ConvNetwork`: a convolution `C` and a pooling `P` of non-overlapping windows."""

    source: str
    target: str
    kernel_size: int | None = 3
    """Of a square kernel; `None`: no kernel, the rates themselves, as in the shortcuts of a residual network."""
    stride: int = 1
    padding: Literal["SAME", "VALID"] = "SAME"
    pooling: Pooling = "none"
    """`softmax`: `P(v) = Σ p v` with `p = softmax(v)` over a window, analytic, between mean and maximum. `max` is not
    analytic."""
    window: int = 2
    """Side and stride of the windows."""

    def __post_init__(self):
        rules = {
            "kernel_size": (self.kernel_size is None or self.kernel_size >= 1, "at least 1, or none"),
            "stride": (self.stride >= 1, "at least 1"),
            "padding": (self.padding in ("SAME", "VALID"), "SAME or VALID"),
            "pooling": (self.pooling in ("softmax", "average", "max", "none"), "softmax, average, max or none"),
            "window": (self.window >= 1, "at least 1"),
        }
        for name, (fine, expected) in rules.items():
            if not fine:
                raise ValueError(f"{name} of the edge {self} is {getattr(self, name)}; expected {expected}.")

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"

    def shape(self, source: Image, channels: int) -> Image:
        """The shape of what arrives at the target.

        **Raises:** `ValueError` if the image is too small for the kernel, or does not divide into windows.
        """
        if self.kernel_size is None and channels != source[2]:
            raise ValueError(
                f"The edge {self} has no kernel, but joins {source[2]} channels to {channels}. Give it kernel_size=1."
            )
        extents = [self._extent(extent) for extent in source[:2]]
        return extents[0], extents[1], channels

    def _extent(self, extent: int) -> int:
        size, window = self.kernel_size or 1, 1 if self.pooling == "none" else self.window
        left = -(-(extent if self.padding == "SAME" else extent - size + 1) // self.stride)
        if left < window or left % window:
            raise ValueError(
                f"An image of {extent} pixels a side does not pass the edge {self}: it would pool {left} by {window}. "
                "Take images of another size, another padding, or fewer layers."
            )
        return left // window

    def times_used(self, source: Image) -> Float[np.ndarray, "k k"]:
        """How many outputs read each tap of the kernel inside an image of that shape, which is all but the border."""
        size = self.kernel_size or 1
        counts = []
        for extent in source[:2]:
            outputs = np.arange(self._extent(extent))[:, None] * self.stride + np.arange(size)
            padding = self._padded(extent, len(outputs))
            counts.append(np.sum((outputs >= padding) & (outputs < extent + padding), axis=0))
        return np.outer(*counts).astype(float)

    def convolve(self, s: Inexact[Array, "h w a"], kernel: Float[Array, "k k a c"] | None) -> Inexact[Array, "i j b"]:
        """`C(s)`, the cross-correlation of a real or complex image with a real kernel."""
        if kernel is None:
            return s[:: self.stride, :: self.stride]
        return real_linear(lambda z: self._conv(z, kernel), s)

    def convolve_transposed(
        self, w: Inexact[Array, "i j b"], kernel: Float[Array, "k k a c"] | None, like: Inexact[Array, "h w a"]
    ) -> Inexact[Array, "h w a"]:
        """`Cᵀ(w)`, an image of the shape of `like`."""
        if kernel is None:
            return w if self.stride == 1 else jnp.zeros_like(like, w.dtype).at[:: self.stride, :: self.stride].set(w)
        return real_linear(lambda z: self._conv_transposed(z, kernel, like.shape), w)

    def drives_transposed(
        self,
        s: tuple[Inexact[Array, "h w a"], Inexact[Array, "i2 j2 b"]],
        kernels: tuple[Float[Array, "k k a c"] | None, Float[Array, "k k a c"] | None],
    ) -> Callable[[Array, Array], tuple[Array, Array]]:
        """The transposed derivative at the rates of both ends: of `P(C(s₁))` with the first kernel, and of the feedback
        of `s₂` at `s₁` with the second.

        JAX's own is the same, of convolutions whose kernels are not turned in memory (see `_conv_transposed`).
        """
        forward, feedback = kernels
        _, pooled = jax.vjp(self.pool, self.convolve(s[0], forward))
        _, returned = jax.vjp(self.pool_transposed, self.convolve(s[0], feedback), s[1])

        def product(down: Array, up: Array) -> tuple[Array, Array]:
            through, other = returned(self.convolve(down, feedback))
            arriving = self.convolve_transposed(pooled(up)[0], forward, s[0])
            if self.pooling in ("softmax", "max"):  # else the feedback does not depend on s₁
                arriving = arriving + self.convolve_transposed(through, feedback, s[0])
            return arriving, other

        return product

    def _conv(self, z: Array, kernel: Array) -> Array:
        strides = (self.stride, self.stride)
        return jax.lax.conv_general_dilated(
            z, kernel, strides, self.padding, dimension_numbers=_LAYOUT, precision=precision()
        )

    def _conv_transposed(self, z: Array, kernel: Array, shape: Sequence[int]) -> Array:
        # What `jax.linear_transpose` of `_conv` computes, with a kernel that is turned in memory: only in this layout
        # has XLA fast code for a convolution within a loop on a CPU. Sweeps live from it: it is up to 30 times as fast.
        turned = jnp.swapaxes(jnp.flip(kernel, (0, 1)), 2, 3)
        padding = []
        for extent, count in zip(shape[:2], z.shape[1:3], strict=True):
            before = len(kernel) - 1 - self._padded(extent, count)
            padding.append((before, extent + len(kernel) - 2 - (count - 1) * self.stride - before))
        return jax.lax.conv_general_dilated(
            z, turned, (1, 1), padding, (self.stride, self.stride), dimension_numbers=_LAYOUT, precision=precision()
        )

    def _padded(self, extent: int, count: int) -> int:
        """Rows of zeros before an image of that extent, of which the convolution makes `count`."""
        missing = (count - 1) * self.stride + (self.kernel_size or 1) - extent
        return max(missing, 0) // 2 if self.padding == "SAME" else 0

    def pool(self, v: Inexact[Array, "i j b"]) -> Inexact[Array, "i2 j2 b"]:
        """`P(v)`. A constant passes: `P(v + c) = P(v) + c`."""
        if self.pooling == "none":
            return v
        windows = self._windows(v)
        return jnp.sum(_WEIGHTS[self.pooling](windows) * windows, axis=(1, 3))

    def pool_transposed(self, v: Inexact[Array, "i j b"], s: Inexact[Array, "i2 j2 b"]) -> Inexact[Array, "i j b"]:
        """`(∂P/∂v)ᵀ s` at `v`, in closed form: `∂P/∂vᵢ = pᵢ` within a window, and `pᵢ (1 + vᵢ − P)` for `softmax`."""
        if self.pooling == "none":
            return s
        windows = self._windows(v)
        slope = p = _WEIGHTS[self.pooling](windows)
        if self.pooling == "softmax":
            slope = p * (1.0 + windows - jnp.sum(p * windows, axis=(1, 3), keepdims=True))
        return (slope * s[:, None, :, None]).reshape(v.shape)

    def _windows(self, v: Array) -> Array:
        height, width, channels = v.shape
        return v.reshape(height // self.window, self.window, width // self.window, self.window, channels)


def shapes_of(image_shape: Sequence[int], layers: Mapping[str, int], edges: Sequence[ConvEdge]) -> dict[str, Image]:
    """Of the input and of every layer, as edges from the input on say them.

    **Raises:** `ValueError` for edges that disagree, and for a layer that none reaches.
    """
    found: dict[str, Image] = {INPUT: (image_shape[0], image_shape[1], image_shape[2])}
    for _ in layers:
        for edge in edges:
            if edge.source not in found:
                continue
            shape = edge.shape(found[edge.source], layers[edge.target])
            if found.setdefault(edge.target, shape) != shape:
                raise ValueError(
                    f"The edge {edge} makes images of {shape}, but {edge.target!r} has {found[edge.target]} by another "
                    "edge. Give both the same stride, padding and pooling."
                )
    missing = [name for name in layers if name not in found]
    if missing:
        raise ValueError(f"No path of edges leads from {INPUT!r} to {', '.join(missing)}. Give one.")
    return {name: found[name] for name in (INPUT, *layers)}


def _softmax(windows: Array) -> Array:
    # The shift cancels. A real maximum keeps the complex case free of comparisons of complex numbers.
    shift = jax.lax.stop_gradient(jnp.max(windows.real, axis=(1, 3), keepdims=True))
    weights = jnp.exp(windows - shift.astype(windows.dtype))
    return weights / jnp.sum(weights, axis=(1, 3), keepdims=True)


def _average(windows: Array) -> Array:
    return jnp.full_like(windows, 1.0 / (windows.shape[1] * windows.shape[3]))


def _largest(windows: Array) -> Array:
    first = windows >= jnp.max(windows, axis=(1, 3), keepdims=True)
    return first.astype(windows.dtype) / jnp.sum(first, axis=(1, 3), keepdims=True, dtype=windows.dtype)


_WEIGHTS: dict[str, Callable[[Array], Array]] = {"softmax": _softmax, "average": _average, "max": _largest}
"""The weight of every member of a window in what is pooled."""
