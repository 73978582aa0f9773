"""Netlists that are read: ngspice's answers, modified nodal analysis and its adjoint, what is refused by its line."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop
from eqprop.circuit import (
    Circuit,
    Diode,
    Diodes,
    ResistiveNetwork,
    Resistor,
    Source,
    netlist,
    read_circuit,
    write_circuit,
)
from eqprop.circuit.expression import linear, number
from experiments.spice import simulator
from experiments.spice.netlists import ACTIVE, INPUTS, PASSIVE, TABLES, Table
from helpers import flat, gap, relative_error

GOLDEN = Path(__file__).parent / "golden"
NEWTON = eqprop.Newton(tol=1e-15, max_steps=100)
X, Y = jnp.asarray([0.8, -0.5]), jnp.asarray([0.1, 0.2])
WITH_NGSPICE = pytest.mark.skipif(not simulator.available(), reason=simulator.ABSENT)


@eqx.filter_jit
def settled(circuit, x, beta=None):
    model = eqprop.Model(circuit, eqprop.SquaredError())
    drift = circuit.at(x).drift if beta is None else lambda u: model.at(x, Y).drift(u, beta)
    return NEWTON(drift, circuit.at(x).initial_state()).state


def named(circuit, x, state) -> dict[str, float]:
    """Voltages of all nodes and the outputs as ngspice has them; currents in amperes."""
    v = np.asarray(circuit.voltages(state, circuit.embed(x)))
    values = {f"v({node})": float(value) for node, value in zip(circuit.nodes, v, strict=True)}
    for name, value in zip(circuit.outputs, np.asarray(state["out"]), strict=True):
        if name not in circuit.nodes:
            values[f"i({name})"] = float(value) * circuit.siemens
    return values


def read(name, x=None, **kwargs):
    """The circuit of a table, its example, and what ngspice is to be asked for."""
    outputs = {"passive": ("out", "Vsense"), "active": ("OUT", "vmeter")}[name]
    circuit = read_circuit(TABLES[name].text, inputs=INPUTS, outputs=outputs, **kwargs)
    return circuit, jnp.asarray([s.constant for s in circuit.sources[:2]]) if x is None else x


def deviation(circuit, x, table: Table, answer: str) -> float:
    ours, theirs = named(circuit, x, settled(circuit, x)), table.values(answer)
    return max(abs(ours[name] / value - 1) for name, value in zip(table.wanted, theirs, strict=True))


@pytest.mark.parametrize("name", ["passive", "active"])
def test_fixed_points_of_ngspice(name):
    """Every node and a current, as they were frozen; the text is what was run."""
    frozen = (GOLDEN / f"{name}.cir").read_text()
    assert frozen.startswith(TABLES[name].text.partition(".end\n")[0].rstrip())
    circuit, x = read(name, law="ngspice")
    assert deviation(circuit, x, TABLES[name], (GOLDEN / f"{name}.txt").read_text()) < 1e-11
    other = read_circuit(frozen, inputs=INPUTS, outputs=circuit.outputs, law="ngspice")  # with its control block
    assert eqx.tree_equal(circuit, other)


@WITH_NGSPICE
@pytest.mark.parametrize("name", ["passive", "active"])
def test_what_is_written_is_the_circuit(name):
    """ngspice on the written text of other inputs and conductances."""
    circuit, _ = read(name, law="ngspice")
    circuit = eqx.tree_at(lambda c: c.conductances, circuit, 0.7 * circuit.conductances)
    x = jnp.asarray([-0.4, 0.65])
    table = Table(write_circuit(circuit, x), TABLES[name].wanted)
    assert deviation(circuit, x, table, table.run()[1]) < 1e-9


@pytest.mark.parametrize("name", ["passive", "active"])
def test_a_circuit_through_its_text(name):
    """The same elements in the order of their kinds, the same models, and conductances to two roundings."""
    circuit, _ = read(name)
    inputs = {name: (entry, scale) for name, entry, scale in circuit.inputs}
    back = read_circuit(write_circuit(circuit), inputs=inputs, outputs=circuit.outputs)
    np.testing.assert_allclose(back.conductances, circuit.conductances, rtol=5e-16)
    assert eqx.tree_equal(eqx.tree_at(lambda c: c.conductances, back, circuit.conductances), circuit)


@pytest.mark.parametrize("beta", [0.0, 0.3])
@pytest.mark.parametrize("gains", [(1.0, 1.0), (4.0, 4.4), (3.0, 2.0)])
@pytest.mark.parametrize("transconductance", [0.0, 0.1])
def test_a_resistive_network_through_its_text(beta, gains, transconductance):
    """Fixed points, free and nudged, of what `netlist` writes, amplifiers and transconductors included."""
    network = ResistiveNetwork(
        (2, 4, 3, 2),
        volts=2.0,
        forward_gain=gains[0],
        backward_gain=gains[1],
        transconductance=transconductance,
        key=jax.random.key(1),
    )
    lines = netlist.circuit(network, X, Y, beta=f"DC {beta} AC 1")
    sources = {"Vin0": (0, 2.0), "Vin1": (1, 2.0), "Vin2": (0, -2.0), "Vin3": (1, -2.0)}
    circuit = read_circuit(netlist.deck(network, lines, ["op"]), inputs=sources, outputs=("out_0", "out_1"))
    assert circuit.reciprocal == (transconductance == 0) and circuit.models["pair"].gmin == 1e-15
    voltages = named(circuit, X, settled(circuit, X))
    ours = np.array([voltages[f"v({node})"] for node in netlist.nodes(network)])
    assert relative_error(ours, flat(settled(network, X, jnp.asarray(beta)))) < 1e-12


# Modified nodal analysis: every node and the current of every voltage source is an unknown.


def mna(circuit, x):
    """`r(w, g)` and the places of the outputs in `w`."""
    nodes = list(circuit.nodes[1:])
    held = [s for s in circuit.sources if s.name[0] in "ve"]
    current_at = {s.name: len(nodes) + k for k, s in enumerate(held)}
    values = {name: scale * x[entry] for name, entry, scale in circuit.inputs}

    def residual(w, g):
        v = {"0": jnp.zeros(()), **{name: w[k] for k, name in enumerate(nodes)}}
        leaving = dict.fromkeys(v, jnp.zeros(()))

        def carry(ends, current):
            leaving[ends[0]] = leaving[ends[0]] + current
            leaving[ends[1]] = leaving[ends[1]] - current

        for (_, (a, b)), conductance in zip(circuit.resistors, g, strict=True):
            carry((a, b), jnp.abs(conductance) * (v[a] - v[b]))
        for d in circuit.diodes:
            law = circuit.models[d.model]
            carry(d.ends, d.area * law.one(v[d.ends[0]] - v[d.ends[1]]) / circuit.siemens)
        rest = []
        for s in circuit.sources:
            of = lambda name: w[current_at[name]] * circuit.siemens if name in current_at else v[name]
            total = values.get(s.name, s.constant) + sum(factor * of(name) for name, factor in s.terms)
            if s in held:
                carry(s.ends, w[current_at[s.name]])
                rest.append(v[s.ends[0]] - v[s.ends[1]] - total)
            else:
                carry(s.ends, total / circuit.siemens)
        return jnp.stack([*(leaving[name] for name in nodes), *rest])

    size = len(nodes) + len(held)
    return residual, size, [nodes.index(o) if o in nodes else current_at[o] for o in circuit.outputs]


@eqx.filter_jit
def adjoint(circuit, x, y):
    """The outputs, and the gradient of `½ ‖outputs − y‖²` by the conductances, by dense solves."""
    residual, size, outs = mna(circuit, x)
    g = circuit.conductances

    def newton(_, w):  # steps of at most a fifth of a volt
        step = jnp.linalg.solve(jax.jacfwd(residual)(w, g), residual(w, g))
        return w - step / jnp.maximum(1.0, jnp.max(jnp.abs(step)) / 0.2)

    w = jax.lax.fori_loop(0, 60, newton, jnp.zeros(size))
    error = jnp.zeros(size).at[jnp.array(outs)].set(w[jnp.array(outs)] - y)
    multiplier = jnp.linalg.solve(jax.jacfwd(residual)(w, g).T, error)
    return w[jnp.array(outs)], -jax.vjp(lambda g: residual(w, g), g)[1](multiplier)[0]


@eqx.filter_jit
def estimated(circuit, x, y, estimator):
    model = eqprop.Model(circuit, eqprop.SquaredError())
    free = NEWTON(circuit.at(x).drift, circuit.at(x).initial_state())
    response = estimator.respond(model.at(x, y), free)
    return eqx.filter_grad(lambda m: estimator.surrogate(m.at(x, y), response))(model).network.conductances


@eqx.filter_jit
def jacobian(circuit, x):
    v, unravel = jax.flatten_util.ravel_pytree(settled(circuit, x))  # pyright: ignore[reportAttributeAccessIssue]
    return jax.jacfwd(lambda v: flat(circuit.at(x).drift(unravel(v))))(v)


TANGENT, RBP = eqprop.TangentResponse(relaxation=NEWTON), eqprop.RecurrentBackprop(relaxation=NEWTON)
FINITE = eqprop.FiniteNudge(stencil=eqprop.chebyshev(0.01, 4), relaxation=NEWTON)
CIRCLE = eqprop.FiniteNudge(stencil=eqprop.cauchy(0.01, 6), relaxation=NEWTON)


@pytest.mark.parametrize("outputs", [("out", "vsense"), ("v1", "mid"), ("vbias", "vshift"), ("shifted", "b")])
def test_nudges_of_passive_circuits_are_exact(outputs):
    """Of voltages, of a current into ground, into an input and into a rail, and of one between two free nodes; diodes
    at all of them. Against the adjoint of the modified nodal analysis."""
    circuit = read_circuit(PASSIVE, inputs=INPUTS, outputs=outputs)
    assert circuit.reciprocal and circuit.holomorphic
    values, true = adjoint(circuit, X, Y)
    assert gap(settled(circuit, X)["out"], values) < 1e-13
    J = jacobian(circuit, X)
    assert gap(J, J.T) < 1e-13 and float(jnp.max(jnp.linalg.eigvalsh(J))) < 0
    assert relative_error(estimated(circuit, X, Y, TANGENT), true) < 1e-11
    if outputs[0] == "out":
        assert relative_error(estimated(circuit, X, Y, FINITE), true) < 1e-6
        assert relative_error(estimated(circuit, X, Y, CIRCLE), true) < 1e-6


@pytest.mark.parametrize("outputs", [("out", "vmeter"), ("vlow", "a")])
def test_controlled_sources_need_the_adjoint(outputs):
    """Recurrent backpropagation is exact and nudges are not: there are no gains for this circuit."""
    circuit = read_circuit(ACTIVE, inputs=INPUTS, outputs=outputs)
    values, true = adjoint(circuit, X, Y)
    assert not circuit.reciprocal and gap(settled(circuit, X)["out"], values) < 1e-13
    assert relative_error(estimated(circuit, X, Y, RBP), true) < 1e-11
    assert relative_error(estimated(circuit, X, Y, TANGENT), true) > 0.1


AMPLIFIED = """Two amplifiers in both directions, of different gains
.model pair D(IS=10n N=1.5)
V1 in1 0 0.9
V2 in2 0 -0.3
R1 in1 a 1k
R2 in2 a 2k
R3 in1 b 1.5k
R4 a b 5k
Ea ae 0 a 0 3
Va ae af 0
Fa a 0 Va 0.4
Eb be 0 b 0 2
Vb be bf 0
Fb b 0 Vb {1/1.8}
R5 af c 1k
R6 {end} d 2k
R7 c d 3k
R8 c 0 4k
R9 d 0 5k
D1 0 c pair
D2 a 0 pair
"""


def test_gains_make_amplifiers_exact():
    """Row gains are found where the amplifiers of one level agree, and only there."""
    level = AMPLIFIED.replace("Eb be 0 b 0 2", "Eb be 0 b 0 2.4").replace("{1/1.8}", "0.32").replace("{end}", "bf")
    circuit = read_circuit(level, inputs=INPUTS, outputs=("d", "vb"))
    assert circuit.reciprocal and not np.allclose(circuit._reduced.P, circuit._reduced.L)
    J = jacobian(circuit, X)
    assert gap(J, J.T) < 1e-13
    _, true = adjoint(circuit, X, Y)
    assert relative_error(estimated(circuit, X, Y, TANGENT), true) < 1e-11
    assert relative_error(estimated(circuit, X, Y, FINITE), true) < 1e-6
    unequal = read_circuit(AMPLIFIED.replace("{end}", "bf"), inputs=INPUTS, outputs=("d", "vb"))
    assert not unequal.reciprocal


def test_currents_at_virtual_ground():
    """A linear circuit without a free node, currents read at virtual ground: the gradient is that of a matrix."""
    elements: list = [Source(f"v{i}", (f"row{i}", "0")) for i in range(3)]
    elements += [Source(f"vs{j}", (f"col{j}", "0")) for j in range(2)]
    elements += [Resistor(f"r{i}{j}", (f"row{i}", f"col{j}"), 1e3 * (1 + i + j)) for i in range(3) for j in range(2)]
    circuit = Circuit(elements, inputs=("v0", "v1", "v2"), outputs=("vs0", "vs1"))
    x, y = jnp.asarray([0.5, -1.0, 0.25]), jnp.asarray([0.1, 0.2])
    G = np.array([[1 / (1 + i + j) for j in range(2)] for i in range(3)])
    assert circuit.hidden == () and gap(settled(circuit, x)["out"], np.asarray(x) @ G) < 1e-15
    expected = np.outer(x, np.asarray(x) @ G - np.asarray(y))
    assert relative_error(estimated(circuit, x, y, TANGENT), expected.ravel()) < 1e-13


# Text.


def test_numbers_and_expressions():
    cases = {"4.7k": 4700.0, "1meg": 1e6, "2megohm": 2e6, "3m": 3e-3, "1.5e-3u": 1.5e-9, "10f": 1e-14, "-.5v": -0.5}
    cases |= {"2t": 2e12, "1g": 1e9, "7p": 7e-12, "5n": 5e-9, "1a": 1.0, "{2*r/4k - 1}": 0.5, "'-(r)'": -3000.0}
    for text, value in cases.items():
        assert number(text, {"r": 3000.0}) == value, text
    for text in ("", "k1", "1mil", "--1", "{r+q}", "{v(a)}", "{2**3}", "{sin(1)}", "{1/0}", "{1 +}"):
        with pytest.raises(ValueError, match=r"is no|only sums|expression"):
            number(text, {"r": 3000.0})
    assert linear("2*v(a,b) - (v(c) + 1k)/4", {}, {"c": 8.0}) == {"a": 2.0, "b": -2.0, "": -252.0}
    with pytest.raises(ValueError, match="linear in voltages"):
        linear("v(a)*v(b)", {}, {})


GOOD = ["a title", "V1 in 0 1", "R1 in out 1k", "R2 out 0 1k"]
REFUSED = {
    "Q1 a b c npn": "none of the elements R, V",
    "L1 in out 1u": "none of the elements",
    ".include other.cir": "nor a command that is known",
    "R3 in out": "expected 2 nodes and a value",
    "R3 in out -1k": "has to be above 0",
    "R3 in out 1k tc=1": "tc=1 is not read",
    "R3 in out {q}": "q is no parameter",
    "V2 a 0 SIN(0 1 1k)": "is no number",
    "V2 a 0 1 PULSE": "expected a direct value",
    "B1 out 0 V=V(in)": "only currents",
    "B1 out 0 I=V(out)*V(out)": "linear in voltages",
    "B1 out 0 I=exp(V(out))": "only sums",
    "G1 out 0 in in 1m": "are one",
    "F1 out 0 V1": "ends too early",
    "R1 out 0 1k": "an element of that name already",
    ".model x NPN(BF=1)": "models are of the kind D",
    ".model x D(IS=1n RS=3)": "RS=3 is not read",
    ".param a": "expected name=value",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_not_understood_is_named_by_its_line(line):
    text = "\n".join([*GOOD, "* a comment", line])
    with pytest.raises(ValueError, match=REFUSED[line]) as caught:
        read_circuit(text, inputs=["V1"], outputs=["out"])
    assert str(caught.value).startswith(f"Line 6, {line.lower()!r}".replace("''", "'"))


BROKEN = {
    "V2 in 0 2": "closes a loop of voltage sources",
    "V2 out 0 2": "The output out is held by voltage sources",
    "E1 out 0 in 0 2": "The output out is held",
    "R3 x y 1k": "Nothing holds the nodes x, y",
    "E1 e 0 e 0 1": "loop gain of 1",
    "D1 out 0 none": "of which there is no .model",
    "F1 out 0 Vx 2": "and not vx",
}


@pytest.mark.parametrize("line", BROKEN)
def test_circuits_that_have_no_solution(line):
    with pytest.raises(ValueError, match=BROKEN[line]):
        read_circuit("\n".join([*GOOD, line]), inputs=["V1"], outputs=["out"])


def test_names_that_are_wrong():
    text = "\n".join(GOOD)
    for inputs, outputs, message in (
        (["V9"], ["out"], "and not v9"),
        (["V1"], ["nowhere"], "neither a node nor a voltage source"),
        (["V1"], [], "at least one output"),
        (["V1"], ["out", "out"], "of the name out"),
        ({"V1": (1, 2.0)}, ["out"], "expected 0, 1"),
    ):
        with pytest.raises(ValueError, match=message):
            read_circuit(text, inputs=inputs, outputs=outputs)
    with pytest.raises(ValueError, match=r"Line 1.* is its title"):
        read_circuit("\n".join(GOOD[1:]), inputs=["V1"], outputs=["out"])
    with pytest.raises(ValueError, match=r"Line 2, .*no line before it"):
        read_circuit("title\n+ 1k", inputs=["V1"], outputs=["out"])
    circuit = read_circuit(text, inputs=["V1"], outputs=["out"])
    with pytest.raises(ValueError, match="2 entries, but the sources of the circuit take 1"):
        circuit.embed(X)


def test_elements_that_are_wrong():
    good = [Source("v1", ("in", "0")), Resistor("r1", ("in", "out"), 1.0), Resistor("r2", ("out", "0"), 1.0)]
    for more, models, message in (
        (Resistor("r3", ("out", "0"), 0.0), {}, "r3 has 0"),
        (Diode("d1", ("out", "0"), "m", area=0.0), {"m": Diodes(0.0)}, "area 0"),
        (Diode("d1", ("out", "0"), "m"), {}, "no model m"),
        (Diode("d1", ("out", "0"), "m"), {"m": Diodes(0.1)}, "has an offset"),
        (Source("g1", ("out", "0"), 0.0, (("in", 1.0),)), {}, "two nodes with opposite factors"),
        (Source("V2", ("a", "0"), 1.0), {}, "expected a value alone"),
    ):
        with pytest.raises(ValueError, match=message):
            Circuit([*good, more], inputs=["v1"], outputs=["out"], models=models)
    with pytest.raises(ValueError, match="siemens is 0"):
        Circuit(good, inputs=["v1"], outputs=["out"], siemens=0.0)
    dead = eqx.tree_at(lambda c: c.conductances, Circuit(good, inputs=["v1"], outputs=["out"]), jnp.zeros(2))
    with pytest.raises(ValueError, match="conductance of r1, r2 is 0"):
        write_circuit(dead)
