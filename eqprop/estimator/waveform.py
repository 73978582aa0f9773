"""Always-on nudges: no separate phases, the error read off as an oscillation."""

import abc
import dataclasses
import math
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from equinox import AbstractVar
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState
from eqprop.estimator.base import (
    AbstractErrorEstimator,
    Device,
    Error,
    Reading,
    check_fields,
    refuse_readings,
    require_holomorphic,
)
from eqprop.model import Example
from eqprop.network.base import AbstractNetwork
from eqprop.relaxation import AbstractMotion, Motion
from eqprop.relaxation.base import status


class AbstractWaveform(AbstractErrorEstimator):
    """The network runs in continuous time under a periodic nudge, `du/dt = F(u) + β(t) ∂ℓ/∂s`. After `warmup` periods
    readings are taken over whole `cycles`, and multiplied by two waveforms before their means are taken: one gives the
    free fixed point `u*`, the other the error vector. There is no free phase.

    The result is judged by the residual of `u*`.
    """

    period: AbstractVar[float]
    """In time constants of the leak."""
    warmup: AbstractVar[int]
    cycles: AbstractVar[int]
    samples: AbstractVar[int]
    """Readings a cycle."""
    steps_per_period: AbstractVar[int]
    tol: AbstractVar[float]
    solver: AbstractVar[diffrax.AbstractSolver]
    reading: AbstractVar[Reading | None]
    motion: AbstractVar[AbstractMotion]
    needs_free_phase: ClassVar[bool] = False

    def __check_init__(self):
        checks = {
            "period": (self.period > 0, "above 0"),
            "warmup": (self.warmup >= 1, "of at least 1"),
            "cycles": (self.cycles >= 1, "of at least 1"),
            "steps_per_period": (self.steps_per_period >= self.samples, "of at least samples"),
        }
        check_fields(self, checks)
        self.motion.check_step(self.period / self.steps_per_period, "Raise steps_per_period, or shorten the period.")

    @abc.abstractmethod
    def nudge(self, angle: Float[Array, ""]) -> Inexact[Array, ""]:
        """`β` at the phase `ωt`."""

    @abc.abstractmethod
    def demodulation(self, angle: Float[Array, " times"]) -> tuple[Array, Array]:
        """What readings at those phases are multiplied with before their mean is taken, for `u*` and for `δ`."""

    def error(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Error:
        motion_key, read_key = (None, None) if key is None else jax.random.split(key)
        dtype = jax.tree.leaves(free.state)[0].dtype
        u0 = _tree.to_complex(free.state) if self.complex_nudges else free.state

        def drift(t: Any, u: AnyState) -> AnyState:
            beta = self.nudge(2 * math.pi * jnp.asarray(t, dtype) / self.period)
            return example.drift(u, beta.astype(jax.tree.leaves(u)[0].dtype))

        def read(u: AnyState, phase: Array) -> AnyState:
            s = example.field.rates(u)
            return s if self.reading is None else self.reading(s, phase=phase, key=read_key)

        turn = jnp.arange(self.samples * self.cycles, dtype=dtype) / self.samples
        periods = self.warmup + self.cycles
        u = self.motion.run(
            drift,
            u0,
            (self.warmup + turn) * self.period,
            dt=self.period / self.steps_per_period,
            end=periods * self.period,
            key=motion_key,
            solver=self.solver,
        )
        rates = jax.vmap(read)(u, 1 + jnp.arange(turn.size))

        def mean(weights: Array, values: AnyState) -> AnyState:
            return jax.tree.map(lambda v: jnp.tensordot(weights.astype(v.dtype), v, axes=1).real / turn.size, values)

        still, moved = self.demodulation(2 * math.pi * turn)
        state, delta = mean(still, u), mean(moved, rates)
        residual = _tree.max_norm(example.field.drift(state))
        steps = jnp.asarray(periods * self.steps_per_period, jnp.int32)
        return Error(state, delta, steps, status(residual, residual, self.tol))


class OscillatingNudge(AbstractWaveform):
    """A nudge that turns in the complex plane without pause, `β(t) = r e^{iωt}`, `ω = 2π/period`:

        u* = ⟨u⟩,      δ = Re ⟨s e^{−iωt}⟩ / r.

    An analytic network answers with non-negative harmonics only: the mean is the free fixed point exactly, and the
    first harmonic the small-signal response `D (iω − J)⁻¹ g` at any radius that converges. What is left is the lag,
    of order `(ω τ)²` in the real part. Readings are exact for fewer harmonics than `samples`.

    Laborieux & Zenke (ICLR 2024), "continuous time".
    """

    beta: float | Float[Array, ""]
    period: float = 60.0
    warmup: int = 2
    cycles: int = 1
    samples: int = 16
    steps_per_period: int = 240
    tol: float = 1e-3
    solver: diffrax.AbstractSolver = eqx.field(default_factory=diffrax.Tsit5)
    norm_bound: float | None = None
    reading: Reading | None = None
    motion: AbstractMotion = eqx.field(default_factory=Motion)

    def __check_init__(self):
        check_fields(self, {"beta": (self.beta != 0, "other than 0"), "samples": (self.samples >= 3, "of at least 3")})

    @property
    def complex_nudges(self) -> bool:
        return True

    def on_device(self, device: Device) -> "OscillatingNudge":
        refuse_readings(self, device)
        return dataclasses.replace(self, motion=device.motion or self.motion)

    def check(self, network: AbstractNetwork) -> None:
        require_holomorphic(self, network)

    def nudge(self, angle: Float[Array, ""]) -> Inexact[Array, ""]:
        return self.beta * _turned(angle)

    def demodulation(self, angle: Float[Array, " times"]) -> tuple[Array, Array]:
        return jnp.ones_like(angle), _turned(-angle) / self.beta


def _turned(angle: Float[Array, "..."]) -> Inexact[Array, "..."]:
    return jax.lax.complex(jnp.cos(angle), jnp.sin(angle))


class LockIn(AbstractWaveform):
    """What a device without complex nudges can do: it runs under `β cos ωt`, `ω = 2π/period`, and the answer
    `u*(β cos θ) = Σ cₙ cos nθ` is demodulated in phase:

        δ = (1/β) Σ_{n odd ≤ K} (−1)^((n−1)/2) n cₙ,        u* = Σ_{n even ≤ K} (−1)^(n/2) cₙ.

    `harmonics` is `K`. The first harmonic alone is biased as `β²`, by three quarters of the centred nudge's bias; each
    further odd one removes two orders, without limit in `β` where `u*(β)` is smooth. The price is noise: the variance
    of white noise grows as `2 Σ n²` = 2, 20, 70, 168 for K = 1, 3, 5, 7, against 1 for a complex circle. The lag is of
    order `(K ω τ)²`. Offsets and slow drifts are orthogonal to all of it.

    Close to frequency propagation (Anisetti et al. 2022, arXiv 2208.08862).
    """

    beta: float | Float[Array, ""]
    harmonics: int = 3
    period: float = 60.0
    warmup: int = 1
    cycles: int = 1
    samples: int = 16
    steps_per_period: int = 240
    tol: float = 1e-2
    solver: diffrax.AbstractSolver = eqx.field(default_factory=diffrax.Heun)
    norm_bound: float | None = None
    reading: Reading | None = None
    motion: AbstractMotion = eqx.field(default_factory=Motion)

    def __check_init__(self):
        checks = {
            "beta": (self.beta != 0, "other than 0"),
            "harmonics": (self.harmonics > 0 and self.harmonics % 2 == 1, "that is odd"),
            "samples": (self.samples > 2 * self.harmonics, "above twice the harmonics"),
        }
        check_fields(self, checks)

    def on_device(self, device: Device) -> "LockIn":
        return dataclasses.replace(self, motion=device.motion or self.motion, reading=device.reading or self.reading)

    def nudge(self, angle: Float[Array, ""]) -> Inexact[Array, ""]:
        return self.beta * jnp.cos(angle)

    def demodulation(self, angle: Float[Array, " times"]) -> tuple[Array, Array]:
        odd = [(-1.0) ** ((n - 1) // 2) * 2.0 * n * jnp.cos(n * angle) for n in range(1, self.harmonics + 1, 2)]
        even = [(-1.0) ** (n // 2) * 2.0 * jnp.cos(n * angle) for n in range(2, self.harmonics + 1, 2)]
        return sum(even, jnp.ones_like(angle)), sum(odd, jnp.zeros_like(angle)) / self.beta
