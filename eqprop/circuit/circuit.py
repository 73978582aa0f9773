"""Any circuit of two-terminal devices and linear sources, by the names of its nodes: a network that a netlist makes."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Shaped

from eqprop._blocks import Edge
from eqprop._tree import AnyState, product, real_linear
from eqprop.activation import linear
from eqprop.circuit.diodes import Diodes
from eqprop.circuit.elements import Diode, Reduction, Resistor, Source, reduced
from eqprop.network.base import AbstractNetwork, Activation


class Circuit(AbstractNetwork):
    """A circuit that settles to Kirchhoff's current law. `read_circuit` makes one of a netlist.

    The unknowns `z` and the voltage sources determine the voltages `v` of all nodes linearly. With the currents `i(v)`
    of resistors, diodes and current sources into the nodes,

        v = P z + Q c(x),        F(z) = D Lᵀ i(v)/siemens,       in units of `siemens · volt`.

    Voltage sources are eliminated without error: a node that one holds is no unknown, and nodes that one joins are one
    unknown. Potentials and rates are voltages; the state has the parts `hidden` and `out`.

    Without controlled sources `P = L` and `D = 1`, so that `A = Aᵀ` whatever the conductances, and equilibrium
    propagation is exact. Amplifiers make `P ≠ L`. Where gains `D` of the rows make `A` symmetric again whatever the
    conductances, as of amplifiers in both directions, `F` has them, and nudges stay exact. Where there are none,
    `reciprocal` is false.

    An output is the voltage of a node, or the current of a voltage source, in `siemens · volt`. Such a source is held
    at its value plus `o − I`, where `o` is the output and `I` the current at its value. Its fixed point is `o = I`, and
    a nudge of `o` by `β · error` holds the source `β · error` volts beside its value, which is the adjoint of the
    reading.

    Conductances are learned, `g = |conductances|`, reflected where an update passes through zero. Use `Newton`.
    """

    conductances: Float[Array, " resistors"]
    """Of the resistors, in `siemens`."""
    models: dict[str, Diodes]
    """By name; the offset is 0."""
    resistors: tuple[tuple[str, tuple[str, str]], ...] = eqx.field(static=True)
    """Names and ends."""
    diodes: tuple[Diode, ...] = eqx.field(static=True)
    sources: tuple[Source, ...] = eqx.field(static=True)
    inputs: tuple[tuple[str, int, float], ...] = eqx.field(static=True)
    """Names of voltage sources, each with the entry of an example that it takes and the volts per unit of it."""
    outputs: tuple[str, ...] = eqx.field(static=True)
    siemens: float = eqx.field(static=True)
    activation: ClassVar[Activation] = staticmethod(linear)

    def __init__(
        self,
        elements: Iterable[Resistor | Diode | Source],
        *,
        inputs: Sequence[str] | Mapping[str, tuple[int, float]],
        outputs: Sequence[str],
        models: Mapping[str, Diodes] | None = None,
        siemens: float = 1e-3,
    ):
        """**Arguments:**

        - `elements`: in any order. Names are in lower case, and `"0"` is ground.
        - `inputs`: the voltage sources that take the entries of an example, in that order and in volts; or by name the
            number of the entry, from 0, and the volts per unit of it. Other voltage sources keep their value.
        - `outputs`: the nodes whose voltage, and the voltage sources whose current, is read, in that order.
        - `models`: of the diodes.
        - `siemens`: the unit of conductances.

        **Raises:** `ValueError` for names that are not there or are there twice, for values out of range, for loops of
        voltage sources, for outputs that are held, and for nodes that nothing holds.
        """
        elements, models = list(elements), dict(models or {})
        entries = inputs if isinstance(inputs, Mapping) else {name: (k, 1.0) for k, name in enumerate(inputs)}
        resistors = [e for e in elements if isinstance(e, Resistor)]
        self.resistors = tuple((r.name, r.ends) for r in resistors)
        self.diodes = tuple(e for e in elements if isinstance(e, Diode))
        self.sources = tuple(e for e in elements if isinstance(e, Source))
        self.inputs = tuple((name, int(entry), float(scale)) for name, (entry, scale) in entries.items())
        self.outputs, self.models, self.siemens = tuple(outputs), models, float(siemens)
        _check_names(elements, entries, self.outputs, models)
        for element in elements:
            _check_values(element)
        if not siemens > 0:
            raise ValueError(f"siemens is {siemens}; expected a conductance above 0.")
        self.conductances = jnp.asarray([1 / (r.ohms * siemens) for r in resistors], float).reshape(-1)
        _ = self._reduced  # raises for circuits that have no reduction

    @property
    def holomorphic(self) -> bool:  # pyright: ignore
        """Whether the law of the diodes is analytic."""
        return all(self.models[d.model].law == "shockley" for d in self.diodes)

    @property
    def reciprocal(self) -> bool:
        """Whether `A` is symmetric at fixed points whatever the conductances."""
        return self._reduced.gains is not None

    @property
    def nodes(self) -> tuple[str, ...]:
        """The names of all nodes, ground first."""
        return self._reduced.nodes

    @property
    def hidden(self) -> tuple[str, ...]:
        """The free nodes that are not read, one of each set of nodes that voltage sources join."""
        return self._reduced.hidden

    def device_kernels(self) -> dict[Edge, Any]:
        return {("resistors", "resistors"): self.conductances} if self.conductances.size else {}

    def embed(self, x: Shaped[Array, "..."]) -> Float[Array, " nodes"]:
        """The voltages of all nodes where every unknown is zero."""
        size = max(entry for _, entry, _ in self.inputs) + 1
        if x.size != size:
            raise ValueError(f"An input has {x.size} entries, but the sources of the circuit take {size}.")
        held = [s for s in self.sources if s.holds_voltage]
        at = {s.name: k for k, s in enumerate(held)}
        scaled = x.reshape(-1).astype(self.conductances.dtype)
        values = jnp.asarray([s.constant for s in held], scaled.dtype)
        for name, entry, scale in self.inputs:
            values = values.at[at[name]].set(scale * scaled[entry])
        return _through(self._reduced.Q, values)

    def initial_state(self, current: Float[Array, " nodes"]) -> AnyState:
        return {
            "hidden": jnp.zeros(len(self.hidden), current.dtype),
            "out": jnp.zeros(len(self.outputs), current.dtype),
        }

    def drive(self, s: AnyState, current: Float[Array, " nodes"]) -> AnyState:
        """`F(z)`, plus `s`, which the leak of the base class takes away."""
        to, z = self._reduced, jnp.concatenate([s["hidden"], s["out"]])
        unknowns, read = self._unknowns(z, current)
        force = self._collected(unknowns, current)
        if read:  # what is added to a source, I − o with the sign of a drift
            force = jnp.where(to.reads_current, -unknowns, force)
        if to.gains is not None:
            force = jnp.asarray(to.gains, z.real.dtype).astype(z.dtype) * force
        total = force + z
        return {"hidden": total[: len(self.hidden)], "out": total[len(self.hidden) :]}

    def voltages(self, s: AnyState, current: Float[Array, " nodes"]) -> Inexact[Array, " nodes"]:
        """Of all nodes, in the order of `nodes`."""
        z = jnp.concatenate([s["hidden"], s["out"]])
        return self._voltages(self._unknowns(z, current)[0], current)

    def currents(self, v: Inexact[Array, " nodes"]) -> Inexact[Array, " nodes"]:
        """Into all nodes, of resistors, diodes and current sources at these voltages, in `siemens · volt`."""
        to = self._reduced
        (a, b), into = to.resistors, jnp.zeros_like(v)
        flow = jnp.abs(self.conductances).astype(v.dtype) * (v[b] - v[a])
        into = into.at[a].add(flow).at[b].add(-flow)
        at = {name: k for k, name in enumerate(to.nodes)}
        for kind in dict.fromkeys((d.model, d.area) for d in self.diodes):
            alike = [d.ends for d in self.diodes if (d.model, d.area) == kind]
            a, b = (np.array([at[ends[end]] for ends in alike]) for end in (0, 1))
            model = self.models[kind[0]]
            flow = dataclasses.replace(model, saturation=kind[1] * model.saturation).one(v[a] - v[b]) / self.siemens
            into = into.at[a].add(-flow).at[b].add(flow)
        if np.any(to.admittance):
            into = into + _through(to.admittance / self.siemens, v)
        return into + jnp.asarray(to.constant / self.siemens, v.real.dtype).astype(v.dtype)

    @property
    def _reduced(self) -> Reduction:
        ends = tuple(ends for _, ends in self.resistors)
        return reduced(ends, tuple(d.ends for d in self.diodes), self.sources, self.outputs)

    def _unknowns(
        self, z: Inexact[Array, " unknowns"], current: Float[Array, " nodes"]
    ) -> tuple[Inexact[Array, " unknowns"], bool]:
        """The state with what is added to sources, `o − I`, in place of their readings `o`; whether there are any."""
        reads: Bool[np.ndarray, " unknowns"] = self._reduced.reads_current
        if not reads.any():
            return z, False
        still = jnp.where(reads, jnp.zeros_like(z), z)
        return jnp.where(reads, z - self._collected(still, current), z), True

    def _voltages(
        self, unknowns: Inexact[Array, " unknowns"], current: Float[Array, " nodes"]
    ) -> Inexact[Array, " nodes"]:
        return _through(self._reduced.P, unknowns) + current.astype(unknowns.dtype)

    def _collected(
        self, unknowns: Inexact[Array, " unknowns"], current: Float[Array, " nodes"]
    ) -> Inexact[Array, " unknowns"]:
        """`Lᵀ i(v)`."""
        return _through(self._reduced.L.T, self.currents(self._voltages(unknowns, current)))


def _through(matrix: Float[np.ndarray, "m n"], x: Inexact[Array, " n"]) -> Inexact[Array, " m"]:
    """A constant real matrix times a real or complex vector."""
    return real_linear(lambda z: product(z, jnp.asarray(matrix.T, z.dtype)), x)


def _check_names(
    elements: Sequence[Resistor | Diode | Source],
    inputs: Mapping[str, tuple[int, float]],
    outputs: Sequence[str],
    models: Mapping[str, Diodes],
) -> None:
    twice = [name for name, count in Counter(e.name for e in elements).items() if count > 1]
    twice += [name for name, count in Counter(outputs).items() if count > 1]
    if twice:
        raise ValueError(f"There are two elements or outputs of the name {', '.join(twice)}; expected one of each.")
    held = {e.name for e in elements if isinstance(e, Source) and e.name[0] == "v"}
    absent = [name for name in inputs if name not in held]
    absent += [name for e in elements if isinstance(e, Source) and e.name[0] == "f" for name, _ in e.terms]
    if not inputs or not outputs or not {*absent} <= held:
        raise ValueError(
            f"inputs are {', '.join(inputs) or 'none'}; expected names of voltage sources, at least one, and at least "
            f"one output. There are {', '.join(sorted(held)) or 'none'}, and not {', '.join({*absent} - held)}."
        )
    if sorted({entry for entry, _ in inputs.values()}) != list(range(max(entry for entry, _ in inputs.values()) + 1)):
        raise ValueError(
            f"inputs take the entries {[entry for entry, _ in inputs.values()]}; expected 0, 1, and so on."
        )
    nodes = {node for e in elements for node in e.ends} - {"0"}
    for name in outputs:
        if (name in nodes) == (name in held):
            found = "a node and a voltage source" if name in nodes else "neither a node nor a voltage source"
            raise ValueError(f"The output {name} is {found}; expected one of the two.")
    unknown = {e.model for e in elements if isinstance(e, Diode)} - {*models}
    if unknown:
        raise ValueError(f"There is no model {', '.join(sorted(unknown))} of diodes; give it in models.")
    moved = [name for name, model in models.items() if model.offset]
    if moved:
        raise ValueError(f"The model {', '.join(moved)} has an offset; put a voltage source before the diode.")


def _check_values(element: Resistor | Diode | Source) -> None:
    if isinstance(element, Resistor):
        if not 0 < element.ohms < float("inf"):
            raise ValueError(f"{element.name} has {element.ohms:g} Ω; expected a resistance above 0.")
    elif isinstance(element, Diode):
        if not element.area > 0:
            raise ValueError(f"{element.name} has the area {element.area:g}; expected a number above 0.")
    else:
        letter, terms = element.name[0], element.terms
        opposite = len(terms) == 2 and terms[0][1] == -terms[1][1]
        fits = {"v": not terms, "i": not terms, "e": opposite, "g": opposite, "f": len(terms) == 1, "b": True}
        if not fits.get(letter, False) or (letter in "efg" and element.constant):
            raise ValueError(
                f"{element.name} has the value {element.constant:g} and the terms {terms}; expected a value alone for "
                "v and i, two nodes with opposite factors for e and g, one voltage source for f, and any nodes for b."
            )
