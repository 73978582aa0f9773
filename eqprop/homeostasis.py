"""Jacobian homeostasis: a penalty on the asymmetry of the Jacobian at a frozen fixed point.

All forms estimate one quantity, the asymmetry a neuron with `n` neurons,

    ℋ = ½ ‖A − Aᵀ‖_F² / n,      A = ∂drive/∂s at s*,

with the state held constant: the gradient reaches parameters only through `A`. In the notation of Laborieux & Zenke
(ICLR 2024), who divide by `n` too, it is `E[‖Jε‖² − εᵀJ²ε]/n` with `J = A − 1`.
"""

import abc
from collections.abc import Callable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from eqprop import _tree
from eqprop._tree import AnyState
from eqprop.network.base import AbstractLinearNetwork, AbstractNetwork

Probe = Callable[..., Float[Array, "..."]]
"""Draws noise of zero mean and unit covariance: `probe(key, shape, dtype)`, such as `jax.random.normal` (Gaussian) or
`jax.random.rademacher` (random signs)."""


class AbstractHomeostasis(eqx.Module):
    """A scalar penalty of one example, added to its surrogate with weight `coefficient`."""

    coefficient: AbstractVar[float]

    def check(self, network: AbstractNetwork) -> None:
        """**Raises:** `ValueError` if this form cannot serve that network, saying what to use instead."""

    @abc.abstractmethod
    def __call__(self, network: AbstractNetwork, u: AnyState, *, key: PRNGKeyArray) -> Scalar:
        """`ℋ` or an unbiased estimate of it, at the potentials `u` of one example, without the coefficient."""


class _AbstractProbed(AbstractHomeostasis):
    """A form that probes the Jacobian with random vectors."""

    num_probes: AbstractVar[int]
    probe: AbstractVar[Probe]

    def __check_init__(self):
        if self.num_probes < 1:
            raise ValueError(f"num_probes is {self.num_probes}; expected at least one probe.")

    @abc.abstractmethod
    def one_draw(self, network: AbstractNetwork, u: AnyState, noise: AnyState) -> Scalar:
        """The estimate from one recorded draw of noise with the structure of the state."""

    def __call__(self, network: AbstractNetwork, u: AnyState, *, key: PRNGKeyArray) -> Scalar:
        draws = [self.one_draw(network, u, self._noise(k, u)) for k in jax.random.split(key, self.num_probes)]
        return sum(draws[1:], start=draws[0]) / self.num_probes

    def _noise(self, key: PRNGKeyArray, u: AnyState) -> AnyState:
        leaves, structure = jax.tree.flatten(u)
        keys = jax.random.split(key, len(leaves))
        noise = [self.probe(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, noise)


class ForwardHomeostasis(_AbstractProbed):
    """The published estimate, from forward products alone:

        (‖Jε‖² − εᵀ J J ε) / n,      J = A − 1.

    Unbiased, but of either sign, and noisy near symmetry. Five Gaussian draws, as published.
    """

    coefficient: float = 1.0
    num_probes: int = 5
    probe: Probe = eqx.field(static=True, default=jax.random.normal)
    terms: Literal["both", "norm", "trace"] = eqx.field(static=True, default="both")
    """For ablations: `‖Jε‖²` alone (`norm`), or `−εᵀ J J ε` alone (`trace`)."""

    def one_draw(self, network: AbstractNetwork, u: AnyState, noise: AnyState) -> Scalar:
        s = _tree.stop_gradient(network.rates(u))

        def jacobian(v: AnyState) -> AnyState:
            return _tree.subtract(jax.jvp(network.drive, (s,), (v,))[1], v)

        once = jacobian(noise)
        squared = 0.0 if self.terms == "trace" else _tree.dot(once, once)
        trace = 0.0 if self.terms == "norm" else _tree.dot(noise, jacobian(once))
        return jnp.asarray(squared - trace) / _tree.size(u)


class SkewHomeostasis(_AbstractProbed):
    """The same expectation from one forward and one transposed product:

        ½ ‖(A − Aᵀ) ε‖² / n.

    Never negative, and without variance where `A` is symmetric.
    """

    coefficient: float = 1.0
    num_probes: int = 1
    probe: Probe = eqx.field(static=True, default=jax.random.rademacher)

    def one_draw(self, network: AbstractNetwork, u: AnyState, noise: AnyState) -> Scalar:
        s = _tree.stop_gradient(network.rates(u))
        _, forward = jax.jvp(network.drive, (s,), (noise,))
        _, transposed = jax.vjp(network.drive, s)
        skew = _tree.subtract(forward, transposed(noise)[0])
        return 0.5 * _tree.dot(skew, skew) / _tree.size(u)


class ExactHomeostasis(AbstractHomeostasis):
    """`ℋ` in closed form, a sum over edges, for networks whose `A` does not depend on the state."""

    coefficient: float = 1.0

    def check(self, network: AbstractNetwork) -> None:
        if not isinstance(network, AbstractLinearNetwork):
            raise ValueError(
                f"ExactHomeostasis needs a drive that is linear in the rates, but that of {type(network).__name__} "
                "depends on the state. Use SkewHomeostasis, which estimates the same quantity from probes."
            )

    def __call__(self, network: AbstractNetwork, u: AnyState, *, key: PRNGKeyArray) -> Scalar:
        del key
        self.check(network)
        assert isinstance(network, AbstractLinearNetwork)
        _, skew = network.symmetry_norms()
        return 0.5 * jnp.asarray(skew) / _tree.size(u)
