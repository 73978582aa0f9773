"""How well an estimator's error vectors agree with the true ones."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from eqprop import metrics
from eqprop._solution import RESULTS, Solution
from eqprop.estimator import AbstractErrorEstimator, RecurrentBackprop, Response
from eqprop.model import Model
from eqprop.relaxation import AbstractRelaxation

NUM_PROBES = 4
"""Of the functional asymmetry, for each example; all examples together average over a few hundred."""


def alignment(
    models: tuple[Model, Model],
    currents: PyTree,
    y: Array,
    free: Solution,
    estimator: AbstractErrorEstimator,
    *,
    reference: AbstractRelaxation,
    usable: Callable[[Response], Bool[Array, " batch"]],
    key: PRNGKeyArray,
) -> dict[str, Float[Array, ""]]:
    """Cosines, vanished share, asymmetry and weight angle, as `Trainer.alignment` documents them.

    **Arguments:** `models`: the network as it is, and with the errors of its nudge. `currents`: the embedded inputs.
    `free`: the free phase of the batch. `reference`: relaxes the truth. `usable`: from the responses, which examples
    take part in the gradient.
    """
    model, nudged = models
    read = model.readout.layers

    def compare(current: PyTree, y: Array, free: Solution, key: PRNGKeyArray):
        respond_key, probe_key = jax.random.split(key)
        response = estimator.respond(nudged.bind(current, y), free, key=respond_key)
        example = model.bind(current, y)
        settled = reference(example.field.drift, free.state, blocks=example.field.blocks)
        true = RecurrentBackprop(relaxation=reference).respond(example, settled)
        known = (settled.result == RESULTS.successful) & (true.result == RESULTS.successful)
        cosines = metrics.layer_cosines(response.payload, true.payload, read)
        norms = metrics.symmetry_norms(example.field, settled.state, key=probe_key, num_probes=NUM_PROBES)
        return cosines, response, known, norms

    keys = jax.random.split(key, y.shape[0])
    cosines, response, known, norms = eqx.filter_vmap(compare)(currents, y, free, keys)
    taken = known & usable(response)
    averages = {
        f"cosine_{name}": metrics.mean(values, taken & jnp.isfinite(values)) for name, values in cosines.items()
    }
    vanished = ~jnp.all(jnp.isfinite(jnp.stack(list(cosines.values()))), axis=0)
    averages["vanished_fraction"] = metrics.mean(vanished.astype(cosines[read[0]].dtype), taken)
    if "hidden" in cosines:
        averages["cosine_hidden_median"] = jnp.nanmedian(jnp.where(taken, cosines["hidden"], jnp.nan))
    averages["functional_asymmetry"] = metrics.asymmetry(*(metrics.mean(values, known) for values in norms))
    if model.network.reciprocal_pairs():
        averages["weight_angle"] = metrics.weight_angle(model.network)
    return averages
