"""A real, always-on sinusoidal nudge, and the error in its odd harmonics."""

import dataclasses
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState
from eqprop.estimator.base import AbstractErrorEstimator, Error, check_fields
from eqprop.readout import Model, Target
from eqprop.relaxation import AbstractRelaxation
from eqprop.relaxation.base import status
from eqprop.substrate.dynamics import Dynamics
from eqprop.substrate.probe import Measurement, read


class LockIn(AbstractErrorEstimator):
    """What a device without complex nudges can do: it runs under `β cos ωt`, `ω = 2π/period`, and the answer
    `u*(β cos θ) = Σ cₙ cos nθ` is demodulated in phase over whole `cycles`, after `warmup` of them:

        δ = (1/β) Σ_{n odd ≤ K} (−1)^((n−1)/2) n cₙ,        u* = Σ_{n even ≤ K} (−1)^(n/2) cₙ.

    `harmonics` is `K`. The first harmonic alone is biased as `β²`, by three quarters of the centred nudge's bias; each
    further odd one removes two orders, without limit in `β` where `u*(β)` is smooth. The price is noise: the variance
    of white noise grows as `2 Σ n²` = 2, 20, 70, 168 for K = 1, 3, 5, 7, against 1 for a complex circle. The lag is of
    order `(K ω τ)²`. Offsets and slow drifts are orthogonal to all of it. There is no free phase.

    Close to frequency propagation (Anisetti et al. 2022, arXiv 2208.08862).
    """

    beta: float | Float[Array, ""]
    harmonics: int = 3
    period: float = 60.0
    warmup: int = 1
    cycles: int = 1
    samples: int = 16
    """Readings a cycle."""
    steps_per_period: int = 240
    tol: float = 1e-2
    norm_bound: float | None = None
    probe: Measurement | None = None
    dynamics: Dynamics = eqx.field(default_factory=Dynamics)
    needs_free_phase: ClassVar[bool] = False

    def __check_init__(self):
        checks = {
            "beta": (self.beta != 0, "other than 0"),
            "harmonics": (self.harmonics > 0 and self.harmonics % 2 == 1, "that is odd"),
            "period": (self.period > 0, "above 0"),
            "warmup": (self.warmup >= 1, "of at least 1"),
            "cycles": (self.cycles >= 1, "of at least 1"),
            "samples": (self.samples > 2 * self.harmonics, "above twice the harmonics"),
            "steps_per_period": (self.steps_per_period >= self.samples, "of at least samples"),
        }
        check_fields(self, checks)
        self.dynamics.check_step(self.period / self.steps_per_period, "Raise steps_per_period, or shorten the period.")

    def on_device(
        self, flow: AbstractRelaxation | None, dynamics: Dynamics | None, probe: Measurement | None
    ) -> "LockIn":
        del flow  # there is no relaxation in it
        return dataclasses.replace(self, dynamics=dynamics or self.dynamics, probe=probe or self.probe)

    def demodulation(self, turn: Float[Array, " times"]) -> tuple[Array, Array]:
        """What readings at those turns are multiplied with before their mean is taken, for `u*` and for `β δ`."""
        angle = 2 * math.pi * turn
        odd = [(-1.0) ** ((n - 1) // 2) * 2.0 * n * jnp.cos(n * angle) for n in range(1, self.harmonics + 1, 2)]
        even = [(-1.0) ** (n // 2) * 2.0 * jnp.cos(n * angle) for n in range(2, self.harmonics + 1, 2)]
        return sum(even, jnp.ones_like(turn)), sum(odd, jnp.zeros_like(turn))

    def error(
        self, model: Model, x: Shaped[Array, "..."], y: Target, free: Solution, *, key: PRNGKeyArray | None = None
    ) -> Error:
        motion_key, probe_key = (None, None) if key is None else jax.random.split(key)
        under = model.drift_under(x, y)
        dtype = jax.tree.leaves(free.state)[0].dtype

        def drift(t: Any, u: AnyState) -> AnyState:
            beta = (self.beta * jnp.cos(2 * math.pi * jnp.asarray(t, dtype) / self.period)).astype(dtype)
            return under(beta, u)

        def reading(u: AnyState, phase: Int[Array, ""]) -> AnyState:
            return read(self.probe, model.network.rates(u), phase=phase, key=probe_key)

        turn = jnp.arange(self.samples * self.cycles, dtype=dtype) / self.samples
        end = (self.warmup + self.cycles) * self.period
        dt = self.period / self.steps_per_period
        times = (self.warmup + turn) * self.period
        u = self.dynamics.run(drift, free.state, times, dt=dt, end=end, key=motion_key)
        rates = jax.vmap(reading)(u, 1 + jnp.arange(len(turn)))

        def mean(weights: Array, values: AnyState) -> AnyState:
            return jax.tree.map(lambda v: jnp.tensordot(weights.astype(v.dtype), v, axes=1) / len(turn), values)

        still, moved = self.demodulation(turn)
        state, delta = mean(still, u), mean(moved / self.beta, rates)
        residual = _tree.max_norm(model.free_drift(x)(state))
        steps = jnp.asarray((self.warmup + self.cycles) * self.steps_per_period, jnp.int32)
        return Error(state, delta, steps, status(residual, residual, self.tol))
