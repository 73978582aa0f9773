"""A training step, ours or plain, as a program of arrays: the same model, batch and optimiser."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optax

import eqprop as eq
from experiments.bench import plain
from experiments.bench.settings import SETTINGS


def plain_gradient(
    kind: str, model: eq.Model, num_points: int, *, homeostatic: bool
) -> Callable[[plain.Params, Any, Any, Any], plain.Params]:
    """The published gradient of that model's parameters."""
    settings, network = SETTINGS[kind], model.network
    assert isinstance(network, (eq.DenseNetwork, eq.ConvNetwork))
    dense = isinstance(network, eq.DenseNetwork)
    shape = (network.kernels["in-l1"].shape[0],) if dense else network.image_shape
    state = jax.eval_shape(network.embed, jax.ShapeDtypeStruct(tuple(shape), network.biases["out"].dtype))
    return plain.gradient(
        plain.dense_field if kind == "dense" else plain.conv_field,
        network.activation,
        {name: leaf.shape for name, leaf in state.items()},
        beta=settings.beta,
        num_points=num_points,
        free_steps=settings.plain_free_steps,
        nudged_steps=settings.plain_nudged_steps,
        coefficient=settings.coefficient if homeostatic else None,
    )


def plain_step(
    kind: str, model: eq.Model, num_points: int, optimiser: optax.GradientTransformation, *, homeostatic: bool
) -> tuple[Callable[..., Any], tuple]:
    """The plain training step, a function of `(parameters, optimiser's state, key), batch`, and where it starts."""
    estimate = plain_gradient(kind, model, num_points, homeostatic=homeostatic)
    classes = eqx.filter_eval_shape(lambda m: m.readout.bias, model).size  # pyright: ignore

    def step(state: tuple, batch: tuple) -> tuple:
        parameters, optimiser_state, key = state
        x, y = batch
        gradient = estimate(parameters, x, jax.nn.one_hot(y, classes, dtype=x.dtype), key)
        updates, optimiser_state = optimiser.update(gradient, optimiser_state, parameters)
        return optax.apply_updates(parameters, updates), optimiser_state, key

    parameters = plain.parameters(model)
    return step, (parameters, optimiser.init(parameters), jax.random.key(0))
