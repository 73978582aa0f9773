"""An optax optimiser from a configuration: rule, schedule, clipping, multipliers by parameter."""

from collections.abc import Callable, Mapping
from functools import partial

import equinox as eqx
import jax
import optax
from jaxtyping import PyTree


def make_optimiser(
    model: PyTree,
    schedule: optax.Schedule,
    *,
    rule: Callable[..., optax.GradientTransformation],
    learning_rate: float,
    clip_norm: float | None = None,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    multipliers: Mapping[str, float | int] | None = None,
    decay_multipliers: Mapping[str, float | int] | None = None,
) -> optax.GradientTransformation:
    """Clip, add the coupled weight decay, apply the rule, multiply by layer; in that order.

    **Arguments:**

    - `model`: whose parameters `multipliers` name, such as `in-l1`, `readout`, `biases`.
    - `schedule`: of the learning rate, one value an update, relative to `learning_rate`.
    - `rule`: `learning_rate ↦` an optax transformation, such as `optax.adamw`.
    - `clip_norm`: longest gradient, over all parameters.
    - `weight_decay`: times a parameter, added to its gradient before momentum, as published for convolutional networks.
    - `decoupled`: whether the rule takes the weight decay instead, as `optax.adamw` does.

    **Raises:** `ValueError` for a multiplier that names no parameter, or for decay by parameter that is decoupled.
    """
    if decoupled and decay_multipliers:
        raise ValueError("decay_multipliers go with coupled weight decay: set optimiser.decoupled=false.")
    if decoupled:
        rule, weight_decay = partial(rule, weight_decay=weight_decay), 0.0
    parts = [
        optax.clip_by_global_norm(clip_norm) if clip_norm else None,
        optax.add_decayed_weights(weight_decay) if weight_decay and not decay_multipliers else None,
        _decay_by_layer(model, weight_decay, decay_multipliers) if weight_decay and decay_multipliers else None,
        rule(learning_rate=lambda step: learning_rate * schedule(step)),
        _scale_by_layer(model, multipliers) if multipliers else None,
    ]
    return optax.chain(*(part for part in parts if part is not None))


def _scale_by_layer(model: PyTree, multipliers: Mapping[str, float | int]) -> optax.GradientTransformation:
    factors = _factors(model, multipliers)
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u, f: u * f, updates, factors))


def _decay_by_layer(
    model: PyTree, decay: float, multipliers: Mapping[str, float | int]
) -> optax.GradientTransformation:
    factors = _factors(model, multipliers)
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda u, p, f: u + decay * f * p, updates, params, factors)
    )


def _factors(model: PyTree, multipliers: Mapping[str, float | int]) -> PyTree:
    """One factor a parameter: that of the name its path contains, else 1."""
    params = eqx.filter(model, eqx.is_inexact_array)
    paths = [set(_names(path)) for path, _ in jax.tree.leaves_with_path(params)]
    known = sorted(set().union(*paths))
    for name in multipliers:
        if name not in known:
            raise ValueError(
                f"The multiplier {name!r} names no parameter; there are {', '.join(known)}. Choose another optimiser, "
                "or set optimiser.multipliers={} and optimiser.decay_multipliers={}."
            )
    factors = [next((float(m) for name, m in multipliers.items() if name in path), 1.0) for path in paths]
    return jax.tree.unflatten(jax.tree.structure(params), factors)


def _names(path: tuple) -> list[str]:
    """The parts of a path; that of an edge is `a-b`."""
    parts = (entry.key if isinstance(entry, jax.tree_util.DictKey) else entry for entry in path)
    return ["-".join(part) if isinstance(part, tuple) else str(part).strip(".[]'") for part in parts]
