"""The devices of a model: which of its numbers are weights, and which two of them are one device.

Devices are the kernels of the network and of its readout. Biases are currents from outside, and stay as they are.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from eqprop._tree import AnyState
from eqprop.circuit import Circuit, ResistorGraph
from eqprop.model import Model
from eqprop.network import AbstractEnergyNetwork, AbstractNetwork, DenseNetwork, SparseNetwork
from eqprop.network.graph import INPUT
from eqprop.substrate.base import AbstractImperfection, named
from eqprop.substrate.neurons import innermost

READOUT = ("readout",)
"""The name of the readout's kernel among the edges of the network."""

Name = tuple[str, ...]
"""An edge, or the readout."""


def kernels_of(model: Model, part: AbstractImperfection | None = None) -> dict[Name, Array]:
    """All kernels by name.

    **Raises:** `ValueError` if the network names no kernels, and a `part` needs them.
    """
    kernels, readout = model.network.device_kernels(), model.readout.device_kernel()
    if part is not None and not kernels:
        raise ValueError(
            f"{type(part).__name__} changes kernels, but {type(innermost(model.network)).__name__} names none. Give it "
            "a method device_kernels() that returns them by edge, or use a network of eqprop."
        )
    return {**kernels} if readout is None else {**kernels, READOUT: readout}


def with_kernels(model: Model, values: dict[Name, Array]) -> Model:
    """The model with other kernels; those not named stay."""
    edges = [name for name in model.network.device_kernels() if name in values]
    if edges:
        where = lambda m: [m.network.device_kernels()[name] for name in edges]
        model = eqx.tree_at(where, model, [values[name] for name in edges])
    return eqx.tree_at(lambda m: m.readout.device_kernel(), model, values[READOUT]) if READOUT in values else model


def straight_through(nominal: Array, effective: Array) -> Array:
    """The constant `effective`, to the last bit, with the gradient of `nominal`."""
    return effective + (nominal - jax.lax.stop_gradient(nominal))


def flip(kernel: Array) -> Array:
    """A kernel in the orientation of its reverse; convolutions keep one orientation for both."""
    return kernel.T if kernel.ndim == 2 else kernel


def primary_kernels(kernels: dict[Name, Array], model: Model) -> dict[Name, Name]:
    """The kernel with which each one shares its devices where one device serves both directions: itself, or for
    feedback its reverse."""
    feedback = model.network.feedback_edges()

    def primary(name: Name) -> Name:
        reverse = name[::-1]
        if reverse not in kernels:
            return name
        return min(name, reverse, key=lambda edge: (edge in feedback, edge))

    return {name: primary(name) for name in kernels}


def elementwise(
    model: Model,
    key: PRNGKeyArray,
    value: Callable[[Array, PRNGKeyArray], Array],
    *,
    shared: bool,
    part: AbstractImperfection,
) -> Model:
    """`value(kernel, key)` of every device, itself element by element. `shared`: one device serves both directions, so
    that a kernel and its reverse see one pattern.

    **Raises:** `ValueError` if directions are to differ in a network that has one kernel for both.
    """
    kernels, network = kernels_of(model, part), innermost(model.network)
    if not shared and isinstance(network, AbstractEnergyNetwork | ResistorGraph | Circuit):
        raise ValueError(
            f"{type(part).__name__} would give both directions of a device different values, but "
            f"{type(network).__name__} has one kernel for both. Share the device, or use DenseNetwork."
        )
    primary = primary_kernels(kernels, model)

    def one(name: Name, w: Array) -> Array:
        own = named(key, primary[name] if shared else name)
        if not shared or name == READOUT:
            return value(w, own)
        if name[0] == name[-1]:
            across, first = _loop(network, w)
            return jnp.where(first, value(w, own), across(value(across(w), own)))
        return flip(value(flip(w), own)) if primary[name] != name else value(w, own)

    return with_kernels(model, {name: one(name, w) for name, w in kernels.items()})


def _loop(network: AbstractNetwork, w: Array) -> tuple[Callable[[Array], Array], Array]:
    """Of a kernel from a layer onto itself: the same weights, each in the place of its reverse, and which of both names
    the device. An edge without a reverse, and a resistor, have a device of their own."""
    if w.ndim == 2:
        return jnp.transpose, jnp.triu(jnp.ones(w.shape, bool))
    own = jnp.arange(w.size, dtype=jnp.int32)
    reverse = jnp.where(network.reverse < w.size, network.reverse, own) if isinstance(network, SparseNetwork) else own
    return lambda v: v[reverse], own <= reverse


def tied(model: Model, part: AbstractImperfection) -> Model:
    """The model with every feedback kernel replaced by that of its reverse edge.

    **Raises:** `ValueError` if there is none.
    """
    kernels = kernels_of(model, part)
    pairs = {name: source for name, source in primary_kernels(kernels, model).items() if source != name}
    if not pairs:
        raise ValueError(
            f"{type(part).__name__} ties kernels of opposite directions, but the network has none. Use "
            "DenseNetwork.chain or a ConvNetwork, or another structure."
        )
    return with_kernels(model, {name: flip(kernels[source]) for name, source in pairs.items()})


def gauge_layers(model: Model, part: AbstractImperfection) -> AnyState:
    """Biases by layer of a network in which gains of neurons are a gauge.

    **Raises:** `ValueError` for another network.
    """
    network = innermost(model.network)
    if not isinstance(network, DenseNetwork):
        raise ValueError(
            f"{type(part).__name__} gives receivers and senders gains of their own, which needs a kernel for each "
            f"direction and a drive linear in it: a DenseNetwork, not {type(network).__name__}."
        )
    return network.biases


def with_gains(model: Model, receiver: AnyState, sender: AnyState) -> Model:
    """`K_ab → diag(sender_a) K_ab diag(receiver_b)`."""

    def scaled(name: Name, kernel: Array) -> Array:
        source, target = name
        kernel = kernel * receiver[target][None, :]
        return kernel if source == INPUT else kernel * sender[source][:, None]

    kernels = {name: kernel for name, kernel in kernels_of(model).items() if name != READOUT}
    return with_kernels(model, {name: scaled(name, kernel) for name, kernel in kernels.items()})


def gauge_of(receiver: AnyState, sender: AnyState) -> AnyState:
    """`G = R C⁻¹`."""
    return jax.tree.map(lambda r, c: r / c, receiver, sender)
