"""Analytic activations `s = σ(u)`, element by element.

Only functions that continue analytically to complex potentials belong here: finite nudges on a
complex circle need them. A rectifier is a network's business, with `holomorphic = False`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Inexact


def _complex_tanh(z: Complex[Array, "..."]) -> Complex[Array, "..."]:
    """`tanh(a + ib) = (sinh 2a + i sin 2b) / (cosh 2a + cos 2b)`, each term divided by `e^{2|a|}`.

    Three real transcendental functions, and it overflows nowhere.
    """
    a, b = 2.0 * z.real, 2.0 * z.imag
    side = jnp.where(a < 0.0, -1.0, 1.0).astype(a.dtype)  # not `sign`: the slope at a = 0 is needed too
    t = jnp.exp(-side * a)
    scale = 1.0 / (0.5 * (1.0 + t * t) + t * jnp.cos(b))
    return jax.lax.complex(0.5 * side * (1.0 - t) * (1.0 + t) * scale, t * jnp.sin(b) * scale)


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
