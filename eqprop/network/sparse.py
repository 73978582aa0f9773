"""Neurons on a list of edges: any sparse graph, in memory that grows with its edges."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int32, PRNGKeyArray, Scalar, Shaped

from eqprop._blocks import Blocks, Edge
from eqprop._tree import AnyState, real_linear
from eqprop.activation import shifted_sigmoid
from eqprop.network.base import AbstractLinearNetwork, Activation, is_analytic
from eqprop.network.graph import INPUT


class SparseNetwork(AbstractLinearNetwork):
    """Neurons on a directed graph without layers, each edge with a weight of its own:

        drive(s)_j = Σ_{i→j} w_ij s_i + current_j,       current_j = bias_j + Σ_{k→j} w_kj x_k.

    The state has two parts, `hidden` and `out`, the last `outputs` neurons. Time and memory of a step grow with the
    number of edges. An edge and its reverse, where both are there, are a reciprocal pair. `eqprop.topology` has
    generators of graphs.
    """

    weights: Float[Array, " edges"]
    input_weights: Float[Array, " input_edges"]
    biases: Float[Array, " n"]
    edges: Int32[Array, "edges 2"]
    """Source and target of every edge, sorted by target."""
    input_edges: Int32[Array, "input_edges 2"]
    reverse: Int32[Array, " edges"]
    """The reverse of every edge; the number of edges where there is none."""
    pairs: Int32[Array, "pairs 2"]
    """Edges with their reverses, each pair once."""
    outputs: int = eqx.field(static=True)
    input_size: int = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)
    holomorphic: bool = eqx.field(static=True)

    def __init__(
        self,
        input_size: int,
        neurons: int,
        edges: Int32[np.ndarray, "edges 2"],
        input_edges: Int32[np.ndarray, "input_edges 2"],
        *,
        outputs: int,
        gain: float = 1.0,
        signs: Shaped[np.ndarray, " n"] | None = None,
        activation: Activation = shifted_sigmoid,
        holomorphic: bool | None = None,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `input_size`: entries of an example; inputs of any shape with that many are flattened.
        - `neurons`: how many.
        - `edges`: pairs `(from, to)` of neurons, from 0; without repeats.
        - `input_edges`: pairs `(entry, neuron)`.
        - `outputs`: how many neurons, the last ones, are `out`.
        - `gain`: weights are drawn normal with variance `gain²/(edges into their target)`, those of the input with
            variance 1/(edges into their target).
        - `signs`: whether every neuron excites (true) or inhibits; weights start with the sign of their source.
            `None`: drawn.
        - `activation`, `holomorphic`: as for `DenseNetwork`.

        **Raises:** `ValueError` for numbers of neurons that do not exist and for repeated edges.
        """
        if not 0 < outputs < neurons:
            raise ValueError(f"outputs is {outputs} of {neurons} neurons; expected at least one, and some hidden ones.")
        for name, pairs, bounds in (
            ("edges", edges, (neurons, neurons)),
            ("input_edges", input_edges, (input_size, neurons)),
        ):
            if len(pairs) == 0 or pairs.min() < 0 or np.any(pairs.max(0) >= bounds):
                raise ValueError(f"{name} has to name entries below {bounds[0]} and {bounds[1]}, and at least one.")
            if len(np.unique(_numbers(pairs, neurons))) < len(pairs):
                raise ValueError(f"{name} has an edge twice. Give each once, as numpy.unique(edges, axis=0) does.")
        edges = edges[np.argsort(edges[:, 1], kind="stable")]
        input_edges = input_edges[np.argsort(input_edges[:, 1], kind="stable")]
        first, second = jax.random.split(key)
        self.edges, self.input_edges = jnp.asarray(edges), jnp.asarray(input_edges)
        reverse = _reverses(edges, neurons)
        first_of_pair = np.flatnonzero((reverse > np.arange(len(edges))) & (reverse < len(edges)))
        self.reverse = jnp.asarray(reverse)
        self.pairs = jnp.asarray(np.stack([first_of_pair, reverse[first_of_pair]], axis=1).astype(np.int32))
        drawn = gain * jax.random.normal(first, (len(edges),)) * _fan_in(edges)
        if signs is not None:
            drawn = jnp.abs(drawn) * jnp.asarray(np.where(signs, 1, -1)[edges[:, 0]], drawn.dtype)
        self.weights = drawn
        self.input_weights = jax.random.normal(second, (len(input_edges),)) * _fan_in(input_edges)
        self.biases = jnp.zeros(neurons)
        self.outputs, self.input_size = outputs, input_size
        self.activation, self.holomorphic = activation, is_analytic(activation, holomorphic)

    @property
    def blocks(self) -> Blocks:
        """One block: neurons of one part act on each other."""
        return Blocks(((0, 1),))

    def embed(self, x: Shaped[Array, "..."]) -> AnyState:
        if x.size != self.input_size:
            raise ValueError(f"The input has {x.size} entries, but the network expects {self.input_size}.")
        x = x.reshape(-1).astype(self.input_weights.dtype)
        return self._split(self.biases + _sums(self.input_edges, self.input_weights, x, self.biases.size))

    def drive(self, s: AnyState, current: AnyState) -> AnyState:
        whole = jnp.concatenate([s["hidden"], s["out"]])
        one = lambda z: _sums(self.edges, self.weights, z, self.biases.size)
        recurrent = self._split(real_linear(jax.vmap(one), whole))
        return jax.tree.map(lambda d, c: d + c.astype(d.dtype), recurrent, current)

    def device_kernels(self) -> dict[Edge, Any]:
        return {("neurons", "neurons"): self.weights, (INPUT, "neurons"): self.input_weights}

    def symmetry_norms(self) -> tuple[Scalar, Scalar]:
        back = jnp.append(self.weights, jnp.zeros(1, self.weights.dtype))[self.reverse]
        # A lone edge stands for its block and for the zero across the diagonal.
        times = jnp.where(self.reverse == self.weights.size, 2.0, 1.0).astype(back.dtype)
        return jnp.sum(times * (self.weights + back) ** 2), jnp.sum(times * (self.weights - back) ** 2)

    def reciprocal_pairs(self) -> list[tuple[Array, Array]]:
        """The weights of all edges that have a reverse, as two vectors; each pair once."""
        return [(self.weights[self.pairs[:, 0]], self.weights[self.pairs[:, 1]])] if len(self.pairs) else []

    def _split(self, whole: Inexact[Array, " n"]) -> AnyState:
        return {"hidden": whole[: -self.outputs], "out": whole[-self.outputs :]}


def _sums(edges: Array, weights: Array, s: Array, count: int) -> Array:
    """`Σ w_ij s_i` at every target."""
    return jax.ops.segment_sum(weights * s[edges[:, 0]], edges[:, 1], count, indices_are_sorted=True)


def _numbers(edges: np.ndarray, count: int) -> np.ndarray:
    return edges[:, 0].astype(np.int64) * count + edges[:, 1]


def _reverses(edges: np.ndarray, count: int) -> np.ndarray:
    forward, back = _numbers(edges, count), _numbers(edges[:, ::-1], count)
    order = np.argsort(forward)
    found = np.searchsorted(forward, back, sorter=order).clip(max=len(edges) - 1)
    return np.where(forward[order[found]] == back, order[found], len(edges)).astype(np.int32)


def _fan_in(edges: np.ndarray) -> Array:
    """`1/√(edges into the target)` of every edge."""
    return jnp.asarray(1 / np.sqrt(np.bincount(edges[:, 1])[edges[:, 1]]))
