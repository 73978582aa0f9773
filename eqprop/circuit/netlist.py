"""A resistive network as text for ngspice, and ngspice's tables as numbers. Text in, text out: nothing runs here."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Array, Float, Shaped

from eqprop.circuit.resistive import ResistiveNetwork
from eqprop.network.dense import INPUT

OPTIONS = ".options reltol=1e-10 abstol=1e-18 vntol=1e-15 gmin={gmin:g} temp={celsius:.10g} itl1=1000"


def nodes(network: ResistiveNetwork) -> list[str]:
    """The names of all nodes, layer after layer as states are flattened (`jax.tree` sorts the layers by name)."""
    return [f"{name}_{i}" for name, size in sorted(network.sizes.items()) for i in range(size)]


def circuit(
    network: ResistiveNetwork,
    x: Shaped[Array, "..."],
    y: Float[Array, " outputs"],
    *,
    beta: str = "DC 0 AC 1",
    farads: float = 1e-9,
) -> list[str]:
    """The elements, a line each, with the nudge of `SquaredError` towards `y`.

    The node `beta` carries the nudge's strength in volts, from a source described by `beta`; a source at every output
    drives `siemens · V(beta) · (V(out) − y)` into it. Inside that expression ngspice keeps eleven digits only: `y` is
    written with six decimals and should have no more.
    """
    unit, text = network.siemens, "{:.17g}".format
    lines = [f"Vbeta beta 0 {beta}"]
    lines += [f"Vin{k} {INPUT}_{k} 0 {text(v)}" for k, v in enumerate(np.asarray(network.sources(x)))]
    lines += [f"Vhigh high 0 {text(network.diodes.offset)}", f"Vlow low 0 {text(-network.diodes.offset)}"]
    for edge, kernel in network.kernels.items():
        a, b = edge
        amplified = a != INPUT and (network.forward_gain, network.backward_gain) != (1.0, 1.0)
        if amplified:
            for i in range(kernel.shape[0]):
                lines.append(f"E{a}_{i} {a}_{i}_e 0 {a}_{i} 0 {text(network.forward_gain)}")
                lines.append(f"Vs{a}_{i} {a}_{i}_e {a}_{i}_a 0")
                lines.append(f"F{a}_{i} {a}_{i} 0 Vs{a}_{i} {text(1 / network.backward_gain)}")
        for (i, j), g in np.ndenumerate(np.abs(np.asarray(kernel))):
            if g > 0:
                near = f"{a}_{i}_a" if amplified else f"{a}_{i}"
                lines.append(f"R{resistor(a, i, b, j)} {near} {b}_{j} {text(1 / (unit * g))}")
    for edge, kernel in network.transconductances.items():
        a, b = edge
        for (i, j), t in np.ndenumerate(np.asarray(kernel)):
            lines.append(f"G{resistor(a, i, b, j)} 0 {b}_{j} {a}_{i} 0 {text(unit * t)}")
    for node in nodes(network):
        lines.append(f"Rleak_{node} {node} 0 {text(1 / (unit * network.leak))}")
        lines.append(f"C{node} {node} 0 {text(farads)}")
        if node.rsplit("_", 1)[0] != network.names[-1]:
            lines += [f"Dup_{node} {node} high pair", f"Ddown_{node} low {node} pair"]
    out = network.names[-1]
    lines += [f"Bn{k} 0 {out}_{k} I=V(beta)*{unit:g}*(V({out}_{k})-({v:.6f}))" for k, v in enumerate(np.asarray(y))]
    lines.append(f".model pair D(IS={network.diodes.saturation:g} N={network.diodes.ideality:g} RS=0 CJO=0 TT=0)")
    return lines


def resistor(a: str, i: int, b: str, j: int) -> str:
    """The name of the device between two nodes, without the letter of its kind."""
    return f"{a}{i}_{b}{j}"


def deck(network: ResistiveNetwork, lines: Iterable[str], commands: Iterable[str]) -> str:
    """A file that `ngspice -b` runs: elements, options, and commands of its control language."""
    options = OPTIONS.format(gmin=network.diodes.gmin, celsius=network.diodes.kelvin - 273.15)
    body = [*lines, options, ".control", "set numdgt=16", "set wr_vecnames", "set wr_singlescale", *commands]
    return "\n".join(["* eqprop", *body, "quit", ".endc", ".end", ""])


def save(path: str, names: Sequence[str]) -> str:
    """The command that writes the voltages of the nodes `names`, or spectra, to a file; `read` reads it."""
    return f"wrdata {path} " + " ".join(name if name.endswith("spectrum") else f"v({name})" for name in names)


def read(text: str, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Scale (sweep variable, frequency or time) and values, `(rows, names)`, complex if the analysis is.

    **Raises:** `ValueError` if the table does not have these columns.
    """
    head, *rows = (line.split() for line in text.splitlines() if line.strip())
    table = np.asarray(rows, float)
    width = (table.shape[1] - 1) / len(names)
    if width not in (1, 2):
        raise ValueError(f"The table has the columns {' '.join(head)}; expected those of {' '.join(names)}.")
    values = table[:, 1:]
    return table[:, 0], values if width == 1 else values[:, ::2] + 1j * values[:, 1::2]
