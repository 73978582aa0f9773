"""Updates of scale-invariant kernels without their radial component."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree


def tangential(delta: float = 0.1) -> optax.GradientTransformationExtraArgs:
    """The update of a kernel `w` whose loss does not depend on the length of `w` loses its radial component:

        p ← p − ⟨p, ŵ⟩ ŵ,      ŵ = w/‖w‖,      where |cos(g, w)| < delta/√dim.

    The gradient `g` of such a kernel is perpendicular to it, and that is how it is recognised. Momentum is not
    perpendicular, makes the kernel longer at every step, and shortens the effective step with it.

    The rule looks at every channel first. The last axis counts the channels `w_c`, each of `dim` numbers. Every channel
    is projected on its own if the largest `|cos(g_c, w_c)|` is below `delta/√dim`. Otherwise the kernel is projected as
    one vector, with its whole size as `dim`, if its cosine is below the bound. Otherwise the update passes.

    Parameters with fewer than two axes pass. The feedback kernels of a `ConvNetwork` are kept in the orientation of
    their forward partners, so that their channels are those of the partners. Weight decay is not changed by the rule,
    and stands after it.

    It stands behind the rule whose updates it projects, as in `optax.chain(optax.scale_by_adam(), tangential(),
    optax.scale(-1e-3))`. Its `update` takes the gradient as `grad=`; `Trainer` gives it. Updates, gradient and
    parameters have one structure and the same shapes.

    AdamP and SGDP, Heo et al. (ICLR 2021, arXiv 2006.08217).

    **Arguments:** `delta`: the bound on the cosine in units of `1/√dim`, which is about the cosine of two random
    vectors.

    **Raises:** `ValueError` for a `delta` that is not above 0, and, from `update`, without parameters or gradient.
    """
    if not delta > 0:
        raise ValueError(f"delta is {delta}; expected a number above 0 (0.1: the published one).")

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[PyTree, Any]:
        gradient = extra.get("grad")
        if params is None or gradient is None:
            raise ValueError(
                "tangential compares the gradient with the parameters: pass update(updates, state, params, "
                "grad=gradient)."
            )
        return jax.tree.map(lambda p, g, w: _projected(p, g, w, delta), updates, gradient, params), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _projected(change: Array, gradient: Array, weight: Array, delta: float) -> Array:
    """The change of one parameter."""
    if weight.ndim < 2:
        return change
    by_channel, as_one = [
        _views(change, gradient, weight, shape, delta) for shape in ((-1, weight.shape[-1]), (weight.size, 1))
    ]
    chosen = jnp.where(as_one[0], as_one[1], change)
    return jnp.where(by_channel[0], by_channel[1], chosen)


def _views(
    change: Array, gradient: Array, weight: Array, shape: tuple[int, int], delta: float
) -> tuple[Bool[Array, ""], Float[Array, "..."]]:
    """Whether the columns of a kernel in that shape count as scale-invariant, and the change perpendicular to them.

    A column that is zero has no direction: it counts as perpendicular, and nothing is taken from its change.
    """
    p, g, w = (v.reshape(shape) for v in (change, gradient, weight))
    unit = _unit(w)
    cosines = jnp.abs(jnp.sum(_unit(g) * unit, axis=0))
    tangent = p - unit * jnp.sum(p * unit, axis=0, keepdims=True)
    return jnp.max(cosines, initial=0.0) < delta / math.sqrt(max(w.shape[0], 1)), tangent.reshape(change.shape)


def _unit(v: Float[Array, "dim channels"]) -> Float[Array, "dim channels"]:
    """Every column over its length; one of zeros stays."""
    length = jnp.linalg.norm(v, axis=0, keepdims=True)
    return v / jnp.where(length > 0, length, 1.0)
