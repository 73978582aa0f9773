"""What it costs to leave the device between steps: a lone step of digits against the same step inside a scan."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import eqprop as eq
from eqprop.run.build import Task
from eqprop.run.loop import stacked
from experiments.bench.networks import advance, made
from experiments.bench.timing import over_batches

STEPS = 50
STEPS_PER_CALL = 10


def measure(*, quick: bool) -> dict[str, Any]:
    """Seconds of a step each way, from the same trained state and on the same batches."""
    _, task = made(("stencil=centred",) if quick else ())
    steps, rounds = (10, 3) if quick else (STEPS, 20)
    epochs = (batch for epoch in range(steps) for batch in task.batches.epoch(epoch))
    batches = [batch for batch, _ in zip(epochs, range(steps), strict=False)]
    resident, lone = scanned(task, batches), alone(task, batches)
    state = lone(task.initial(0))  # past the first steps, whose relaxations are another network's
    several = looped(task, batches, STEPS_PER_CALL)
    ways = {"alone": lone, "in the training loop": several, "in a scan": resident}
    calls = {name: lambda _, run=run: run(state) for name, run in ways.items()}
    times = over_batches(calls, 1, rounds=rounds)
    each = {name: found["median"] / steps for name, found in times.items()}
    return {
        "steps": steps,
        "batch": len(batches[0].labels),
        "seconds": each,
        "steps_per_call": STEPS_PER_CALL,
        "ratio": each["alone"] / each["in a scan"],
        "ratio_in_the_loop": each["in the training loop"] / each["in a scan"],
    }


def alone(task: Task, batches: list[Any]) -> Callable[[eq.TrainState], eq.TrainState]:
    """A call for each batch, from arrays of the host."""
    step = eqx.filter_jit(advance(task))

    def run(state: eq.TrainState) -> eq.TrainState:
        for images, labels in batches:
            state, _ = step(state, images, labels)
        return state

    return run


def looped(task: Task, batches: list[Any], size: int) -> Callable[[eq.TrainState], eq.TrainState]:
    """The steps as the training loop takes them: a call for several batches, from arrays of the host."""
    step = advance(task)
    groups = list(stacked(batches, size))

    @eqx.filter_jit
    def several(state: eq.TrainState, images: Any, labels: Any, count: Any) -> eq.TrainState:
        arrays, rest = eqx.partition(state, eqx.is_array)

        def one(k: Any, arrays: Any) -> Any:
            return eqx.filter(step(eqx.combine(arrays, rest), images[k], labels[k])[0], eqx.is_array)

        return eqx.combine(jax.lax.fori_loop(0, count, one, arrays), rest)

    def run(state: eq.TrainState) -> eq.TrainState:
        for images, labels, count in groups:
            state = several(state, images, labels, jnp.int32(count))
        return state

    return run


def scanned(task: Task, batches: list[Any]) -> Callable[[eq.TrainState], eq.TrainState]:
    """The same steps as one program over data on the device."""
    step = advance(task)
    data = tuple(jnp.asarray(np.stack(arrays)) for arrays in zip(*batches, strict=True))

    def run(state: eq.TrainState, data: Any) -> eq.TrainState:
        return jax.lax.scan(lambda s, batch: (step(s, *batch)[0], None), state, data)[0]

    program = jax.jit(run)
    return lambda state: program(state, data)
