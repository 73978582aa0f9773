"""Jacobian homeostasis: a penalty on the asymmetry of the Jacobian at a frozen fixed point.

All forms estimate one quantity, the asymmetry a neuron with `n` neurons,

    ℋ = ½ ‖Â − Âᵀ‖_F² / n,      Â = m^½ A m^−½,      A = ∂drive/∂s at s*,

in the metric `m` of the network, which is 1 unless feedback is weak. The state is held constant: the gradient reaches
parameters only through `A`. In the notation of Laborieux & Zenke (ICLR 2024), who divide by `n` too, it is
`E[‖Jε‖² − εᵀJ²ε]/n` with `J = Â − 1`.
"""

import abc
import math
from collections.abc import Callable
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractClassVar, AbstractVar
from jaxtyping import Array, Bool, Float, PRNGKeyArray, Scalar, Shaped

from eqprop import _tree
from eqprop._tree import AnyState
from eqprop.metrics import mean
from eqprop.network.base import AbstractNetwork, Field

Probe = Callable[..., Float[Array, "..."]]
"""Draws noise of zero mean and unit covariance: `probe(key, shape, dtype)`, such as `jax.random.normal` (Gaussian) or
`jax.random.rademacher` (random signs)."""


class AbstractHomeostasis(eqx.Module):
    """A scalar penalty of one example, added to its surrogate with weight `coefficient`."""

    coefficient: AbstractVar[float]
    share: AbstractVar[float]
    """The share of a batch, above 0 and up to 1, from which the mean penalty is estimated: drawn anew at every step, so
    that the estimate is unbiased. Its gradient costs as much less."""
    depends_on_state: AbstractClassVar[bool]
    """Whether the penalty differs from state to state; one that does not needs no example that has settled."""

    def __check_init__(self):
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}; expected a part of the batch, above 0 and up to 1.")
        if _tree.known_false(self.coefficient >= 0):
            raise ValueError(f"coefficient is {self.coefficient}; expected 0 or more: less would drive weights apart.")

    def check(self, network: AbstractNetwork) -> None:
        """**Raises:** `ValueError` if this form cannot serve that network, saying what to use instead."""

    @abc.abstractmethod
    def __call__(self, field: Field, u: AnyState, *, key: PRNGKeyArray) -> Scalar:
        """`ℋ` or an unbiased estimate of it, at the potentials `u` of one example, without the coefficient."""


class _AbstractProbed(AbstractHomeostasis):
    """A form that probes the Jacobian with random vectors."""

    num_probes: AbstractVar[int]
    probe: AbstractVar[Probe]
    depends_on_state: ClassVar[bool] = True

    def __check_init__(self):
        if self.num_probes < 1:
            raise ValueError(f"num_probes is {self.num_probes}; expected at least one probe.")

    @abc.abstractmethod
    def one_draw(self, field: Field, u: AnyState, noise: AnyState) -> Scalar:
        """The estimate from one recorded draw of noise with the structure of the state."""

    def __call__(self, field: Field, u: AnyState, *, key: PRNGKeyArray) -> Scalar:
        def draw(k: PRNGKeyArray) -> Scalar:
            return self.one_draw(field, u, _tree.noise_like(u, k, self.probe))

        keys = jax.random.split(key, self.num_probes)
        return draw(keys[0]) if self.num_probes == 1 else jnp.mean(jax.lax.map(draw, keys))


class ForwardHomeostasis(_AbstractProbed):
    """The published estimate, from forward products alone:

        (‖Jε‖² − εᵀ J J ε) / n,      J = Â − 1.

    Unbiased, but of either sign, and noisy near symmetry. Five Gaussian draws, as published.
    """

    coefficient: float = 1.0
    num_probes: int = 5
    probe: Probe = eqx.field(static=True, default=jax.random.normal)
    terms: Literal["both", "norm", "trace"] = eqx.field(static=True, default="both")
    """For ablations: `‖Jε‖²` alone (`norm`), or `−εᵀ J J ε` alone (`trace`)."""
    share: float = eqx.field(static=True, default=1.0)

    def one_draw(self, field: Field, u: AnyState, noise: AnyState) -> Scalar:
        forward, _ = field.metric_jacobian(_tree.stop_gradient(field.rates(u)))
        once = _tree.subtract(forward(noise), noise)
        twice = _tree.subtract(forward(once), once)
        squared = 0.0 if self.terms == "trace" else _tree.dot(once, once)
        trace = 0.0 if self.terms == "norm" else _tree.dot(noise, twice)
        return jnp.asarray(squared - trace) / _tree.size(u)


class SkewHomeostasis(_AbstractProbed):
    """The same expectation from one forward and one transposed product:

        ½ ‖(Â − Âᵀ) ε‖² / n.

    Never negative, and without variance where `Â` is symmetric.
    """

    coefficient: float = 1.0
    num_probes: int = 1
    probe: Probe = eqx.field(static=True, default=jax.random.rademacher)
    share: float = eqx.field(static=True, default=1.0)

    def one_draw(self, field: Field, u: AnyState, noise: AnyState) -> Scalar:
        forward, transposed = field.metric_jacobian(_tree.stop_gradient(field.rates(u)))
        skew = _tree.subtract(forward(noise), transposed(noise))
        return 0.5 * _tree.dot(skew, skew) / _tree.size(u)


class ExactHomeostasis(AbstractHomeostasis):
    """`ℋ` in closed form, a sum over edges, for networks whose `A` does not depend on the state: dense and sparse ones,
    and convolutional ones without pooling between layers."""

    coefficient: float = 1.0
    share: float = eqx.field(static=True, default=1.0)
    depends_on_state: ClassVar[bool] = False

    def check(self, network: AbstractNetwork) -> None:
        eqx.filter_eval_shape(_closed_form, network)

    def __call__(self, field: Field, u: AnyState, *, key: PRNGKeyArray) -> Scalar:
        del key
        return 0.5 * jnp.asarray(_closed_form(field.network)) / _tree.size(u)


def _closed_form(network: AbstractNetwork) -> Scalar:
    """`‖Â − Âᵀ‖_F²`. **Raises:** `ValueError` without a closed form, saying what to use instead."""
    if (norms := network.symmetry_norms()) is None:
        raise ValueError(
            f"ExactHomeostasis needs an asymmetry in closed form, and this {type(network).__name__} has none, as "
            "its Jacobian depends on the state. Use SkewHomeostasis, which estimates the asymmetry from probes."
        )
    return norms[1]


def mean_penalty(
    homeostasis: AbstractHomeostasis,
    network: AbstractNetwork,
    x: Shaped[Array, "batch ..."],
    states: AnyState,
    usable: Bool[Array, " batch"],
    *,
    choose: PRNGKeyArray,
    key: PRNGKeyArray,
) -> Scalar:
    """The mean of `ℋ` over the usable examples of a batch, estimated from its `share`; once, where it is the same at
    every state.

    **Arguments:** `choose`: draws the examples. `key`: draws the probes.
    """
    if not homeostasis.depends_on_state:
        return homeostasis(network.at(x[0]), jax.tree.map(lambda v: v[0], states), key=key)
    count = math.ceil(homeostasis.share * usable.shape[0])
    # Usable examples come first, in random order.
    draw = jax.random.uniform(choose, usable.shape)
    order = jnp.argsort(jnp.where(usable, draw, draw + 2.0))[:count]
    x, states = jax.lax.stop_gradient(jax.tree.map(lambda v: v[order], (x, states)))

    def one(x: Array, u: AnyState, key: PRNGKeyArray) -> Scalar:
        return homeostasis(network.at(x), u, key=key)

    return mean(jax.vmap(one)(x, states, jax.random.split(key, count)), usable[order])
