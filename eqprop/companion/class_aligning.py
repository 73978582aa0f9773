"""Weights of new classes brought to the size of those of old ones."""

from collections.abc import Iterable

import equinox as eqx
import jax.numpy as jnp

from eqprop.readout import SoftmaxReadout


def align_classes(readout: SoftmaxReadout, old: Iterable[int], new: Iterable[int]) -> SoftmaxReadout:
    """The readout with the weight vectors of new classes times one factor:

        R_k ← γ R_k for k in new,      γ = mean ‖R_j‖ over old / mean ‖R_k‖ over new.

    Here `R_k`, of shape `(features,)`, is the column of class `k` in the kernel `(features, classes)`. A readout that
    was last trained on new classes has longer vectors for them, and prefers them. The factor makes the mean lengths
    equal. It leaves the directions of the vectors, and their ratios within the new classes. Biases and other classes
    stay. If the weights of all new classes are zero, they stay too.

    It is applied once, after training on the new classes.

    Weight aligning, Zhao et al. (CVPR 2020, arXiv 1911.07053).

    **Arguments:** `old`, `new`: numbers of classes, counted from 0.

    **Raises:** `ValueError` for no old or no new classes, for a class that is named twice, and for a class that the
    readout does not have.
    """
    old, new = list(old), list(new)
    classes = readout.kernel.shape[1]
    if not old or not new:
        raise ValueError(f"old is {old} and new is {new}; expected at least one class in each.")
    if len({*old, *new}) < len(old) + len(new):
        raise ValueError(f"old is {old} and new is {new}; expected every class once, in one of the two.")
    if not 0 <= min(old + new) <= max(old + new) < classes:
        raise ValueError(f"old is {old} and new is {new}; expected classes from 0 to {classes - 1}.")
    lengths = jnp.linalg.norm(readout.kernel, axis=0)
    target, present = (jnp.mean(lengths[jnp.array(group)]) for group in (old, new))
    factor = jnp.where(present > 0, target / jnp.where(present > 0, present, 1.0), 1.0)
    kernel = readout.kernel.at[:, jnp.array(new)].multiply(factor)
    return eqx.tree_at(lambda r: r.kernel, readout, kernel)
