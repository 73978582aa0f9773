"""The matrix products and convolutions of a network, and their floating-point operations, counted from its shapes."""

from collections.abc import Iterable
from typing import NamedTuple

import eqprop as eq


class Product(NamedTuple):
    """One matrix product `(batch, inputs) @ (inputs, outputs)`, or one convolution: of `kernel` with `image`."""

    kind: str
    """`matmul`, `conv` (same size), `valid` (unpadded) or `transposed` (of an unpadded one)."""
    image: tuple[int, ...]
    """The shape of what is multiplied, batch first."""
    kernel: tuple[int, ...]

    @property
    def flops(self) -> int:
        """Multiplications and additions that meet no padding zero added by the transposed form."""
        if self.kind == "matmul":
            return 2 * self.image[0] * self.kernel[0] * self.kernel[1]
        batch, height, width, _ = self.image
        cut = {"conv": 0, "valid": -2, "transposed": 0}[self.kind]
        taps = self.kernel[0] * self.kernel[1] * self.kernel[2] * self.kernel[3]
        return 2 * batch * (height + cut) * (width + cut) * taps


def total(products: Iterable[Product]) -> int:
    """FLOPs of all of them."""
    return sum(product.flops for product in products)


def drift_products(network: eq.AbstractNetwork, batch: int) -> list[Product]:
    """Of one evaluation of the drift for a batch; the input's current is not part of it."""
    if isinstance(network, eq.DenseNetwork):
        return [p for name, p in _dense_edges(network, batch) if name[0] != "in"]
    edges = _conv_edges(network, batch)
    forward = [product for name, product in edges if name[0] != "in"]
    # The feedback's own convolution has the forward one's shape; then its transposed map.
    return [p for product in forward for p in (product, product, _transposed(product))]


def embed_products(network: eq.AbstractNetwork, batch: int) -> list[Product]:
    """Of the input's current."""
    edges = _dense_edges(network, batch) if isinstance(network, eq.DenseNetwork) else _conv_edges(network, batch)
    return [product for name, product in edges if name[0] == "in"]


def gradient_products(network: eq.AbstractNetwork, batch: int) -> list[Product]:
    """Of the gradient of the surrogate: every kernel's product once more, with the error in the place of the output."""
    return drift_products(network, batch) + embed_products(network, batch)


def _dense_edges(network: eq.DenseNetwork, batch: int) -> list[tuple[tuple[str, str], Product]]:
    return [(name, Product("matmul", (batch, k.shape[0]), k.shape)) for name, k in network.kernels.items()]


def _conv_edges(network: eq.AbstractNetwork, batch: int) -> list[tuple[tuple[str, str], Product]]:
    """The forward convolutions, in the order of the layers."""
    assert isinstance(network, eq.ConvNetwork)
    shapes, edges = dict(network.shape_items), []
    for edge in network.edges:
        name = edge.source, edge.target
        kind = "valid" if edge.padding == "VALID" else "conv"
        edges.append((name, Product(kind, (batch, *shapes[edge.source]), network.kernels[name].shape)))
    return edges


def _transposed(product: Product) -> Product:
    batch, height, width, _ = product.image
    rows, columns, inputs, outputs = product.kernel
    swapped = (rows, columns, outputs, inputs)
    if product.kind == "conv":
        return Product("conv", (batch, height, width, outputs), swapped)
    return Product("transposed", (batch, height - 2, width - 2, outputs), swapped)
