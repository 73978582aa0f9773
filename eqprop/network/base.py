"""What a network is: a drift on potentials, made of an input current and a recurrent drive."""

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
from equinox import AbstractClassVar, AbstractVar
from jaxtyping import Array, Float, Inexact, Scalar

from eqprop import _tree
from eqprop._tree import AnyState
from eqprop.activation import shifted_sigmoid


class AbstractNetwork(eqx.Module):
    """A vector field over potentials `u`, with rates `s = σ(u)`:

        F(u) = drive(s) + current − u,        current = embed(x),        A = ∂drive/∂s.

    A network of your own needs the field `activation`, the flag `holomorphic`, `embed` and `drive`. All methods
    see one example; states are any tree with one array a layer.
    """

    activation: AbstractVar[Callable[[Inexact[Array, "..."]], Inexact[Array, "..."]]]
    holomorphic: AbstractClassVar[bool]
    """Whether `drive` and `activation` are analytic, so that nudges may be complex."""

    @abc.abstractmethod
    def embed(self, x: Float[Array, "..."]) -> AnyState:
        """The constant input current, computed once an example; its layers are those of the state."""

    @abc.abstractmethod
    def drive(self, s: AnyState) -> AnyState:
        """The recurrent input that rates `s` (real or complex) send to every layer."""

    def initial_state(self, current: AnyState) -> AnyState:
        """Potentials before relaxation: zero in every layer of `current`."""
        return _tree.zeros_like(current)

    def rates(self, u: AnyState) -> AnyState:
        """`s = σ(u)`."""
        return jax.tree.map(self.activation, u)

    def drift(self, u: AnyState, current: AnyState) -> AnyState:
        """`F(u) = drive(σ(u)) + current − u`."""
        drive = self.drive(self.rates(u))
        return jax.tree.map(lambda d, c, v: (d + c.astype(d.dtype)) - v, drive, current, u)


class AbstractLinearNetwork(AbstractNetwork):
    """A network whose drive is linear in the rates: `A` is the same at every state, so that its
    asymmetry has a closed form."""

    @abc.abstractmethod
    def symmetry_norms(self) -> tuple[Scalar, Scalar]:
        """`(‖A + Aᵀ‖_F², ‖A − Aᵀ‖_F²)`, exact, without forming `A`."""


class AbstractEnergyNetwork(AbstractNetwork):
    """A network whose drive is a gradient, `drive = ∂Φ/∂s`: `A` is symmetric, and the dynamics descend

    E(u) = Σᵢ ∫^{sᵢ} σ⁻¹ − Φ(s) − ⟨current, s⟩.
    """

    @abc.abstractmethod
    def interaction(self, s: AnyState) -> Inexact[Array, ""]:
        """The scalar `Φ(s)`, analytic in `s`."""


class _Adopted(AbstractNetwork):
    """A user's plain module that has `embed` and `drive`, with the published neuron as its default."""

    module: eqx.Module
    holomorphic: ClassVar[bool] = True

    @property
    def activation(self) -> Callable[[Inexact[Array, "..."]], Inexact[Array, "..."]]:  # pyright: ignore
        return getattr(self.module, "activation", shifted_sigmoid)

    def embed(self, x: Float[Array, "..."]) -> AnyState:
        return self.module.embed(x)  # pyright: ignore[reportAttributeAccessIssue]

    def drive(self, s: AnyState) -> AnyState:
        return self.module.drive(s)  # pyright: ignore[reportAttributeAccessIssue]


def as_network(network: eqx.Module) -> AbstractNetwork:
    """`network` itself, or a plain `eqx.Module` with `embed` and `drive` made into a network.

    A plain module may also have `activation` (default: shifted sigmoid). It is taken to be holomorphic:
    one that is not subclasses `AbstractNetwork` and says so.

    **Raises:** `ValueError` if `embed` or `drive` is missing, or if it says `holomorphic = False`.
    """
    if isinstance(network, AbstractNetwork):
        return network
    missing = [name for name in ("embed", "drive") if not callable(getattr(network, name, None))]
    if missing:
        raise ValueError(
            f"{type(network).__name__} is no network: it has no method {' and no '.join(missing)}. "
            "Give it embed(x) -> current and drive(s) -> input, or subclass eqprop.AbstractNetwork."
        )
    if not getattr(network, "holomorphic", True):
        raise ValueError(
            f"{type(network).__name__} says holomorphic = False, which a plain eqx.Module cannot: "
            "let it subclass eqprop.AbstractNetwork."
        )
    return _Adopted(module=network)  # pyright: ignore[reportCallIssue]
