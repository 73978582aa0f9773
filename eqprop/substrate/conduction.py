"""The static power of a network on a device: what its conductances dissipate at given potentials."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from eqprop import _tree
from eqprop._tree import AnyState
from eqprop.circuit import ResistiveNetwork, ResistorGraph
from eqprop.model import Model
from eqprop.network import AbstractLinearNetwork, AbstractNetwork
from eqprop.substrate.base import AbstractImperfection
from eqprop.substrate.bit_slicing import BitSliced
from eqprop.substrate.conductance import Quantised
from eqprop.substrate.kernels import READOUT, kernels_of, with_kernels
from eqprop.substrate.neurons import innermost
from eqprop.substrate.table_conductance import TableConductance
from eqprop.substrate.technology import Technology

Circuit = ResistiveNetwork | ResistorGraph


def circuit_of(network: AbstractNetwork) -> Circuit | None:
    """The network if it is a circuit, whose volts and siemens are its own."""
    return network if isinstance(network, Circuit) else None


def unknown(network: AbstractNetwork) -> str:
    """Why the conduction of a network is not known; empty where it is."""
    if isinstance(network, Circuit) or (isinstance(network, AbstractLinearNetwork) and network.device_kernels()):
        return ""
    return (
        f"the conduction of {type(innermost(network)).__name__} is not known: it is that of circuits, and of networks "
        "with named kernels whose drive is affine, such as DenseNetwork and HopfieldNetwork"
    )


def conductances(model: Model, parts: Mapping[str, AbstractImperfection]) -> Model:
    """The deployed model with `G⁺ + G⁻` in place of every weight, in units of weights: as the last of the parts that
    make weights of pairs of devices says, else `|w|`."""
    pairs = [part for part in parts.values() if isinstance(part, Quantised | TableConductance | BitSliced)]
    total = pairs[-1].total if pairs else jnp.abs
    return with_kernels(model, {name: total(w) for name, w in kernels_of(model).items()})


def synapses(model: Model, squares: AnyState, inputs: Shaped[Array, "..."] | None = None) -> Float[Array, ""]:
    """`Σᵢⱼ Gᵢⱼ sᵢ²` over the recurrent edges of a model of conductances, and over those from the inputs where the
    squares of these are given. The drive is affine, so that it counts every device as often as it conducts."""
    network = model.network
    nothing = _tree.zeros_like(squares)
    rest = network.embed(jnp.zeros_like(inputs)) if inputs is not None else None
    zero = nothing if rest is None else rest
    given = zero if inputs is None else network.embed(inputs)
    flow = _tree.subtract(network.drive(squares, given), network.drive(nothing, zero))
    return jnp.asarray(sum(jnp.sum(leaf) for leaf in jax.tree.leaves(flow)))


def watts(
    technology: Technology,
    model: Model,
    parts: Mapping[str, AbstractImperfection],
    u: AnyState,
    x: Shaped[Array, "..."],
) -> Float[Array, ""]:
    """The static power of a deployed model at the potentials `u` of one example. A circuit says it by itself. In
    another network every device hangs between the rate of its sender and the virtual ground of its receiver, and the
    leak of a neuron bears its potential:

        P = siemens volts² (Σᵢⱼ (G⁺ + G⁻)ᵢⱼ sᵢ² + Σᵢ uᵢ²),

    with the kernels from the inputs and of the readout. NaN where it is not known.
    """
    network = model.network
    if isinstance(network, Circuit):
        return network.power(u, x)
    if unknown(network):
        return jnp.asarray(jnp.nan)
    s = network.rates(u)
    made = conductances(model, parts)
    total = synapses(made, _square(s), jnp.square(x.astype(jax.tree.leaves(s)[0].dtype)))
    total = total + sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(u))
    kernel = kernels_of(made).get(READOUT)
    if kernel is not None:
        sent = jnp.concatenate([s[name].ravel() for name in model.readout.layers])
        total = total + jnp.sum(jnp.sum(kernel, axis=1) * sent**2)
    return technology.siemens * technology.volts**2 * total


def skew_watts(
    technology: Technology, model: Model, parts: Mapping[str, AbstractImperfection], delta: AnyState
) -> Float[Array, ""]:
    """The static power of `Aᵀ δ` and `A δ` by devices of their own, of which AsymEP takes the difference:
    `siemens volts² Σᵢⱼ G_ij (δᵢ² + δⱼ²)`. NaN where it is not known, as in circuits."""
    if unknown(model.network) or isinstance(model.network, Circuit):
        return jnp.asarray(jnp.nan)
    made, squares = conductances(model, parts), _square(delta)
    forward = synapses(made, squares)
    ones, nothing = jax.tree.map(jnp.ones_like, squares), _tree.zeros_like(squares)
    into = _tree.subtract(made.network.drive(ones, nothing), made.network.drive(nothing, nothing))
    return technology.siemens * technology.volts**2 * (forward + _tree.dot(into, squares).real)


def _square(tree: AnyState) -> AnyState:
    return jax.tree.map(lambda leaf: leaf**2, tree)
