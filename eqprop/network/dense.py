"""Any directed graph of dense layers, with feedback weights of their own."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from eqprop._blocks import Edge
from eqprop._tree import AnyState, product, real_linear
from eqprop.activation import shifted_sigmoid
from eqprop.network.base import Activation, check_gain, edge_gain, is_analytic, level_metric
from eqprop.network.graph import (
    INPUT,
    AbstractDense,
    chain_of,
    check_graph,
    checked_edge,
    init_kernels,
    layer_sizes,
    levels_of,
    rotate,
    scaled,
)


class DenseNetwork(AbstractDense):
    """Dense layers on a directed graph. An edge `(a, b)` maps the rates of `a` into layer `b`:

        drive(s)_b = Σ_{a→b} γ_ab s_a K_ab + current_b,       current_b = bias_b + x K_in,b.

    Edges may skip layers and close loops. Every edge has weights of its own; `feedback` names the edges that are
    rotated against their reverse when the network is made.

    `γ_ab` is `feedback_gain^k` for an edge that leads down by `k` levels, and 1 for all others. The level of a layer is
    the length of the longest path of `edges` from the input to it. With `B = Kᵀ` in every pair of edges `m A` is
    symmetric for the metric `m = feedback_gain^level`. Weak feedback settles in fewer steps and to one state only.
    For `γ → 0` it is that of Xie & Seung (Neural Computation 15, 2003).
    """

    kernels: dict[Edge, Float[Array, "_ _"]]
    biases: dict[str, Float[Array, " _"]]
    activation: Activation = eqx.field(static=True)
    feedback: tuple[Edge, ...] = eqx.field(static=True)
    feedback_gain: float = eqx.field(static=True)
    level_items: tuple[tuple[str, int], ...] = eqx.field(static=True)
    holomorphic: bool = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        layers: Mapping[str, int],
        edges: Iterable[Sequence[str]],
        *,
        feedback: Iterable[Sequence[str]] = (),
        angle: float = 90.0,
        feedback_gain: float = 1.0,
        init_scale: float = 1.0,
        activation: Activation = shifted_sigmoid,
        holomorphic: bool | None = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `input_size`: entries of an example; inputs of any shape with that many are flattened.
        - `layers`: size by name, for instance `{"l1": 256, "out": 10}`.
        - `edges`: pairs `(from, to)`; `"in"` is the input.
        - `feedback`: further pairs, which take part in `angle`.
        - `angle`: `α` of the published mixing `K_fb ← sin α · K_fb + cos α · K_fwdᵀ` of a feedback kernel with the
            transpose of its reverse edge, when there is one. 0: tied at the start; 90: independent. In between it is
            the angle of the two only where their entries have equal variance, in square kernels
            (`substrate.WeightAngle` makes an exact one).
        - `feedback_gain`: `γ`, above 0 and up to 1.
        - `init_scale`: factor of the kernels at the start. Homeostasis brings independent kernels to their mean, whose
            size is smaller by `√2`.
        - `activation`: applied to every layer.
        - `holomorphic`: whether `activation` is analytic; needs to be said of functions that are not eqprop's own,
            which are taken not to be.
        - `key`: kernels are drawn LeCun-normal (truncated, variance `1/fan_in`) times `init_scale`, biases are zero.

        **Raises:** `ValueError` for an edge that names no layer, a repeated edge, a size below one, a layer
        called `"in"`.
        """
        sizes = layer_sizes(input_size, layers)
        forward = [checked_edge(pair, sizes) for pair in edges]
        backward = [checked_edge(pair, sizes) for pair in feedback]
        check_graph(sizes, forward + backward)
        kernels = init_kernels(forward + backward, sizes, key)
        for source, target in backward:
            if (target, source) in forward:
                towards = kernels[target, source].T
                kernels[source, target] = rotate(kernels[source, target], towards, angle)
        self.kernels = {edge: scaled(kernel, init_scale) for edge, kernel in kernels.items()}
        self.biases = {name: jnp.zeros(size) for name, size in layers.items()}
        self.activation = activation
        self.feedback = tuple(backward)
        self.feedback_gain = check_gain(feedback_gain)
        self.level_items = tuple(levels_of(layers, forward, INPUT).items())
        self.holomorphic = is_analytic(activation, holomorphic)

    @classmethod
    def chain(
        cls,
        sizes: Sequence[int],
        *,
        angle: float = 90.0,
        feedback_gain: float = 1.0,
        init_scale: float = 1.0,
        reciprocal: bool = True,
        activation: Activation = shifted_sigmoid,
        holomorphic: bool | None = None,
        key: PRNGKeyArray,
    ) -> "DenseNetwork":
        """A reciprocal chain `in → l1 ⇄ l2 ⇄ … ⇄ out` with the given sizes, input first.

        `DenseNetwork.chain([784, 256, 256, 10], angle=0.0, key=key)` is the published network. With `reciprocal=False`
        there is no feedback, and `RecurrentBackprop` is the backpropagation of a feedforward network.
        """
        layers, edges = chain_of(sizes)
        settings: Any = dict(angle=angle, feedback_gain=feedback_gain, init_scale=init_scale, activation=activation)
        feedback = [(b, a) for a, b in edges[1:]] if reciprocal else []
        return cls(sizes[0], layers, edges, feedback=feedback, holomorphic=holomorphic, key=key, **settings)

    @property
    def metric(self) -> dict[str, float] | None:
        return level_metric(self.levels, self.feedback_gain)

    def gain(self, edge: Edge) -> float:
        """`γ_ab`."""
        return edge_gain(self.levels, self.feedback_gain, *edge)

    def recurrent_drive(self, s: AnyState) -> AnyState:
        incoming = {name: jnp.zeros_like(rates) for name, rates in s.items()}
        for edge, kernel in self.recurrent.items():
            arriving = real_linear(lambda z, k=kernel: product(z, k), s[edge[0]])
            incoming[edge[1]] = incoming[edge[1]] + scaled(arriving, self.gain(edge))
        return incoming

    def symmetry_norms(self) -> tuple[Scalar, Scalar]:
        # In the metric an edge over k levels acts with gain γ^(k/2), up or down.
        root = {(a, b): self.feedback_gain ** (abs(self.levels[a] - self.levels[b]) / 2) for a, b in self.recurrent}
        edges = {edge: scaled(kernel, root[edge]) for edge, kernel in self.recurrent.items()}
        plus = minus = jnp.zeros((), next(iter(self.biases.values())).dtype)
        for (source, target), kernel in edges.items():
            reverse = edges.get((target, source))
            # Each unordered pair of blocks counts twice in the norm of the whole matrix. A pair of edges is
            # met twice in this loop, a lone edge and a loop on one layer once.
            times = 2.0 if reverse is None else 1.0
            transposed = jnp.zeros_like(kernel) if reverse is None else reverse.T
            plus = plus + times * jnp.sum((kernel + transposed) ** 2)
            minus = minus + times * jnp.sum((kernel - transposed) ** 2)
        return plus, minus

    def feedback_edges(self) -> tuple[Edge, ...]:
        return self.feedback

    def reciprocal_pairs(self) -> list[tuple[Array, Array]]:
        pairs = [((b, a), (a, b)) for a, b in self.feedback]
        return [(self.kernels[f], self.kernels[g].T) for f, g in pairs if f in self.kernels]
