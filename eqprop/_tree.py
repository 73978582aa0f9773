"""Arithmetic on states: trees of real or complex arrays, one leaf a layer.

Two rules live here. Products of states are bilinear, never conjugated, because a complex state
stands for an analytic continuation of a real one. And weights are real: `real_linear` applies them to
the real and imaginary parts stacked as a batch, so that no complex matrix product is ever compiled.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree, Scalar

State = PyTree[Inexact[Array, "?*layer"], "S"]
"""Potentials, rates or errors of one example: one array a layer. Batching is `jax.vmap` above it."""

AnyState = PyTree[Inexact[Array, "..."]]
"""A state whose leaves may have gained leading axes, such as one for the nodes of a stencil."""

Drift = Callable[[AnyState], AnyState]
"""The time derivative of the potentials, `du/dt = F(u)`."""

T = TypeVar("T")


def add(a: AnyState, b: AnyState) -> AnyState:
    """`a + b`."""
    return jax.tree.map(jnp.add, a, b)


def subtract(a: AnyState, b: AnyState) -> AnyState:
    """`a − b`."""
    return jax.tree.map(jnp.subtract, a, b)


def scale(factor: Inexact[Array, ""] | float, a: AnyState) -> AnyState:
    """`factor · a`."""
    return jax.tree.map(lambda leaf: factor * leaf, a)


def where(condition: Array, a: T, b: T) -> T:
    """`a` where the scalar condition holds, else `b`, leaf by leaf."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def dot(a: AnyState, b: AnyState) -> Inexact[Array, ""]:
    """The bilinear product `Σ aᵢ bᵢ`, without conjugation: analytic in both arguments."""
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda x, y: jnp.sum(x * y), a, b))


def norm(a: AnyState) -> Float[Array, ""]:
    """The 2-norm `(Σ |aᵢ|²)^½` over all layers, accumulated in float32 at least; 0 of no layers."""
    return jnp.sqrt(sum(map(_sum_of_squares, jax.tree.leaves(a)), start=0.0))


def max_norm(a: AnyState) -> Float[Array, ""]:
    """The largest `|aᵢ|` of any neuron: a number that means the same at any width."""
    return functools.reduce(jnp.maximum, map(largest, jax.tree.leaves(a)))


def largest(x: Inexact[Array, "..."]) -> Float[Array, ""]:
    """The largest `|xᵢ|` of one layer."""
    return jnp.max(jnp.abs(x), initial=0.0)


def _sum_of_squares(x: Inexact[Array, "..."]) -> Float[Array, ""]:
    if jnp.iscomplexobj(x):
        return jnp.sum(x.real**2 + x.imag**2)
    # Squares of half-precision numbers overflow long before their norm does.
    wide = x if jnp.finfo(x.dtype).bits >= 32 else x.astype(jnp.float32)
    return jnp.sum(wide**2)


def is_concrete(value: object) -> bool:
    """Whether `value` is a number, or an array of numbers, that can be looked at: not one that JAX traces."""
    numeric = isinstance(value, (int, float, complex, np.number, np.bool, np.ndarray, jax.Array))
    return numeric and not isinstance(value, Tracer)


def known_false(condition: Any) -> bool:
    """Whether a condition on settings is known to fail, for one of them at least; what is traced passes."""
    return is_concrete(condition) and not np.all(condition)


def zeros_like(a: AnyState) -> AnyState:
    """The state of zeros with the shapes and dtypes of `a`."""
    return jax.tree.map(jnp.zeros_like, a)


def noise_like(a: AnyState, key: PRNGKeyArray, draw: Callable[..., Array]) -> AnyState:
    """`draw(key, shape, dtype)` for every layer of `a`, each with a key of its own."""
    leaves, structure = jax.tree.flatten(a)
    keys = jax.random.split(key, len(leaves))
    noise = [draw(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noise)


def size(a: PyTree) -> int:
    """The number of neurons `n`, all layers together."""
    return sum(leaf.size for leaf in jax.tree.leaves(a))


def stop_gradient(a: T) -> T:
    """`a` as a constant."""
    arrays, rest = eqx.partition(a, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), rest)


def scale_layers(factors: Mapping[str, float] | None, a: AnyState) -> AnyState:
    """`a` with every layer times its factor; `None` stands for ones."""
    return a if factors is None else {name: factors[name] * leaf for name, leaf in a.items()}


def to_complex(a: AnyState) -> AnyState:
    """The same state in the complex dtype of its precision."""
    return jax.tree.map(lambda x: jax.lax.complex(x, jnp.zeros_like(x)), a)


def cast_like(a: AnyState, like: AnyState) -> AnyState:
    """`a` in the dtypes of `like`."""
    return jax.tree.map(lambda x, y: x.astype(y.dtype), a, like)


def to_pairs(a: AnyState) -> AnyState:
    """Complex leaves as real ones with a leading axis (real, imaginary); real leaves unchanged."""
    return jax.tree.map(lambda x: jnp.stack([x.real, x.imag]) if jnp.iscomplexobj(x) else x, a)


def from_pairs(a: AnyState, like: AnyState) -> AnyState:
    """Inverse of `to_pairs`; `like` tells which leaves are complex."""
    return jax.tree.map(lambda x, y: jax.lax.complex(x[0], x[1]) if jnp.iscomplexobj(y) else x, a, like)


def product(z: Float[Array, "batch m"], kernel: Float[Array, "m n"]) -> Float[Array, "batch n"]:
    """`z K` in the precision of the library (see `precision`)."""
    return jnp.matmul(z, kernel, precision=precision())


def precision() -> jax.lax.Precision | None:
    """That of matrix products and convolutions: the highest, unless `jax_default_matmul_precision` says otherwise.

    By default graphics cards multiply with ten-bit mantissas, and a state would settle to them only.
    """
    return jax.lax.Precision.HIGHEST if jax.config.jax_default_matmul_precision is None else None  # pyright: ignore


def real_linear(
    function: Callable[[Float[Array, "batch *m"]], Float[Array, "batch *n"]],
    x: Inexact[Array, "*m"],
) -> Inexact[Array, "*n"]:
    """Apply a real linear map to a real or complex array: a complex one costs two real products.

    **Arguments:**

    - `function`: the map, acting on arrays with one leading batch axis.
    - `x`: the argument, without that axis.
    """
    if not jnp.iscomplexobj(x):
        return function(x[None])[0]
    parts = function(jnp.stack([x.real, x.imag]))
    return jax.lax.complex(parts[0], parts[1])


def real_linear_tree(function: Drift, a: AnyState) -> AnyState:
    """`real_linear` for a map from states to states, such as a Jacobian at a real point."""
    if not any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(a)):
        return function(a)
    return from_pairs(jax.vmap(function)(to_pairs(a)), a)


def holomorphic_grad(function: Callable[[AnyState], Scalar], a: AnyState) -> AnyState:
    """`∂f/∂a` of a scalar analytic in `a`, for real and for complex states alike."""
    is_complex = any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(a))
    return jax.grad(function, holomorphic=is_complex)(a)
