"""Conductances that are shifted a little by every reading."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from eqprop._tree import is_concrete
from eqprop.model import Model
from eqprop.substrate.base import Number, Reciprocity, check_range, lognormal
from eqprop.substrate.deployment import AbstractDeployment
from eqprop.substrate.kernels import elementwise


class ReadDisturb(AbstractDeployment):
    """Conductances that each reading moves towards one bound, `G ← G + r (G_to − G)`. After `n` readings since the last
    write, for both devices of a pair `w = limit (G⁺ − G⁻)/(Gmax − Gmin)`,

        G = G_to + (G₀ − G_to)(1 − r)ⁿ,      n = examples · phases,      r = rate · exp(spread · E − spread²/2) ≤ 1.

    `towards` is `(G_to − Gmin)/(Gmax − Gmin)`: 1 where reading sets a device, 0 where it resets it. Equal rates cancel
    the bound, and leave `w (1 − r)ⁿ`. Unequal ones, where `E` is a standard normal number of each device up to 2.5,
    also add `limit · towards · ((1 − r⁻)ⁿ − (1 − r⁺)ⁿ)`, which does not depend on the weight. Every phase is one
    reading: `phases` is 1 for inference, and for training 1 more than the nodes of the stencil.

    One device that serves both directions ages once (`shared`), which keeps `A = Aᵀ`. Devices of either direction that
    have rates of their own age apart, which breaks it.

    Memories can fail after 8000 readings in a row (Xun et al. 2025); memristors for learning were read 10⁶ times at
    0.2 V (Yao et al. 2020, Extended Data Fig. 7). If half of the way to the bound is a failure, 8000 readings mean a
    `rate` of 9·10⁻⁵, and 10⁶ mean 7·10⁻⁷. The defaults of `rate` and `spread` are engineering guesses.
    """

    rate: Number = 1e-6
    examples: Number = 1e4
    phases: Number = 1.0
    towards: Number = 1.0
    spread: Number = 0.3
    limit: Number = 1.0
    shared: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_range(self, "rate", 0.0, 1.0)
        check_range(self, "examples")
        check_range(self, "phases")
        check_range(self, "towards", 0.0, 1.0)
        check_range(self, "spread")
        check_range(self, "limit", 1e-12)

    @property
    def reciprocity(self) -> Reciprocity:
        return "keeps" if self._as_one else "breaks"

    @property
    def commutes_with_gains(self) -> bool:
        return _is_zero(self.spread) or _is_zero(self.towards)  # else something is added to the weight

    def left(self, rate: Float[Array, "..."]) -> Float[Array, "..."]:
        """`(1 − r)ⁿ`, of a device whose rate is `r`."""
        # The logarithm keeps the digits of a rate that single precision would lose beside 1.
        rate = jnp.minimum(rate, 1 - jnp.finfo(rate.dtype).epsneg)
        return jnp.exp(self.examples * self.phases * jnp.log1p(-rate))

    def read(self, w: Float[Array, "..."], key: PRNGKeyArray) -> Float[Array, "..."]:
        """The weight that a pair of devices holds after all readings, with the rates that `key` draws."""
        first, second = jax.random.split(key)
        plus, minus = (self.left(self.rate * lognormal(k, w, self.spread)) for k in (first, second))
        offset = jnp.asarray(self.limit * self.towards, w.dtype) * (minus - plus)
        return jnp.where(w > 0, plus, minus) * w + offset

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        return elementwise(model, key, self.read, shared=self._as_one, part=self)

    @property
    def _as_one(self) -> bool:
        return self.shared or _is_zero(self.spread)


def _is_zero(value: Number) -> bool:
    return is_concrete(value) and bool(np.all(np.asarray(value) == 0))
