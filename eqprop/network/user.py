"""Networks that are given by one function: an energy, or a vector field."""

from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Scalar, Shaped

from eqprop import _tree
from eqprop._tree import AnyState
from eqprop.activation import linear
from eqprop.network.base import AbstractEnergyNetwork, AbstractNetwork, Activation

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


class EnergyNetwork(AbstractEnergyNetwork):
    """The network of an energy of your own. `Φ(s, x)` alone is enough:

        F(u) = ∂Φ/∂s (σ(u), x) − u,        A = ∂²Φ/∂s² = Aᵀ.

    With parameters, `energy` is an `equinox.Module` that is called with `(s, x)`. The gradient is taken by JAX, so that
    estimators, relaxations, homeostasis and audits are those of every other network.
    """

    energy: Callable[[AnyState, Array], Scalar]
    shapes: Shapes = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)
    holomorphic: bool = eqx.field(static=True)

    def __init__(
        self,
        energy: Callable[[AnyState, Array], Scalar],
        layers: Mapping[str, int | Sequence[int]],
        *,
        activation: Activation = linear,
        holomorphic: bool = False,
    ):
        """**Arguments:** `energy`: `Φ(s, x)`, a scalar. `layers`: the shape of every layer. `holomorphic`: whether `Φ`
        and `activation` are analytic, so that nudges may be complex.
        """
        self.energy, self.shapes, self.activation = energy, _shapes(layers), activation
        self.holomorphic = holomorphic

    def embed(self, x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        return x

    def initial_state(self, current: Array) -> AnyState:
        return _zeros(self.shapes)

    def interaction(self, s: AnyState, current: Array) -> Inexact[Array, ""]:
        return self.energy(s, current)


class VectorField(AbstractNetwork):
    """A vector field of your own, `F(u) = f(u, x)`. Rates are the potentials, and `A = ∂f/∂u + 1`.

    With parameters, `field` is an `equinox.Module` that is called with `(u, x)`. The descent of an energy `E(u, x)` is
    the field `−∂E/∂u`.
    """

    field: Callable[[AnyState, Array], AnyState]
    shapes: Shapes = eqx.field(static=True)
    holomorphic: bool = eqx.field(static=True)
    activation: Activation = eqx.field(static=True)

    def __init__(
        self,
        field: Callable[[AnyState, Array], AnyState],
        layers: Mapping[str, int | Sequence[int]],
        *,
        holomorphic: bool = False,
    ):
        """**Arguments:** `field`: `f(u, x)`, with the structure of `u`. `layers`, `holomorphic`: as for
        `EnergyNetwork`."""
        self.field, self.shapes, self.holomorphic, self.activation = field, _shapes(layers), holomorphic, linear

    def embed(self, x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        return x

    def initial_state(self, current: Array) -> AnyState:
        return _zeros(self.shapes)

    def drive(self, s: AnyState, current: Array) -> AnyState:
        return _tree.add(self.field(s, current), s)

    def drift(self, u: AnyState, current: Array) -> AnyState:
        return self.field(u, current)


def _shapes(layers: Mapping[str, int | Sequence[int]]) -> Shapes:
    if not layers:
        raise ValueError("The network has no layers. Give the shape of at least one, such as {'out': 10}.")
    return tuple((name, (shape,) if isinstance(shape, int) else tuple(shape)) for name, shape in layers.items())


def _zeros(shapes: Shapes) -> AnyState:
    return {name: jnp.zeros(shape) for name, shape in shapes}
