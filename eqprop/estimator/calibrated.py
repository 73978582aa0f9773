"""Gradients from nudges without weight symmetry, on a device that cannot be run backwards."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState, Drift
from eqprop.estimator.asymmetric import relax_corrected
from eqprop.estimator.base import AbstractErrorEstimator, Device, Error, check_fields, require_holomorphic, summed
from eqprop.model import Example
from eqprop.network.base import AbstractNetwork, Field
from eqprop.relaxation import AbstractRelaxation
from eqprop.stencil import Stencil


class CalibratedAsymmetric(AbstractErrorEstimator):
    """`AsymmetricNudge` with the current `K̂ (s − s*)`, where `K̂` estimates `K = Aᵀ − A` from measured responses.

    The rates are held at `s* + v_k`, and the change `y_k = A v_k + noise · ξ` of the drive is read. The probes are
    `v_k = √n q_k` with `P` random orthonormal `q_k`: rates move by 1 in the root mean square over `n` neurons, in units
    of an amplitude that is small, and so are readings. Of all matrices that agree with the readings, `K̂` is that of the
    one with the smallest skew part:

        K̂ = Q (Cᵀ − C) Qᵀ,      C = Qᵀ Y / √n,      Q = [q₁ … q_P].

    Without noise `K̂ = Q Qᵀ K Q Qᵀ`: it is exact for `P = n`, zero where `A` is symmetric, and on average a part
    `P (P − 1)/n (n − 1)` of `‖K‖²` is seen. Noise adds an independent error of standard deviation
    `τ = noise · √(2/(n · samples))` to each entry for `P = n`. To first order the error vector is then off by

        E ‖δ̂ − δ‖² = τ² (‖M⁻ᵀ‖_F² ‖δ‖² − ‖M⁻ᵀ δ‖²),      M = diag(1/σ′) − A.

    It costs `P · samples` readings of the drive an example, none of which is a relaxation, one relaxation a node, and
    one product with `K̂` a step. In a network with a metric `m`, `K` is that of `m^½ A m^−½`, so that a network which
    is symmetric in its metric needs no current.
    """

    stencil: Stencil
    relaxation: AbstractRelaxation
    probes: int | None = None
    """`P`, from 2 to the number of neurons `n`; `None`: all `n`."""
    noise: float | Float[Array, ""] = 0.0
    """Standard deviation of a reading, over the amplitude of the probes."""
    samples: int = 1
    """Readings of every probe, which are averaged."""
    norm_bound: float | None = None
    needs_free_phase: ClassVar[bool] = True

    def __check_init__(self):
        checks = {
            "probes": (self.probes is None or self.probes >= 2, "of at least 2, as fewer see no skew part"),
            "noise": (self.noise >= 0, "of at least 0"),
            "samples": (self.samples >= 1, "of at least 1"),
        }
        check_fields(self, checks)

    @property
    def complex_nudges(self) -> bool:
        return self.stencil.holomorphic

    def on_device(self, device: Device) -> "CalibratedAsymmetric":
        """**Raises:** `ValueError` for errors of measurement, which belong in `noise`."""
        if device.reading is not None:
            raise ValueError(
                "CalibratedAsymmetric reads with errors of its own: set noise, and take the substrate's errors of "
                "measurement away, or use FiniteNudge."
            )
        return dataclasses.replace(self, relaxation=device.relaxation or self.relaxation)

    def check(self, network: AbstractNetwork) -> None:
        require_holomorphic(self, network)

    def error(self, example: Example, free: Solution, *, key: PRNGKeyArray | None = None) -> Error:
        relax_key, probe_key = (None, None) if key is None else jax.random.split(key)
        current = self.current(example.field, example.field.rates(free.state), key=probe_key)
        delta, nudged = relax_corrected(self.stencil, self.relaxation, example, current, free, relax_key)
        return Error(free.state, delta, *summed(nudged))

    def current(self, field: Field, s: AnyState, *, key: PRNGKeyArray | None = None) -> Drift:
        """`v ↦ K̂ v`, measured at the rates `s`.

        **Raises:** `ValueError` for more probes than neurons, and without a key if anything is random.
        """
        flat, unravel = ravel_pytree(s)
        n = flat.size
        count = n if self.probes is None else self.probes
        if count > n:
            raise ValueError(f"probes is {count}, but the network has {n} neurons; expected at most as many, or None.")
        exact = count == n and _tree.is_concrete(self.noise) and self.noise == 0
        if key is None and not exact:
            raise ValueError("CalibratedAsymmetric draws probes and noise: pass a key, as in respond(..., key=key).")
        draw, read = jax.random.split(jax.random.key(0) if key is None else key)
        # All directions together are as good as any other basis, since white noise looks alike in all of them.
        q = jnp.eye(n, dtype=flat.dtype)
        if count < n:
            q = jnp.linalg.qr(jax.random.normal(draw, (n, count), flat.dtype))[0]
        weight = jnp.ones(n, flat.dtype)
        if (metric := field.network.metric) is not None:
            weight = ravel_pytree({name: jnp.full_like(leaf, metric[name]) for name, leaf in s.items()})[0]
        root = jnp.sqrt(jnp.abs(weight))
        out, amplitude = jnp.sign(weight) * root, jnp.sqrt(n / jnp.mean(1 / jnp.abs(weight)))
        product, _ = field.jacobian(s)
        forward = jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0], in_axes=1, out_axes=1)
        noise = self.noise / self.samples**0.5 * jax.random.normal(read, q.shape, flat.dtype)
        y = forward(q / root[:, None]) + noise / amplitude  # readings over the amplitude of the probes
        c = _tree.product(q.T, out[:, None] * y)
        left, right = q / out[:, None], root[:, None] * q

        def current(v: AnyState) -> AnyState:
            seen = _tree.product(ravel_pytree(v)[0][None], right)
            return unravel(_tree.product(_tree.product(seen, c - c.T), left.T)[0])

        return current
