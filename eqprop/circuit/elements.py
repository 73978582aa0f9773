"""Elements of a circuit by the names of its nodes, and which of its voltages are free."""

import functools
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

GROUND = "0"


class Resistor(NamedTuple):
    """A resistor between two nodes."""

    name: str
    ends: tuple[str, str]
    ohms: float


class Diode(NamedTuple):
    """A diode from its anode to its cathode, `area` times as large as its model."""

    name: str
    ends: tuple[str, str]
    model: str
    area: float = 1.0


class Source(NamedTuple):
    """A source of the value `constant + Σ factor · term`. The first letter of its name says what it is.

    - `V`, `E`: the voltage of the first end over the second has that value. An `E` has the voltages of nodes as terms.
    - `I`, `G`, `B`: a current of that value flows from the first end through the source to the second. A `G` or a `B`
      has the voltages of nodes as terms.
    - `F`: a current too, whose term is the current of a `V` source, from its first end through it to its second.
    """

    name: str
    ends: tuple[str, str]
    constant: float = 0.0
    terms: tuple[tuple[str, float], ...] = ()

    @property
    def holds_voltage(self) -> bool:
        """Whether it is a voltage source."""
        return self.name[0] in "ve"


class Reduction(NamedTuple):
    """What voltage sources leave of a circuit's voltages. An unknown is the voltage of a free node, or that which is
    added to a voltage source whose current is read. With the unknowns `z`, the values `c` of the voltage sources and
    the currents `i` of all other devices into the nodes,

        v = P z + Q c,        Kirchhoff's current, or the current that is read:  Lᵀ i.

    The order of the unknowns is that of the hidden nodes, then that of the outputs.
    """

    nodes: tuple[str, ...]
    """Ground first, the others in the order in which elements name them."""
    hidden: tuple[str, ...]
    """The free nodes that are not read, one for each set of nodes that voltage sources join."""
    P: Float[np.ndarray, "nodes unknowns"]
    Q: Float[np.ndarray, "nodes held"]
    L: Float[np.ndarray, "nodes unknowns"]
    reads_current: Bool[np.ndarray, " unknowns"]
    resistors: Int[np.ndarray, "2 resistors"]
    """The ends of every resistor."""
    admittance: Float[np.ndarray, "nodes nodes"]
    """Currents into nodes by the voltages that control them, in siemens."""
    constant: Float[np.ndarray, " nodes"]
    """Currents into nodes of sources that nothing controls, in amperes."""
    gains: Float[np.ndarray, " unknowns"] | None
    """Positive `D` for which `D Lᵀ Y P` is symmetric whatever the resistors and diodes; `None`: there is none."""


@functools.lru_cache(maxsize=64)
def reduced(
    resistors: tuple[tuple[str, str], ...],
    diodes: tuple[tuple[str, str], ...],
    sources: tuple[Source, ...],
    outputs: tuple[str, ...],
) -> Reduction:
    """The reduction of a circuit with resistors and diodes between these ends.

    **Raises:** `ValueError` for loops of voltage sources or of amplifiers, for outputs that are held or joined, and for
    nodes that nothing holds.
    """
    nodes = tuple(dict.fromkeys([GROUND, *(n for ends in (*resistors, *diodes) for n in ends), *_named(sources)]))
    at = {name: k for k, name in enumerate(nodes)}
    held = [s for s in sources if s.holds_voltage]
    branch = {s.name: k for k, s in enumerate(held)}
    read = [name for name in outputs if name not in at]
    roots, T = _trees(nodes, held, [name for name in outputs if name in at])
    R = np.zeros((len(nodes), len(set(roots) - {GROUND})))
    free = [name for name in nodes[1:] if roots[at[name]] == name]
    for k, root in enumerate(roots):
        if root != GROUND:
            R[k, free.index(root)] = 1.0
    K, M = np.zeros((len(held), len(nodes))), np.zeros((len(nodes), len(held)))
    admittance, constant = np.zeros((len(nodes), len(nodes))), np.zeros(len(nodes))
    for source in sources:
        a, b = (at[n] for n in source.ends)
        if source.name[0] == "e":
            for node, factor in source.terms:
                K[branch[source.name], at[node]] += factor
        elif source.name[0] == "f":
            for name, factor in source.terms:
                M[a, branch[name]] -= factor
                M[b, branch[name]] += factor
        elif not source.holds_voltage:
            constant[a] -= source.constant
            constant[b] += source.constant
            for node, factor in source.terms:
                admittance[a, at[node]] -= factor
                admittance[b, at[node]] += factor
    voltages, currents = np.eye(len(nodes)) - T @ K, np.eye(len(nodes)) - M @ T.T
    for matrix, letter in ((voltages, "e"), (currents, "f")):
        if np.linalg.cond(matrix) > 1e12:
            names = ", ".join(s.name for s in sources if s.name[0] == letter)
            raise ValueError(f"The controlled sources {names} control themselves with a loop gain of 1; change a gain.")
    hidden = [name for name in free if name not in outputs]
    order = [free.index(name) for name in hidden]
    order += [len(free) + read.index(name) if name in read else free.index(name) for name in outputs]
    columns = np.concatenate([R, T[:, [branch[name] for name in read]]], axis=1)[:, order]
    P, L = np.linalg.solve(voltages, columns), np.linalg.solve(currents.T, columns)
    P[0] = L[0] = 0.0
    reads = np.array([name in read for name in (*hidden, *outputs)], bool)
    ends = np.array([[at[n] for n in pair] for pair in (*resistors, *diodes)], int).reshape(-1, 2).T
    _check_held(P, L, ends, admittance, [*hidden, *outputs], reads)
    gains = _gains(P, L, ends, L.T @ admittance @ P, range(len(hidden), len(reads)))
    Q = np.linalg.solve(voltages, T)
    return Reduction(nodes, tuple(hidden), P, Q, L, reads, ends[:, : len(resistors)], admittance, constant, gains)


def _named(sources: Iterable[Source]) -> list[str]:
    """The nodes of sources, those that control them included."""
    return [n for s in sources for n in (*s.ends, *(name for name, _ in s.terms if s.name[0] != "f"))]


def _trees(
    nodes: Sequence[str], held: Sequence[Source], outputs: Sequence[str]
) -> tuple[list[str], Float[np.ndarray, "nodes held"]]:
    """Voltage sources join nodes to trees: the root of every node, and the sources, with their signs, on its path.

    The root is ground, else an output, else the node that is named first.
    """
    near: dict[str, list[tuple[str, int, float]]] = {name: [] for name in nodes}
    for k, source in enumerate(held):
        a, b = source.ends
        near[b].append((a, k, 1.0))
        near[a].append((b, k, -1.0))
    roots: dict[str, str] = {}
    T = np.zeros((len(nodes), len(held)))
    at = {name: k for k, name in enumerate(nodes)}
    for root in (GROUND, *outputs, *nodes):
        if root in roots:
            if root in outputs and roots[root] != root:
                why = "held by voltage sources" if roots[root] == GROUND else f"tied by them to {roots[root]}"
                raise ValueError(
                    f"The output {root} is {why}: no current into it moves it on its own. Read the free node that "
                    "controls it, or the current of a voltage source by its name."
                )
            continue
        roots[root], waiting, used = root, deque([root]), set[int]()
        while waiting:
            node = waiting.popleft()
            for other, k, sign in near[node]:
                if k in used:
                    continue
                used.add(k)
                if other in roots:
                    raise ValueError(
                        f"The voltage source {held[k].name} closes a loop of voltage sources at {other}, in which "
                        "currents are not determined. Put a resistor into the loop."
                    )
                roots[other] = root
                T[at[other]] = T[at[node]]
                T[at[other], k] += sign
                waiting.append(other)
    return [roots[name] for name in nodes], T


def _check_held(
    P: np.ndarray, L: np.ndarray, ends: np.ndarray, admittance: np.ndarray, names: list[str], reads: np.ndarray
) -> None:
    """**Raises:** `ValueError` for free nodes whose voltage no conductance determines."""
    g = np.random.default_rng(0).uniform(0.5, 1.5, ends.shape[1])
    u, w = L[ends[0]] - L[ends[1]], P[ends[0]] - P[ends[1]]
    scale = max(float(np.max(np.abs(admittance), initial=0.0)), 1e-300)
    J = (u.T * g) @ w - L.T @ admittance @ P / scale
    free = np.flatnonzero(~reads)
    if not free.size:
        return
    _, values, modes = np.linalg.svd(J[np.ix_(free, free)])
    if values[-1] < 1e-12 * max(values[0], 1.0):
        worst = [str(names[free[k]]) for k in np.flatnonzero(np.abs(modes[-1]) > 1e-6)]
        raise ValueError(
            f"Nothing holds the nodes {', '.join(worst)}: no path of resistors or diodes leads to ground or to a "
            "voltage source. Add a resistor."
        )


def _gains(
    P: np.ndarray, L: np.ndarray, ends: np.ndarray, active: np.ndarray, outputs: Iterable[int]
) -> Float[np.ndarray, " unknowns"] | None:
    """A device between two nodes adds `u wᵀ` to `Lᵀ Y P`, which rows times `D` make symmetric where `D u = λ w`."""
    count, tiny = P.shape[1], 1e-12
    near: dict[int, list[tuple[int, float]]] = {k: [] for k in range(count)}
    for u, w in zip(L[ends[0]] - L[ends[1]], P[ends[0]] - P[ends[1]], strict=True):
        if not np.any(np.abs(u) > tiny) or not np.any(np.abs(w) > tiny):
            continue
        where = np.flatnonzero(np.abs(u) > tiny)
        if not np.array_equal(where, np.flatnonzero(np.abs(w) > tiny)):
            return None
        ratios = u[where] / w[where]
        for k, ratio in zip(where[1:], ratios[1:], strict=True):
            first = int(where[0])
            near[first].append((int(k), ratios[0] / ratio))
            near[int(k)].append((first, ratio / ratios[0]))
    found = np.zeros(count)
    for start in (*outputs, *range(count)):
        if found[start]:
            continue
        found[start], waiting = 1.0, deque([start])
        while waiting:
            k = waiting.popleft()
            for other, factor in near[k]:
                if not found[other]:
                    found[other] = factor * found[k]
                    waiting.append(other)
                if factor < 0 or abs(found[other] - factor * found[k]) > 1e-9 * abs(found[other]):
                    return None
    weighed = found[:, None] * active
    symmetric = np.max(np.abs(weighed - weighed.T), initial=0.0) <= 1e-9 * np.max(np.abs(weighed), initial=0.0)
    return found if symmetric else None
