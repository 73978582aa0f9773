"""Time to accuracy: the shipped Fashion-MNIST settings, from independent feedback weights, by nudges alone."""

import time
from collections.abc import Iterator
from itertools import islice
from statistics import median
from typing import Any

import jax

from experiments.bench.networks import advance, evaluator, made, recipe
from experiments.bench.timing import compile_timed

EPOCHS = 6
"""Of the shipped schedule."""
LEVELS = (0.80, 0.83, 0.85, 0.87)
EVERY = 50
"""Batches between two looks at the validation images."""
VALIDATION = 5000
"""Training images that are kept back."""
SEEDS = (0, 1, 2)


def measure(*, quick: bool) -> dict[str, Any]:
    """Seconds of training steps until the validation accuracy first reaches each level, for every seed."""
    levels, seeds = ((0.3, 0.6), SEEDS[:1]) if quick else (LEVELS, SEEDS)
    extra = ("epochs=4", "data.validation=200") if quick else (f"epochs={EPOCHS}", f"data.validation={VALIDATION}")
    runs = [one(seed, extra, levels, quick=quick) for seed in seeds]
    return {
        "levels": levels,
        "validation_images": 200 if quick else VALIDATION,
        "runs": runs,
        "seconds": {f"{level:g}": over_seeds([run["reached"].get(f"{level:g}") for run in runs]) for level in levels},
    }


def one(seed: int, extra: tuple[str, ...], levels: tuple[float, ...], *, quick: bool) -> dict[str, Any]:
    """One run, until it has reached all levels or its schedule has ended."""
    cfg, task = made((*recipe("weak feedback", quick=quick), *extra, f"seed={seed}"))
    validation, test = task.dataset.validation, task.dataset.test
    assert validation is not None
    accuracy, state = evaluator(task), task.initial(seed)
    step = compile_timed(advance(task), state, *next(task.batches.epoch(0))).call
    batches: Iterator[Any] = (batch for epoch in range(cfg.epochs) for batch in task.batches.epoch(epoch))
    spent, done, found, reached, curve = 0.0, 0, 0.0, {}, []
    while len(reached) < len(levels) and (stretch := list(islice(batches, 5 if quick else EVERY))):
        start = time.perf_counter()
        for images, labels in stretch:
            state, _ = step(state, images, labels)
        jax.block_until_ready(state)
        spent, done = spent + time.perf_counter() - start, done + len(stretch)
        found = accuracy(state.model, validation)
        curve.append((done, spent, found))
        for level in levels:
            if found >= level and f"{level:g}" not in reached:
                tested = accuracy(state.model, test)
                reached[f"{level:g}"] = {"seconds": spent, "batches": done, "validation": found, "test": tested}
    print(f"seed {seed}: {spent:.1f} s of training, {found:.1%} of validation images", flush=True)
    return {"seed": seed, "reached": reached, "validation": curve, "schedule_epochs": cfg.epochs}


def over_seeds(reached: list[dict[str, float] | None]) -> dict[str, float] | None:
    """Median and extremes; `None` unless all seeds reached the level."""
    seconds = [found["seconds"] for found in reached if found is not None]
    if len(seconds) < len(reached):
        return None
    return {"median": median(seconds), "low": min(seconds), "high": max(seconds)}
