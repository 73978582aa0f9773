"""Resistors on any graph, with voltages held at some of its nodes: networks that learn physically."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int32, PRNGKeyArray, Shaped

from eqprop._blocks import Edge
from eqprop._tree import AnyState
from eqprop.activation import linear
from eqprop.circuit.diodes import Diodes
from eqprop.network.base import AbstractNetwork, Activation


class ResistorGraph(AbstractNetwork):
    """Nodes joined by resistors, some of them held at voltages. The others settle to Kirchhoff's current law:

        F(v)_i = Σⱼ g_ij (vⱼ − vᵢ) − leak vᵢ − I_diode(vᵢ)/siemens,       in units of `siemens · volt`.

    Potentials and rates are voltages; the state has the parts `hidden` and `out`. `A = Aᵀ` whatever the conductances,
    so that equilibrium propagation is exact: the nudge is a current into the output nodes, and the rule of an edge
    compares the voltages across it. Conductances are learned, `g = |conductances|`, reflected where an update passes
    through zero.

    Without diodes the response is linear in the inputs. Use `Newton`, which then takes one step.
    """

    conductances: Float[Array, " edges"]
    """In `siemens`."""
    ends: tuple[tuple[int, int], ...] = eqx.field(static=True)
    """The two nodes of every edge."""
    nodes: int = eqx.field(static=True)
    inputs: tuple[int, ...] = eqx.field(static=True)
    rails: tuple[tuple[int, float], ...] = eqx.field(static=True)
    outputs: tuple[int, ...] = eqx.field(static=True)
    leak: float = eqx.field(static=True)
    diodes: Diodes | None
    siemens: float = eqx.field(static=True)
    activation: ClassVar[Activation] = staticmethod(linear)

    def __init__(
        self,
        nodes: int,
        edges: Int32[np.ndarray, "edges 2"] | Iterable[Sequence[int]],
        *,
        inputs: Sequence[int],
        outputs: Sequence[int],
        rails: Mapping[int, float] | None = None,
        leak: float = 0.0,
        diodes: Diodes | None = None,
        siemens: float = 1e-3,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `nodes`: how many, numbered from 0.
        - `edges`: pairs of nodes, each once; `eqprop.topology` has generators of undirected graphs.
        - `inputs`: the nodes that are held at the entries of an example, in volts.
        - `outputs`: the nodes that are read, in that order.
        - `rails`: nodes that are held at voltages of their own, such as `{3: 0.0, 4: 1.0}`.
        - `leak`: conductance from every free node to ground, in `siemens`.
        - `diodes`: at every hidden node, to ground; `None`: none.
        - `siemens`: the unit of conductances; matters beside diodes only.
        - `key`: conductances are drawn uniform in [½, 3/2].

        **Raises:** `ValueError` for nodes that do not exist or have two roles, for repeated edges, and for free nodes
        that nothing holds: no path of edges leads from them to an input or a rail, and there is no leak.
        """
        pairs = [(int(a), int(b)) for a, b in edges]
        rails = dict(rails or {})
        roles = [*inputs, *rails, *outputs]
        named = {*roles, *(node for pair in pairs for node in pair)}
        if not named <= {*range(nodes)} or len({*roles}) < len(roles) or not inputs or not outputs:
            raise ValueError(
                f"inputs are {list(inputs)}, rails {list(rails)} and outputs {list(outputs)} of {nodes} nodes; "
                "expected different nodes below that number, at least one input and one output, and edges between them."
            )
        if len({frozenset(pair) for pair in pairs}) < len(pairs) or any(a == b for a, b in pairs):
            raise ValueError("edges has an edge twice, in one direction or both, or from a node to itself.")
        floating = {*range(nodes)} - _reached({*inputs, *rails}, pairs)
        if floating and not leak > 0:
            raise ValueError(
                f"Nothing holds the nodes {sorted(floating)}: no path of edges leads to an input or a rail. Add an "
                "edge, or a leak."
            )
        if leak < 0 or not siemens > 0:
            raise ValueError(
                f"leak is {leak} and siemens {siemens}; expected a conductance of at least 0, and above 0."
            )
        self.conductances = jax.random.uniform(key, (len(pairs),), float, 0.5, 1.5)
        self.ends, self.nodes, self.inputs, self.outputs = tuple(pairs), nodes, tuple(inputs), tuple(outputs)
        self.rails, self.leak, self.diodes, self.siemens = tuple(rails.items()), float(leak), diodes, siemens

    @property
    def holomorphic(self) -> bool:  # pyright: ignore
        """Whether the law of the diodes is analytic."""
        return self.diodes is None or self.diodes.law == "shockley"

    @property
    def hidden(self) -> tuple[int, ...]:
        """The free nodes that are not read, in the order of their numbers."""
        held = {*self.inputs, *self.outputs, *(node for node, _ in self.rails)}
        return tuple(node for node in range(self.nodes) if node not in held)

    def device_kernels(self) -> dict[Edge, Any]:
        return {("resistors", "resistors"): self.conductances}

    def embed(self, x: Shaped[Array, "..."]) -> Float[Array, " nodes"]:
        """The voltages of the nodes that are held; zero at all others."""
        if x.size != len(self.inputs):
            raise ValueError(f"An input has {x.size} entries, but the network holds {len(self.inputs)} nodes at them.")
        v = jnp.zeros(self.nodes, self.conductances.dtype)
        for node, volts in self.rails:
            v = v.at[node].set(volts)
        return v.at[np.array(self.inputs)].set(x.reshape(-1).astype(v.dtype))

    def initial_state(self, current: Float[Array, " nodes"]) -> AnyState:
        return {name: current[np.array(part, int)] for name, part in self._free}

    def drive(self, s: AnyState, current: Float[Array, " nodes"]) -> AnyState:
        """Kirchhoff's currents, plus `s`, which the leak of the base class takes away."""
        v = self.voltages(s, current)
        into = self._currents(v) + (1 - self.leak) * v
        total = {name: into[np.array(part, int)] for name, part in self._free}
        if self.diodes is not None:
            total["hidden"] = total["hidden"] - self.diodes(s["hidden"]) / self.siemens
        return total

    def voltages(self, s: AnyState, current: Float[Array, " nodes"]) -> Inexact[Array, " nodes"]:
        """Of all nodes, in the order of their numbers."""
        v = current.astype(s["out"].dtype)
        for name, part in self._free:
            v = v.at[np.array(part, int)].set(s[name])
        return v

    def drops(self, s: AnyState, current: Float[Array, " nodes"]) -> Inexact[Array, " edges"]:
        """The voltage across every resistor, from its first end to its second."""
        v = self.voltages(s, current)
        a, b = np.array(self.ends).T
        return v[a] - v[b]

    def co_content(self, s: AnyState, current: Float[Array, " nodes"]) -> Inexact[Array, ""]:
        """The co-content of the resistors, half the power in them, `½ Σ g Δv²`, in units of `siemens · volt²`."""
        return 0.5 * jnp.sum(jnp.abs(self.conductances) * self.drops(s, current) ** 2)

    def power(self, state: AnyState, x: Shaped[Array, "..."]) -> Float[Array, ""]:
        """The power in watts that resistors, leaks and diodes dissipate at real potentials `state`, settled or not:
        `siemens (Σ g (vₐ − v_b)² + leak Σ vᵢ²)`, the second sum over free nodes, and that of the diodes."""
        total = 2 * self.co_content(state, self.embed(x))
        total = total + self.leak * sum(jnp.sum(state[name] ** 2) for name, _ in self._free)
        return self.siemens * total + (0.0 if self.diodes is None else self.diodes.power(state["hidden"]))

    def supplied(self, state: AnyState, x: Shaped[Array, "..."]) -> Float[Array, ""]:
        """The power in watts that the sources at held nodes and the offsets of the diodes deliver. By Tellegen's
        theorem it is `power` and what charges the free nodes, `siemens Σ vᵢ F(v)ᵢ`, whatever the potentials."""
        v = self.voltages(state, self.embed(x))
        held = np.array([*self.inputs, *(node for node, _ in self.rails)])
        offsets = 0.0 if self.diodes is None else self.diodes.supplied(state["hidden"])
        return -self.siemens * jnp.sum(v[held] * self._currents(v)[held]) + offsets

    def _currents(self, v: Inexact[Array, " nodes"]) -> Inexact[Array, " nodes"]:
        """Into all nodes through the resistors, in units of `siemens · volt`."""
        a, b = np.array(self.ends).T
        flow = jnp.abs(self.conductances).astype(v.dtype) * (v[b] - v[a])
        return jnp.zeros_like(v).at[a].add(flow).at[b].add(-flow)

    @property
    def _free(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        return ("hidden", self.hidden), ("out", self.outputs)


def _reached(starts: set[int], pairs: Sequence[tuple[int, int]]) -> set[int]:
    neighbours: dict[int, list[int]] = {}
    for a, b in pairs:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    reached, waiting = set(starts), list(starts)
    while waiting:
        for other in neighbours.get(waiting.pop(), []):
            if other not in reached:
                reached.add(other)
                waiting.append(other)
    return reached
