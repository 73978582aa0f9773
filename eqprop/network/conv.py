"""Convolutional layers on a graph: chains that pool, and residual networks; feedback through the transposed map."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar, Shaped

from eqprop import _tree
from eqprop._blocks import Blocks, Edge
from eqprop._tree import AnyState, Drift
from eqprop.activation import dsilu
from eqprop.network.base import AbstractNetwork, Activation, check_gain, edge_gain, is_analytic, level_metric
from eqprop.network.convolution import ConvEdge, Image, shapes_of
from eqprop.network.graph import INPUT, check_graph, checked_edge, coloured, levels_of, rotate, scaled
from eqprop.network.scales import centred


class ConvNetwork(AbstractNetwork):
    """Convolutional layers on a graph. With an edge `(a, b)`, its convolution `C` and its pooling `P`:

        drive(s)_b ∋ P(C_ab(s_a)),      drive(s)_a ∋ γ_ba ∂/∂s_a ⟨P(C_ba(s_a)), s_b⟩ at fixed s_b.

    The feedback of `b` into `a` is the transposed map of "convolve, then pool" at the present rates of `a`, with
    kernels of its own, or with those of the forward direction if `tied`. An edge without a kernel passes the rates
    themselves, both ways. Layers have the shape `(height, width, channels)`. Biases live in the current: every pooling
    passes a constant through, `P(v + b) = P(v) + b`.

    `γ_ba` is `feedback_gain^k` for a direction that leads down by `k` levels, and 1 for all others, as in
    `DenseNetwork`. With tied kernels `m A` is symmetric for the metric `m = feedback_gain^level`.

    `ConvNetwork.chain` makes the published network, Laborieux & Zenke (ICLR 2024); `ConvNetwork.residual` one with
    shortcuts, as the Hopfield-ResNets of arXiv 2509.26003.
    """

    kernels: dict[Edge, Float[Array, "_ _ _ _"]]
    """`(size, size, channels of a, channels of b)` of `(a, b)`, and of its feedback `(b, a)` in that orientation."""
    biases: dict[str, Float[Array, " _"]]
    """One bias a channel."""
    activation: Activation = eqx.field(static=True)
    edges: tuple[ConvEdge, ...] = eqx.field(static=True)
    shape_items: tuple[tuple[str, Image], ...] = eqx.field(static=True)
    """The input and the layers in the order given, with their shapes."""
    level_items: tuple[tuple[str, int], ...] = eqx.field(static=True)
    """The layers in the order given, with their levels."""
    tied: bool = eqx.field(static=True)
    feedback_gain: float = eqx.field(static=True)
    holomorphic: bool = eqx.field(static=True)

    def __init__(
        self,
        image_shape: Sequence[int],
        layers: Mapping[str, int],
        edges: Iterable[ConvEdge | Mapping[str, Any]],
        *,
        tied: bool = False,
        angle: float = 90.0,
        feedback_gain: float = 1.0,
        init_scale: float | None = 1.0,
        activation: Activation = dsilu,
        holomorphic: bool | None = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `image_shape`: `(height, width, channels)` of an example.
        - `layers`: channels by name, for instance `{"conv1": 64, "out": 128}`.
        - `edges`: `ConvEdge`s, or their fields; `"in"` is the input. Every edge between layers works in both
            directions.
        - `tied`: one kernel for both directions.
        - `angle`: degrees between feedback and forward kernels at the start; 0 ties them, 90 is independent.
        - `feedback_gain`: `γ`, above 0 and up to 1.
        - `init_scale`: factor of the kernels at the start. Weak feedback leaves room for more than 1. `None` sets
            scales and biases layer by layer, from a few images of noise that pass forward: the drive of every channel
            is centred where the activation is steepest, and its spread is half of what it takes to cross a range of 1
            at that slope. Signals then reach the last layer of a deep network, also when homeostasis has made the two
            kernels of a pair their mean.
        - `activation`, `holomorphic`: as for `DenseNetwork`. Maximum pooling is not analytic.
        - `key`: kernels are drawn LeCun-normal times `init_scale`, biases are zero.

        **Raises:** `ValueError` for a graph that cannot be built, and for images that do not pass an edge.
        """
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(f"image_shape is {tuple(image_shape)}; give (height, width, channels).")
        self.edges = tuple(edge if isinstance(edge, ConvEdge) else ConvEdge(**edge) for edge in edges)
        channels = {INPUT: image_shape[2], **layers}
        ends = [checked_edge((edge.source, edge.target), channels) for edge in self.edges]
        check_graph(channels, ends)
        if both := [f"{a} -> {b}" for a, b in ends if (b, a) in ends]:
            raise ValueError(f"Every edge works in both directions already: leave out {both[-1]}.")
        self.shape_items = tuple(shapes_of(image_shape, layers, self.edges).items())
        self.level_items = tuple(levels_of(layers, ends, INPUT).items())
        self.kernels = {}
        init = jax.nn.initializers.lecun_normal()
        for edge, k in zip(self.edges, jax.random.split(key, len(self.edges)), strict=True):
            if edge.kernel_size is None:
                continue
            a, b, (forward, feedback) = edge.source, edge.target, jax.random.split(k)
            shape = (edge.kernel_size, edge.kernel_size, channels[a], channels[b])
            self.kernels[a, b] = init(forward, shape, float)
            if a != INPUT and not tied:
                self.kernels[b, a] = rotate(init(feedback, shape, float), self.kernels[a, b], angle)
        self.biases = {name: jnp.zeros(width) for name, width in layers.items()}
        self.activation, self.tied, self.feedback_gain = activation, tied, check_gain(feedback_gain)
        analytic = all(edge.pooling != "max" for edge in self.edges)
        self.holomorphic = is_analytic(activation, holomorphic) and analytic
        if init_scale is None:
            images = jax.random.normal(jax.random.fold_in(key, 1), (8, *image_shape))
            self.kernels, self.biases = centred(self.edges, self.levels, self.kernels, activation, images)
        else:
            self.kernels = {edge: scaled(kernel, init_scale) for edge, kernel in self.kernels.items()}

    @classmethod
    def chain(
        cls, image_shape: Sequence[int] = (32, 32, 3), channels: Sequence[int] = (128, 256, 512, 512), **settings: Any
    ) -> "ConvNetwork":
        """The chain `in → conv1 ⇄ conv2 ⇄ … ⇄ out` of 3x3 convolutions with softmax pooling by 2, padded to the same
        size except the last, which is not padded. The defaults are the published ones.

        **Arguments:** `channels`: of each layer. `settings`: `pooling`, where `none` halves images by strides of 2, and
        as for `ConvNetwork`.
        """
        names = [INPUT, *(f"conv{i}" for i in range(1, len(channels))), "out"]
        halving = _halving(settings.pop("pooling", "softmax"))
        edges = [
            ConvEdge(a, b, padding="VALID" if b == "out" else "SAME", **halving)
            for a, b in zip(names[:-1], names[1:], strict=True)
        ]
        return cls(image_shape, dict(zip(names[1:], channels, strict=True)), edges, **settings)

    @classmethod
    def residual(
        cls,
        image_shape: Sequence[int] = (32, 32, 3),
        stem: int = 64,
        stages: Sequence[Sequence[int]] = ((64, 2), (128, 2), (256, 2)),
        **settings: Any,
    ) -> "ConvNetwork":
        """A residual network: a first convolution, and stages of blocks of two 3x3 convolutions beside a shortcut. The
        defaults make 13 layers.

        The first block of every stage but the first halves height and width; its shortcut is a 1x1 convolution.
        Shortcuts between layers of one shape have no kernel. The last layer is `out`.

        **Arguments:** `stem`: channels of the first layer. `stages`: channels and number of blocks. `settings`:
        `pooling`, how the first block of a stage halves an image: `none` by its stride, or by that pooling; the
        others as for `ConvNetwork`.
        """
        halving = _halving(settings.pop("pooling", "none"))
        layers, edges, last, width = {"stem": stem}, [ConvEdge(INPUT, "stem")], "stem", stem
        final = (len(stages), stages[-1][1])
        for stage, (channels, blocks) in enumerate(stages, 1):
            for block in range(1, blocks + 1):
                inner = f"stage{stage}_{block}a"
                outer = "out" if (stage, block) == final else f"stage{stage}_{block}b"
                halved = halving if stage > 1 and block == 1 else {}
                plain = channels == width and not halved
                layers |= {inner: channels, outer: channels}
                edges += [ConvEdge(last, inner, **halved), ConvEdge(inner, outer)]
                edges.append(ConvEdge(last, outer, None if plain else 1, **halved))
                last, width = outer, channels
        return cls(image_shape, layers, edges, **settings)

    @property
    def image_shape(self) -> Image:
        """`(height, width, channels)` of an example."""
        return self.shape_items[0][1]

    @property
    def levels(self) -> dict[str, int]:
        """The level of every layer: the length of the longest path of edges to it from the input."""
        return dict(self.level_items)

    @property
    def metric(self) -> dict[str, float] | None:
        return level_metric(self.levels, self.feedback_gain)

    @property
    def blocks(self) -> Blocks:
        pairs = [(edge.source, edge.target) for edge in self._recurrent]
        return coloured(self.levels, pairs + [(b, a) for a, b in pairs])

    def embed(self, x: Shaped[Array, "height width channels"]) -> AnyState:
        if x.shape != self.image_shape:
            raise ValueError(
                f"The image has shape {x.shape}, but the network expects {self.image_shape} (height, width, "
                "channels). Set the network's image_shape; a batch goes through jax.vmap."
            )
        shapes = dict(self.shape_items)
        current = {name: jnp.broadcast_to(bias[None, None], shapes[name]) for name, bias in self.biases.items()}
        for edge in self.edges:
            if edge.source == INPUT:
                arriving = self._arriving(edge, x.astype(current[edge.target].dtype))
                current[edge.target] = arriving + current[edge.target]
        return current

    def drive(self, s: AnyState, current: AnyState) -> AnyState:
        incoming = _tree.cast_like(current, s)
        gain = functools.partial(edge_gain, self.levels, self.feedback_gain)
        for edge in self._recurrent:
            a, b = edge.source, edge.target
            _, feedback = self._pair(edge)
            incoming[b] = incoming[b] + scaled(self._arriving(edge, s[a]), gain(a, b))
            returning = edge.pool_transposed(edge.convolve(s[a], feedback), s[b])
            incoming[a] = incoming[a] + scaled(edge.convolve_transposed(returning, feedback, s[a]), gain(b, a))
        return incoming

    def drive_transposed(self, s: AnyState, current: AnyState) -> Drift:
        gain = functools.partial(edge_gain, self.levels, self.feedback_gain)
        ends = [(edge.source, edge.target, edge) for edge in self._recurrent]
        products = [(a, b, edge.drives_transposed((s[a], s[b]), self._pair(edge))) for a, b, edge in ends]

        def transposed(v: AnyState) -> AnyState:
            found = _tree.zeros_like(v)
            for a, b, product in products:
                down, up = product(scaled(v[a], gain(b, a)), scaled(v[b], gain(a, b)))
                found[a], found[b] = found[a] + down, found[b] + up
            return found

        return transposed

    def drift_transposed(self, u: AnyState, current: AnyState) -> Drift:
        s, to_potentials = jax.vjp(self.rates, u)
        transposed = self.drive_transposed(s, current)
        return lambda v: _tree.subtract(to_potentials(transposed(v))[0], v)

    def device_kernels(self) -> dict[Edge, Any]:
        return self.kernels

    def feedback_edges(self) -> tuple[Edge, ...]:
        return tuple((edge.target, edge.source) for edge in self._pairs)

    def symmetry_norms(self) -> tuple[Scalar, Scalar] | None:
        """In closed form where no edge between layers pools. A tap of a kernel counts as often as it falls inside."""
        if any(edge.pooling != "none" for edge in self._recurrent):
            return None
        plus = minus = jnp.zeros(())
        shapes = dict(self.shape_items)
        for edge in self._recurrent:
            a, b, times = edge.source, edge.target, edge.times_used(shapes[edge.source])
            forward, feedback = self._pair(edge)
            if forward is None or feedback is None:
                forward = feedback = jnp.eye(shapes[a][2])[None, None]
            weight = 2 * self.feedback_gain ** abs(self.levels[b] - self.levels[a]) * times[:, :, None, None]
            plus = plus + jnp.sum(weight * (forward + feedback) ** 2)
            minus = minus + jnp.sum(weight * (forward - feedback) ** 2)
        return plus, minus

    def reciprocal_pairs(self) -> list[tuple[Array, Array]]:
        ends = [(edge.source, edge.target) for edge in self._pairs]
        return [(self.kernels[a, b], self.kernels[b, a]) for a, b in ends]

    @property
    def _recurrent(self) -> list[ConvEdge]:
        return [edge for edge in self.edges if edge.source != INPUT]

    @property
    def _pairs(self) -> list[ConvEdge]:
        """Edges with a kernel for each direction."""
        return [edge for edge in self._recurrent if edge.kernel_size is not None and not self.tied]

    def _pair(self, edge: ConvEdge) -> tuple[Array | None, Array | None]:
        """The kernels of both directions, one where there is but one, and none of a shortcut without."""
        forward = self.kernels.get((edge.source, edge.target))
        return forward, self.kernels.get((edge.target, edge.source), forward)

    def _arriving(self, edge: ConvEdge, s: Array) -> Array:
        return edge.pool(edge.convolve(s, self.kernels.get((edge.source, edge.target))))


def _halving(pooling: str) -> dict[str, Any]:
    """How an edge halves its images: by that pooling, or by its stride if it is `none`."""
    return {"stride": 2} if pooling == "none" else {"pooling": pooling}
