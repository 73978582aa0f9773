"""Precision, devices and signals: what a run asks of the machine."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import jax
from omegaconf import DictConfig


def configure(cfg: DictConfig) -> None:
    """Set the precision of this run. Both ways: a sweep's jobs share a process, and float64 must not leak from one into
    the next."""
    jax.config.update("jax_enable_x64", bool(cfg.runtime.x64))
    jax.config.update("jax_default_matmul_precision", cfg.runtime.matmul_precision)


class Interrupt:
    """Whether a signal asked the run to stop after the present step."""

    signal: int | None = None


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn SIGTERM and SIGUSR1, with which schedulers announce the end, into a request to stop after the step."""
    request = Interrupt()

    def ask(number: int, frame: object) -> None:
        del frame
        request.signal = number

    old = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
