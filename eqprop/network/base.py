"""What a network is: a drift on potentials, made of an input current and a recurrent drive."""

import abc
from collections.abc import Callable, Mapping

import equinox as eqx
import jax
from equinox import AbstractVar
from jaxtyping import Array, Inexact, Scalar, Shaped

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._tree import AnyState
from eqprop.activation import ANALYTIC

Activation = Callable[[Inexact[Array, "..."]], Inexact[Array, "..."]]
"""`s = σ(u)`, element by element."""


class AbstractNetwork(eqx.Module):
    """A vector field over potentials `u`, with rates `s = σ(u)`:

        F(u) = drive(s) + current − u,        current = embed(x),        A = ∂drive/∂s.

    A network of your own needs the fields `activation` and `holomorphic`, and the methods `embed` and `drive`. All
    methods see one example; states are dictionaries with one array a layer.
    """

    activation: AbstractVar[Activation]
    holomorphic: AbstractVar[bool]
    """Whether `drive` and `activation` of this network are analytic, so that nudges may be complex."""

    @abc.abstractmethod
    def embed(self, x: Shaped[Array, "..."]) -> AnyState:
        """The constant input current, computed once an example; its layers are those of the state."""

    @abc.abstractmethod
    def drive(self, s: AnyState) -> AnyState:
        """The recurrent input that rates `s` (real or complex) send to every layer."""

    @property
    def metric(self) -> dict[str, float] | None:
        """A positive weight `m` of each layer for which `m A` is to be symmetric; `None` where all are one.

        Where `m A = (m A)ᵀ`, the error vector of a nudge of layer `L` differs from the true one by the factor
        `m_l / m_L` of each layer, and by nothing else.
        """
        return None

    @property
    def blocks(self) -> Blocks | None:
        """The layers that a sweep visits together; `None` where nothing is known: every second one."""
        return None

    def reciprocal_pairs(self) -> list[tuple[Array, Array]]:
        """Forward kernels with their feedback partners, in one orientation; none by default."""
        return []

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
        """`(‖Â + Âᵀ‖_F², ‖Â − Âᵀ‖_F²)` of `Â = m^½ A m^−½`, `m` the metric: exact, without forming `Â`."""


class AbstractEnergyNetwork(AbstractNetwork):
    """A network whose drive is a gradient, `drive = ∂Φ/∂s`: `A` is symmetric, and the dynamics descend

    E(u) = Σᵢ ∫^{sᵢ} σ⁻¹ − Φ(s) − ⟨current, s⟩.
    """

    @abc.abstractmethod
    def interaction(self, s: AnyState) -> Inexact[Array, ""]:
        """The scalar `Φ(s)`, analytic in `s`."""


def is_analytic(activation: Activation, given: bool | None) -> bool:
    """Whether an activation is analytic: as it is said, else whether it is one of this package's own. Of a function
    that is not known here nothing is assumed."""
    return activation in ANALYTIC if given is None else given


def level_metric(levels: Mapping[str, int], gain: float) -> dict[str, float] | None:
    """`m_l = γ^level(l)`, the metric of a network whose edges act with gain `γ^k` where they lead down by `k` levels
    and with gain 1 elsewhere.

    Then `m A` has the block `γ^q K` from a layer at level `p` up to one at level `q > p`, and `γ^p γ^(q−p) B` from that
    one down: it is symmetric where the nominal kernels are, `B = Kᵀ`. `None` where the gain is 1.
    """
    return None if gain == 1 else {name: float(gain) ** level for name, level in levels.items()}


def check_gain(gain: float) -> float:
    """**Raises:** `ValueError` for a feedback gain outside (0, 1]."""
    if not 0 < gain <= 1:
        raise ValueError(
            f"feedback_gain is {gain}; expected a number above 0 and up to 1 (1: feedback as strong as forward, "
            "0.2 to 0.3: weak feedback, which settles sooner)."
        )
    return float(gain)
