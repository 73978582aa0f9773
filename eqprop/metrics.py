"""Diagnostics as pure functions: of error vectors, of weights, of predictions, of relaxations."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, Scalar

from eqprop import _tree
from eqprop._tree import AnyState
from eqprop.network.base import AbstractNetwork, Field


def cosine(a: PyTree, b: PyTree) -> Float[Array, ""]:
    """`⟨a, b⟩ / ‖a‖‖b‖` of two states or gradients; NaN if one of them vanishes and has no direction."""
    a, b = _unit(a), _unit(b)
    return _tree.dot(a, b) / (_tree.norm(a) * _tree.norm(b))


def _unit(a: PyTree) -> PyTree:
    """`a` over its largest number, as squares of small ones would be lost."""
    return _tree.scale(1 / _tree.max_norm(a), a)


def layer_cosines(estimate: AnyState, reference: AnyState, read: Sequence[str]) -> dict[str, Float[Array, ""]]:
    """Cosine of two error vectors for each layer, and under `"hidden"` over all layers but those that are `read`.

    The output layer dominates the norm and is aligned by construction: look at the hidden layers.
    """
    cosines = {name: cosine(estimate[name], reference[name]) for name in reference}
    hidden = [name for name in reference if name not in read]
    if hidden:
        cosines["hidden"] = cosine({k: estimate[k] for k in hidden}, {k: reference[k] for k in hidden})
    return cosines


def weight_angle(network: AbstractNetwork) -> Scalar:
    """Degrees between all forward kernels that have a feedback partner and their partners, pooled.

    **Raises:** `ValueError` for a network without reciprocal pairs of kernels.
    """
    pairs = network.reciprocal_pairs()
    if not pairs:
        raise ValueError(f"{type(network).__name__} has no reciprocal pairs of kernels to compare.")
    forward, feedback = [list(kernels) for kernels in zip(*pairs, strict=True)]
    return jnp.degrees(jnp.arccos(jnp.clip(cosine(forward, feedback), -1.0, 1.0)))


def functional_asymmetry(field: Field, u: AnyState, *, key: PRNGKeyArray | None = None, num_probes: int = 16) -> Scalar:
    """`‖Â − Âᵀ‖_F / (‖Â − Âᵀ‖_F + ‖Â + Âᵀ‖_F)` of `Â = m^½ A m^−½`, `A = ∂drive/∂s` in the metric of the network: 0
    symmetric, also where there is no recurrence at all; about ½ independent; 1 antisymmetric.

    Exact where the network has them in closed form; otherwise from random signs at the potentials `u`, both norms from
    the same probes.

    **Raises:** `ValueError` if probes are needed and no `key` is given.
    """
    return asymmetry(*symmetry_norms(field, u, key=key, num_probes=num_probes))


def asymmetry(plus: Float[Array, ""], minus: Float[Array, ""]) -> Float[Array, ""]:
    """`√minus / (√minus + √plus)` of the squared norms of `Â ± Âᵀ`; 0 if both vanish."""
    total = jnp.sqrt(plus) + jnp.sqrt(minus)
    return jnp.where(total > 0, jnp.sqrt(minus) / jnp.where(total > 0, total, 1.0), 0.0)


def symmetry_norms(
    field: Field, u: AnyState, *, key: PRNGKeyArray | None = None, num_probes: int = 16
) -> tuple[Scalar, Scalar]:
    """`(‖Â + Âᵀ‖_F², ‖Â − Âᵀ‖_F²)`, exact or from probes as in `functional_asymmetry`.

    **Raises:** `ValueError` if probes are needed and no `key` is given.
    """
    network = field.network
    if (exact := network.symmetry_norms()) is not None:
        return exact
    if key is None:
        raise ValueError(f"{type(network).__name__} is probed at random: pass functional_asymmetry(..., key=key).")
    s = field.rates(u)
    forward, transposed = field.metric_jacobian(s)

    def norms(k: PRNGKeyArray) -> tuple[Array, Array]:
        probe = _tree.noise_like(s, k, jax.random.rademacher)
        there, back = forward(probe), transposed(probe)
        sum_, difference = _tree.add(there, back), _tree.subtract(there, back)
        return _tree.dot(sum_, sum_), _tree.dot(difference, difference)

    plus, minus = jax.vmap(norms)(jax.random.split(key, num_probes))
    return jnp.mean(plus), jnp.mean(minus)


def forgetting(accuracies: Float[np.ndarray, "tasks tasks"]) -> float:
    """How much of earlier tasks is lost at the end: the best accuracy on a task before, minus that at the end, averaged
    over all tasks but the last.

    Chaudhry et al. (2018).

    **Arguments:** `accuracies`: after task `i`, on task `j`.

    **Raises:** `ValueError` for fewer than two tasks.
    """
    if len(accuracies) < 2:
        raise ValueError(f"There are the accuracies of {len(accuracies)} task; expected two at least.")
    return float(np.mean(np.max(accuracies[:-1, :-1], axis=0) - accuracies[-1, :-1]))


def mean_accuracy(accuracies: Float[np.ndarray, "tasks tasks"]) -> float:
    """The mean accuracy over all tasks at the end; `accuracies` as for `forgetting`."""
    return float(np.mean(accuracies[-1]))


def residual_quantiles(residuals: Float[Array, " batch"]) -> dict[str, Float[Array, ""]]:
    """Median, 90 % quantile and maximum of the residuals `max |F(u)|` of a batch."""
    return {
        "residual_median": jnp.median(residuals),
        "residual_q90": jnp.quantile(residuals, 0.9),
        "residual_max": jnp.max(residuals),
    }


def mean(values: Float[Array, " batch"], usable: Bool[Array, " batch"]) -> Scalar:
    """The mean over usable examples, zero if there is none."""
    return jnp.sum(jnp.where(usable, values, 0.0)) / jnp.maximum(jnp.sum(usable, dtype=values.dtype), 1.0)
