"""Diagnostics as pure functions: of error vectors, of weights, of predictions, of relaxations."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, Scalar

from eqprop import _tree
from eqprop._tree import AnyState
from eqprop.network.base import AbstractLinearNetwork, AbstractNetwork
from eqprop.readout import Target


def cosine(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """`⟨a, b⟩ / ‖a‖‖b‖` of two states or gradients; 0 if one of them vanishes."""
    lengths = _tree.norm(a) * _tree.norm(b)
    return jnp.where(lengths > 0, _tree.dot(a, b) / jnp.where(lengths > 0, lengths, 1.0), 0.0)


def layer_cosines(estimate: AnyState, reference: AnyState, readout_layer: str) -> dict[str, Float[Array, ""]]:
    """Cosine of two error vectors for each layer, and under `"hidden"` over all layers but the one read out.

    The output layer dominates the norm and is aligned by construction: look at the hidden layers.
    """
    cosines = {name: cosine(estimate[name], reference[name]) for name in reference}
    hidden = [name for name in reference if name != readout_layer]
    if hidden:
        cosines["hidden"] = cosine({k: estimate[k] for k in hidden}, {k: reference[k] for k in hidden})
    return cosines


def reciprocal_pairs(network: AbstractNetwork) -> list[tuple[Array, Array]]:
    """Forward kernels with their feedback partners, in one orientation; none for a network of another kind."""
    pairs = getattr(network, "reciprocal_pairs", None)
    return [] if pairs is None else pairs()


def weight_angle(network: AbstractNetwork) -> Scalar:
    """Degrees between all forward kernels that have a feedback partner and their partners, pooled.

    **Raises:** `ValueError` for a network without reciprocal pairs of kernels.
    """
    pairs = reciprocal_pairs(network)
    if not pairs:
        raise ValueError(f"{type(network).__name__} has no reciprocal pairs of kernels to compare.")
    forward, feedback = [list(kernels) for kernels in zip(*pairs, strict=True)]
    return jnp.degrees(jnp.arccos(jnp.clip(cosine(forward, feedback), -1.0, 1.0)))


def functional_asymmetry(
    network: AbstractNetwork, u: AnyState, *, key: PRNGKeyArray | None = None, num_probes: int = 16
) -> Scalar:
    """`‖A − Aᵀ‖_F / (‖A − Aᵀ‖_F + ‖A + Aᵀ‖_F)`, `A = ∂drive/∂s`: 0 symmetric, about ½ independent, 1 antisymmetric.

    Exact where `A` does not depend on the state; otherwise from random signs at the potentials `u`, both norms from
    the same probes.

    **Raises:** `ValueError` if probes are needed and no `key` is given.
    """
    if isinstance(network, AbstractLinearNetwork):
        plus, minus = network.symmetry_norms()
    else:
        if key is None:
            raise ValueError(f"{type(network).__name__} is probed at random: pass functional_asymmetry(..., key=key).")
        plus, minus = _probed_norms(network, u, key, num_probes)
    return jnp.sqrt(minus) / (jnp.sqrt(minus) + jnp.sqrt(plus))


def _probed_norms(network: AbstractNetwork, u: AnyState, key: PRNGKeyArray, num: int) -> tuple[Array, Array]:
    s = network.rates(u)
    _, transposed = jax.vjp(network.drive, s)
    leaves, structure = jax.tree.flatten(s)

    def norms(k: PRNGKeyArray) -> tuple[Array, Array]:
        keys = jax.random.split(k, len(leaves))
        noise = [jax.random.rademacher(q, leaf.shape, leaf.dtype) for q, leaf in zip(keys, leaves, strict=True)]
        probe = jax.tree.unflatten(structure, noise)
        forward, back = jax.jvp(network.drive, (s,), (probe,))[1], transposed(probe)[0]
        sum_, difference = _tree.add(forward, back), _tree.subtract(forward, back)
        return _tree.dot(sum_, sum_), _tree.dot(difference, difference)

    plus, minus = jax.vmap(norms)(jax.random.split(key, num))
    return jnp.mean(plus), jnp.mean(minus)


def correct(scores: Float[Array, " classes"], y: Target, k: int = 1) -> Bool[Array, ""]:
    """Whether the class of `y` is among the `k` highest scores; ties count against it.

    Scores that are not finite are never correct.
    """
    label = y if jnp.issubdtype(y.dtype, jnp.integer) else jnp.argmax(y)
    rivals = jnp.sum(scores >= scores[label]) - 1
    return (rivals < k) & jnp.all(jnp.isfinite(scores))


def residual_quantiles(residuals: Float[Array, " batch"]) -> dict[str, Float[Array, ""]]:
    """Median, 90 % quantile and maximum of the residuals `‖F(u)‖₂` of a batch."""
    return {
        "residual_median": jnp.median(residuals),
        "residual_q90": jnp.quantile(residuals, 0.9),
        "residual_max": jnp.max(residuals),
    }
