"""Circuits against ngspice: its frozen answers always, live ones where it is installed."""

import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from eqprop.circuit import netlist
from eqprop.run.errors import UsageError
from experiments.spice import compare, energy, simulator
from experiments.spice.circuits import error_vector, flat, random_circuit, relative, relaxed
from experiments.spice.comparisons import fixed_points, gradients, noise
from experiments.spice.golden import golden

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def circuit():
    return random_circuit(0)


@pytest.mark.parametrize("name", ["circuit", "settling"])
def test_the_golden_netlist(name, tmp_path, monkeypatch):
    """The text of a circuit is what was frozen with ngspice's answers, number by number."""
    monkeypatch.setattr(simulator, "run", lambda text, files: {})
    golden(tmp_path)
    ours, frozen = ((folder / f"{name}.cir").read_text().splitlines() for folder in (tmp_path, GOLDEN))
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
    free, nudged = relaxed(circuit), relaxed(circuit, jnp.asarray(0.1))
    assert relative(tables["op"], flat(free.state)) < 1e-12
    assert relative(tables["nudged"], flat(nudged.state)) < 1e-12
    assert relative(tables["ac"].real, np.asarray(error_vector(circuit))) < 1e-12
    assert np.linalg.norm(tables["nudged"] - tables["op"]) > 1e-3


def test_the_golden_energy(circuit):
    """What sources deliver while nodes charge, as ngspice gave it: dissipated and stored energy, to 2e-5."""
    assert energy.deviation(energy.passive(circuit), (GOLDEN / "settling.txt").read_text()) < 2e-5


@pytest.mark.skipif(not simulator.available(), reason=simulator.ABSENT)
def test_live_energy():
    circuit = energy.passive(random_circuit(12))
    text = simulator.run(energy.transient(circuit), ["settling.txt"])["settling.txt"]
    assert energy.deviation(circuit, text) < 2e-5


@pytest.mark.skipif(not simulator.available(), reason=simulator.ABSENT)
def test_live():
    """A circuit of its own: `.op`, `.ac`, `.noise` and differences of `.op`."""
    circuit = random_circuit(11)
    for name, deviation in fixed_points(circuit).items():
        assert deviation < compare.TOLERANCES[name], name
    assert noise(circuit) < compare.TOLERANCES[compare.NOISE]
    assert gradients(circuit) < compare.TOLERANCES[compare.GRADIENT]


def test_absent_or_failing(monkeypatch):
    """The error says what is missing, or what ngspice said."""
    if simulator.available():
        with pytest.raises(RuntimeError, match=r"wrote no op\.txt"):
            simulator.run("* empty\n.control\nquit\n.endc\n.end\n", ["op.txt"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="apt-get install ngspice"):
        simulator.run("", [])
    with pytest.raises(UsageError, match="apt-get install ngspice"):
        compare.measure("quick")


def test_tables():
    """Real and complex tables by their width; another one is refused."""
    scale, values = netlist.read("t v(a) v(b)\n0 1 2\n1 3 4\n", ["a", "b"])
    assert scale.tolist() == [0, 1] and values.tolist() == [[1, 2], [3, 4]]
    _, values = netlist.read("f v(a) v(a)\n1 2 3\n", ["a"])
    assert values.tolist() == [[2 + 3j]]
    with pytest.raises(ValueError, match="columns t x y z"):
        netlist.read("t x y z\n0 1 2 3\n", ["a", "b"])
