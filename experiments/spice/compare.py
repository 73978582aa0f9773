"""Ten random circuits in ngspice and in eqprop: fixed points, error vectors, noise, gradients, an oscillating nudge.

python -m experiments.spice.compare                     # or: make spice
python -m experiments.spice.compare --golden FOLDER     # freeze one circuit with ngspice's answers
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import eqprop
from eqprop.run.curve import BLUE, ORANGE
from eqprop.substrate import Diodes, ResistiveNetwork, netlist
from eqprop.substrate.resistive import BOLTZMANN, CHARGE
from experiments.paper.drawing import canvas, frame, legend, write_data
from experiments.paper.study import RESULTS
from experiments.spice import simulator

FARADS = 1e-9
BETAS = (0.0, 0.1, -0.1, 1.0, -0.5)
FREQUENCIES = (1e-3, 1.0, 1e3, 1e5, 1e7)
STEP = 1e-5
OSCILLATION, HERTZ, HARMONICS = (0.3, 0.6), 100.0, (1, 3, 5, 7, 9, 11)
CIRCUITS = 10
NEWTON = eqprop.Newton(tol=1e-16, max_steps=100)

TOLERANCES = {
    "fixed points (.op)": 1e-12,
    "error vector (.ac at 1 mHz)": 1e-12,
    "response to 10 MHz (.ac)": 1e-12,
    "noise density (.noise)": 1e-10,
    "gradient (.op differences)": 1e-8,
    "oscillating nudge, K = 11 (.tran)": 1e-5,
}


class Circuit(NamedTuple):
    """A random circuit, its drive and its target."""

    model: eqprop.Model
    x: jax.Array
    y: jax.Array

    @property
    def network(self) -> ResistiveNetwork:
        """The circuit itself."""
        assert isinstance(self.model.network, ResistiveNetwork)
        return self.model.network

    def lines(self, **source: str) -> list[str]:
        """The circuit as ngspice has it; `beta="…"` is another source of the nudge."""
        return netlist.circuit(self.network, self.x, self.y, farads=FARADS, **source)


def random_circuit(seed: int) -> Circuit:
    """2 inputs, 4 hidden nodes, 2 outputs; resistors of 1 to 5 kΩ, antiparallel diodes, 16 controlled sources, 1 nF."""
    make, draw, drive, aim = jax.random.split(jax.random.key(seed), 4)
    network = ResistiveNetwork(
        (2, 4, 2), leak=0.2, volts=2.0, transconductance=0.1, diodes=Diodes(law="ngspice"), key=make
    )
    keys = jax.random.split(draw, len(network.kernels))
    kernels = {
        edge: jax.random.uniform(key, kernel.shape, float, 0.2, 1.0)
        for key, (edge, kernel) in zip(keys, network.kernels.items(), strict=True)
    }
    network = eqx.tree_at(lambda n: n.kernels, network, kernels)
    x = jax.random.uniform(drive, (2,), float, -1.0, 1.0)
    y = jnp.round(jax.random.uniform(aim, (2,), float, -0.5, 0.5), 6)
    return Circuit(eqprop.Model(network, eqprop.SquaredError()), x, y)


def flat(tree: Any) -> np.ndarray:
    """A state as a vector, in the order of `netlist.nodes`."""
    return np.asarray(ravel_pytree(tree)[0])


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """`max |a − b| / max |b|`."""
    return float(np.max(np.abs(np.asarray(a) - b)) / np.max(np.abs(b)))


def linearised(circuit: Circuit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`v`, `J` and `g` at the free fixed point, dense."""
    model, x, y = circuit
    v = NEWTON(model.network.at(x).drift, model.network.at(x).initial_state()).state
    vector, unravel = ravel_pytree(v)
    J = jax.jacfwd(lambda u: ravel_pytree(model.network.at(x).drift(unravel(u)))[0])(vector)
    return np.asarray(vector), np.asarray(J), flat(model.readout.teaching(v, y))


def error_vector(circuit: Circuit) -> np.ndarray:
    """`ds*/dβ` as the library gives it."""
    model, x, y = circuit
    free = NEWTON(model.network.at(x).drift, model.network.at(x).initial_state())
    return flat(eqprop.TangentResponse(relaxation=NEWTON).error(model.at(x, y), free).delta)


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
    model, x, y = circuit
    v, J, g = linearised(circuit)
    points = []
    for beta, (_, table) in zip(BETAS, found, strict=False):
        start = model.network.at(x).initial_state()
        state = NEWTON(lambda u, beta=beta: model.at(x, y).drift(u, beta), start).state
        points.append(relative(table[0], flat(state)))
    responses = []
    for f, (_, table) in zip(FREQUENCIES, found[len(BETAS) :], strict=True):
        ours = np.linalg.solve(2j * np.pi * f * FARADS / network.siemens * np.eye(len(v)) - J, g)
        responses.append(relative(table[0], ours))
    still = found[len(BETAS)][1][0].real
    return {
        "fixed points (.op)": max(points),
        "error vector (.ac at 1 mHz)": relative(still, error_vector(circuit)),
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
    model, x, y = circuit
    network, names = circuit.network, netlist.nodes(circuit.network)
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
    free = NEWTON(model.network.at(x).drift, model.network.at(x).initial_state())
    rbp = eqprop.RecurrentBackprop(relaxation=NEWTON)
    response = rbp.respond(model.at(x, y), free)
    gradient = eqx.filter_grad(lambda m: rbp.surrogate(m.at(x, y), response))(model).network
    ours = [np.ravel(g) for group in (gradient.kernels, gradient.transconductances) for g in group.values()]
    return relative(theirs, np.concatenate(ours))


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
    true, errors = error_vector(circuit), {}
    for highest in HARMONICS:
        terms = [(-1) ** ((n - 1) // 2) * n * cosines[n - 1] for n in range(1, highest + 1, 2)]
        errors[highest] = relative(np.sum(terms, 0) / beta, true)
    return errors


def golden(folder: Path) -> None:
    """One circuit and what ngspice says of it."""
    circuit = random_circuit(0)
    names = netlist.nodes(circuit.network)
    lines = circuit.lines()
    commands = ["op", netlist.save("op.txt", names), "alter Vbeta dc = 0.1", "op", netlist.save("nudged.txt", names)]
    commands += ["alter Vbeta dc = 0", "ac lin 1 1m 1m", netlist.save("ac.txt", names)]
    text = netlist.deck(circuit.network, lines, commands)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "circuit.cir").write_text(text)
    for name, table in simulator.run(text, ["op.txt", "nudged.txt", "ac.txt"]).items():
        (folder / name).write_text(table)


def main(argv: Sequence[str] | None = None) -> None:
    """Compare, write table, data and figure; the exit status says whether all tolerances are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, help="write a circuit and ngspice's answers there, and stop")
    parser.add_argument("--circuits", type=int, default=CIRCUITS, help="how many random circuits")
    chosen = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    if not simulator.available():
        sys.exit(f"error: {simulator.ABSENT}")
    if chosen.golden:
        golden(chosen.golden)
        return
    found: dict[str, list[float]] = {name: [] for name in TOLERANCES}
    turns: dict[float, list[dict[int, float]]] = {beta: [] for beta in OSCILLATION}
    for seed in range(chosen.circuits):
        circuit = random_circuit(seed)
        measured = {**fixed_points(circuit), "noise density (.noise)": noise(circuit)}
        measured["gradient (.op differences)"] = gradients(circuit)
        for beta in OSCILLATION:
            turns[beta].append(oscillation(circuit, beta))
        measured["oscillating nudge, K = 11 (.tran)"] = turns[OSCILLATION[0]][-1][HARMONICS[-1]]
        for name, value in measured.items():
            found[name].append(value)
        print(f"circuit {seed}: " + ", ".join(f"{name} {value:.1e}" for name, value in measured.items()), flush=True)
    data = {
        "simulator": simulator.version(),
        "circuits": chosen.circuits,
        "tolerances": TOLERANCES,
        "deviations": found,
        "harmonics": {str(b): {str(k): [t[k] for t in runs] for k in HARMONICS} for b, runs in turns.items()},
    }
    folder = RESULTS / "substrate" / "spice"
    write_data(folder / "spice.json", data)
    text = report(data)
    (folder / "README.md").write_text(text)
    draw(data).savefig(folder / "spice.png")
    print(text)
    missed = [name for name, limit in TOLERANCES.items() if max(found[name]) > limit]
    if missed:
        sys.exit("error: beyond its tolerance: " + ", ".join(missed))


def report(data: dict[str, Any]) -> str:
    """The table as a page."""
    lines = ["| compared | worst | median | tolerance |", "|---|---|---|---|"]
    for name, limit in data["tolerances"].items():
        values = data["deviations"][name]
        lines.append(f"| {name} | {max(values):.1e} | {float(np.median(values)):.1e} | {limit:.0e} |")
    lines += ["", "| β | " + " | ".join(f"K = {k}" for k in HARMONICS) + " |", "|---" * (len(HARMONICS) + 1) + "|"]
    for beta, by_order in data["harmonics"].items():
        lines.append(f"| {beta} | " + " | ".join(f"{max(by_order[str(k)]):.1e}" for k in HARMONICS) + " |")
    split = len(TOLERANCES) + 2
    return (
        f"# eqprop against ngspice\n\n{data['circuits']} random circuits of 2 inputs, 4 hidden nodes and 2 outputs: "
        "32 resistors of 1 to 5 kΩ, leaks, antiparallel diodes and 16 voltage-controlled current sources, which break "
        f"reciprocity. Largest deviation relative to the largest value; float64. {data['simulator']}; made by "
        "`make spice`.\n\n![deviations](spice.png)\n\n"
        + "\n".join(lines[:split])
        + "\n\nThe error of the error vector under an oscillating nudge, from odd harmonics up to K; worst circuit. "
        "What is left is the integration's tolerance and the lag at 100 Hz.\n\n" + "\n".join(lines[split + 1 :]) + "\n"
    )


def draw(data: dict[str, Any]) -> Any:
    """Deviations with their tolerances, and what each harmonic buys."""
    figure, (left, right) = canvas(2, width=11.0, height=3.8)
    names = list(data["tolerances"])
    for k, name in enumerate(names):
        values = np.maximum(data["deviations"][name], 1e-17)
        left.plot(values, [k] * len(values), "o", color=BLUE, alpha=0.6, label="one circuit" if k == 0 else None)
        limit = data["tolerances"][name]
        left.plot([limit], [k], "|", color=ORANGE, ms=18, mew=2.5, label="tolerance" if k == 0 else None)
    left.set_yticks(range(len(names)), names)
    left.set_xscale("log")
    left.invert_yaxis()
    frame(left, "relative deviation from ngspice", "", "Two programs, one circuit")
    legend(left, loc="lower left")
    for (beta, by_order), style, colour in zip(data["harmonics"].items(), ("o-", "s--"), (BLUE, ORANGE), strict=True):
        worst = [max(by_order[str(k)]) for k in HARMONICS]
        right.plot(HARMONICS, worst, style, color=colour, label=f"β = {beta}")
    right.set_yscale("log")
    right.set_xticks(HARMONICS)
    frame(right, "highest odd harmonic K", "relative error of δ", "Harmonics of a real nudge, in ngspice")
    legend(right, loc="upper right")
    return figure


if __name__ == "__main__":
    main()
