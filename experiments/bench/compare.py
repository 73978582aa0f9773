"""Ours against plain and the floor, for every estimator, on one trained network."""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax

import eqprop as eq
from experiments.bench import oracle
from experiments.bench.floor import Floor, evaluations, step_floor
from experiments.bench.settings import num_points, our_trainer
from experiments.bench.steps import plain_step
from experiments.bench.timing import Compiled, Timing, compile_timed, interleaved

Row = dict[str, Any]


def compare(
    kind: str,
    estimator: str,
    model: eq.Model,
    batches: list[tuple],
    floor: Floor,
    *,
    homeostatic: bool,
    repeats: int = 10,
) -> Row:
    """One row of the table: times on the first batch, errors over all. The gradient's error is that of the task,
    without the penalty of homeostasis."""
    batch = batches[0]
    optimiser = optax.adam(1e-3)
    trainer = our_trainer(kind, estimator, optimiser, homeostatic=homeostatic)
    state = trainer.init(model, key=jax.random.key(0))
    ours = compile_timed(trainer.step, state, batch)
    calls, compiled = {"ours": lambda: ours.call(state, batch)}, {"ours": ours}
    points = num_points(estimator)
    if points:
        step, start = plain_step(kind, model, points, optimiser, homeostatic=homeostatic)
        plain = compile_timed(step, start, batch)
        calls["plain"], compiled["plain"] = lambda: plain.call(start, batch), plain
    times = interleaved(calls, repeats=repeats)
    metrics = {name: float(value) for name, value in ours.call(state, batch)[1].items()}
    return {
        "kind": kind,
        "estimator": estimator,
        "homeostasis": homeostatic,
        "batch": int(batch[0].shape[0]),
        "time": {name: _record(times[name], compiled[name]) for name in times},
        **over_floor(floor, trainer, metrics, times["ours"].median, times.get("plain")),
        **errors(kind, estimator, model, batches, homeostatic=homeostatic),
        "metrics": metrics,
    }


def over_floor(
    floor: Floor, trainer: eq.Trainer, metrics: dict[str, float], ours: float, plain: Timing | None = None
) -> Row:
    """The floor of our step, and both times over it: the plain step's floor is ours, for it gives the same answer."""
    count = evaluations(metrics, trainer.estimator)
    seconds = step_floor(floor, count)
    operations = count * floor.drift_flops + floor.embed_flops + floor.gradient_flops
    ratios = {"ours_over_floor": ours / seconds}
    if plain is not None:
        ratios |= {"plain_over_floor": plain.median / seconds, "plain_over_ours": plain.median / ours}
    return {"drift_evaluations": count, "floor_seconds": seconds, "floor_flops": operations, **ratios}


def errors(kind: str, estimator: str, model: eq.Model, batches: list[tuple], *, homeostatic: bool) -> Row:
    """The relative errors of the task's gradient, ours and plain, to the same float64 oracle: medians over batches."""
    true = oracle.reference(kind, estimator, model, batches)
    trainer = our_trainer(kind, estimator, oracle.recorder(), homeostatic=homeostatic)
    trainer = dataclasses.replace(trainer, homeostasis=None)
    gradients, unsettled = oracle.step_gradients(trainer, model, batches)
    found = {
        "gradient_error": oracle.median_error(gradients, true.gradients),
        "unsettled_fraction": unsettled,
        "oracle_unsettled_fraction": true.unsettled,
    }
    points = num_points(estimator)
    if points:
        step, start = plain_step(kind, model, points, oracle.recorder(), homeostatic=False)
        compiled = jax.jit(step)
        gradients = [compiled(start, batch)[1] for batch in batches]
        networks = [jax.tree.map(np.asarray, {"w": g["w"], "b": g["b"]}) for g in gradients]
        found["plain_gradient_error"] = oracle.median_error(networks, true.gradients)
    return found


def _record(timing: Timing, compiled: Compiled) -> Row:
    return timing._replace(compile=compiled.seconds)._asdict()
