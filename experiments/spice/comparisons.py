"""One circuit in ngspice and in eqprop: how far the two deviate, relative to the largest value."""

import jax.numpy as jnp
import numpy as np

from eqprop.circuit import ResistiveNetwork, netlist
from eqprop.circuit.diodes import BOLTZMANN, CHARGE
from experiments.spice import simulator
from experiments.spice.circuits import FARADS, Circuit, error_vector, flat, gradient, linearised, relative, relaxed

BETAS = (0.0, 0.1, -0.1, 1.0, -0.5)
FREQUENCIES = (1e-3, 1.0, 1e3, 1e5, 1e7)
STEP = 1e-5
"""Of the differences that make a gradient."""
HERTZ, HARMONICS = 100.0, (1, 3, 5, 7, 9, 11)
"""Of the oscillating nudge, and the highest harmonics that are used."""


def noise_density(network: ResistiveNetwork, v: np.ndarray, J: np.ndarray, hertz: float, node: int) -> float:
    """Of one node's voltage in V/√Hz: `4kTG` of every resistor, `2qI` of every diode, through `(iωC − J)⁻¹`."""
    names, unit = netlist.nodes(network), network.siemens
    to_node = np.linalg.inv(2j * np.pi * hertz * FARADS * np.eye(len(v)) - unit * J)[node]
    thermal = 4 * BOLTZMANN * network.diodes.kelvin
    power = 0.0
    for edge, kernel in network.kernels.items():
        a, b = edge
        for (i, j), g in np.ndenumerate(np.abs(np.asarray(kernel))):
            ends = to_node[names.index(f"{b}_{j}")] - (to_node[names.index(f"{a}_{i}")] if a != "in" else 0)
            power += thermal * unit * g * abs(ends) ** 2
    for k, name in enumerate(names):
        power += thermal * unit * network.leak * abs(to_node[k]) ** 2
        if name.rsplit("_", 1)[0] != network.names[-1]:
            for bias in (v[k], -v[k]):
                current = float(network.diodes.one(jnp.asarray(bias - network.diodes.offset)))
                power += 2 * CHARGE * abs(current) * abs(to_node[k]) ** 2
    return float(np.sqrt(power))


def fixed_points(circuit: Circuit) -> dict[str, float]:
    """`.op` at every `β`; `.ac` at every frequency."""
    network, names = circuit.network, netlist.nodes(circuit.network)
    lines = circuit.lines()
    analyses = [(f"alter Vbeta dc = {beta!r}\nop", names) for beta in BETAS]
    analyses += [(f"alter Vbeta dc = 0\nac lin 1 {f!r} {f!r}", names) for f in FREQUENCIES]
    found = simulator.tables(network, lines, analyses)
    v, J, g = linearised(circuit)
    points = []
    for beta, (_, table) in zip(BETAS, found, strict=False):
        points.append(relative(table[0], flat(relaxed(circuit, jnp.asarray(beta)).state)))
    responses = []
    for f, (_, table) in zip(FREQUENCIES, found[len(BETAS) :], strict=True):
        ours = np.linalg.solve(2j * np.pi * f * FARADS / network.siemens * np.eye(len(v)) - J, g)
        responses.append(relative(table[0], ours))
    still = found[len(BETAS)][1][0].real
    return {
        "fixed points (.op)": max(points),
        "error vector (.ac at 1 mHz)": relative(still, np.asarray(error_vector(circuit))),
        "response to 10 MHz (.ac)": max(responses),
    }


def noise(circuit: Circuit) -> float:
    """`.noise` at 10 kHz and 1 MHz."""
    network = circuit.network
    lines = circuit.lines()
    out = netlist.nodes(network).index("out_0")
    analyses = [
        (f"noise v(out_0) Vbeta lin 1 {f!r} {f!r}\nsetplot noise{2 * k + 1}", ["onoise_spectrum"])
        for k, f in enumerate((1e4, 1e6))
    ]
    found = simulator.tables(network, lines, analyses)
    v, J, _ = linearised(circuit)
    return max(
        abs(float(table[0, 0]) / noise_density(network, v, J, f, out) - 1)
        for f, (_, table) in zip((1e4, 1e6), found, strict=True)
    )


def gradients(circuit: Circuit) -> float:
    """The gradient of the loss by `alter` and `.op`, central differences, against recurrent backpropagation."""
    network, names, y = circuit.network, netlist.nodes(circuit.network), circuit.y
    unit = network.siemens
    lines = circuit.lines()
    analyses = []
    for kernels, is_resistor in ((network.kernels, True), (network.transconductances, False)):
        for edge, kernel in kernels.items():
            a, b = edge
            for (i, j), value in np.ndenumerate(np.asarray(kernel)):
                name = netlist.resistor(a, i, b, j)
                for sign in (1, -1):
                    there, back = (
                        f"alter R{name} = {1 / (unit * v)!r}" if is_resistor else f"alter @G{name}[gain] = {unit * v!r}"
                        for v in (float(value) + sign * STEP, float(value))
                    )
                    analyses.append((f"{there}\nop\n{back}", names))
    found = [table[0] for _, table in simulator.tables(network, lines, analyses)]
    outs = [names.index(f"out_{k}") for k in range(len(y))]
    losses = np.asarray([0.5 * np.sum((v[outs] - np.asarray(y)) ** 2) for v in found])
    theirs = (losses[::2] - losses[1::2]) / (2 * STEP)
    return relative(theirs, np.asarray(gradient(circuit)))


def oscillation(circuit: Circuit, beta: float) -> dict[int, float]:
    """`.tran` under `β cos ωt`: the error of `δ` from odd harmonics up to `K`, least squares over the second turn."""
    network, names = circuit.network, netlist.nodes(circuit.network)
    source = f"SIN(0 {beta!r} {HERTZ!r} 0 0 90)"
    lines = circuit.lines(beta=source)
    turn = 1 / HERTZ
    command = f"tran {turn / 2000!r} {2 * turn!r} 0 {turn / 2000!r}"
    ((time, table),) = simulator.tables(network, lines, [(command, names)])
    last = time > turn
    angle = 2 * np.pi * HERTZ * time[last]
    orders = range(1, max(HARMONICS) + 5)
    basis = [np.ones_like(angle)] + [w(n * angle) for n in orders for w in (np.cos, np.sin)]
    cosines = np.linalg.lstsq(np.stack(basis, 1), table[last], rcond=None)[0][1::2]
    true, errors = np.asarray(error_vector(circuit)), {}
    for highest in HARMONICS:
        terms = [(-1) ** ((n - 1) // 2) * n * cosines[n - 1] for n in range(1, highest + 1, 2)]
        errors[highest] = relative(np.sum(terms, 0) / beta, true)
    return errors
