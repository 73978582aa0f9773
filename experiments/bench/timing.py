"""Seconds of compiled programs: warmed up, interleaved, over many batches."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

import jax
import numpy as np


class Compiled(NamedTuple):
    """A program ready to be called, and what it took to make it."""

    call: Callable[..., Any]
    seconds: float
    """Of lowering and compiling."""


def compile_timed(function: Callable[..., Any], *arguments: Any) -> Compiled:
    """`function` lowered and compiled for these arguments; arrays only, statics closed over."""
    start = time.perf_counter()
    program = jax.jit(lambda *args: function(*args)).lower(*arguments).compile()
    return Compiled(program, time.perf_counter() - start)


def over_batches(
    calls: Mapping[str, Callable[[int], Any]], count: int, *, rounds: int = 3
) -> dict[str, dict[str, float]]:
    """Time each of `calls` on the batches 0 to `count − 1`, all of them in turn on every batch, round by round, so that
    the machine's other load meets all alike: the spread over batches of the median of rounds."""
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in range(count)] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call(0))
    for _ in range(rounds):
        for batch in range(count):
            for name, call in calls.items():
                start = time.perf_counter()
                jax.block_until_ready(call(batch))
                seconds[name][batch].append(time.perf_counter() - start)
    return {name: spread([median(times) for times in found]) for name, found in seconds.items()}


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = (float(v) for v in np.quantile(values, (0.25, 0.5, 0.75)))
    return {"median": middle, "low": low, "high": high}
