"""Analytic activations `s = σ(u)`, element by element.

Only functions that continue analytically to complex potentials belong here: finite nudges on a
complex circle need them. A rectifier is a network's business, with `holomorphic = False`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact


def _logistic(z: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    # ½(1 + tanh(z/2)) does not overflow on either side, for complex z as well.
    return 0.5 * (1.0 + jnp.tanh(0.5 * z)) if jnp.iscomplexobj(z) else jax.nn.sigmoid(z)


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
    return jnp.tanh(u)


def linear(u: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """`σ(u) = u`: entire; the fixed point then solves a linear system."""
    return u
