"""Rules that turn gradients of kernels into updates that a pair of kernels can compute in place."""

from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import Array, PyTree

from eqprop import _tree
from eqprop.model import Model


def same_update(model: Model) -> optax.GradientTransformation:
    """Both kernels of every reciprocal pair get the mean of their two gradients:

        ΔK, ΔBᵀ  ←  ½ (ΔK + ΔBᵀ),

    so that with weight decay `K − Bᵀ` decays to zero and the pair aligns, whatever it learns. It stands before the rule
    and its decay, as in `optax.chain(same_update(model), optax.adamw(1e-3, weight_decay=0.1))`: the two kernels have
    equal gradients then, and equal moments. The gradient of homeostasis is opposite in the two and is averaged away.

    **Arguments:** `model`: whose parameters are updated; only its structure is used.

    Kolen & Pollack (1994); for equilibrium propagation Laborieux et al. (2021).

    **Raises:** `ValueError` for a network without reciprocal pairs of kernels.
    """
    if not model.network.reciprocal_pairs():
        raise ValueError(
            f"same_update averages over reciprocal pairs of kernels, of which {type(model.network).__name__} has none. "
            "Use DenseNetwork.chain or a ConvNetwork that is not tied."
        )
    structure = eqx.filter(model, eqx.is_inexact_array, inverse=True)

    def difference(updates: Model) -> list[Array]:
        pairs = eqx.combine(updates, structure).network.reciprocal_pairs()
        return [forward - feedback for forward, feedback in pairs]

    def averaged(updates: Model, params: Any) -> PyTree:
        del params
        # With D the difference of the two kernels of every pair, D Dᵀ = 2, and 1 − ½ Dᵀ D takes their mean.
        (antisymmetric,) = jax.linear_transpose(difference, updates)(difference(updates))
        return _tree.subtract(updates, _tree.scale(0.5, antisymmetric))

    return optax.stateless(averaged)  # pyright: ignore[reportArgumentType]
