"""Circuits against ngspice: its frozen answers always, live ones where it is installed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from eqprop.substrate import netlist
from experiments.spice import compare, simulator

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def circuit():
    return compare.random_circuit(0)


def test_the_golden_netlist(circuit, tmp_path, monkeypatch):
    """The text of a circuit is what was frozen with ngspice's answers, number by number."""
    written = {}
    monkeypatch.setattr(simulator, "run", lambda text, files: written.update(text=text) or {})
    compare.golden(tmp_path)
    ours, frozen = written["text"].splitlines(), (GOLDEN / "circuit.cir").read_text().splitlines()
    assert len(ours) == len(frozen)
    for a, b in zip(ours, frozen, strict=True):
        *words, last = a.split(" ")
        *expected, number = b.split(" ")
        assert words == expected
        if last != number:  # another processor may draw another last digit
            assert float(last) == pytest.approx(float(number), rel=1e-14)


def test_the_golden_answers(circuit):
    """Fixed points, free and nudged, and the error vector as ngspice gave them, to 1e-12."""
    names = netlist.nodes(circuit.network)
    tables = {name: netlist.read((GOLDEN / f"{name}.txt").read_text(), names)[1][0] for name in ("op", "nudged", "ac")}
    model, x, y = circuit
    start = model.network.at(x).initial_state()
    free = compare.NEWTON(model.network.at(x).drift, start)
    nudged = compare.NEWTON((lambda u: model.at(x, y).drift(u, 0.1)), start)
    assert compare.relative(tables["op"], compare.flat(free.state)) < 1e-12
    assert compare.relative(tables["nudged"], compare.flat(nudged.state)) < 1e-12
    assert compare.relative(tables["ac"].real, compare.error_vector(circuit)) < 1e-12
    assert np.linalg.norm(tables["nudged"] - tables["op"]) > 1e-3


@pytest.mark.skipif(not simulator.available(), reason=simulator.ABSENT)
def test_live():
    """A circuit of its own: `.op`, `.ac`, `.noise` and differences of `.op`."""
    circuit = compare.random_circuit(11)
    for name, deviation in compare.fixed_points(circuit).items():
        assert deviation < compare.TOLERANCES[name], name
    assert compare.noise(circuit) < compare.TOLERANCES["noise density (.noise)"]
    assert compare.gradients(circuit) < compare.TOLERANCES["gradient (.op differences)"]


def test_absent_or_failing(monkeypatch):
    """The error says what is missing, or what ngspice said."""
    if simulator.available():
        with pytest.raises(RuntimeError, match=r"wrote no op\.txt"):
            simulator.run("* empty\n.control\nquit\n.endc\n.end\n", ["op.txt"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="apt-get install ngspice"):
        simulator.run("", [])


def test_tables():
    """Real and complex tables by their width; another one is refused."""
    scale, values = netlist.read("t v(a) v(b)\n0 1 2\n1 3 4\n", ["a", "b"])
    assert scale.tolist() == [0, 1] and values.tolist() == [[1, 2], [3, 4]]
    _, values = netlist.read("f v(a) v(a)\n1 2 3\n", ["a"])
    assert values.tolist() == [[2 + 3j]]
    with pytest.raises(ValueError, match="columns t x y z"):
        netlist.read("t x y z\n0 1 2 3\n", ["a", "b"])
