"""Graphs of neurons or nodes, as lists of edges: what a `SparseNetwork` or a `ResistorGraph` is built on.

All generators return `int32` pairs `(from, to)` of neurons numbered from 0, without repeats and without loops on one
neuron, sorted by target and then by source. Undirected graphs are returned once an edge, with `from < to`;
`both_ways` adds the reverse edges. Random ones are those of a seed, the same on every platform.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int32

Edges = Int32[np.ndarray, "_ 2"]
"""Pairs `(from, to)`."""

ROUNDS = 1000
"""Draws after which a graph that does not fill is given up."""


def ring(count: int, neighbours: int = 1) -> Edges:
    """Every neuron joined to the next `neighbours` on a circle. Undirected.

    **Raises:** `ValueError` unless the neighbours on both sides are different neurons.
    """
    if not 0 < 2 * neighbours < count:
        raise ValueError(f"A ring of {count} has no {neighbours} neighbours on either side; expected fewer than half.")
    start = np.repeat(np.arange(count), neighbours)
    return _undirected(start, (start + np.tile(np.arange(1, neighbours + 1), count)) % count)


def lattice(shape: Sequence[int], *, periodic: bool = False) -> Edges:
    """The square lattice of that many neurons an axis, numbered with the last axis fastest. Undirected.

    **Arguments:** `periodic`: whether the last neuron of an axis is joined to its first.
    """
    if not shape or min(shape) < 1:
        raise ValueError(f"The lattice has the shape {tuple(shape)}; expected at least one axis, and no empty one.")
    numbers, pairs = np.arange(np.prod(shape)).reshape(shape), []
    for axis, extent in enumerate(shape):
        forward = np.roll(numbers, -1, axis)
        inside = slice(None) if periodic and extent > 2 else slice(None, -1)
        index = tuple(inside if k == axis else slice(None) for k in range(len(shape)))
        pairs.append((numbers[index].ravel(), forward[index].ravel()))
    start, end = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return _undirected(start, end)


def small_world(count: int, neighbours: int, rewired: float, seed: int) -> Edges:
    """A ring in which each edge is led to a random neuron with probability `rewired`. Undirected.

    Watts & Strogatz (1998). An edge that would repeat another one stays where it is.
    """
    if not 0 <= rewired <= 1:
        raise ValueError(f"rewired is {rewired}; expected a probability, from 0 to 1.")
    random, edges = np.random.default_rng(seed), ring(count, neighbours)
    joined = {(int(a), int(b)) for a, b in edges}
    for a, b in edges[random.random(len(edges)) < rewired].tolist():
        other = int(random.integers(count))
        new = (min(a, other), max(a, other))
        if other != a and new not in joined:
            joined.remove((a, b))
            joined.add(new)
    return _undirected(*np.array(sorted(joined)).T)


def random(count: int, degree: int, seed: int) -> Edges:
    """`degree · count` different directed edges, drawn evenly from all: the graph of Erdős and Rényi."""
    return _drawn(count, degree * count, seed, lambda start, end: np.ones(len(start), bool))


def distance_dependent(positions: Float[np.ndarray, "n axes"], degree: int, length: float, seed: int) -> Edges:
    """`degree` directed edges a neuron on average, with a probability that falls as `exp(−distance/length)`.

    **Arguments:** `positions`: of the neurons. `degree`: edges over neurons. `length`: in the unit of positions.
    """
    generator = np.random.default_rng([seed, 1])

    def near(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        distance = np.linalg.norm(positions[start] - positions[end], axis=1)
        return generator.random(len(start)) < np.exp(-distance / length)

    return _drawn(len(positions), degree * len(positions), seed, near)


def both_ways(edges: Edges) -> Edges:
    """Edges and their reverses."""
    return _sorted(np.concatenate([edges, edges[:, ::-1]]))


def inputs(input_size: int, neurons: int | Sequence[int], degree: int, seed: int) -> Edges:
    """Edges from an input by which every one of `neurons` sees `degree` different entries, drawn evenly. A number of
    neurons stands for those from 0.

    **Raises:** `ValueError` if there are not so many entries.
    """
    if not 0 < degree <= input_size:
        raise ValueError(f"degree is {degree}; expected a number of entries, from 1 to the {input_size} there are.")
    generator, chosen = np.random.default_rng(seed), np.arange(neurons) if isinstance(neurons, int) else neurons
    entries = np.stack([generator.permutation(input_size)[:degree] for _ in chosen])
    return _sorted(np.stack([entries.ravel(), np.repeat(chosen, degree)], axis=1))


def excitatory(count: int, fraction: float, seed: int) -> Bool[np.ndarray, " n"]:
    """Which neurons are excitatory, exactly `round(fraction · count)` of them: the others inhibit all that they reach
    (Dale's principle)."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction is {fraction}; expected a part, from 0 to 1.")
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(seed).permutation(count)[: round(fraction * count)]] = True
    return chosen


def _drawn(count: int, number: int, seed: int, accepted: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Edges:
    """Different directed edges, drawn evenly until there are so many of those that are accepted."""
    if not 0 <= number <= 0.5 * count * (count - 1):
        raise ValueError(f"{number} edges were asked for among {count} neurons; expected up to half of all there are.")
    generator, found = np.random.default_rng(seed), np.zeros(0, np.int64)
    for _ in range(ROUNDS):
        if len(found) == number:
            return _sorted(np.stack([found % count, found // count], axis=1))
        start, end = generator.integers(count, size=(2, 2 * number + 16))
        keep = start != end
        start, end = start[keep], end[keep]
        keep = accepted(start, end)
        # In the order drawn, so that which of too many are left does not depend on their numbers.
        candidates = np.concatenate([found, end[keep] * count + start[keep]])
        _, first = np.unique(candidates, return_index=True)
        found = candidates[np.sort(first)][:number]
    raise ValueError(
        f"Only {len(found)} of {number} edges were found among {count} neurons in {ROUNDS} rounds: too few pairs lie "
        "near each other. Ask for a smaller degree, or give a larger length."
    )


def _undirected(a: np.ndarray, b: np.ndarray) -> Edges:
    return _sorted(np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1))


def _sorted(edges: np.ndarray) -> Edges:
    return np.unique(edges[:, ::-1], axis=0)[:, ::-1].astype(np.int32)
