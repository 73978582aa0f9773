"""In which order the layers of a state are visited by a relaxation that updates some of them at a time."""

import dataclasses
from collections.abc import Iterable
from typing import Literal

Edge = tuple[str, str]
"""From the first layer into the second."""

Order = Literal["alternate", "forward", "backward"]
"""Of a sweep: the blocks of a colouring, or level by level from the input or towards it."""


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Layers that are updated together, block after block, by the positions of their leaves in the state."""

    order: tuple[tuple[int, ...], ...]
    edges: frozenset[tuple[int, int]] | None = None
    """Which leaves act on which; `None` where nothing is known."""
    levels: tuple[int, ...] | None = None
    """The level of every leaf; `None` where nothing is known."""

    @classmethod
    def alternate(cls, count: int) -> "Blocks":
        """Every second of `count` leaves: for a drift of which nothing more is known."""
        halves = tuple(range(0, count, 2)), tuple(range(1, count, 2))
        return cls(tuple(half for half in halves if half))

    @property
    def independent(self) -> bool:
        """Whether, but for the first block, no layer acts on a layer of its own block: the drift of such a block is
        zero when it has just been visited."""
        within = ({*block} for block in self.order[1:])
        return self.edges is not None and not any({*edge} <= block for block in within for edge in self.edges)

    def twice(self, count: int) -> "Blocks":
        """The blocks of a pair of such states of `count` leaves, each layer together with its twin."""
        return Blocks(tuple((*block, *(count + leaf for leaf in block)) for block in self.order))

    def nudged(self, leaves: Iterable[int]) -> "Blocks":
        """The same blocks where those leaves act on themselves as well, turned to begin with the first of them."""
        leaves = list(leaves)
        turn = next((index for index, block in enumerate(self.order) if leaves and leaves[0] in block), 0)
        edges = None if self.edges is None else self.edges | {(leaf, leaf) for leaf in leaves}
        return dataclasses.replace(self, order=self.order[turn:] + self.order[:turn], edges=edges)

    def ordered(self, order: Order) -> "Blocks":
        """The same layers in that order, which stays `alternate` where levels are not known."""
        if order == "alternate" or self.levels is None:
            return self
        levels = sorted({*self.levels}, reverse=order == "backward")
        blocks = (tuple(leaf for leaf, own in enumerate(self.levels) if own == level) for level in levels)
        return dataclasses.replace(self, order=tuple(blocks))
