"""Freeze circuits and netlists with ngspice's answers, which the tests compare with where there is no ngspice.

python -m experiments.spice.golden FOLDER
"""

import argparse
from pathlib import Path

import jax

from eqprop.circuit import netlist
from eqprop.run.errors import fail
from experiments.spice import netlists, simulator
from experiments.spice.circuits import random_circuit
from experiments.spice.energy import passive, transient


def golden(folder: Path) -> None:
    """Write one circuit, and what ngspice says of it, into a folder.

    **Raises:** `FileNotFoundError` without ngspice.
    """
    circuit = random_circuit(0)
    names = netlist.nodes(circuit.network)
    lines = circuit.lines()
    commands = ["op", netlist.save("op.txt", names), "alter Vbeta dc = 0.1", "op", netlist.save("nudged.txt", names)]
    commands += ["alter Vbeta dc = 0", "ac lin 1 1m 1m", netlist.save("ac.txt", names)]
    text = netlist.deck(circuit.network, lines, commands)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "circuit.cir").write_text(text)
    settling = transient(passive(circuit))
    (folder / "settling.cir").write_text(settling)
    found = simulator.run(text, ["op.txt", "nudged.txt", "ac.txt"])
    for name, table in {**found, **simulator.run(settling, ["settling.txt"])}.items():
        (folder / name).write_text(table)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write circuits and netlists, and what ngspice says of them.")
    parser.add_argument("folder", type=Path)
    jax.config.update("jax_enable_x64", True)
    try:
        folder = parser.parse_args().folder
        golden(folder)
        netlists.golden(folder)
    except OSError as error:
        fail(error)


if __name__ == "__main__":
    main()
