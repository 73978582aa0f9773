"""Weights whose bits are spread over several devices."""

from collections import OrderedDict
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqprop.model import Model
from eqprop.substrate.base import Number, Reciprocity, check_range, named
from eqprop.substrate.deployment import AbstractDeployment
from eqprop.substrate.kernels import kernels_of, straight_through, with_kernels


class BitSliced(AbstractDeployment):
    """A weight as `slices` pairs of devices of `bits` bits each, whose currents are added by their significance:

        w_eff = limit Σₖ cₖ xₖ,      xₖ = ± dₖ/(2^bits − 1),      cₖ = 2^(bits·k) (2^bits − 1)/(2^(bits·slices) − 1),

    with `dₖ` the digits of `|w|/limit`, rounded to `bits · slices` bits, the least significant first. The `cₖ` add up
    to 1, and weights beyond `± limit` stand at it. Without `parts` the weights are those of
    `Quantised(bits · slices)`.

    `parts` are defects of the devices, by name: each acts on every slice on its own, with a pattern of its own, as on
    a kernel of weights `xₖ` in `[−1, 1]`, so that the `limit` of a part is 1. With `ProgrammingNoise(sigma)` the
    variance of a weight is

        limit² sigma² Σ cₖ²,      Σ cₖ² = (2^bits − 1)(2^(bits·slices) + 1)/((2^bits + 1)(2^(bits·slices) − 1)),

    of which the most significant slice has the share `(1 − 4^−bits)/(1 − 4^−(bits·slices))`. One pair of devices that
    holds all bits has `limit² sigma²`: slices add levels and little precision, as Xiao et al. (2022) found. A defect
    that acts on all slices alike stands beside this part in the stack.

    Rounding is passed straight through in the gradient, a share `cₖ` to each slice. One set of devices serves both
    directions where all parts are shared. Gains by row or column differ from slice to slice, so that their sum is no
    gauge. Slices are added while the network settles, by weighted currents; cost counts what they conduct, and one
    conversion and one write for all of them.

    1 to 4 bits a device, and 2 to 8 slices (engineering guess).
    """

    bits: int = eqx.field(static=True, default=2)
    slices: int = eqx.field(static=True, default=4)
    limit: Number = 1.0
    on_off_ratio: Number = 100.0
    parts: Mapping[str, AbstractDeployment] = eqx.field(converter=OrderedDict, default_factory=dict)

    def __check_init__(self):
        check_range(self, "bits", 1, 24)
        check_range(self, "slices", 1, 24)
        check_range(self, "limit", 1e-12)
        check_range(self, "on_off_ratio", 1.0 + 1e-6)
        if self.bits * self.slices > 24:
            raise ValueError(
                f"BitSliced got bits={self.bits} and slices={self.slices}, {self.bits * self.slices} bits in all; "
                "expected 24 at most, which single precision holds exactly."
            )
        for name, part in self.parts.items():
            if not isinstance(part, AbstractDeployment):
                raise ValueError(
                    f"BitSliced got {name}={type(part).__name__} among its parts; expected defects of devices, such as "
                    "ProgrammingNoise or Mismatch. Others go into the Substrate."
                )

    @property
    def reciprocity(self) -> Reciprocity:
        return "breaks" if any(part.reciprocity in ("gauge", "breaks") for part in self.parts.values()) else "keeps"

    @property
    def significance(self) -> tuple[float, ...]:
        """`cₖ`, the least significant first."""
        one, all_ = 2.0**self.bits - 1, 2.0 ** (self.bits * self.slices) - 1
        return tuple(2.0 ** (self.bits * k) * one / all_ for k in range(self.slices))

    def note(self) -> str:
        return "; ".join(f"{name}: {part.note()}" for name, part in self.parts.items() if part.note())

    def sliced(self, w: Float[Array, "*shape"]) -> Float[Array, "slices *shape"]:
        """`xₖ`, what each slice is asked to hold, in `[−1, 1]`."""
        part = jax.lax.stop_gradient(jnp.clip(w / self.limit, -1.0, 1.0))
        level = jnp.round(jnp.abs(part) * (2.0 ** (self.bits * self.slices) - 1))
        base = 2.0**self.bits
        digits = [jnp.mod(jnp.floor(level / base**k), base) for k in range(self.slices)]  # exact: powers of two
        return jnp.stack([straight_through(w / self.limit, jnp.sign(part) * d / (base - 1)) for d in digits])

    def joined(self, x: Float[Array, "slices *shape"]) -> Float[Array, "*shape"]:
        """`limit Σₖ cₖ xₖ`."""
        # Element by element, so that equal weights stay equal to the last bit.
        return self.limit * sum((c * x[k] for k, c in enumerate(self.significance)), jnp.zeros_like(x[0]))

    def round(self, w: Array) -> Array:
        """The weight that devices without defects realise."""
        return self.joined(self.sliced(w))

    def total(self, w: Array) -> Array:
        """`Σₖ (Gₖ⁺ + Gₖ⁻)` of a realised weight, in units of weights, for the digits of the level next to it."""
        least = 1 / self.on_off_ratio
        ones = jnp.sum(jnp.abs(self.sliced(w)), axis=0)
        return self.limit * (ones + 2 * self.slices * least / (1 - least))

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        asked = {name: self.sliced(w) for name, w in kernels_of(model, self).items()}
        held: list[dict[tuple[str, ...], Array]] = []
        for k in range(self.slices):
            one = with_kernels(model, {name: x[k] for name, x in asked.items()})
            for name, part in self.parts.items():
                one = self._checked(part, one, part(one, key=named(key, (name, str(k)))))
            held.append(kernels_of(one))
        return with_kernels(model, {name: self.joined(jnp.stack([x[name] for x in held])) for name in asked})

    def _checked(self, part: AbstractDeployment, before: Model, after: Model) -> Model:
        if jax.tree.structure(before) != jax.tree.structure(after):
            raise ValueError(
                f"{type(part).__name__} among the parts of BitSliced changes neurons, which all slices share. Put it "
                "into the Substrate."
            )
        return after
