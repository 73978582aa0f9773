"""A network that descends an energy: one kernel serves both directions of an edge."""

from collections.abc import Iterable, Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, Scalar

from eqprop._blocks import Edge
from eqprop._tree import AnyState, cast_like, dot, product, real_linear
from eqprop.activation import shifted_sigmoid
from eqprop.network.base import AbstractEnergyNetwork, Activation, is_analytic
from eqprop.network.graph import (
    INPUT,
    AbstractDense,
    chain_of,
    check_graph,
    checked_edge,
    init_kernels,
    layer_sizes,
    levels_of,
)


class HopfieldNetwork(AbstractDense, AbstractEnergyNetwork):
    """A continuous Hopfield network on an undirected graph of dense layers:

        Φ(s) = Σ_{a—b} s_a K_ab s_b + ⟨current, s⟩,    drive(s)_b = Σ_a s_a K_ab + current_b,    and for a with K_abᵀ.

    Weights are tied by construction, so `A = Aᵀ` always, and classical equilibrium propagation is exact.
    """

    kernels: dict[Edge, Float[Array, "_ _"]]
    biases: dict[str, Float[Array, " _"]]
    activation: Activation = eqx.field(static=True)
    level_items: tuple[tuple[str, int], ...] = eqx.field(static=True)
    holomorphic: bool = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        layers: Mapping[str, int],
        edges: Iterable[Sequence[str]],
        *,
        activation: Activation = shifted_sigmoid,
        holomorphic: bool | None = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:** as for `DenseNetwork`, but every edge between layers works in both directions.

        **Raises:** `ValueError` for what `DenseNetwork` refuses, and for an edge given in both directions or
        from a layer to itself.
        """
        sizes = layer_sizes(input_size, layers)
        pairs = [checked_edge(pair, sizes) for pair in edges]
        check_graph(sizes, pairs)
        for a, b in pairs:
            if (b, a) in pairs:
                raise ValueError(
                    f"The edge {a!r} -> {b!r} also runs backwards: an edge of a HopfieldNetwork works in "
                    "both directions. Give each pair of different layers once."
                )
        self.kernels = init_kernels(pairs, sizes, key)
        self.biases = {name: jnp.zeros(size) for name, size in layers.items()}
        self.activation = activation
        self.level_items = tuple(levels_of(layers, pairs, INPUT).items())
        self.holomorphic = is_analytic(activation, holomorphic)

    @classmethod
    def chain(
        cls,
        sizes: Sequence[int],
        *,
        activation: Activation = shifted_sigmoid,
        holomorphic: bool | None = None,
        key: PRNGKeyArray,
    ) -> "HopfieldNetwork":
        """The chain `in → l1 — l2 — … — out` with the given sizes, input first."""
        return cls(sizes[0], *chain_of(sizes), activation=activation, holomorphic=holomorphic, key=key)

    def recurrent_drive(self, s: AnyState) -> AnyState:
        incoming = {name: jnp.zeros_like(rates) for name, rates in s.items()}
        for (a, b), kernel in self.recurrent.items():
            incoming[b] = incoming[b] + real_linear(lambda z, k=kernel: product(z, k), s[a])
            incoming[a] = incoming[a] + real_linear(lambda z, k=kernel: product(z, k.T), s[b])
        return incoming

    def interaction(self, s: AnyState, current: AnyState) -> Inexact[Array, ""]:
        # What is quadratic in Φ is half of ⟨s, recurrent_drive(s)⟩.
        return 0.5 * dot(s, self.recurrent_drive(s)) + dot(cast_like(current, s), s)

    def symmetry_norms(self) -> tuple[Scalar, Scalar]:
        zero = jnp.zeros((), next(iter(self.biases.values())).dtype)
        return sum((8.0 * jnp.sum(kernel**2) for kernel in self.recurrent.values()), start=zero), zero
