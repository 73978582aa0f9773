"""Networks whose neurons are devices: unequal, dead, or loaded by the conductances that they drive."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, Scalar, Shaped

from eqprop import _tree
from eqprop._blocks import Blocks, Edge
from eqprop._tree import AnyState
from eqprop.network import AbstractLinearNetwork, AbstractNetwork, DenseNetwork, HopfieldNetwork

Dense = DenseNetwork | HopfieldNetwork


class DeviceNeurons(AbstractLinearNetwork):
    """A dense network with neurons of its own:

        s = σ(gain (u − threshold)),  or `rest` where a neuron is dead,       F(u) = drive(s) + current − u.

    `A = ∂drive/∂s` is that of the network; the neurons enter only the diagonal of `M = diag(1/(gain σ′)) − A`, so that
    they leave equilibrium propagation as exact as it was. A load `Λ` that drains `Λ u` from a neuron is a gain as well:
    with `v = (1 + Λ) u`, the fixed point of `drive + current − v` at `s = σ(v/(1 + Λ))` is that of the loaded neuron.
    """

    network: AbstractLinearNetwork
    gain: dict[str, Float[Array, " _"]]
    threshold: dict[str, Float[Array, " _"]]
    alive: dict[str, Bool[Array, " _"]]
    rest: dict[str, Float[Array, " _"]]

    @property
    def holomorphic(self) -> bool:  # pyright: ignore
        """As the network is: gains, thresholds and dead neurons are analytic."""
        return self.network.holomorphic

    @property
    def activation(self) -> Callable[[Inexact[Array, "..."]], Inexact[Array, "..."]]:  # pyright: ignore
        """Of the nominal neuron: `rates` is what the devices do."""
        return self.network.activation

    @property
    def metric(self) -> dict[str, float] | None:
        return self.network.metric

    @property
    def blocks(self) -> Blocks | None:
        return self.network.blocks

    def embed(self, x: Shaped[Array, "..."]) -> AnyState:
        return self.network.embed(x)

    def drive(self, s: AnyState, current: AnyState) -> AnyState:
        return self.network.drive(s, current)

    def initial_state(self, current: AnyState) -> AnyState:
        return self.network.initial_state(current)

    def rates(self, u: AnyState) -> AnyState:
        def shifted(v: Array, gain: Array, threshold: Array) -> Array:
            return gain.astype(v.dtype) * (v - threshold.astype(v.dtype))

        def living(s: Array, alive: Array, rest: Array) -> Array:
            return jnp.where(alive, s, rest.astype(s.dtype))

        s = self.network.rates(jax.tree.map(shifted, u, self.gain, self.threshold))
        return jax.tree.map(living, s, self.alive, self.rest)

    def symmetry_norms(self) -> tuple[Scalar, Scalar]:
        return self.network.symmetry_norms()

    def device_kernels(self) -> dict[Edge, Any]:
        return self.network.device_kernels()

    def feedback_edges(self) -> tuple[Edge, ...]:
        return self.network.feedback_edges()

    def reciprocal_pairs(self) -> list[tuple[Array, Array]]:
        return self.network.reciprocal_pairs()


def innermost(network: AbstractNetwork) -> AbstractNetwork:
    """The network without its device neurons."""
    return innermost(network.network) if isinstance(network, DeviceNeurons) else network


def dense_biases(network: AbstractNetwork, part: eqx.Module) -> dict[str, Float[Array, " _"]]:
    """Biases by layer, which tell its size and precision.

    **Raises:** `ValueError` if the network is not a dense one.
    """
    inner = innermost(network)
    if not isinstance(inner, Dense):
        raise ValueError(
            f"{type(part).__name__} needs to know the size of every layer, which {type(inner).__name__} does not say. "
            "Use a DenseNetwork or a HopfieldNetwork, or leave this part out."
        )
    return inner.biases


def with_neurons(network: AbstractNetwork, part: eqx.Module, **changes: dict[str, Array]) -> DeviceNeurons:
    """The network with some properties of its neurons changed, the others ideal."""
    biases = dense_biases(network, part)
    assert isinstance(network, AbstractLinearNetwork)
    zeros = _tree.zeros_like(biases)
    ideal = {
        "gain": jax.tree.map(jnp.ones_like, biases),
        "threshold": zeros,
        "alive": jax.tree.map(lambda b: jnp.ones(b.shape, bool), biases),
        "rest": zeros,
    }
    return DeviceNeurons(network=network, **(ideal | changes))  # pyright: ignore[reportArgumentType]
