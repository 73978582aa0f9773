"""Netlists that are read, and crossbars with wires, beside what ngspice says of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from eqprop.circuit import netlist
from eqprop.circuit.crossbar import Wires, write_crossbar
from experiments.spice import simulator

PASSIVE = """Resistors and diodes, a bias, a shift between two nodes, an ammeter
.param unit=1k half={unit/2} bias=0.35
.options reltol=1e-10 abstol=1e-18 vntol=1e-15 gmin=1e-15 itl1=1000
.model small D(IS=10n N=1.5)
.model large D (IS = 2n
+ N = 1.2 CJO=1p)
V1 in1 0 DC 0.8 AC 1      ; the first input
V2 in2 0 -0.5             $ the second
Vbias rail 0 {bias}
Vshift mid shifted 0.1
Vsense ground2 0 0
* a comment
I1 0 mid 50u
R1 in1 a {unit}
R2 in2 a 1.5kOhm
R3 a mid {2*half}
R4 shifted out 2k
R5 out 0 3.3k
R6 rail b 0.7k
R7 b mid 1.2k
R8 out ground2 0.9k
R9 a ground2 4.7k
R10 in2 b 2.2k
D1 a rail small
D2 shifted GND large AREA=2
D3 b ground2 small
C1 out 0 1n
.op
.end
"""
"""Its outputs are `out`, a voltage, and `vsense`, a current."""

ACTIVE = """Amplifiers and controlled sources of every kind that is read
.options reltol=1e-10 abstol=1e-18 vntol=1e-15 gmin=1e-15 itl1=1000
.model pair D(IS=10n N=1.5)
V1 in1 0 0.9
V2 in2 0 -0.3
Vhigh high 0 0.15
Vlow low 0 -150m
Vmeter e1 e2 0
R1 in1 a 1k
R2 in2 a 2k
R3 in2 b 1.5k
R4 e2 out 2k
R5 b out 3k
R6 out 0 5k
R7 c 0 10k
R8 c out 4k
E1 e1 0 a b 3
E2 c d b 0 0.5
R9 d 0 3k
F1 a 0 Vmeter 0.25
G1 0 b a out 0.1m
B1 0 a I=V(high)*0.0004*(V(out)-(0.25))
B2 out 0 I={2e-5 + V(a,b)/20k - 1u*V(c)}
D1 a high pair
D2 low a pair
D3 b high pair
.end
"""

INPUTS = ("V1", "V2")


class Table(NamedTuple):
    """A netlist, and the voltages and currents that ngspice is asked for."""

    text: str
    wanted: tuple[str, ...]

    def run(self) -> tuple[str, str]:
        """The text as it was run, and ngspice's table.

        **Raises:** `FileNotFoundError` without ngspice.
        """
        body, _, _ = self.text.partition(".end\n")
        commands = ["set numdgt=16", "set wr_vecnames", "set wr_singlescale", "op"]
        text = "\n".join(
            [
                body.rstrip(),
                ".control",
                *commands,
                f"wrdata op.txt {' '.join(self.wanted)}",
                "quit",
                ".endc",
                ".end",
                "",
            ]
        )
        return text, simulator.run(text, ["op.txt"])["op.txt"]

    def values(self, table: str) -> np.ndarray:
        """The numbers of a table."""
        return netlist.read(table, self.wanted)[1][0]


def voltages(nodes: Sequence[str]) -> tuple[str, ...]:
    """Of nodes, as ngspice calls them."""
    return tuple(f"v({node})" for node in nodes)


def crossbar(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Wires]:
    """Devices of 1 to 100 µS, a tenth of them open, voltages within one, wires of some ohms."""
    draw = np.random.default_rng(seed)
    G = draw.uniform(1e-6, 1e-4, (size, size)) * (draw.uniform(size=(size, size)) > 0.1)
    return G, draw.uniform(-1, 1, size), Wires(row=2.5, column=1.5, driver=120.0, sense=60.0)


def crossbar_table(size: int, seed: int = 0) -> Table:
    """The crossbar as a netlist, with the currents out of its columns."""
    options = ".options reltol=1e-12 abstol=1e-20 vntol=1e-16 gmin=1e-20"
    lines = ["A crossbar with wires", *write_crossbar(*crossbar(size, seed)), options, ".end", ""]
    return Table("\n".join(lines), tuple(f"i(vsense{j})" for j in range(size)))


TABLES = {
    "passive": Table(PASSIVE, (*voltages(["a", "mid", "shifted", "b", "out"]), "i(vsense)")),
    "active": Table(ACTIVE, (*voltages(["a", "b", "c", "d", "e1", "e2", "out"]), "i(vmeter)")),
    "crossbar": crossbar_table(8),
}


def golden(folder: Path) -> None:
    """Write the netlists, and what ngspice says of them, into a folder.

    **Raises:** `FileNotFoundError` without ngspice.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in TABLES.items():
        text, answer = table.run()
        (folder / f"{name}.cir").write_text(text)
        (folder / f"{name}.txt").write_text(answer)
