"""A network that descends an energy: one kernel serves both directions of an edge."""

from collections.abc import Iterable, Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, Scalar, Shaped

from eqprop._blocks import Blocks, coloured, levels_of
from eqprop._tree import AnyState, dot, product, real_linear
from eqprop.activation import shifted_sigmoid
from eqprop.network.base import AbstractEnergyNetwork, AbstractLinearNetwork, Activation, is_analytic
from eqprop.network.dense import (
    INPUT,
    chain_names,
    check_graph,
    dense_current,
    init_kernels,
    layer_sizes,
    named_edge,
    recurrent_edges,
)


class HopfieldNetwork(AbstractEnergyNetwork, AbstractLinearNetwork):
    """A continuous Hopfield network on an undirected graph of dense layers:

        Φ(s) = Σ_{a—b} s_a K_ab s_b,    drive(s)_b = Σ_a s_a K_ab,    drive(s)_a = Σ_b K_ab s_b.

    Weights are tied by construction, so `A = Aᵀ` always, and classical equilibrium propagation is exact.
    """

    kernels: dict[str, Float[Array, "_ _"]]
    """One kernel an undirected edge, under the name `"a-b"`."""
    biases: dict[str, Float[Array, " _"]]
    """One bias a layer."""
    activation: Activation = eqx.field(static=True)
    levels: tuple[tuple[str, int], ...] = eqx.field(static=True)
    """Layers in the order given, with their levels."""
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
        pairs = [named_edge(pair, sizes) for pair in edges]
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
        self.levels = tuple(levels_of(layers, pairs, INPUT).items())
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
        names = chain_names(sizes)
        layers = dict(zip(names[1:], sizes[1:], strict=True))
        edges = zip(names[:-1], names[1:], strict=True)
        return cls(sizes[0], layers, edges, activation=activation, holomorphic=holomorphic, key=key)

    @property
    def blocks(self) -> Blocks:
        return coloured(dict(self.levels), [edge for edge, _ in recurrent_edges(self.kernels)])

    def embed(self, x: Shaped[Array, "..."]) -> AnyState:
        return dense_current(x, self.kernels, self.biases)

    def drive(self, s: AnyState) -> AnyState:
        incoming = {name: jnp.zeros_like(rates) for name, rates in s.items()}
        for (a, b), kernel in recurrent_edges(self.kernels):
            incoming[b] = incoming[b] + real_linear(lambda z, k=kernel: product(z, k), s[a])
            incoming[a] = incoming[a] + real_linear(lambda z, k=kernel: product(z, k.T), s[b])
        return incoming

    def interaction(self, s: AnyState) -> Inexact[Array, ""]:
        # Φ is quadratic, so it is half of ⟨s, drive(s)⟩.
        return 0.5 * dot(s, self.drive(s))

    def symmetry_norms(self) -> tuple[Scalar, Scalar]:
        zero = jnp.zeros((), next(iter(self.biases.values())).dtype)
        return sum((8.0 * jnp.sum(k**2) for _, k in recurrent_edges(self.kernels)), start=zero), zero
