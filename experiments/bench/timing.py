"""Seconds of compiled programs: warmed up, interleaved, medians with their spread."""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

import jax


class Timing(NamedTuple):
    """Seconds of one call."""

    median: float
    low: float
    high: float
    repeats: int
    compile: float = 0.0
    """Seconds of lowering and compiling."""


class Compiled(NamedTuple):
    """A program ready to be called, and what it took to make it."""

    call: Callable[..., Any]
    seconds: float


def compile_timed(function: Callable[..., Any], *arguments: Any) -> Compiled:
    """`function` lowered and compiled for these arguments; arrays only, statics closed over."""
    start = time.perf_counter()
    program = jax.jit(lambda *args: function(*args)).lower(*arguments).compile()
    return Compiled(program, time.perf_counter() - start)


def interleaved(calls: Mapping[str, Callable[[], Any]], *, repeats: int, budget: float = 10.0) -> dict[str, Timing]:
    """Time each of `calls` in turn, round by round, so that the machine's other load meets all of them.

    **Arguments:** `repeats`, fewer but at least three once `budget` seconds are spent.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    begin = time.perf_counter()
    for done in range(repeats):
        if done >= 3 and time.perf_counter() - begin > budget:
            break
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(median(s), min(s), max(s), len(s)) for name, s in seconds.items()}
