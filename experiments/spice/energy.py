"""The energy that a circuit takes to settle from rest, in ngspice and in eqprop."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from eqprop.circuit import netlist, settling
from experiments.spice.circuits import FARADS, Circuit, flat

HORIZON, STEPS = 10.0, 200
"""Of the transient in time constants, and how many steps of it are written."""


def passive(circuit: Circuit) -> Circuit:
    """The circuit without its controlled sources, so that voltage sources deliver all of its power."""
    return eqx.tree_at(lambda c: c.model.network.transconductances, circuit, {})


def transient(circuit: Circuit) -> str:
    """A file that makes ngspice write what all sources deliver, in watts, as nodes charge from zero."""
    lines, end = circuit.lines(beta="DC 0"), HORIZON * FARADS / circuit.network.siemens
    names = [line.split()[:2] for line in lines if line.startswith("V")]
    watts = " ".join(f"- v({node})*i({source})" for source, node in names)
    step = f"{end / STEPS:.6g}"
    commands = [
        f"tran {step} {end:.6g} 0 {step} uic",
        f"let watts = 0 {watts}",
        "linearize watts",
        "wrdata settling.txt watts",
    ]
    return netlist.deck(circuit.network, lines, commands)


def deviation(circuit: Circuit, text: str) -> float:
    """Of what the library says is dissipated and stored at the end from what sources deliver in the table `text`,
    relative."""
    time, watts = netlist.read(text, ["watts"])
    theirs = float(np.trapezoid(watts[:, 0], time))
    ours = settling(circuit.network, circuit.x, farads=FARADS, horizon=HORIZON, dt=0.005, samples=2)
    last = {name: v[-1] for name, v in ours.state.items()}
    stored = 0.5 * FARADS * float(jnp.sum(jnp.asarray(flat(last)) ** 2))
    return abs((float(ours.joules[-1]) + stored) / theirs - 1)
