"""Random circuits of resistors, diodes and controlled sources, and what the library says of them."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import eqprop
from eqprop.circuit import Diodes, ResistiveNetwork, netlist

FARADS = 1e-9
NEWTON = eqprop.Newton(tol=1e-16, max_steps=100)


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


@eqx.filter_jit
def relaxed(circuit: Circuit, beta: float | jax.Array = 0.0) -> eqprop.Solution:
    """The fixed point under a static nudge."""
    model, x, y = circuit
    return NEWTON(lambda u: model.at(x, y).drift(u, beta), model.network.at(x).initial_state())


def linearised(circuit: Circuit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`v`, `J` and `g` at the free fixed point, dense."""
    v, J, g = _linearised(circuit)
    return np.asarray(v), np.asarray(J), np.asarray(g)


@eqx.filter_jit
def _linearised(circuit: Circuit) -> tuple[jax.Array, jax.Array, jax.Array]:
    model, x, y = circuit
    v = relaxed(circuit).state
    vector, unravel = ravel_pytree(v)
    J = jax.jacfwd(lambda u: ravel_pytree(model.network.at(x).drift(unravel(u)))[0])(vector)
    return vector, J, ravel_pytree(model.readout.teaching(v, y))[0]


@eqx.filter_jit
def error_vector(circuit: Circuit) -> jax.Array:
    """`ds*/dβ` as the library gives it."""
    model, x, y = circuit
    free = relaxed(circuit)
    return ravel_pytree(eqprop.TangentResponse(relaxation=NEWTON).error(model.at(x, y), free).delta)[0]


@eqx.filter_jit
def gradient(circuit: Circuit) -> jax.Array:
    """Of the loss by recurrent backpropagation, conductances first, then transconductances."""
    model, x, y = circuit
    rbp = eqprop.RecurrentBackprop(relaxation=NEWTON)
    response = rbp.respond(model.at(x, y), relaxed(circuit))
    network = eqx.filter_grad(lambda m: rbp.surrogate(m.at(x, y), response))(model).network
    groups = (network.kernels, network.transconductances)
    return jnp.concatenate([jnp.ravel(g) for group in groups for g in group.values()])
