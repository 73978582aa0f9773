"""Weights as conductances: their range and resolution, their programming, their ageing, their faults.

A weight is a pair of devices, `w = limit (G⁺ − G⁻)/Gmax`; `limit` is the weight of one device fully on, the other off.
"""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from eqprop import _tree
from eqprop.model import Model
from eqprop.substrate.base import Number, Reciprocity, check_choice, check_range, named
from eqprop.substrate.deployment import AbstractDeployment
from eqprop.substrate.kernels import READOUT, elementwise, kernels_of, straight_through, with_kernels
from eqprop.substrate.neurons import dense_biases, with_neurons


class Quantised(AbstractDeployment):
    """`2^bits` conductances in `[Gmax/on_off_ratio, Gmax]`, evenly spaced; weights beyond `± limit` stand at it.

    - `one_sided`: the device of the other sign stays at `Gmin`; weights are multiples of `limit/(2^bits − 1)`.
    - `common_mode`: the pair sits about the middle and each is rounded, so that the weights are odd multiples of that
        step, and 0 only where it was asked for.

    `leak`: the conductances at a receiving neuron load it, draining `Σ(G⁺ + G⁻) u`; for dense networks. Rounding is
    passed straight through in the gradient. One value serves both directions: equal weights stay equal.

    `limit=None` is a statistical scale: twice the mean `|w|` of each kernel, which follows the weights and is no
    parameter that could oscillate with them (Liu et al. 2023); not with `leak`.

    4 to 10 bits (6 in BrainScaleS-2); on/off ratios 10 to 10³, of which 10 is needed (Doell et al. 2025).
    """

    bits: int = eqx.field(static=True, default=6)
    on_off_ratio: Number = 100.0
    mapping: Literal["one_sided", "common_mode"] = eqx.field(static=True, default="one_sided")
    limit: Number | None = 1.0
    leak: bool = eqx.field(static=True, default=False)

    def __check_init__(self):
        check_range(self, "bits", 1, 24)
        check_range(self, "on_off_ratio", 1.0 + 1e-6)
        check_range(self, "limit", 1e-12)
        check_choice(self, "mapping", ("one_sided", "common_mode"))
        if self.limit is None and self.leak:
            raise ValueError("Quantised got limit=None with leak=True; a load needs a limit: give one, or no leak.")

    @property
    def reciprocity(self) -> Reciprocity:
        return "keeps"

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        kernels = kernels_of(model, self)
        new = with_kernels(model, {name: self.round(w) for name, w in kernels.items()})
        if not self.leak:
            return new
        load = _tree.zeros_like(dense_biases(model.network, self))
        for name, w in kernels_of(new).items():
            if name != READOUT:
                a, b = name
                load[b] = load[b] + jnp.sum(self.total(w), axis=0)
                if a in load and (b, a) not in kernels:  # one kernel for both directions loads both ends
                    load[a] = load[a] + jnp.sum(self.total(w), axis=1)
        gain = jax.tree.map(lambda total: 1 / (1 + total), load)
        return Model(with_neurons(new.network, self, gain=gain), new.readout)

    def round(self, w: Array) -> Array:
        """The weight that the pair of devices realises."""
        x, steps = self._part(w), self._steps
        if self.mapping == "one_sided":
            level = jnp.round(x * steps)
        else:
            level = jnp.round(0.5 * steps * (1 + x)) - jnp.round(0.5 * steps * (1 - x))
        return straight_through(w, jax.lax.stop_gradient(self._limit(w) * level / steps))

    def place(self, w: Array) -> Array:
        """Where a weight stands among its levels, which are at the whole numbers."""
        x, steps = self._part(w), self._steps
        return x * steps if self.mapping == "one_sided" else 0.5 * steps * (1 + x)

    def at(self, place: Array) -> Array:
        """The weight at a place, for a given `limit`."""
        assert self.limit is not None
        part = place / self._steps
        return self.limit * (part if self.mapping == "one_sided" else 2 * part - 1)

    @property
    def _steps(self) -> float:
        return 2.0**self.bits - 1

    def _part(self, w: Array) -> Array:
        return jnp.clip(w / self._limit(w), -1.0, 1.0)

    def _limit(self, w: Array) -> Array:
        if self.limit is not None:
            return jnp.asarray(self.limit, w.dtype)
        mean = jnp.mean(jnp.abs(w))
        return jax.lax.stop_gradient(jnp.where(mean > 0, 2 * mean, 1.0))

    def total(self, w: Array) -> Array:
        """`G⁺ + G⁻` of a realised weight, in units of weights."""
        least = 1 / self.on_off_ratio
        scale = self._limit(w) / (1 - least)
        return scale * (1 + least) + 0 * w if self.mapping == "common_mode" else jnp.abs(w) + 2 * scale * least


class _AbstractProgrammed(AbstractDeployment):
    """A defect of each device on its own; shared by both directions of a pair, or drawn for each."""

    shared: eqx.AbstractVar[bool]

    @property
    def reciprocity(self) -> Reciprocity:
        return "keeps" if self.shared else "breaks"


class ProgrammingNoise(_AbstractProgrammed):
    """What is left between the conductances written and those found, `w_eff = w + limit · s(|w|/limit) · E`.

    `sigma`: the standard deviation `s`, a fraction of the range, 0.005 to 0.05. `None`: phase-change memory,
    `s(g) = √(p(g)² + p(0)²)/25` for a pair of devices of 25 µS, `p(g) = max(−1.1731 g² + 1.9650 g + 0.2635, 0)` µS
    (aihwkit). Drawn once a chip: of noise at every write, see `WriteNoise`.
    """

    sigma: Number | None = 0.02
    limit: Number = 1.0
    shared: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_range(self, "sigma")
        check_range(self, "limit", 1e-12)

    def spread(self, g: Array) -> Array:
        """`s(g)`, a fraction of the range."""
        if self.sigma is not None:
            return jnp.full_like(g, self.sigma)
        return jnp.hypot(_pcm(g), _pcm(jnp.zeros_like(g))) / 25.0

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        def value(w: Array, key: PRNGKeyArray) -> Array:
            g = jnp.clip(jnp.abs(w) / self.limit, 0.0, 1.0)
            return w + self.limit * self.spread(g) * jax.random.normal(key, w.shape, w.dtype)

        return elementwise(model, key, value, shared=self.shared, part=self)


def _pcm(g: Array) -> Array:
    return jnp.maximum(-1.1731 * g**2 + 1.9650 * g + 0.2635, 0.0)


class Drift(_AbstractProgrammed):
    """Conductances that fall after programming, `w_eff = w ((t₀ + age)/t₀)^(−ν)`, `ν = μ + s E ≥ 0`; seconds.

    `nu`, `spread`: `μ` and `s`. `nu=None`: phase-change memory (aihwkit), with `g = |w|/limit`,
    `μ = clip(−0.0155 ln g + 0.0244, 0.049, 0.1)`, `s = clip(−0.0125 ln g − 0.0059, 0.008, 0.045)`, `t₀ = 20` s.
    """

    age: Number = 3600.0
    t0: float = eqx.field(static=True, default=20.0)
    nu: Number | None = None
    spread: Number = 0.0
    limit: Number = 1.0
    shared: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        check_range(self, "age")
        check_range(self, "t0", 1e-12)
        check_range(self, "spread")

    @property
    def commutes_with_gains(self) -> bool:
        return self.nu is not None  # else the exponent depends on the weight

    def exponent(self, w: Array, noise: Array) -> Array:
        """`ν` of a device that holds `w`, for a standard normal number."""
        if self.nu is not None:
            return jnp.maximum(self.nu + self.spread * noise, 0.0)
        log = jax.lax.stop_gradient(jnp.log(jnp.clip(jnp.abs(w) / self.limit, 1e-6, 1.0)))
        mu, s = jnp.clip(-0.0155 * log + 0.0244, 0.049, 0.1), jnp.clip(-0.0125 * log - 0.0059, 0.008, 0.045)
        return jnp.maximum(mu + s * noise, 0.0)

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        def value(w: Array, key: PRNGKeyArray) -> Array:
            nu = self.exponent(w, jax.random.normal(key, w.shape, w.dtype))
            return w * jnp.exp(-nu * jnp.log1p(jnp.asarray(self.age / self.t0, w.dtype)))

        return elementwise(model, key, value, shared=self.shared, part=self)


class Faults(_AbstractProgrammed):
    """Devices that hold one value whatever is written, and neurons that hold one rate.

    Fractions of the devices: `stuck_zero` at 0, `stuck_min` at `± limit/on_off_ratio`, `stuck_max` at `± limit`, the
    sign drawn; of the neurons of dense networks: `dead_neurons`, at `dead_rate`. No gradient reaches a stuck
    device. 0.001 to 0.1; Oh & Min took 10 %. Dead neurons leave equilibrium propagation exact for the rest.
    """

    stuck_zero: float = eqx.field(static=True, default=0.0)
    stuck_min: float = eqx.field(static=True, default=0.0)
    stuck_max: float = eqx.field(static=True, default=0.0)
    dead_neurons: float = eqx.field(static=True, default=0.0)
    dead_rate: float = eqx.field(static=True, default=0.0)
    limit: Number = 1.0
    on_off_ratio: Number = 100.0
    shared: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        for name in ("stuck_zero", "stuck_min", "stuck_max", "dead_neurons"):
            check_range(self, name, 0.0, 1.0)
        if self._stuck() > 1:
            raise ValueError(f"Faults got {self._stuck():.3g} stuck devices of every one; lower the three fractions.")

    @property
    def reciprocity(self) -> Reciprocity:
        return "none" if self._stuck() == 0 else super().reciprocity

    @property
    def commutes_with_gains(self) -> bool:
        return self.stuck_min == 0 and self.stuck_max == 0  # a weight of 0 is so with any gains

    def intended(self, model: Model, *, key: PRNGKeyArray) -> Model:
        return self._stick(model, key)

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        model = self._stick(model, key)
        if self.dead_neurons == 0:
            return model
        biases = dense_biases(model.network, self)
        alive = {
            name: ~jax.random.bernoulli(named(named(key, "neurons"), name), self.dead_neurons, b.shape)
            for name, b in biases.items()
        }
        rest = {name: jnp.full_like(b, self.dead_rate) for name, b in biases.items()}
        return Model(with_neurons(model.network, self, alive=alive, rest=rest), model.readout)

    def _stuck(self) -> float:
        return math.fsum((self.stuck_zero, self.stuck_min, self.stuck_max))

    def _stick(self, model: Model, key: PRNGKeyArray) -> Model:
        def value(w: Array, key: PRNGKeyArray) -> Array:
            which, sign = jax.random.split(key)
            draw = jax.random.uniform(which, w.shape, w.dtype)
            high = self.limit * jax.random.rademacher(sign, w.shape, w.dtype)
            for below, held in (
                (self._stuck(), high),
                (self.stuck_zero + self.stuck_min, high / self.on_off_ratio),
                (self.stuck_zero, jnp.zeros_like(w)),
            ):
                w = jnp.where(draw < below, held, w)
            return w

        return elementwise(model, key, value, shared=self.shared, part=self) if self._stuck() else model
