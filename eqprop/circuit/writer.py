"""A circuit as a netlist, which ngspice runs and `read_circuit` reads."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Array, Shaped

from eqprop.circuit.circuit import Circuit
from eqprop.circuit.elements import Diode, Source
from eqprop.circuit.netlist import OPTIONS


def write_circuit(
    circuit: Circuit, x: Shaped[Array, "..."] | None = None, *, title: str = "eqprop", commands: Iterable[str] = ()
) -> str:
    """The netlist of a circuit, numbers with 17 digits.

    Elements stand in the order resistors, diodes, sources. `read_circuit` with the same inputs and outputs gives the
    same circuit; conductances, written as resistances, to two roundings.

    **Arguments:**

    - `x`: an example, whose entries become the values of the sources that are inputs. `None`: they keep those that they
      were read with.
    - `commands`: of ngspice's control language, run by `ngspice -b`.

    **Raises:** `ValueError` for a conductance of zero, and for models of different temperatures, which no netlist has.
    """
    text = "{:.17g}".format
    siemens = np.abs(np.asarray(circuit.conductances, float)) * circuit.siemens
    if not np.all(siemens > 0):
        names = [name for (name, _), g in zip(circuit.resistors, siemens, strict=True) if not g > 0]
        raise ValueError(f"The conductance of {', '.join(names)} is 0; take it out of the circuit.")
    lines = [f"* {title}"]
    lines += [f"{name} {a} {b} {text(1 / g)}" for (name, (a, b)), g in zip(circuit.resistors, siemens, strict=True)]
    lines += [_diode(d) for d in circuit.diodes]
    values = {}
    if x is not None:
        example = np.asarray(x, float).reshape(-1)
        values = {name: scale * example[entry] for name, entry, scale in circuit.inputs}
    lines += [_source(s, values.get(s.name, s.constant)) for s in circuit.sources]
    conditions = {(model.kelvin, model.gmin) for model in circuit.models.values()}
    if len(conditions) > 1:
        raise ValueError(f"The models of diodes have the kelvin and gmin {sorted(conditions)}; expected one of each.")
    for name, model in circuit.models.items():
        lines.append(f".model {name} D(IS={text(model.saturation)} N={text(model.ideality)} RS=0 CJO=0 TT=0)")
    kelvin, gmin = next(iter(conditions), (300.15, 1e-12))
    lines.append(OPTIONS.format(gmin=gmin, celsius=kelvin - 273.15))
    commands = list(commands)
    if commands:
        lines += [".control", "set numdgt=16", "set wr_vecnames", "set wr_singlescale", *commands, "quit", ".endc"]
    return "\n".join([*lines, ".end", ""])


def _diode(diode: Diode) -> str:
    area = "" if diode.area == 1 else f" area={diode.area:.17g}"
    return f"{diode.name} {diode.ends[0]} {diode.ends[1]} {diode.model}{area}"


def _source(source: Source, value: float) -> str:
    a, b = source.ends
    head = f"{source.name} {a} {b}"
    match source.name[0]:
        case "v" | "i":
            return f"{head} DC {value:.17g}"
        case "e" | "g":
            (plus, factor), (minus, _) = source.terms
            return f"{head} {plus} {minus} {factor:.17g}"
        case "f":
            ((name, factor),) = source.terms
            return f"{head} {name} {factor:.17g}"
        case _:
            terms = [f"({factor:.17g})*V({node})" for node, factor in source.terms]
            return f"{head} I=({value:.17g}){''.join('+' + term for term in terms)}"
