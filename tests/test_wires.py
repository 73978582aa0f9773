"""Crossbars with wires: nodal analysis, ngspice, reciprocity; weights on tiles of them."""

# Attributes of the network that a model happens to have, and arguments by name:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop
from eqprop.circuit import read_circuit
from eqprop.circuit.crossbar import Wires, column_currents, effective_conductances
from eqprop.substrate import Substrate, WireResistance
from experiments.spice import simulator
from experiments.spice.netlists import TABLES, crossbar, crossbar_table
from helpers import finite_differences, free_phase, gap, problem, relative_error

GOLDEN = Path(__file__).parent / "golden"
WITH_NGSPICE = pytest.mark.skipif(not simulator.available(), reason=simulator.ABSENT)

effective = eqx.filter_jit(effective_conductances)


def nodal(G, wires, columns_driven=False):
    """The matrix of currents by voltages, from the conductances between all nodes: `m` rows, `n` columns."""
    m, n = G.shape
    node = lambda side, i, j: side * m * n + i * n + j
    Y = np.zeros((2 * m * n, 2 * m * n))

    def join(a, b, g):
        Y[a, a] += g
        Y[b, b] += g
        Y[a, b] -= g
        Y[b, a] -= g

    for i in range(m):
        for j in range(n):
            join(node(0, i, j), node(1, i, j), G[i, j])
            if j + 1 < n:
                join(node(0, i, j), node(0, i, j + 1), 1 / wires.row)
            if i + 1 < m:
                join(node(1, i, j), node(1, i + 1, j), 1 / wires.column)
    row_ends, column_ends = [node(0, i, 0) for i in range(m)], [node(1, m - 1, j) for j in range(n)]
    for k in row_ends:
        Y[k, k] += 1 / wires.driver
    for k in column_ends:
        Y[k, k] += 1 / wires.sense
    into, out = (column_ends, row_ends) if columns_driven else (row_ends, column_ends)
    drive, read = (wires.sense, wires.driver) if columns_driven else (wires.driver, wires.sense)
    source = np.zeros((2 * m * n, len(into)))
    source[into, range(len(into))] = 1 / drive
    return np.linalg.solve(Y, source)[out].T / read


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 5), (16, 16)])
def test_nodal_analysis(shape):
    """Every pair of driver and column, by the conductances between all nodes; then driven at the columns."""
    draw = np.random.default_rng(1)
    G, wires = draw.uniform(0, 1, shape), Wires(row=0.3, column=0.2, driver=1.5, sense=0.7)
    found = np.asarray(effective(jnp.asarray(G), wires))
    assert relative_error(found, nodal(G, wires)) < 1e-12
    assert relative_error(found.T, nodal(G, wires, columns_driven=True)) < 1e-12
    volts = jnp.asarray(draw.normal(size=shape[0]))
    assert relative_error(column_currents(jnp.asarray(G), volts, wires), np.asarray(volts) @ nodal(G, wires)) < 1e-12


def test_currents_of_ngspice():
    """8 × 8, as they were frozen; the netlist is the one that was run."""
    G, volts, wires = crossbar(8)
    frozen = (GOLDEN / "crossbar.cir").read_text()
    ours, theirs = TABLES["crossbar"].text.splitlines()[:-2], frozen.splitlines()
    for line, other in zip(ours, theirs, strict=False):
        assert line.split()[:3] == other.split()[:3]
    table = TABLES["crossbar"].values((GOLDEN / "crossbar.txt").read_text())
    assert relative_error(column_currents(jnp.asarray(G), jnp.asarray(volts), wires), table) < 1e-12
    circuit = read_circuit(frozen, inputs=[f"vrow{i}" for i in range(8)], outputs=[f"vsense{j}" for j in range(8)])
    assert circuit.reciprocal and len(circuit.hidden) == 128
    newton = eqx.filter_jit(lambda c, x: eqprop.Newton(tol=1e-14)(c.at(x).drift, c.at(x).initial_state()).state["out"])
    assert relative_error(newton(circuit, jnp.asarray(volts)) * circuit.siemens, table) < 1e-10


@WITH_NGSPICE
@pytest.mark.parametrize("size", [8, 16])
def test_live(size):
    table = crossbar_table(size, seed=3)
    G, volts, wires = crossbar(size, seed=3)
    theirs = table.values(table.run()[1])
    assert relative_error(column_currents(jnp.asarray(G), jnp.asarray(volts), wires), theirs) < 1e-10


def test_without_resistances():
    """The crossbar is its matrix to the last bit; of wires of which some have no resistance, the limit."""
    G = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (6, 4)))
    assert gap(effective(G, Wires()), G) == 0
    for zero in ("row", "column", "driver", "sense"):
        values = {name: 0.3 for name in ("row", "column", "driver", "sense")}
        found, near = effective(G, Wires(**values | {zero: 0.0})), Wires(**values | {zero: 1e-7})
        assert gap(found, nodal(np.asarray(G), near)) < 1e-6


def test_gradients_of_a_crossbar():
    """By conductances and by resistances, against finite differences."""
    G = jnp.asarray(np.random.default_rng(0).uniform(0.1, 1, (4, 3)))
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))

    def loss(params):
        G, r = params
        return jnp.sum(weights * effective_conductances(G, Wires(*r)))

    params = G, jnp.asarray([0.1, 0.2, 0.3, 0.4])
    assert relative_error(jax.jit(jax.grad(loss))(params), finite_differences(loss, params)) < 1e-9


# The part of a substrate.


@eqx.filter_jit
def deployed(model, part):
    return Substrate(part=part).deploy(model)


def kernels(model, **kwargs):
    return deployed(model, WireResistance(**kwargs)).network.kernels


@pytest.mark.parametrize(("shape", "tile"), [((3, 4), 8), ((9, 13), 8), ((20, 5), 8), ((26, 25), 2)])
def test_tiles_of_pairs(shape, tile):
    """Every tile by the nodal analysis of its two crossbars, the last ones smaller; more than are solved at once."""
    w = np.random.default_rng(0).normal(size=shape)
    part = WireResistance(wire=0.01, driver=0.05, sense=0.02, tile=tile, limit=2.0, on_off_ratio=20.0)
    wires = Wires(0.01, 0.01, 0.05, 0.02)
    expected, least = np.zeros(shape), 0.05
    for i in range(0, shape[0], tile):
        for j in range(0, shape[1], tile):
            here = w[i : i + tile, j : j + tile]
            plus, minus = (nodal(least + (1 - least) * np.maximum(s * here / 2, 0), wires) for s in (1, -1))
            expected[i : i + tile, j : j + tile] = 2 * (plus - minus) / (1 - least)
    assert relative_error(eqx.filter_jit(part.realised)(jnp.asarray(w)), expected) < 1e-12
    # Driven at the columns, through what is the driver there.
    first = w[:tile, :tile]
    plus, minus = (
        nodal(least + (1 - least) * np.maximum(s * first / 2, 0), Wires(0.01, 0.01, 0.02, 0.05), columns_driven=True)
        for s in (1, -1)
    )
    backwards = eqx.filter_jit(lambda w: part.realised(w, backwards=True))(jnp.asarray(first))
    assert relative_error(backwards, 2 * (plus - minus).T / (1 - least)) < 1e-12


@pytest.mark.parametrize("name", ["symmetric", "conv_symmetric", "hopfield"])
def test_one_crossbar_read_from_either_side_is_reciprocal(name):
    """Equal ends keep a kernel and its reverse transposes of one another, and equilibrium propagation exact."""
    p = problem(name)
    part = WireResistance(wire=0.01, driver=0.05, sense=0.05, tile=4)
    assert part.reciprocity == "keeps"
    model = deployed(p.model, part)
    for forward, back in model.network.reciprocal_pairs():
        assert gap(forward, back) < 1e-15
    free = free_phase(model, p.x)
    x, y, u = p.x[0], p.y[0], jax.tree.map(lambda v: v[0], free.state)

    @eqx.filter_jit
    def errors(model):
        example, first = model.at(x, y), jax.tree.map(lambda v: v[0], free)
        settle = eqprop.Newton(tol=1e-14, max_steps=100)
        return [
            kind(relaxation=settle).estimate(example, first).delta
            for kind in (eqprop.TangentResponse, eqprop.RecurrentBackprop)
        ]

    tangent, true = errors(model)
    assert relative_error(tangent, true) < 1e-9
    assert relative_error(u, jax.tree.map(lambda v: v[0], free_phase(p.model, p.x).state)) > 1e-4


@pytest.mark.parametrize("change", [{"shared": False}, {"driver": 0.1}, {"shared": False, "driver": 0.0}])
def test_what_breaks_reciprocity(change):
    """A crossbar for each direction, or ends that change places."""
    part = WireResistance(wire=0.01, **change)
    assert part.reciprocity == "breaks"
    pairs = deployed(problem("symmetric").model, part).network.reciprocal_pairs()
    assert all(gap(forward, back) > 1e-4 for forward, back in pairs)
    with pytest.raises(ValueError, match="one kernel for both"):
        part(problem("hopfield").model, key=jax.random.key(0))


def test_ends_that_differ_are_no_gauge():
    """`A` is not symmetric up to gains: cycles of it have other products in the other direction."""
    part = WireResistance(wire=0.0, driver=0.4, sense=0.0, on_off_ratio=1e9)
    w = jnp.asarray(np.random.default_rng(0).uniform(0.2, 1, (3, 3)))
    forward, back = part.realised(w), part.realised(w, backwards=True)
    # A gauge has forward_ij r_i = back_ij c_j, so that the ratios are of rank one.
    ratio = np.asarray(forward / back)
    assert np.linalg.svd(ratio)[1][1] < 1e-8  # rows and columns share their drivers only: this one is a gauge
    with_wires = WireResistance(wire=0.1, driver=0.4, sense=0.0, on_off_ratio=1e9)
    ratio = np.asarray(with_wires.realised(w) / with_wires.realised(w, backwards=True))
    assert np.linalg.svd(ratio)[1][1] > 1e-3


def test_layers_onto_themselves():
    """Symmetric weights stay so, whatever their diagonal."""
    w = jax.random.normal(jax.random.key(0), (5, 5))
    part = WireResistance(wire=0.05, driver=0.1, sense=0.1, tile=4)
    found = eqx.filter_jit(lambda w: part._one(("l1", "l1"), w, ("l1", "l1")))(w + w.T)
    assert gap(found, found.T) < 1e-15 and gap(found, w + w.T) > 1e-3


def test_the_error_grows_with_the_resistance():
    """From none at all; weights are the nominal ones where wires have no resistance."""
    network = eqprop.DenseNetwork.chain((9, 5, 4), angle=90.0, key=jax.random.key(0))
    model = eqprop.Model(network, eqprop.SquaredError())
    nominal = model.network.kernels
    errors = [relative_error(kernels(model, wire=jnp.asarray(wire)), nominal) for wire in (0.0, 1e-4, 1e-3, 1e-2, 0.1)]
    assert errors[0] < 1e-14 and all(np.diff(errors) > 0)
    assert errors[2] / errors[1] == pytest.approx(10, rel=0.05)
    w = jax.random.normal(jax.random.key(0), (8, 8))
    larger = [relative_error(WireResistance(wire=1e-3, tile=tile).realised(w), w) for tile in (1, 2, 4, 8)]
    assert all(np.diff(larger) > 0)


def test_gradients_through_tiles():
    """An aware substrate has the chain rule through the crossbars."""
    w = jax.random.normal(jax.random.key(0), (5, 2))
    part = WireResistance(wire=0.05, tile=2)
    direction = jax.random.normal(jax.random.key(1), (5, 2))
    loss = lambda w: jnp.sum(direction * part.realised(w))
    assert relative_error(jax.jit(jax.grad(loss))(w), finite_differences(loss, w)) < 1e-9


def test_what_has_no_crossbar():
    circuit = eqprop.circuit.ResistiveNetwork((3, 2), key=jax.random.key(0))
    with pytest.raises(ValueError, match="which the kernels of ResistiveNetwork are not"):
        WireResistance()(eqprop.Model(circuit, eqprop.SquaredError()), key=jax.random.key(0))
    for wrong in ({"wire": -1.0}, {"tile": 0}, {"on_off_ratio": 0.5}, {"limit": 0.0}):
        with pytest.raises(ValueError, match=f"WireResistance got {next(iter(wrong))}"):
            WireResistance(**wrong)
