"""Pairs of diodes, by the law of Shockley or that of ngspice."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

BOLTZMANN, CHARGE = 1.38064852e-23, 1.6021766208e-19
"""In J/K and C, as ngspice has them."""


class Diodes(eqx.Module):
    """A pair from a node to `± offset` volts, antiparallel: with `V = ideality · kT/q`,

        I(v) = D(v − offset) − D(−v − offset),      D(v) = saturation (exp(v/V) − 1)   (Shockley), in amperes.

    `law="ngspice"` has that simulator's reverse branch below `−3 V`, `−saturation (1 + (3 V/(e v))³)`, and its `gmin`
    in parallel; it is analytic only piece by piece.
    """

    offset: float = eqx.field(static=True, default=0.15)
    saturation: float = eqx.field(static=True, default=1e-8)
    ideality: float = eqx.field(static=True, default=1.5)
    kelvin: float = eqx.field(static=True, default=300.15)
    law: Literal["shockley", "ngspice"] = eqx.field(static=True, default="shockley")
    gmin: float = eqx.field(static=True, default=1e-15)

    @property
    def volts(self) -> float:
        """`ideality · kT/q`."""
        return self.ideality * BOLTZMANN * self.kelvin / CHARGE

    def one(self, v: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
        """`D(v)`."""
        forward = self.saturation * jnp.expm1(v / self.volts)
        if self.law == "shockley":
            return forward
        knee = -3 * self.volts
        safe = jnp.where(v < knee, v, knee)
        reverse = -self.saturation * (1 + (3 * self.volts / (jnp.e * safe)) ** 3)
        return jnp.where(v < knee, reverse, forward) + self.gmin * v

    def __call__(self, v: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
        """`I(v)` out of the node."""
        return self.one(v - self.offset) - self.one(-v - self.offset)

    def power(self, v: Float[Array, "..."]) -> Float[Array, ""]:
        """The power in watts that the pairs at nodes of real potentials `v` dissipate, in sum."""
        up, down = v - self.offset, -v - self.offset
        return jnp.sum(self.one(up) * up + self.one(down) * down)

    def supplied(self, v: Float[Array, "..."]) -> Float[Array, ""]:
        """The power in watts that the sources of the offsets deliver: below zero, as diodes charge them."""
        return -self.offset * jnp.sum(self.one(v - self.offset) + self.one(-v - self.offset))
