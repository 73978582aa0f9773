"""The devices of a model: which of its numbers are weights, and which two of them are one device.

Devices are the kernels of the network and of its readout. Biases are currents from outside, and stay as they are.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from eqprop._tree import AnyState
from eqprop.network import AbstractEnergyNetwork, DenseNetwork
from eqprop.network.dense import INPUT
from eqprop.readout import Model
from eqprop.substrate.base import AbstractImperfection, named
from eqprop.substrate.neurons import innermost

READOUT = "readout"
"""The name of the readout's kernel among those of the network."""


def kernels_of(model: Model, part: AbstractImperfection | None = None) -> dict[str, Array]:
    """All kernels by name, that of the readout as `"readout"`.

    **Raises:** `ValueError` if the network keeps no kernels by name, and a `part` needs them.
    """
    network = innermost(model.network)
    kernels = getattr(network, "kernels", None)
    if not isinstance(kernels, dict):
        if part is None:
            return {}
        raise ValueError(
            f"{type(part).__name__} changes kernels, but {type(network).__name__} has no dictionary `kernels` of them. "
            "Use DenseNetwork, HopfieldNetwork or ConvNetwork."
        )
    readout = getattr(model.readout, "kernel", None)
    return kernels if readout is None else {**kernels, READOUT: readout}


def with_kernels(model: Model, values: dict[str, Array]) -> Model:
    """The model with other kernels; those not named stay."""
    new = {name: values.get(name, kernel) for name, kernel in kernels_of(model).items() if name != READOUT}
    model = eqx.tree_at(lambda m: innermost(m.network).kernels, model, new)  # pyright: ignore
    return eqx.tree_at(lambda m: m.readout.kernel, model, values[READOUT]) if READOUT in values else model


def straight_through(nominal: Array, effective: Array) -> Array:
    """The constant `effective`, to the last bit, with the gradient of `nominal`."""
    return effective + (nominal - jax.lax.stop_gradient(nominal))


def flip(kernel: Array) -> Array:
    """A kernel in the orientation of its reverse; convolutions keep one orientation for both."""
    return kernel.T if kernel.ndim == 2 else kernel


def primary_kernels(kernels: dict[str, Array], model: Model) -> dict[str, str]:
    """The kernel with which each one shares its devices where one device serves both directions: itself, or for
    feedback its reverse."""
    feedback = {f"{a}-{b}" for a, b in getattr(innermost(model.network), "feedback", ())}

    def primary(name: str) -> str:
        reverse = "-".join(reversed(name.split("-")))
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
    kernels = kernels_of(model, part)
    if not shared and isinstance(innermost(model.network), AbstractEnergyNetwork):
        raise ValueError(
            f"{type(part).__name__} would give both directions of a device different values, but "
            f"{type(innermost(model.network)).__name__} has one kernel for both. Share the device, or use DenseNetwork."
        )
    primary = primary_kernels(kernels, model)

    def one(name: str, w: Array) -> Array:
        own = named(key, primary[name] if shared else name)
        reversed_ = flip(value(flip(w), own)) if shared else w
        if shared and _is_loop(name):
            # Of a layer onto itself, `ij` and `ji` share a device: that above the diagonal.
            return jnp.triu(value(w, own)) + jnp.tril(reversed_, -1)
        return reversed_ if shared and primary[name] != name else value(w, own)

    return with_kernels(model, {name: one(name, w) for name, w in kernels.items()})


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


def _is_loop(name: str) -> bool:
    source, _, target = name.partition("-")
    return source == target


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

    def scaled(name: str, kernel: Array) -> Array:
        source, target = name.split("-")
        kernel = kernel * receiver[target][None, :]
        return kernel if source == INPUT else kernel * sender[source][:, None]

    kernels = {name: kernel for name, kernel in kernels_of(model).items() if name != READOUT}
    return with_kernels(model, {name: scaled(name, kernel) for name, kernel in kernels.items()})


def gauge_of(receiver: AnyState, sender: AnyState) -> AnyState:
    """`G = R C⁻¹`."""
    return jax.tree.map(lambda r, c: r / c, receiver, sender)
