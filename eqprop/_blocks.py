"""In which order the layers of a state are visited by a relaxation that updates some of them at a time."""

import dataclasses
from collections.abc import Iterable, Mapping

Edge = tuple[str, str]
"""From the first layer into the second."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Layers that are updated together, block after block, by the positions of their leaves in the state."""

    order: tuple[tuple[int, ...], ...]
    independent: bool = False
    """Whether, but for the first block, no layer acts on a layer of its own block: the drift of such a block is zero
    when it has just been visited."""

    @classmethod
    def alternate(cls, count: int) -> "Blocks":
        """Every second of `count` leaves: for a drift of which nothing more is known."""
        halves = tuple(range(0, count, 2)), tuple(range(1, count, 2))
        return cls(tuple(half for half in halves if half))

    def twice(self, count: int) -> "Blocks":
        """The blocks of a pair of such states of `count` leaves, each layer together with its twin."""
        return Blocks(tuple((*block, *(count + leaf for leaf in block)) for block in self.order))

    def beginning_with(self, leaf: int) -> "Blocks":
        """The same blocks, turned so that the first one holds that leaf."""
        turn = next(index for index, block in enumerate(self.order) if leaf in block)
        return dataclasses.replace(self, order=self.order[turn:] + self.order[:turn])


def coloured(levels: Mapping[str, int], edges: Iterable[Edge]) -> Blocks:
    """Blocks of layers that do not act on each other, as few as a greedy colouring finds: two for a chain.

    **Arguments:** `levels`: of every layer. The colouring visits layers by level and then in the order given, never by
    name, so that a network settles the same way whatever its layers are called. `edges`: between layers.
    """
    pairs = {frozenset(edge) for edge in edges}
    leaf = {name: index for index, name in enumerate(sorted(levels))}  # the order of a dictionary's leaves
    colours: dict[str, int] = {}
    for name in sorted(levels, key=lambda name: levels[name]):
        taken = {colours[other] for other in colours if frozenset((name, other)) in pairs}
        colours[name] = next(colour for colour in range(len(levels)) if colour not in taken)
    order = [tuple(leaf[name] for name in levels if colours[name] == colour) for colour in range(len(levels))]
    loops = any(len(pair) == 1 for pair in pairs)
    return Blocks(tuple(block for block in order if block), independent=not loops)


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


def _visit(
    name: str, outgoing: Mapping[str, list[str]], path: tuple[str, ...], ordered: list[str], ahead: dict
) -> None:
    if name in ahead:
        return
    path = (*path, name)
    ahead[name] = [other for other in outgoing.get(name, []) if other not in path]
    for other in ahead[name]:
        _visit(other, outgoing, path, ordered, ahead)
    ordered.append(name)
