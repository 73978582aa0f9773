"""What an estimator is: a response of the fixed point, and a scalar whose gradient is the estimate."""

import abc
from collections.abc import Mapping
from typing import ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax.numpy as jnp
from equinox import AbstractClassVar, AbstractVar
from jaxtyping import Array, Bool, Int, PRNGKeyArray, PyTree, Scalar

from eqprop import _tree
from eqprop._solution import RESULTS, Solution, worst
from eqprop._tree import AnyState
from eqprop.model import Example
from eqprop.network.base import AbstractNetwork
from eqprop.relaxation import AbstractMotion, AbstractRelaxation


@runtime_checkable
class Reading(Protocol):
    """How the rates of one example are read in one phase: 0 is the free one, 1 the first node of the stencil, and so
    on in its order."""

    def __call__(self, s: AnyState, *, phase: Int[Array, ""] | int, key: PRNGKeyArray | None = None) -> AnyState: ...


class Device(eqx.Module):
    """What a device has in place of an ideal relaxation, of ideal motion and of ideal readings; `None`: nothing."""

    relaxation: AbstractRelaxation | None = None
    motion: AbstractMotion | None = None
    reading: Reading | None = None


class Response(eqx.Module):
    """How the fixed point of one example answers to a nudge."""

    state: AnyState
    """Potentials at which the surrogate is taken: the free fixed point, or its estimate."""
    payload: PyTree
    """The error vector `δ`, or the potentials at the nodes, or `None`."""
    num_steps: Int[Array, "..."]
    """Steps of the nudged phase, summed over its nodes."""
    result: RESULTS
    """The worst of all relaxations of the nudged phase."""
    bounded: Bool[Array, "..."]
    """Whether the norm bound shortened the error vector."""


class AbstractEstimator(eqx.Module):
    """Estimates a gradient in two steps: `respond` measures the network, `surrogate` turns the measurement into a
    scalar whose parameter gradient is the estimate, to be subtracted by an optimiser."""

    needs_free_phase: AbstractClassVar[bool]
    """Whether `respond` expects `free` to be settled; otherwise it is only where to start."""

    beside_device: ClassVar[bool] = False
    """Whether it is computed beside a device, from the state that the device is in, rather than measured on it."""

    @property
    def complex_nudges(self) -> bool:
        """Whether the network is nudged off the real axis."""
        return False

    def on_device(self, device: Device) -> "AbstractEstimator":
        """This estimator on a device, for those that run on one.

        **Raises:** `ValueError` by default: an estimator of your own says what a device changes in it. One that is
            computed beside the device refuses errors of measurement only.
        """
        if self.beside_device:
            refuse_readings(self, device)
            return self
        raise ValueError(
            f"{type(self).__name__} does not say how it runs on a device. Give it a method on_device(device) that "
            "returns itself with the relaxation, the motion and the readings of the device."
        )

    def check(self, network: AbstractNetwork) -> None:
        """**Raises:** `ValueError` if this estimator cannot serve that network, saying what to use instead."""

    @abc.abstractmethod
    def respond(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Response:
        """Measure one example; no gradient passes through.

        **Arguments:** `free`, the solution of the free phase (see `needs_free_phase`); `key`, for noise.
        """

    @abc.abstractmethod
    def surrogate(self, example: Example, response: Response) -> Scalar:
        """The scalar of one example, to be differentiated with respect to the parameters in `example` only."""


class Error(eqx.Module):
    """A measured error vector, before any bound."""

    state: AnyState
    delta: AnyState
    num_steps: Int[Array, "..."]
    result: RESULTS


class AbstractErrorEstimator(AbstractEstimator):
    """An estimator of the neuronal error vector `δ = ds*/dβ`. All of them share one surrogate, the scalar

        ⟨δ, F_θ(u*)⟩ + ℓ_θ(s*),      δ and u* held constant,

    whose gradient is `⟨δ, ∂F/∂θ⟩` for the network and the ordinary gradient for the readout.
    """

    norm_bound: AbstractVar[float | None]
    """Longest `‖δ‖₂` of an example; a longer error vector is shortened to it. `None`: no bound. Near a bifurcation
    one example's response grows without limit, and an exact response needs the bound on purpose."""
    transposes: ClassVar[bool] = False
    """Whether `error` solves the transposed system. Otherwise it is the response to a nudge, which is brought to the
    scale of the true gradient by the metric of the network."""

    def __check_init__(self):
        fine = self.norm_bound is None or self.norm_bound > 0
        check_fields(self, {"norm_bound": (fine, "above 0, or None for no bound")})

    @abc.abstractmethod
    def error(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Error:
        """The error vector of one example, unbounded, in the coordinates of the rates, as it is measured."""

    def estimate(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Error:
        """The error vector of one example, unbounded, in the scale of the true gradient. One that is not finite
        counts as diverged."""
        self.check(example.field.network)
        if self.transposes:
            error = self.error(example, free, key=key)
        else:
            error = self.error(example.nudged_in_metric(), free, key=key)
            error = eqx.tree_at(lambda e: e.delta, error, example.in_scale(error.delta))
        finite = jnp.isfinite(_tree.max_norm(error.delta))
        result = RESULTS.where(finite, error.result, RESULTS.diverged)
        return Error(error.state, error.delta, error.num_steps, result)

    def respond(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Response:
        error = self.estimate(example, free, key=key)
        delta, bounded = error.delta, jnp.asarray(False)
        if self.norm_bound is not None:
            length = _tree.norm(delta)
            bounded = length > self.norm_bound
            delta = _tree.scale(self.norm_bound / jnp.where(bounded, length, self.norm_bound), delta)
        return Response(error.state, delta, error.num_steps, error.result, bounded)

    def surrogate(self, example: Example, response: Response) -> Scalar:
        u, delta = _tree.stop_gradient((response.state, response.payload))
        return _tree.dot(delta, example.field.drift(u)) + example.loss(example.field.rates(u))


def summed(nodes: Solution) -> tuple[Int[Array, ""], RESULTS]:
    """The steps of all nodes of a nudged phase, and the worst of their results."""
    return jnp.sum(nodes.num_steps), worst(nodes.result)


def check_fields(part: eqx.Module, rules: Mapping[str, tuple[bool | Bool[Array, "..."], str]]) -> None:
    """**Arguments:** `rules`: of a field, whether it is fine, and what was expected; what is traced passes.

    **Raises:** `ValueError` for the first field that is not.
    """
    for name, (fine, expected) in rules.items():
        if _tree.known_false(fine):
            raise ValueError(f"{name} is {getattr(part, name)}; expected a number {expected}.")


def require_holomorphic(estimator: AbstractEstimator, network: AbstractNetwork) -> None:
    """**Raises:** `ValueError` for complex nudges of a network that is not analytic."""
    if estimator.complex_nudges and not network.holomorphic:
        raise ValueError(
            f"{type(estimator).__name__} nudges off the real axis, but {type(network).__name__} is not holomorphic. "
            "Nudge it by FiniteNudge(eqprop.centred(beta), ...), or use analytic activations."
        )


def refuse_readings(estimator: AbstractEstimator, device: Device) -> None:
    """**Raises:** `ValueError` if a device has errors of measurement, and the estimator measures no rates."""
    if device.reading is not None:
        raise ValueError(
            f"{type(estimator).__name__} measures no rates that a device's readings could spoil. Use FiniteNudge, or a "
            "substrate without errors of measurement."
        )
