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

    All nodes relax as one state, in real arithmetic if they are real. Of a circle only the upper half is kept, since
    `g(β̄)` is the conjugate of `g(β)`; the weights of its interior are doubled.
    """

    nodes: Inexact[Array, " nodes"]
    weights: Inexact[Array, " nodes"]
    num_points: int = eqx.field(static=True)
    """Points on the full circle, `N`."""

    @property
    def holomorphic(self) -> bool:
        """Whether the nodes are complex, so that the network must be analytic."""
        return jnp.iscomplexobj(self.nodes)

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
    """`(g(β) − g(0))/β`, with error `O(β)`: the real nudge of the first equilibrium propagation."""
    return _real("beta", beta, [1.0], [1.0])


def centred(beta: Strength) -> Stencil:
    """`(g(β) − g(−β))/2β`, with error `O(β²)`."""
    return _real("beta", beta, [1.0, -1.0], [0.5, -0.5])


def cauchy(beta: Strength, num_points: int, *, on_axis: bool = False) -> Stencil:
    """The trapezoidal rule for Cauchy's integral on the circle of radius `r = beta`:

        g′(0) = 1/(2πi) ∮ g(β)/β² dβ ≈ (1/N) Σₖ g(βₖ)/βₖ,      βₖ = r e^{iπ(2k+1)/N}.

    The error is `O(r^N)`, and falls as `(r/R)^N` within the radius of convergence `R`. The nodes are turned by half a
    step from the published `r e^{2πik/N}`, which `on_axis` brings back: for even `N` none is real, where branches of
    the fixed point meet, and `N/2` complex nodes cost `N` real relaxations. One and two points on the axis are the
    real nudges `one_sided` and `centred`. Holomorphic equilibrium propagation, Laborieux & Zenke (NeurIPS 2022).

    **Raises:** `ValueError` if `num_points < 1`, or `beta` is known to be zero, not finite, or so small that its
    inverse is not.
    """
    if num_points < 1:
        raise ValueError(
            f"num_points is {num_points}; a stencil has at least one point. "
            "2 is the centred difference, 4 or 6 removes nearly all bias of the finite nudge."
        )
    if num_points == 1 or (on_axis and num_points == 2):
        return one_sided(beta) if num_points == 1 else centred(beta)
    _check_strength("beta", beta)
    # In half steps from the positive axis; conjugates of those above the axis are left out.
    halves = range(0 if on_axis else 1, num_points + 1, 2)
    phases = [-1.0 if half == num_points else cmath.exp(1j * math.pi * half / num_points) for half in halves]
    counts = [1.0 if half in (0, num_points) else 2.0 for half in halves]
    scale = jnp.asarray(beta, float).astype(complex)  # a traced strength or a NumPy number serves as well
    weights = [count / (num_points * phase) for count, phase in zip(counts, phases, strict=True)]
    return Stencil(scale * jnp.asarray(phases, complex), jnp.asarray(weights, complex) / scale, num_points)


def chebyshev(beta: Strength, num_points: int) -> Stencil:
    """A real stencil of even `num_points` at the extrema of the Chebyshev polynomial of degree `K = num_points − 1`,

        βⱼ = β cos(jπ/K),   j = 0 … K,

    with the weights of the interpolating polynomial's derivative: exact up to degree `K`, with error `O(β^(K+1))`. For
    devices that cannot be nudged in the complex plane. `β Σ |wⱼ| = K`, the least of all real nodes within `± β`
    (Bernstein's inequality): noise grows with the order, as it does not on a circle. Two points are `centred`.

    **Raises:** `ValueError` if `num_points` is odd or below two, or for `beta` as `cauchy`.
    """
    if num_points < 2 or num_points % 2:
        raise ValueError(f"num_points is {num_points}; expected an even number, as odd ones nudge by 0.")
    order = num_points - 1
    x = [math.cos(math.pi * j / order) for j in range(num_points)]
    barycentric = [(-1.0) ** j * (0.5 if j in (0, order) else 1.0) for j in range(num_points)]
    # Of Lagrange's polynomials in their barycentric form; the second sum of the quotient rule vanishes by symmetry.
    total = math.fsum(b / v for b, v in zip(barycentric, x, strict=True))
    weights = [b / (v**2 * total) for b, v in zip(barycentric, x, strict=True)]
    return _real("beta", beta, x, weights)


def _real(name: str, strength: Strength, nodes: list[float], weights: list[float]) -> Stencil:
    _check_strength(name, strength)
    scale = jnp.asarray(strength, float)
    return Stencil(scale * jnp.asarray(nodes, float), jnp.asarray(weights, float) / scale, len(nodes))


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
