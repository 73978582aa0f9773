"""What each lever gives: the shipped weak-feedback step with one setting changed."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import jax
import numpy as np

import eqprop as eq
from eqprop.relaxation import batch
from experiments.bench import oracle
from experiments.bench.networks import Trained
from experiments.bench.timing import compile_timed, over_batches, spread

SHIPPED = "as shipped"
Change = Callable[[eq.Trainer], eq.Trainer]


def _phases(free: dict[str, Any], nudged: dict[str, Any], kind: type | None = None) -> Change:
    """Other settings of the two relaxations, or another class with the same tolerances."""

    def change(trainer: eq.Trainer) -> eq.Trainer:
        estimator: Any = trainer.estimator
        relaxations = []
        for relaxation, settings in ((trainer.relaxation, free), (estimator.relaxation, nudged)):
            if kind is None:
                relaxations.append(dataclasses.replace(relaxation, **settings))  # pyright: ignore
            else:
                tolerances = {name: getattr(relaxation, name) for name in ("tol", "rtol", "max_steps")}
                relaxations.append(kind(**tolerances))
        estimator = dataclasses.replace(estimator, relaxation=relaxations[1])
        return dataclasses.replace(trainer, relaxation=relaxations[0], estimator=estimator)

    return change


def _estimator(make: Callable[[Any], eq.AbstractEstimator]) -> Change:
    return lambda trainer: dataclasses.replace(trainer, estimator=make(trainer.estimator))


LEVERS: dict[str, Change] = {
    SHIPPED: lambda trainer: trainer,
    "free sweeps layer by layer from the input": _phases({"order": "forward"}, {}),
    "nudged sweeps layer by layer towards it": _phases({}, {"order": "backward"}),
    "both": _phases({"order": "forward"}, {"order": "backward"}),
    "the residual after every sweep": _phases({"every": 1}, {"every": 1}),
    "after every fourth": _phases({"every": 4}, {"every": 4}),
    "synchronous steps": _phases({}, {}, eq.Picard),
    "Anderson over sweeps": _phases({}, {}, eq.Anderson),
    "all wait for the slowest": lambda trainer: trainer,
    "nudged phases three times looser": _phases({}, {"rtol": 3e-2}),
    "recurrent backpropagation in place of nudges": _estimator(
        lambda nudge: eq.RecurrentBackprop(relaxation=nudge.relaxation, norm_bound=nudge.norm_bound)
    ),
    "the same by GMRES": _estimator(
        lambda nudge: eq.RecurrentBackprop(relaxation=eq.Krylov(tol=1.0, rtol=1e-2), norm_bound=nudge.norm_bound)
    ),
}
NO_GROUPS = "all wait for the slowest"


def measure(net: Trained, *, quick: bool) -> dict[str, Any]:
    """Milliseconds, sweeps, seconds to compile and error of the gradient for each of `LEVERS`."""
    count, rounds = (3, 1) if quick else (20, 3)
    batches, trainer = net.batches(count), net.task.trainer
    start = trainer.init(net.model, key=jax.random.key(0))
    true, _ = oracle.reference(net.model, net.beta, 2, batches, turned=False)
    calls, found = {}, {}
    for name, change in LEVERS.items():
        changed = change(trainer)
        with _groups(name != NO_GROUPS):
            step, seconds = compile_timed(changed.step, start, batches[0])
            unbound = _estimator(lambda estimator: dataclasses.replace(estimator, norm_bound=None))(changed)
            gradient = jax.jit(lambda model, batch, unbound=unbound: oracle.gradient(unbound, model, batch)[0])
            gradients = [jax.tree.map(np.asarray, gradient(net.model, batch)) for batch in batches]
        calls[name] = lambda k, step=step: step(start, batches[k])
        metrics = [step(start, batch)[1] for batch in batches]
        found[name] = {
            "compile_seconds": seconds,
            "error": spread([oracle.relative_error(a, b) for a, b in zip(gradients, true, strict=True)]),
            **{key: fmean(float(m[key]) for m in metrics) for key in ("free_steps", "nudged_steps")},
        }
    times = over_batches(calls, count, rounds=rounds)
    rows = {name: {**row, "seconds": times[name]} for name, row in found.items()}
    return {"network": {net.name: net.facts()}, "batches": count, "levers": rows}


@contextmanager
def _groups(wanted: bool) -> Iterator[None]:
    """Without them, a batch is one group to the end."""
    smallest = batch.SMALLEST
    batch.SMALLEST = smallest if wanted else 10**9
    try:
        yield
    finally:
        batch.SMALLEST = smallest
