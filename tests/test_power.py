"""Power and energy of circuits: Tellegen's balance, resistors by hand, a charging node in closed form."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop
from eqprop.circuit import Diodes, ResistiveNetwork, ResistorGraph, settling
from helpers import flat

X = jnp.asarray([0.8, -0.5, 0.3])


def layered(law: Literal["shockley", "ngspice"] = "shockley", **kwargs):
    network = ResistiveNetwork((3, 5, 4, 2), volts=3.0, diodes=Diodes(law=law), key=jax.random.key(1), **kwargs)
    return eqx.tree_at(lambda n: n.kernels, network, jax.tree.map(lambda k: 2 * k, network.kernels))


def graph(**kwargs):
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 0), (1, 4), (2, 5)]
    key = jax.random.key(2)
    return ResistorGraph(7, edges, inputs=[0, 2, 3], outputs=[5], rails={6: 1.5}, leak=0.1, key=key, **kwargs)


CIRCUITS = {
    "resistors": lambda: layered(),
    "ngspice": lambda: layered("ngspice"),
    "amplified": lambda: layered(forward_gain=3.0, backward_gain=2.0),
    "active": lambda: layered(forward_gain=3.0, backward_gain=2.0, transconductance=0.3),
    "graph": lambda: graph(),
    "graph with diodes": lambda: graph(diodes=Diodes(offset=0.1)),
}


@pytest.mark.parametrize("name", CIRCUITS)
@pytest.mark.parametrize("settled", [True, False], ids=["settled", "anywhere"])
def test_tellegen(name, settled):
    """Sources deliver what is dissipated and what charges the nodes, at any potentials."""
    network = CIRCUITS[name]()
    field = network.at(X)
    state = jax.tree.map(lambda v: v + 0.2 * jax.random.normal(jax.random.key(v.size), v.shape), field.initial_state())
    if settled:
        state = eqprop.Newton(tol=1e-15, max_steps=100)(field.drift, state).state
    charging = network.siemens * float(flat(state) @ flat(field.drift(state)))
    power, supplied = float(network.power(state, X)), float(network.supplied(state, X))
    assert power > 0 and abs(supplied - power - charging) < 1e-13 * power
    assert (abs(charging) < 1e-13 * power) is settled


def test_power_by_hand():
    """Device by device in NumPy."""
    network = layered(forward_gain=3.0)
    state = {
        n: 0.3 * jax.random.normal(jax.random.key(k), (size,)) for k, (n, size) in enumerate(network.sizes.items())
    }
    v = {name: np.asarray(value) for name, value in state.items()}
    v["in"] = 3.0 * np.concatenate([X, -X, [1.0, -1.0]])
    watts = 0.0
    for edge, kernel in network.kernels.items():
        a, b = edge
        for (i, j), k in np.ndenumerate(np.asarray(kernel)):
            watts += 1e-3 * abs(k) * ((1.0 if a == "in" else 3.0) * v[a][i] - v[b][j]) ** 2
    for name in state:
        watts += sum(1e-3 * network.leak * v[name] ** 2)
        for volt in v[name] if name != "out" else ():
            for across in (volt - 0.15, -volt - 0.15):
                watts += across * 1e-8 * np.expm1(across / network.diodes.volts)
    np.testing.assert_allclose(float(network.power(state, X)), watts, rtol=1e-12)


def test_a_charging_node():
    """One node between an input through `g` and a leak: `v = V(1 − e^{−(g + l)t})` with `V = g x/(g + l)`, and its
    energy is that of the settled current and `½ C V²` of charging."""
    network = ResistorGraph(2, [(0, 1)], inputs=[0], outputs=[1], leak=0.5, siemens=2e-4, key=jax.random.key(0))
    network = eqx.tree_at(lambda n: n.conductances, network, jnp.asarray([1.5]))
    x, farads = jnp.asarray([0.4]), 1e-10
    path = settling(network, x, farads=farads, horizon=20.0, dt=0.005)
    settled = 1.5 * 0.4 / 2.0
    t = path.seconds * network.siemens / farads
    np.testing.assert_allclose(path.seconds[-1], 20 * farads / 2e-4, rtol=1e-12)
    np.testing.assert_allclose(path.state["out"][:, 0], settled * (1 - jnp.exp(-2 * t)), atol=1e-5)
    watts = 2e-4 * (1.5 * (0.4 - settled) ** 2 + 0.5 * settled**2)
    # With w = V − v, P is that of the settled state, a term linear in w that cancels, and (g + l) w².
    joules = watts * path.seconds + farads * settled**2 / 2 * (1 - jnp.exp(-4 * t))
    np.testing.assert_allclose(path.joules, joules, rtol=3e-5, atol=1e-18)
    supplied = float(path.joules[-1]) + 0.5 * farads * settled**2
    delivered = 2e-4 * 1.5 * 0.4 * (0.4 * t[-1] - settled * (t[-1] - 0.5)) * farads / 2e-4
    np.testing.assert_allclose(supplied, delivered, rtol=1e-4)


def test_what_is_refused():
    every: list[dict[str, Any]] = [{"farads": 0.0}, {"horizon": -1.0}, {"dt": 0.0}, {"dt": 30.0}, {"samples": 1}]
    for wrong in every:
        with pytest.raises(ValueError, match="expected numbers above 0"):
            settling(layered(), X, **wrong)
