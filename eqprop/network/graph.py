"""Dense layers on a graph: edges, levels, blocks, and what all networks on a graph have in common."""

import abc
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
from equinox import AbstractVar
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from eqprop._blocks import Blocks, Edge
from eqprop._tree import AnyState, product
from eqprop.network.base import AbstractLinearNetwork

INPUT = "in"
"""The name under which edges refer to the network's input."""


class AbstractDense(AbstractLinearNetwork):
    """Dense layers on a graph whose edges are pairs of names."""

    kernels: AbstractVar[dict[Edge, Float[Array, "_ _"]]]
    """One kernel an edge `(a, b)`, of shape `(size of a, size of b)`."""
    biases: AbstractVar[dict[str, Float[Array, " _"]]]
    """One bias a layer."""
    level_items: AbstractVar[tuple[tuple[str, int], ...]]
    """Layers in the order given, with their levels."""

    @property
    def levels(self) -> dict[str, int]:
        """The level of every layer: the length of the longest path of forward edges to it from the input."""
        return dict(self.level_items)

    @property
    def recurrent(self) -> dict[Edge, Array]:
        """The kernels between layers, without those from the input."""
        return {edge: kernel for edge, kernel in self.kernels.items() if edge[0] != INPUT}

    def device_kernels(self) -> dict[Edge, Any]:
        return self.kernels

    @property
    def blocks(self) -> Blocks:
        return coloured(self.levels, self.recurrent)

    def embed(self, x: Shaped[Array, "..."]) -> AnyState:
        """`bias_b + x K_in,b` for every layer `b`, the input flattened.

        **Raises:** `ValueError` if `x` has another number of entries than the input kernels take.
        """
        current = dict(self.biases)
        for (source, target), kernel in self.kernels.items():
            if source != INPUT:
                continue
            if x.size != kernel.shape[0]:
                raise ValueError(
                    f"The input has shape {x.shape}, {x.size} entries an example, but the network expects "
                    f"{kernel.shape[0]}. Resize the images or set the network's input size; a batch goes "
                    "through jax.vmap."
                )
            current[target] = current[target] + product(x.reshape(1, -1).astype(kernel.dtype), kernel)[0]
        return current

    @abc.abstractmethod
    def recurrent_drive(self, s: AnyState) -> AnyState:
        """The part of the drive that is linear in the rates."""

    def drive(self, s: AnyState, current: AnyState) -> AnyState:
        return jax.tree.map(lambda d, c: d + c.astype(d.dtype), self.recurrent_drive(s), current)


def scaled(values: Array, gain: float) -> Array:
    """`values` times `gain`, and themselves if it is one."""
    return values if gain == 1 else gain * values


def rotate(kernel: Array, towards: Array, angle: float) -> Array:
    """`sin α · kernel + cos α · towards`, exact at 0 and 90 degrees."""
    if angle % 90.0:
        return math.sin(math.radians(angle)) * kernel + math.cos(math.radians(angle)) * towards
    quarter = int(angle // 90.0) % 4
    return (towards, kernel, -towards, -kernel)[quarter]


def chain_of(sizes: Sequence[int]) -> tuple[dict[str, int], list[Edge]]:
    """Layers and forward edges of `in → l1 → l2 → … → out`."""
    if len(sizes) < 2:
        raise ValueError(
            f"sizes is {list(sizes)}: a chain needs the input's size and one layer at least, "
            "for instance [784, 256, 10]."
        )
    names = [INPUT, *(f"l{i}" for i in range(1, len(sizes) - 1)), "out"]
    return dict(zip(names[1:], sizes[1:], strict=True)), list(zip(names[:-1], names[1:], strict=True))


def init_kernels(edges: Sequence[Edge], sizes: Mapping[str, int], key: PRNGKeyArray) -> dict[Edge, Array]:
    init, keys = jax.nn.initializers.lecun_normal(), jax.random.split(key, len(edges))
    return {(a, b): init(k, (sizes[a], sizes[b]), float) for k, (a, b) in zip(keys, edges, strict=True)}


def layer_sizes(input_size: int, layers: Mapping[str, int]) -> dict[str, int]:
    if INPUT in layers:
        raise ValueError(f"A layer is called {INPUT!r}, the name of the input. Rename it.")
    return {INPUT: input_size, **layers}


def checked_edge(pair: Sequence[str], sizes: Mapping[str, int]) -> Edge:
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
    """Refuse a graph that cannot be built; `sizes` includes the input."""
    repeated = sorted({f"{a} -> {b}" for a, b in edges if edges.count((a, b)) > 1})
    small = [f"{name}: {size}" for name, size in sizes.items() if size < 1]
    for wrong, message in (
        (len(sizes) < 2, "The network has no layers. Give at least one, such as {'out': 10}."),
        (any(b == INPUT for _, b in edges), f"An edge ends at {INPUT!r}; the input is clamped."),
        (repeated, f"Edges given twice: {', '.join(repeated)}. Give each once."),
        (small, f"Sizes below one: {', '.join(small)}."),
    ):
        if wrong:
            raise ValueError(message)


def coloured(levels: Mapping[str, int], edges: Iterable[Edge]) -> Blocks:
    """Blocks of layers that do not act on each other, as few as a greedy colouring finds: two for a chain.

    **Arguments:** `levels`: of every layer. The colouring visits layers by level and then in the order given, never by
    name, so that a network settles the same way whatever its layers are called. `edges`: between layers.
    """
    edges = set(edges)
    leaf = {name: index for index, name in enumerate(sorted(levels))}  # the order of a dictionary's leaves
    colours: dict[str, int] = {}
    for name in sorted(levels, key=lambda name: levels[name]):
        taken = {colours[other] for other in colours if {(name, other), (other, name)} & edges}
        colours[name] = next(colour for colour in range(len(levels)) if colour not in taken)
    blocks = (tuple(leaf[name] for name in levels if colours[name] == colour) for colour in range(len(levels)))
    return Blocks(
        tuple(block for block in blocks if block),
        frozenset((leaf[a], leaf[b]) for a, b in edges),
        tuple(levels[name] for name in sorted(levels)),
    )


def levels_of(layers: Iterable[str], edges: Iterable[Edge], source: str) -> dict[str, int]:
    """The level of every layer: the length of the longest path of `edges` from `source`, without edges that close a
    loop. A layer that no path reaches has level 1.

    Edges are followed in the order given; one that leads back to a layer on its own path closes a loop.
    """
    outgoing: dict[str, list[str]] = {}
    for a, b in edges:
        outgoing.setdefault(a, []).append(b)
    ordered: list[str] = []  # every layer after those it leads to
    ahead: dict[str, list[str]] = {}
    _visit(source, outgoing, (), ordered, ahead)
    levels = dict.fromkeys([source, *layers], 0)
    for name in reversed(ordered):
        for other in ahead[name]:
            levels[other] = max(levels[other], levels[name] + 1)
    return {name: max(levels[name], 1) for name in layers}


def _visit(name: str, outgoing: Mapping[str, list[str]], path: tuple[str, ...], ordered: list[str], ahead: dict):
    if name in ahead:
        return
    path = (*path, name)
    ahead[name] = [other for other in outgoing.get(name, []) if other not in path]
    for other in ahead[name]:
        _visit(other, outgoing, path, ordered, ahead)
    ordered.append(name)
