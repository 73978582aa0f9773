"""Activations `s = σ(u)`, element by element.

Finite nudges on a complex circle need functions that continue analytically to complex potentials, as those in
`ANALYTIC`. A network may have any other, and says whether it is analytic.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Inexact


def _complex_tanh(z: Complex[Array, "..."]) -> Complex[Array, "..."]:
    """`tanh(a + ib) = (sinh 2a + i sin 2b) / (cosh 2a + cos 2b)`, each term divided by `e^{2|a|}`.

    It overflows nowhere.
    """
    a, b = 2.0 * z.real, 2.0 * z.imag
    side = jnp.where(a < 0.0, -1.0, 1.0).astype(a.dtype)  # not `sign`: the slope at a = 0 is needed too
    t = jnp.exp(-side * a)
    sine, cosine = _sine_and_cosine(b)
    scale = 1.0 / (0.5 * (1.0 + t * t) + t * cosine)
    return jax.lax.complex(0.5 * side * (1.0 - t) * (1.0 + t) * scale, t * sine * scale)


def _sine_and_cosine(b: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """`sin b`, `cos b`. In float32 by polynomials on `|b − kπ/2| ≤ π/4`, to two units of rounding up to `|b| = 10³`:
    XLA's own on a CPU take most of the time of an activation.

    Coefficients: Cephes, S. L. Moshier (1989), `sinf.c`.
    """
    if b.dtype != jnp.float32:
        return jnp.sin(b), jnp.cos(b)
    k = jnp.round(b * (2.0 / math.pi))
    r = ((b - k * 1.5703125) - k * 4.837512969970703e-4) - k * 7.549789954891882e-8  # π/2 in three parts
    z = r * r
    s = r + r * z * (-1.6666654611e-1 + z * (8.3321608736e-3 - z * 1.9515295891e-4))
    c = 1.0 - 0.5 * z + z * z * (4.166664568298827e-2 + z * (-1.388731625493765e-3 + z * 2.443315711809948e-5))
    quarter = k.astype(jnp.int32)
    odd, back, left = quarter % 2 != 0, quarter & 2 != 0, (quarter + 1) & 2 != 0
    sine, cosine = jnp.where(odd, c, s), jnp.where(odd, s, c)
    return jnp.where(back, -sine, sine), jnp.where(left, -cosine, cosine)


def _logistic(z: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    return 0.5 * (1.0 + _complex_tanh(0.5 * z)) if jnp.iscomplexobj(z) else jax.nn.sigmoid(z)


def shifted_sigmoid(u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """`σ(u) = 1/(1 + exp(2 − 4u))`: slope 1 at `u = ½`, rates in (0, 1). Poles at `½ ± iπ/4 (2k+1)`.

    Laborieux & Zenke (ICLR 2024), dense networks.
    """
    return _logistic(4.0 * u - 2.0)


def dsilu(u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """`σ(u) = ½ u λ(u) + (1 − ½u) λ(u − 2)`, `λ` the logistic function: from 0 to 1, centred at 1.

    Laborieux & Zenke (ICLR 2024), convolutional networks.
    """
    return 0.5 * u * _logistic(u) + (1.0 - 0.5 * u) * _logistic(u - 2.0)


def tanh(u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """`σ(u) = tanh u`. Poles at `± iπ/2`."""
    return _complex_tanh(u) if jnp.iscomplexobj(u) else jnp.tanh(u)


def linear(u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """`σ(u) = u`: entire; the fixed point then solves a linear system."""
    return u


def clipped_relu(u: Float[Array, "..."]) -> Float[Array, "..."]:
    """`σ(u) = min(max(u, 0), 1)`. Not analytic: for nudges on the real axis."""
    return jnp.clip(u, 0.0, 1.0)


def hard_sigmoid(u: Float[Array, "..."]) -> Float[Array, "..."]:
    """`σ(u) = min(max(u/2, 0), 1)`: slope ½ from 0 to 2, centred at 1. Not analytic: for nudges on the real axis.

    Laborieux et al. (2021), convolutional networks.
    """
    return jnp.clip(0.5 * u, 0.0, 1.0)


ANALYTIC = frozenset({shifted_sigmoid, dsilu, tanh, linear})
"""The activations that are known to be analytic, and to be computed so."""
