"""Weights without bounds on conductances with bounds."""

import math
from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from eqprop.model import Model
from eqprop.substrate.base import Number, Reciprocity, check_choice, check_range
from eqprop.substrate.deployment import AbstractDeployment
from eqprop.substrate.kernels import kernels_of, with_kernels


class Compander(AbstractDeployment):
    """Conductances of a limited range from weights without one, `w_eff = limit · f(slope · w/limit)`, so that
    `|w_eff| < limit`:

        arctan: f(x) = (2/π) arctan(π x/2);      tanh: f(x) = tanh x.

    Both have the slope 1 at 0. Where gradients know the device (`Substrate(aware=True)`), an update is multiplied by
    `slope · f′`, and a weight comes to the bound without passing it. A `slope` above 1 spreads small weights. Before
    `Quantised`, levels lie closer together for large weights. Equal weights stay equal.

    The weight compander, Cakaj et al. (arXiv 2306.16993), there a regulariser.
    """

    limit: Number = 1.0
    slope: Number = 1.0
    law: Literal["arctan", "tanh"] = eqx.field(static=True, default="arctan")

    def __check_init__(self):
        check_range(self, "limit", 1e-12)
        check_range(self, "slope", 1e-12)
        check_choice(self, "law", ("arctan", "tanh"))

    @property
    def reciprocity(self) -> Reciprocity:
        return "keeps"

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        return with_kernels(model, {name: self.compress(w) for name, w in kernels_of(model, self).items()})

    def compress(self, w: Array) -> Array:
        """The weight that a pair of devices realises."""
        x = self.slope * w / self.limit
        return self.limit * (jnp.tanh(x) if self.law == "tanh" else 2 / math.pi * jnp.arctan(math.pi / 2 * x))

    def expand(self, w: Array) -> Array:
        """The inverse of `compress`, for `|w| < limit`: what has to be asked for."""
        x = w / self.limit
        return (
            self.limit / self.slope * (jnp.arctanh(x) if self.law == "tanh" else 2 / math.pi * jnp.tan(math.pi / 2 * x))
        )
