"""What a network is: a vector field over potentials, bound to one example by its input."""

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
from equinox import AbstractVar
from jaxtyping import Array, Inexact, PyTree, Scalar, Shaped

from eqprop import _tree
from eqprop._blocks import Blocks, Edge
from eqprop._tree import AnyState, Drift
from eqprop.activation import ANALYTIC

Activation = Callable[[Inexact[Array, "..."]], Inexact[Array, "..."]]
"""`s = σ(u)`, element by element."""


class AbstractNetwork(eqx.Module):
    """A vector field over potentials `u`, with rates `s = σ(u)`:

        F(u) = drive(s, embed(x)) − u,        A = ∂drive/∂s.

    A network of your own needs the fields `activation` and `holomorphic`, the methods `embed` and `drive`, and
    `initial_state` unless `embed` returns one array for each layer. All methods see one example; states are
    dictionaries with one array a layer. `at(x)` binds the network to an example.
    """

    activation: AbstractVar[Activation]
    holomorphic: AbstractVar[bool]
    """Whether `drive` and `activation` of this network are analytic, so that nudges may be complex."""

    @abc.abstractmethod
    def embed(self, x: Shaped[Array, "..."]) -> PyTree:
        """What is computed of an input once: the constant current of every layer, for most networks."""

    @abc.abstractmethod
    def drive(self, s: AnyState, current: PyTree) -> AnyState:
        """The total input of every neuron at the rates `s` (real or complex), where the input was embedded as
        `current`."""

    def at(self, x: Shaped[Array, "..."]) -> "Field":
        """The field of one example; `x` is embedded here, and not again."""
        return Field(self, self.embed(x))

    @property
    def metric(self) -> dict[str, float] | None:
        """A weight `m` of each layer, not zero, for which `m A` is to be symmetric; `None` where all are one.

        Where `m A = (m A)ᵀ`, the error vector of a nudge of layer `L` differs from the true one by the factor
        `m_l / m_L` of each layer, and by nothing else.
        """
        return None

    @property
    def blocks(self) -> Blocks | None:
        """The layers that a sweep visits together; `None` where nothing is known: every second one."""
        return None

    def device_kernels(self) -> dict[Edge, Any]:
        """The kernels that devices would hold, by edge; none by default."""
        return {}

    def feedback_edges(self) -> tuple[Edge, ...]:
        """The edges of `device_kernels` that lead back and have a forward partner; none by default."""
        return ()

    def symmetry_norms(self) -> tuple[Scalar, Scalar] | None:
        """`(‖Â + Âᵀ‖_F², ‖Â − Âᵀ‖_F²)` of `Â = m^½ A m^−½`, `m` the metric, without forming `Â`; `None` where they have
        no closed form, as where `A` depends on the state."""
        return None

    def reciprocal_pairs(self) -> list[tuple[Array, Array]]:
        """Forward kernels with their feedback partners, in one orientation; none by default."""
        return []

    def initial_state(self, current: PyTree) -> AnyState:
        """Potentials before relaxation: zero in every layer of `current`."""
        return _tree.zeros_like(current)

    def rates(self, u: AnyState) -> AnyState:
        """`s = σ(u)`."""
        return jax.tree.map(self.activation, u)

    def drift(self, u: AnyState, current: PyTree) -> AnyState:
        """`F(u)`."""
        return _tree.subtract(self.drive(self.rates(u), current), u)

    def drive_transposed(self, s: AnyState, current: PyTree) -> Drift:
        """`v ↦ Aᵀ v` with `A = ∂drive/∂s`."""
        _, product = jax.vjp(lambda s: self.drive(s, current), s)
        return lambda v: product(v)[0]

    def drift_transposed(self, u: AnyState, current: PyTree) -> Drift:
        """`v ↦ Jᵀ v` with `J = ∂F/∂u`."""
        _, product = jax.vjp(lambda u: self.drift(u, current), u)
        return lambda v: product(v)[0]


class Field(eqx.Module):
    """A network bound to one example: what relaxations, estimators, homeostasis and metrics see."""

    network: AbstractNetwork
    current: PyTree
    """The embedded input."""

    @property
    def blocks(self) -> Blocks | None:
        """The blocks of the network."""
        return self.network.blocks

    def initial_state(self) -> AnyState:
        """Potentials before relaxation."""
        return self.network.initial_state(self.current)

    def rates(self, u: AnyState) -> AnyState:
        """`s = σ(u)`."""
        return self.network.rates(u)

    def drift(self, u: AnyState) -> AnyState:
        """`F(u) = drive(σ(u)) − u`."""
        return self.network.drift(u, self.current)

    def drive(self, s: AnyState) -> AnyState:
        """The total input of every neuron at the rates `s`."""
        return self.network.drive(s, self.current)

    def jacobian(self, s: AnyState) -> tuple[Drift, Drift]:
        """`v ↦ A v` and `v ↦ Aᵀ v` with `A = ∂drive/∂s` at the rates `s`."""
        _, forward = jax.linearize(self.drive, s)
        return forward, self.network.drive_transposed(s, self.current)

    def drift_transposed(self, u: AnyState) -> Drift:
        """`v ↦ Jᵀ v` with `J = ∂F/∂u` at the potentials `u`."""
        return self.network.drift_transposed(u, self.current)

    def metric_jacobian(self, s: AnyState) -> tuple[Drift, Drift]:
        """`v ↦ Â v` and `v ↦ Âᵀ v` with `Â = m^½ A m^−½`, `m` the metric of the network; `A` itself without one."""
        forward, backward = self.jacobian(s)
        if self.network.metric is None:
            return forward, backward
        # Where m is negative, sign(m) |m|^½ A |m|^−½ is symmetric whenever m A is.
        root = {name: math.copysign(math.sqrt(abs(m)), m) for name, m in self.network.metric.items()}
        inverse = {name: 1 / abs(weight) for name, weight in root.items()}

        def between(left: dict[str, float], product: Drift, right: dict[str, float]) -> Drift:
            return lambda v: _tree.scale_layers(left, product(_tree.scale_layers(right, v)))

        return between(root, forward, inverse), between(inverse, backward, root)


class AbstractLinearNetwork(AbstractNetwork):
    """A network whose drive is affine in the rates: `A` is the same at every state, so that its
    asymmetry has a closed form."""

    @abc.abstractmethod
    def symmetry_norms(self) -> tuple[Scalar, Scalar]:
        """`(‖Â + Âᵀ‖_F², ‖Â − Âᵀ‖_F²)` of `Â = m^½ A m^−½`, which every such network has."""


class AbstractEnergyNetwork(AbstractNetwork):
    """A network whose drive is a gradient, `drive = ∂Φ/∂s`: `A` is symmetric, and the dynamics descend

        E(u) = Σᵢ ∫^{sᵢ} σ⁻¹ − Φ(s).

    `drive` is the gradient of `interaction` unless a class gives its own, which is to be the same.
    """

    @abc.abstractmethod
    def interaction(self, s: AnyState, current: PyTree) -> Inexact[Array, ""]:
        """The scalar `Φ(s)`, analytic in `s`, where the input was embedded as `current`."""

    def drive(self, s: AnyState, current: PyTree) -> AnyState:
        return _tree.holomorphic_grad(lambda s: self.interaction(s, current), s)


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


def edge_gain(levels: Mapping[str, int], gain: float, source: str, target: str) -> float:
    """`γ^k` for an edge that leads down by `k` levels, and 1 for all others."""
    return gain ** max(levels[source] - levels[target], 0)


def check_gain(gain: float) -> float:
    """**Raises:** `ValueError` for a feedback gain outside (0, 1]."""
    if not 0 < gain <= 1:
        raise ValueError(
            f"feedback_gain is {gain}; expected a number above 0 and up to 1 (1: feedback as strong as forward, "
            "0.2 to 0.3: weak feedback, which settles sooner)."
        )
    return float(gain)
