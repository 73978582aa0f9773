"""An always-on rotating nudge: no separate phases, the error read off as an oscillation."""

import dataclasses
import math
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState
from eqprop.estimator.base import AbstractErrorEstimator, Error, check_fields, refuse_readings
from eqprop.readout import Model, Target
from eqprop.relaxation import AbstractRelaxation
from eqprop.relaxation.base import status
from eqprop.substrate.dynamics import Dynamics
from eqprop.substrate.probe import Measurement


class OscillatingNudge(AbstractErrorEstimator):
    """The network runs in continuous time under a nudge that turns without pause,

        du/dt = F(u) + β(t) ∂ℓ/∂s,      β(t) = r e^{iωt},      ω = 2π/period,

    and after `warmup` turns its mean and its first harmonic are taken over one turn:

        u* = ⟨u⟩,      δ = Re ⟨s e^{−iωt}⟩ / r.

    An analytic network answers with non-negative harmonics only: the mean is the free fixed point exactly, and the
    first harmonic the small-signal response `D (iω − J)⁻¹ g` at any radius that converges. What is left is the lag,
    of order `(ω τ)²` in the real part. There is no free phase; `samples` points of the last turn are averaged, exact
    for fewer harmonics than that.

    The result is judged by the residual of the mean state. Laborieux & Zenke (ICLR 2024), "continuous time".
    """

    radius: float | Float[Array, ""]
    period: float = 60.0
    warmup: int = 2
    samples: int = 16
    steps_per_period: int = 240
    tol: float = 1e-3
    solver: diffrax.AbstractSolver = eqx.field(default_factory=diffrax.Tsit5)
    norm_bound: float | None = None
    dynamics: Dynamics = eqx.field(default_factory=Dynamics)
    """Of the device: noise and unequal time constants."""
    needs_free_phase: ClassVar[bool] = False

    def __check_init__(self):
        checks = {
            "radius": (self.radius != 0, "other than 0"),
            "period": (self.period > 0, "above 0"),
            "warmup": (self.warmup >= 1, "of at least 1"),
            "samples": (self.samples >= 3, "of at least 3"),
            "steps_per_period": (self.steps_per_period >= self.samples, "of at least samples"),
        }
        check_fields(self, checks)
        self.dynamics.check_step(self.period / self.steps_per_period, "Raise steps_per_period, or shorten the period.")

    @property
    def complex_nudges(self) -> bool:
        return True

    def on_device(
        self, flow: AbstractRelaxation | None, dynamics: Dynamics | None, probe: Measurement | None
    ) -> "OscillatingNudge":
        del flow  # there is no relaxation in it
        refuse_readings(self, probe)
        return dataclasses.replace(self, dynamics=dynamics or self.dynamics)

    def check(self, model: Model) -> None:
        if not model.network.holomorphic:
            raise ValueError(
                f"The nudge of OscillatingNudge turns in the complex plane, but {type(model.network).__name__} is not "
                "holomorphic. Use FiniteNudge(eqprop.centred(beta), ...)."
            )

    def error(
        self, model: Model, x: Shaped[Array, "..."], y: Target, free: Solution, *, key: PRNGKeyArray | None = None
    ) -> Error:
        u0 = _tree.to_complex(free.state)
        dtype = jax.tree.leaves(free.state)[0].dtype
        omega = 2 * math.pi / self.period
        under = model.drift_under(x, y)

        def drift(t: Any, u: AnyState) -> AnyState:
            beta = self.radius * _phase(omega * t)
            return under(beta, u)

        end = (self.warmup + 1) * self.period
        turn = jnp.arange(self.samples, dtype=dtype) / self.samples
        times = self.warmup * self.period + turn * self.period
        dt = self.period / self.steps_per_period
        u = self.dynamics.run(drift, u0, times, dt=dt, end=end, key=key, solver=self.solver)
        mean = jax.tree.map(lambda leaf: jnp.mean(leaf.real, axis=0), u)
        demodulate = jnp.conj(_phase(2 * math.pi * turn)) / self.radius
        delta = jax.tree.map(
            lambda leaf: jnp.mean((leaf * demodulate.reshape(-1, *[1] * (leaf.ndim - 1))).real, axis=0),
            jax.vmap(model.network.rates)(u),
        )
        residual = _tree.max_norm(model.free_drift(x)(mean))
        num_steps = jnp.asarray((self.warmup + 1) * self.steps_per_period, jnp.int32)
        return Error(mean, delta, num_steps, status(residual, residual, self.tol))


def _phase(angle: Array) -> Array:
    return jax.lax.complex(jnp.cos(angle), jnp.sin(angle))
