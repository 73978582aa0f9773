"""Any directed graph of dense layers, with feedback weights of their own."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar, Shaped

from eqprop._blocks import Blocks, Edge, coloured, levels_of
from eqprop._tree import AnyState, product, real_linear
from eqprop.activation import shifted_sigmoid
from eqprop.network.base import AbstractLinearNetwork, Activation, check_gain, is_analytic, level_metric

INPUT = "in"
"""The name under which edges refer to the network's input."""


class DenseNetwork(AbstractLinearNetwork):
    """Dense layers on a directed graph. An edge `a-b` maps the rates of `a` into layer `b`:

        drive(s)_b = Σ_{a→b} γ_ab s_a K_ab,       current_b = bias_b + x K_in,b.

    Kernels are `(size of a, size of b)`. Edges may skip layers and close loops. Every edge has weights of its
    own; `feedback` names the edges that are rotated against their reverse when the network is made.

    `γ_ab` is `feedback_gain^k` for an edge that leads down by `k` levels, and 1 for all others. The level of a layer is
    the length of the longest path of `edges` from the input to it. With `B = Kᵀ` in every pair of edges `m A` is
    symmetric for the metric `m = feedback_gain^level`. Weak feedback settles in fewer steps and to one state only.
    For `γ → 0` it is that of Xie & Seung (Neural Computation 15, 2003).
    """

    kernels: dict[str, Float[Array, "_ _"]]
    """One kernel an edge, under the name `"a-b"`."""
    biases: dict[str, Float[Array, " _"]]
    """One bias a layer."""
    activation: Activation = eqx.field(static=True)
    feedback: tuple[Edge, ...] = eqx.field(static=True)
    feedback_gain: float = eqx.field(static=True)
    levels: tuple[tuple[str, int], ...] = eqx.field(static=True)
    """Layers in the order given, with their levels."""
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
        forward = [named_edge(pair, sizes) for pair in edges]
        backward = [named_edge(pair, sizes) for pair in feedback]
        check_graph(sizes, forward + backward)
        self.kernels = init_kernels(forward + backward, sizes, key)
        for source, target in backward:
            reverse = f"{target}-{source}"
            if (target, source) in forward:
                name = f"{source}-{target}"
                self.kernels[name] = rotate(self.kernels[name], self.kernels[reverse].T, angle)
        self.kernels = {name: scaled(kernel, init_scale) for name, kernel in self.kernels.items()}
        self.biases = {name: jnp.zeros(size) for name, size in layers.items()}
        self.activation = activation
        self.feedback = tuple(backward)
        self.feedback_gain = check_gain(feedback_gain)
        self.levels = tuple(levels_of(layers, forward, INPUT).items())
        self.holomorphic = is_analytic(activation, holomorphic)

    @classmethod
    def chain(
        cls,
        sizes: Sequence[int],
        *,
        angle: float = 90.0,
        feedback_gain: float = 1.0,
        init_scale: float = 1.0,
        activation: Activation = shifted_sigmoid,
        holomorphic: bool | None = None,
        key: PRNGKeyArray,
    ) -> "DenseNetwork":
        """A reciprocal chain `in → l1 ⇄ l2 ⇄ … ⇄ out` with the given sizes, input first.

        `DenseNetwork.chain([784, 256, 256, 10], angle=0.0, key=key)` is the published network.
        """
        names = chain_names(sizes)
        edges = list(zip(names[:-1], names[1:], strict=True))
        return cls(
            sizes[0],
            dict(zip(names[1:], sizes[1:], strict=True)),
            edges,
            feedback=[(b, a) for a, b in edges[1:]],
            angle=angle,
            feedback_gain=feedback_gain,
            init_scale=init_scale,
            activation=activation,
            holomorphic=holomorphic,
            key=key,
        )

    @property
    def metric(self) -> dict[str, float] | None:
        return level_metric(dict(self.levels), self.feedback_gain)

    @property
    def blocks(self) -> Blocks:
        return coloured(dict(self.levels), self._edges())

    def _edges(self) -> list[Edge]:
        return [edge for edge, _ in recurrent_edges(self.kernels)]

    def gain(self, edge: Edge) -> float:
        """`γ_ab`."""
        levels = dict(self.levels)
        return self.feedback_gain ** max(levels[edge[0]] - levels[edge[1]], 0)

    def embed(self, x: Shaped[Array, "..."]) -> AnyState:
        return dense_current(x, self.kernels, self.biases)

    def drive(self, s: AnyState) -> AnyState:
        incoming = {name: jnp.zeros_like(rates) for name, rates in s.items()}
        for edge, kernel in recurrent_edges(self.kernels):
            source, target = edge
            arriving = real_linear(lambda z, k=kernel: product(z, k), s[source])
            incoming[target] = incoming[target] + scaled(arriving, self.gain(edge))
        return incoming

    def symmetry_norms(self) -> tuple[Scalar, Scalar]:
        # In the metric an edge over k levels acts with gain γ^(k/2), up or down.
        levels = dict(self.levels)
        root = {edge: self.feedback_gain ** (abs(levels[edge[0]] - levels[edge[1]]) / 2) for edge in self._edges()}
        edges = {edge: scaled(kernel, root[edge]) for edge, kernel in recurrent_edges(self.kernels)}
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

    def reciprocal_pairs(self) -> list[tuple[Array, Array]]:
        pairs = [(f"{b}-{a}", f"{a}-{b}") for a, b in self.feedback]
        return [(self.kernels[f], self.kernels[g].T) for f, g in pairs if f in self.kernels]


def scaled(values: Array, gain: float) -> Array:
    """`values` times `gain`, and themselves if it is one."""
    return values if gain == 1 else gain * values


def recurrent_edges(kernels: Mapping[str, Array]) -> list[tuple[Edge, Array]]:
    """The edges between layers, without those from the input."""
    edges = [((name.split("-")[0], name.split("-")[1]), kernel) for name, kernel in kernels.items()]
    return [(edge, kernel) for edge, kernel in edges if edge[0] != INPUT]


def dense_current(x: Shaped[Array, "..."], kernels: Mapping[str, Array], biases: Mapping[str, Array]) -> AnyState:
    """`bias_b + x K_in,b` for every layer `b`, the input flattened.

    **Raises:** `ValueError` if `x` has another number of entries than the input kernels take.
    """
    current = dict(biases)
    for name, kernel in kernels.items():
        source, target = name.split("-")
        if source == INPUT:
            if x.size != kernel.shape[0]:
                raise ValueError(
                    f"The input has shape {x.shape}, {x.size} entries an example, but the network expects "
                    f"{kernel.shape[0]}. Resize the images or set the network's input size; a batch goes "
                    "through jax.vmap."
                )
            current[target] = current[target] + product(x.reshape(1, -1).astype(kernel.dtype), kernel)[0]
    return current


def chain_names(sizes: Sequence[int]) -> list[str]:
    """`in, l1, l2, …, out` for as many sizes.

    **Raises:** `ValueError` for fewer than two sizes.
    """
    if len(sizes) < 2:
        raise ValueError(
            f"sizes is {list(sizes)}: a chain needs the input's size and one layer at least, "
            "for instance [784, 256, 10]."
        )
    return [INPUT, *(f"l{i}" for i in range(1, len(sizes) - 1)), "out"]


def init_kernels(edges: Sequence[Edge], sizes: Mapping[str, int], key: PRNGKeyArray) -> dict[str, Array]:
    """LeCun-normal kernels `(size of a, size of b)` by edge name."""
    init = jax.nn.initializers.lecun_normal()
    return {
        f"{a}-{b}": init(k, (sizes[a], sizes[b]), float)
        for k, (a, b) in zip(jax.random.split(key, len(edges)), edges, strict=True)
    }


def rotate(kernel: Array, towards: Array, angle: float) -> Array:
    """`sin α · kernel + cos α · towards`, exact at 0 and 90 degrees."""
    if angle % 90.0:
        return math.sin(math.radians(angle)) * kernel + math.cos(math.radians(angle)) * towards
    quarter = int(angle // 90.0) % 4
    return (towards, kernel, -towards, -kernel)[quarter]


def layer_sizes(input_size: int, layers: Mapping[str, int]) -> dict[str, int]:
    """Sizes by name, the input among them.

    **Raises:** `ValueError` if a layer has the input's name.
    """
    if INPUT in layers:
        raise ValueError(f"A layer is called {INPUT!r}, the name of the input. Rename it.")
    return {INPUT: input_size, **layers}


def named_edge(pair: Sequence[str], sizes: Mapping[str, int]) -> Edge:
    """`pair` as an edge.

    **Raises:** `ValueError` if it is no pair, or names no layer.
    """
    if isinstance(pair, str) or len(pair) != 2:
        raise ValueError(f"The edge {pair!r} is no pair of layer names, such as ('l1', 'l2').")
    for name in pair:
        if name not in sizes:
            near = difflib.get_close_matches(name, sizes, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"The edge {pair[0]!r} -> {pair[1]!r} names no layer {name!r}; there are {', '.join(sizes)}.{hint}"
            )
    return pair[0], pair[1]


def check_graph(sizes: Mapping[str, int], edges: Sequence[Edge]) -> None:
    """Refuse a graph that cannot be built; `sizes` includes the input.

    **Raises:** `ValueError`.
    """
    problems = [
        (len(sizes) < 2, "The network has no layers. Give at least one, such as {'out': 10}."),
        (any("-" in name for name in sizes), "A layer's name contains '-', which separates edges."),
        (any(b == INPUT for _, b in edges), f"An edge ends at {INPUT!r}; the input is clamped."),
    ]
    repeated = sorted({f"{a} -> {b}" for a, b in edges if edges.count((a, b)) > 1})
    problems.append((bool(repeated), f"Edges given twice: {', '.join(repeated)}. Give each once."))
    small = [f"{name}: {size}" for name, size in sizes.items() if size < 1]
    problems.append((bool(small), f"Sizes below one: {', '.join(small)}."))
    for wrong, message in problems:
        if wrong:
            raise ValueError(message)
