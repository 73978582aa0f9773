"""Where to nudge, and how to turn the answers into a derivative."""

import cmath
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from eqprop import _tree
from eqprop._tree import AnyState

Strength = float | int | np.number | Float[Array, ""]
"""Of a nudge: a number, or an array where a program is compiled for many."""


class Stencil(eqx.Module):
    """Nodes `βₖ` and weights `wₖ` with `Re Σ wₖ (g(βₖ) − g(0)) ≈ g′(0)` for analytic `g`, real on the real axis.

    Real nodes come first: they are relaxed in real arithmetic. Of a circle only the upper half is kept, since
    `g(β̄)` is the conjugate of `g(β)`; the weights of its interior are doubled.
    """

    nodes: Inexact[Array, " nodes"]
    weights: Inexact[Array, " nodes"]
    num_real: int = eqx.field(static=True)
    """The first `num_real` nodes are real."""
    num_points: int = eqx.field(static=True)
    """Points on the full circle, `N`: the cost in real relaxations."""

    @property
    def holomorphic(self) -> bool:
        """Whether some nodes are complex, so that the network must be analytic."""
        return self.nodes.shape[0] > self.num_real

    def derivative(self, values: AnyState, origin: AnyState | None = None) -> AnyState:
        """`Re Σ wₖ (g(βₖ) − g(0))`.

        **Arguments:**

        - `values`: `g` at the nodes, along a leading axis.
        - `origin`: `g(0)`. The weights of two points or more sum to zero, so that it only takes away rounding
            there; one point needs it.

        **Raises:** `ValueError` for one point without `origin`.
        """
        if origin is None:
            if self.num_points == 1:
                raise ValueError("A one-sided stencil needs g(0): pass it as origin.")
            origin = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0].real), values)

        def combine(leaf: Array, zero: Array) -> Array:
            change = leaf - zero[None].astype(leaf.dtype)
            dtype = jnp.promote_types(leaf.dtype, self.weights.dtype)
            weights = self.weights.astype(dtype).reshape(-1, *[1] * zero.ndim)
            return jnp.sum((weights * change.astype(dtype)).real, axis=0)

        return jax.tree.map(combine, values, origin)


def one_sided(beta: Strength) -> Stencil:
    """`(g(β) − g(0))/β`, with error `O(β)`: `cauchy(beta, 1)`."""
    return cauchy(beta, 1)


def centred(beta: Strength) -> Stencil:
    """`(g(β) − g(−β))/2β`, with error `O(β²)`: `cauchy(beta, 2)`."""
    return cauchy(beta, 2)


def cauchy(radius: Strength, num_points: int) -> Stencil:
    """The trapezoidal rule for Cauchy's integral on the circle of that radius:

        g′(0) = 1/(2πi) ∮ g(β)/β² dβ ≈ (1/N) Σₖ g(βₖ)/βₖ,      βₖ = r e^{2πik/N}.

    The error is `O(r^N)`, and falls as `(r/R)^N` within the radius of convergence `R`. A negative radius turns the
    circle by half a turn. Holomorphic equilibrium propagation, Laborieux & Zenke (NeurIPS 2022).

    **Raises:** `ValueError` if `num_points < 1`, or the radius is known to be zero, not finite, or so small that its
    inverse is not.
    """
    if num_points < 1:
        raise ValueError(
            f"num_points is {num_points}; a stencil has at least one point. "
            "2 is the centred difference, 4 or 6 removes nearly all bias of the finite nudge."
        )
    _check_strength("radius", radius)
    halves = [k for k in range(num_points // 2 + 1) if 2 * k in (0, num_points)]
    interior = [k for k in range(1, num_points // 2 + 1) if 2 * k < num_points]
    phases = [math.cos(2 * math.pi * k / num_points) for k in halves]
    phases += [cmath.exp(2j * math.pi * k / num_points) for k in interior]
    counts = [1.0] * len(halves) + [2.0] * len(interior)
    weights = [count / (num_points * phase) for count, phase in zip(counts, phases, strict=True)]
    dtype = complex if interior else float
    scale = jnp.asarray(radius, float).astype(dtype)  # a traced radius or a NumPy number serves as well
    return Stencil(
        nodes=scale * jnp.asarray(phases, dtype),
        weights=jnp.asarray(weights, dtype) / scale,
        num_real=len(halves),
        num_points=num_points,
    )


def chebyshev(beta: Strength, num_points: int) -> Stencil:
    """A real stencil of even `num_points` at the extrema of the Chebyshev polynomial of degree `K = num_points − 1`,

        βⱼ = β cos(jπ/K),   j = 0 … K,

    with the weights of the interpolating polynomial's derivative: exact up to degree `K`, with error `O(β^(K+1))`. For
    devices that cannot be nudged in the complex plane. `β Σ |wⱼ| = K`, the least of all real nodes within `± β`
    (Bernstein's inequality): noise grows with the order, as it does not on a circle. Two points are `centred`.

    **Raises:** `ValueError` if `num_points` is odd or below two, or for `beta` as `cauchy` for its radius.
    """
    if num_points < 2 or num_points % 2:
        raise ValueError(f"num_points is {num_points}; expected an even number, as odd ones nudge by 0.")
    _check_strength("beta", beta)
    order = num_points - 1
    x = [math.cos(math.pi * j / order) for j in range(num_points)]
    barycentric = [(-1.0) ** j * (0.5 if j in (0, order) else 1.0) for j in range(num_points)]
    # Of Lagrange's polynomials in their barycentric form; the second sum of the quotient rule vanishes by symmetry.
    total = math.fsum(b / v for b, v in zip(barycentric, x, strict=True))
    weights = [b / (v**2 * total) for b, v in zip(barycentric, x, strict=True)]
    scale = jnp.asarray(beta, float)
    return Stencil(
        nodes=scale * jnp.asarray(x, float),
        weights=jnp.asarray(weights, float) / scale,
        num_real=num_points,
        num_points=num_points,
    )


def _check_strength(name: str, strength: Strength) -> None:
    if not _tree.is_concrete(strength):
        return
    dtype = jax.dtypes.canonicalize_dtype(float)  # of nodes and weights
    tiny = np.finfo(dtype).tiny
    size = np.abs(np.asarray(strength, dtype))
    # Numbers below the normal ones, of which some have no finite inverse, are zero to a compiled program.
    if np.all((tiny <= size) & (size <= 1 / tiny)):
        return
    raise ValueError(
        f"The {name} is {strength}; a nudge has a finite strength other than zero, and a finite inverse in {dtype}. "
        "Take 0.05 to 1, or TangentResponse for the limit of an infinitesimal nudge."
    )
