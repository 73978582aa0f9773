"""Devices in continuous time: noise, unequal time constants, and no more time to settle than they are given."""

import math
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Inexact, PRNGKeyArray

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._solution import Solution
from eqprop._tree import AnyState, Drift
from eqprop.relaxation import AbstractMotion, AbstractRelaxation
from eqprop.relaxation.base import status
from eqprop.relaxation.motion import TimeDrift, evenly_stepped
from eqprop.substrate.base import (
    AbstractHarmless,
    AbstractImperfection,
    Chip,
    Number,
    Stage,
    check_range,
    chip_key,
    lognormal,
    named,
)


class _AbstractMotionDefect(AbstractHarmless):
    """A defect of the way to the fixed point, and not of the point."""

    stage: ClassVar[Stage] = "dynamics"


class WhiteNoise(_AbstractMotionDefect):
    """Thermal and shot noise, `τ du = F dt + σ dB`: a spread of about `σ/√(2τ)` at rest, and of `σ/√T` of the mean over
    `T` common time constants. Complex potentials are two circuits, with noise each.

    `sigma` is `√(2kT/C)` over the swing: at 300 K `√(kT/C)` is 64 µV for 1 pF and 2 mV for 1 fF, on 0.1 to 1 V. `C` is
    the capacitance of a neuron of `τ = 1`; that of another one is `τC`, and its variance `kT/(τC)`.
    """

    sigma: Number = 1e-3

    def __check_init__(self):
        check_range(self, "sigma")


class Flicker(_AbstractMotionDefect):
    """1/f noise, `τ du = (F + n) dt`: `n` is a sum of `num` Ornstein-Uhlenbeck processes of equal variance, `σ²` in
    all, with correlation times evenly spaced in the logarithm from `fastest` to `slowest` time constants.

    A process slower than `τ` moves a leaky potential by `n`, whatever `τ` is. Every relaxation begins with a new draw,
    as if phases were far apart. 10⁻⁵ to 10⁻² of the swing.
    """

    sigma: Number = 1e-3
    fastest: float = eqx.field(static=True, default=1.0)
    slowest: float = eqx.field(static=True, default=1e4)
    num: int = eqx.field(static=True, default=5)

    def __check_init__(self):
        check_range(self, "sigma")
        check_range(self, "fastest", 1e-12, self.slowest)
        check_range(self, "num", 1)

    def times(self) -> tuple[float, ...]:
        """The correlation times."""
        span = math.log(self.slowest / self.fastest)
        return tuple(self.fastest * math.exp(span * k / max(self.num - 1, 1)) for k in range(self.num))


class TimeConstants(_AbstractMotionDefect):
    """Neurons of unequal speed, `τ = exp(σE − σ²/2)` of the common time constant. The nudge charges the same
    capacitors, so that no fixed point moves, free or nudged. `sigma` 0.1 to 0.3 (engineering guess)."""

    sigma: Number = 0.2

    def __check_init__(self):
        check_range(self, "sigma")

    def __call__(self, u: AnyState, *, key: PRNGKeyArray) -> AnyState:
        """`τ` of every neuron of `u`."""

        def one(path: tuple, leaf: Array) -> Array:
            return lognormal(named(key, jax.tree_util.keystr(path)), leaf, self.sigma)

        return jax.tree.map_with_path(one, u)


class Dynamics(AbstractMotion):
    """The motion of a device: `τ du = (F + flicker) dt + white noise`, in units of the common time constant."""

    white: WhiteNoise | None = None
    flicker: Flicker | None = None
    time_constants: TimeConstants | None = None
    chip: Chip = 0
    """The number of the chip whose time constants these are; `Substrate` puts its own."""

    @property
    def noisy(self) -> bool:
        """Whether a run needs a key."""
        return self.white is not None or self.flicker is not None

    @property
    def parts(self) -> dict[str, AbstractImperfection]:
        """Those that are there, by name."""
        every = {"white": self.white, "flicker": self.flicker, "time_constants": self.time_constants}
        return {name: part for name, part in every.items() if part is not None}

    def longest_step(self) -> float | Array:
        """That of the fastest neuron, which has `τ = exp(−2.5σ − σ²/2)`."""
        if self.time_constants is None:
            return 2.0
        sigma = self.time_constants.sigma
        return 2 * jnp.exp(-2.5 * jnp.max(jnp.asarray(sigma)) - 0.5 * jnp.max(jnp.asarray(sigma)) ** 2)

    def run(
        self,
        drift: TimeDrift,
        u0: AnyState,
        times: Inexact[Array, " times"],
        *,
        dt: float,
        end: float,
        key: PRNGKeyArray | None,
        solver: diffrax.AbstractSolver | None = None,
    ) -> AnyState:
        """As for every motion, with Heun's solver where there is noise.

        **Raises:** `ValueError` for noise without `key`.
        """
        if self.noisy and key is None:
            raise ValueError("A device with noise needs a key, as in relaxation(drift, u0, key=key).")
        start, unravel = ravel_pytree(_tree.to_pairs(u0))
        one = jax.tree.map(lambda leaf: jnp.ones_like(leaf.real), u0)
        tau = one if self.time_constants is None else self.time_constants(u0, key=chip_key(self.chip, "tau"))
        # Real and imaginary part of a potential share their capacitor.
        tau, _ = ravel_pytree(jax.tree.map(lambda u, v: jnp.stack([v, v]) if jnp.iscomplexobj(u) else v, u0, tau))

        def velocity(t: Any, y: tuple[Array, Array], args: None) -> tuple[Array, Array]:
            del args
            force = ravel_pytree(_tree.to_pairs(drift(t, _tree.from_pairs(unravel(y[0]), u0))))[0]
            return (force + jnp.sum(y[1], 0)) / tau, -y[1] / slow[:, None]

        slow = jnp.asarray(() if self.flicker is None else self.flicker.times(), start.dtype)
        wander = jnp.zeros((slow.size, start.size), start.dtype)
        terms: Any = diffrax.ODETerm(velocity)
        if key is not None and self.noisy:
            first, path = jax.random.split(key)
            sigma = 0.0 if self.flicker is None else self.flicker.sigma / math.sqrt(self.flicker.num)
            wander = sigma * jax.random.normal(first, wander.shape, wander.dtype)  # at rest from the beginning
            white = jnp.full_like(start, 0.0 if self.white is None else self.white.sigma) / tau
            kicks = white, jnp.broadcast_to(sigma * jnp.sqrt(2 / slow)[:, None], wander.shape)
            shape = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (start, wander))
            noise = diffrax.ControlTerm(
                lambda t, y, args: lineax.DiagonalLinearOperator(kicks), diffrax.UnsafeBrownianPath(shape, key=path)
            )
            terms, solver = diffrax.MultiTerm(terms, noise), None
        adjoint = diffrax.DirectAdjoint() if self.noisy else diffrax.RecursiveCheckpointAdjoint()
        ys = evenly_stepped(terms, solver or diffrax.Heun(), (start, wander), times, dt, end, adjoint=adjoint)
        return jax.vmap(lambda y: _tree.from_pairs(unravel(y), u0))(ys[0])


class DeviceFlow(AbstractRelaxation):
    """What a device settles to in the time that it has: the mean of `samples` readings of its potentials, evenly over
    `average` time constants, after `settle` of them.

    White noise spreads a leaky potential by `σ/√2`, and the mean of `n = samples` readings at a spacing `Δ` by

        var = σ²/(2n²) Σᵢⱼ e^{−|i−j|Δ},      Δ = average/(n − 1).

    That is `σ²/average` for `Δ ≤ 1` (8 % more at 1) and `average ≫ 1`; further apart than the correlation time, 1,
    readings are independent: `σ²/(2n)`. The residual is that of the mean in the noiseless drift: of the short time and
    of the noise together; above `tol` an example counts as unsettled. A device learns from what it reads: let
    `Trainer.keep_unsettled` be true.
    """

    settle: float = 20.0
    average: float = 0.0
    samples: int = 1
    dt: float = 0.1
    tol: float = 1e-2
    dynamics: Dynamics = eqx.field(default_factory=Dynamics)
    reverse_differentiable: ClassVar[bool] = False

    def __check_init__(self):
        check_range(self, "settle", 1e-12)
        check_range(self, "average")
        check_range(self, "samples", 1)
        check_range(self, "dt", 1e-12, self.settle)
        self.dynamics.check_step(self.dt, "Lower dt.")
        if self.average > 0 and self.samples < 2:
            raise ValueError(f"DeviceFlow got average={self.average:g} with one sample; give it samples=16 or more.")

    def __call__(
        self, drift: Drift, u0: AnyState, *, blocks: Blocks | None = None, key: PRNGKeyArray | None = None
    ) -> Solution:
        del blocks
        dtype = jax.tree.leaves(u0)[0].real.dtype
        end = self.settle + self.average
        times = jnp.linspace(self.settle, end, self.samples, dtype=dtype)
        read = self.dynamics.run(lambda t, u: drift(u), u0, times, dt=self.dt, end=end, key=key)
        state = jax.tree.map(lambda v: jnp.mean(v, axis=0), read)
        residual = _tree.max_norm(drift(state))
        steps = jnp.asarray(math.ceil(end / self.dt), jnp.int32)
        finite = jnp.isfinite(residual)
        start = _tree.max_norm(drift(u0))
        result = status(residual, residual, self.tol)
        return Solution(_tree.where(finite, state, u0), jnp.where(finite, residual, start), steps, result)
