"""What relaxation costs: a training step beside its counted floor, beside backpropagation, and its parts alone."""

import dataclasses
import math
from collections.abc import Callable
from statistics import fmean
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

import eqprop as eq
from experiments.bench import plain
from experiments.bench.floor import evaluations, floor_of, step_floor
from experiments.bench.networks import Trained
from experiments.bench.timing import compile_timed, over_batches

POINTS = (4, 6)
"""Of the circles whose steps are compiled besides the centred one that networks are trained by."""
Batch = tuple[Array, Array]
Call = Callable[[int], Any]


def measure(net: Trained, *, quick: bool) -> dict[str, Any]:
    """Seconds of the step with the settings the network was trained by, of its parts, of its floor, of backpropagation
    for a dense one, and of compiling it at N = 2, 4, 6."""
    count, rounds = (3, 1) if quick else (20, 3)
    batches, trainer = net.batches(count), net.task.trainer
    start = trainer.init(net.model, key=jax.random.key(0))
    step, seconds = compile_timed(trainer.step, start, batches[0])
    calls: dict[str, Call] = {"step": lambda k: step(start, batches[k])}
    if isinstance(net.model.network, eq.DenseNetwork):
        calls["backpropagation"] = backpropagation(net.model, trainer.optimiser, batches)
    calls |= parts(trainer, start, batches)
    times = over_batches(calls, count, rounds=rounds)
    steps = [step(start, batch)[1] for batch in batches]
    metrics = {name: fmean(float(m[name]) for m in steps) for name in steps[0]}
    size = len(batches[0][0])
    work = evaluations(metrics, trainer.estimator)
    floor = step_floor(floor_of(net.model.network, size), work)
    whole = times["step"]["median"]
    return {
        "network": {net.name: net.facts()},
        "batch": size,
        "seconds": times,
        "metrics": metrics,
        "drift_evaluations": work,
        "floor_seconds": floor,
        "over_floor": whole / floor,
        "over_backpropagation": whole / times["backpropagation"]["median"] if "backpropagation" in times else None,
        "milliseconds_an_image": 1e3 * whole / size,
        "compile_seconds": {"2": seconds} | ({} if quick else compiled(trainer, net.beta, start, batches[0])),
    }


def compiled(trainer: eq.Trainer, beta: float, start: eq.TrainState, batch: Batch) -> dict[str, float]:
    """Seconds to compile the step with more points on the circle."""
    estimator: Any = trainer.estimator
    found = {}
    for points in POINTS:
        circle = dataclasses.replace(estimator, stencil=eq.cauchy(beta, points))
        found[str(points)] = compile_timed(dataclasses.replace(trainer, estimator=circle).step, start, batch).seconds
    return found


def parts(trainer: eq.Trainer, start: eq.TrainState, batches: list[Batch]) -> dict[str, Call]:
    """The parts of a step, each compiled alone."""
    model, estimator, homeostasis = start.model, trainer.estimator, trainer.homeostasis

    def free_phase(model: eq.Model, x: Array) -> eq.Solution:
        def one(x: Array) -> eq.Solution:
            field = model.network.at(x)
            return trainer.relaxation(field.drift, field.initial_state(), blocks=field.blocks)

        return eqx.filter_vmap(one)(x)

    def nudged(model: eq.Model, x: Array, y: Array, free: eq.Solution) -> eq.Response:
        return eqx.filter_vmap(lambda x, y, f: estimator.respond(model.at(x, y), f))(x, y, free)

    def kernels(model: eq.Model, x: Array, y: Array, response: eq.Response) -> eq.Model:
        mean = lambda m: jnp.mean(jax.vmap(lambda x, y, r: estimator.surrogate(m.at(x, y), r))(x, y, response))
        return eqx.filter_grad(mean)(model)

    def update(gradient: Any, optimiser: Any, model: eq.Model) -> tuple:
        changes, optimiser = trainer.optimiser.update(gradient, optimiser, eqx.filter(model, eqx.is_inexact_array))  # pyright: ignore[reportArgumentType]
        return eqx.apply_updates(model, changes), optimiser

    x, y = batches[0]
    relax = compile_timed(free_phase, model, x).call
    frees = [relax(model, x) for x, _ in batches]
    respond = compile_timed(nudged, model, x, y, frees[0]).call
    responses = [respond(model, *batch, free) for batch, free in zip(batches, frees, strict=True)]
    derive = compile_timed(kernels, model, x, y, responses[0]).call
    gradient = derive(model, x, y, responses[0])
    apply = compile_timed(update, gradient, start.optimiser, model).call
    found: dict[str, Call] = {
        "free phase": lambda k: relax(model, batches[k][0]),
        "nudged phases": lambda k: respond(model, *batches[k], frees[k]),
        "gradient of kernels": lambda k: derive(model, *batches[k], responses[k]),
        "optimiser": lambda k: apply(gradient, start.optimiser, model),
    }
    if homeostasis is not None:
        penalty = compile_timed(penalty_gradient(homeostasis), model, x, responses[0].state).call
        found["gradient of homeostasis"] = lambda k: penalty(model, batches[k][0], responses[k].state)
    return found


def penalty_gradient(homeostasis: eq.AbstractHomeostasis) -> Callable[[eq.Model, Array, Any], eq.Model]:
    """Of the mean penalty over its share of a batch's states."""

    def mean(model: eq.Model, x: Array, states: Any) -> Array:
        size = jax.tree.leaves(states)[0].shape[0]
        count = math.ceil(homeostasis.share * size) if homeostasis.depends_on_state else 1
        keys, (x, chosen) = jax.random.split(jax.random.key(0), count), jax.tree.map(lambda v: v[:count], (x, states))
        one = lambda x, u, key: homeostasis(model.network.at(x), u, key=key)
        return jnp.mean(jax.vmap(one)(x, chosen, keys))

    return eqx.filter_grad(mean)


def backpropagation(model: eq.Model, optimiser: optax.GradientTransformation, batches: list[Batch]) -> Call:
    """A training step of the feedforward net with the same layers, activation, readout and optimiser, in plain JAX."""
    everything, activation = plain.parameters(model), model.network.activation
    names = ["in", *sorted(everything["b"])]
    forward = list(zip(names[:-1], names[1:], strict=True))
    parameters = {**everything, "w": {edge: everything["w"][edge] for edge in forward}}

    def loss(p: plain.Params, x: Array, y: Array) -> Array:
        s = x.reshape(len(x), -1)
        for name, edge in zip(names[1:], forward, strict=True):
            s = activation(s @ p["w"][edge] + p["b"][name])
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(s @ p["r"] + p["c"]), axis=1))

    def step(p: plain.Params, state: optax.OptState, batch: Batch) -> tuple:
        updates, state = optimiser.update(jax.grad(loss)(p, *batch), state, p)
        return optax.apply_updates(p, updates), state

    start = optimiser.init(parameters)
    program = compile_timed(step, parameters, start, batches[0]).call
    return lambda k: program(parameters, start, batches[k])


def parts_total(seconds: dict[str, dict[str, float]]) -> float:
    """Of the parts that were compiled alone: the compiler shares some of them within a step."""
    return sum(value["median"] for name, value in seconds.items() if name not in ("step", "backpropagation"))
