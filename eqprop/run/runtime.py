"""Precision, devices and signals: what a run asks of the machine."""

import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from omegaconf import DictConfig

T = TypeVar("T")


def configure(cfg: DictConfig) -> None:
    """Set the precision of this run, and join the other processes of a distributed one.

    Both ways: a sweep's jobs share a process, and float64 must not leak from one into the next.

    **Raises:** `ValueError` where JAX's own variables ask for something else than the configuration.
    """
    _check_flags(cfg)
    jax.config.update("jax_enable_x64", bool(cfg.runtime.x64))
    jax.config.update("jax_default_matmul_precision", cfg.runtime.matmul_precision)
    distributed = cfg.runtime.distributed
    if distributed is not None and not jax.distributed.is_initialized():
        # On SLURM, Open MPI and TPU pods JAX finds the other processes itself: distributed={}.
        jax.distributed.initialize(**distributed)


def _check_flags(cfg: DictConfig) -> None:
    """The configuration decides, as it is what a run is named by: a variable that disagrees is refused."""
    x64 = os.environ.get("JAX_ENABLE_X64")
    if x64 and (x64.lower() in ("1", "true", "yes", "on")) != bool(cfg.runtime.x64):
        raise ValueError(
            f"JAX_ENABLE_X64={x64}, but runtime.x64={str(cfg.runtime.x64).lower()} decides the precision of a run. Set "
            "runtime.x64 to the same, or unset the variable."
        )
    precision = os.environ.get("JAX_DEFAULT_MATMUL_PRECISION")
    if precision and precision != cfg.runtime.matmul_precision:
        raise ValueError(
            f"JAX_DEFAULT_MATMUL_PRECISION={precision}, but runtime.matmul_precision={cfg.runtime.matmul_precision} "
            "decides the products of a run. Set it to the same, or unset the variable."
        )


def is_writer() -> bool:
    """Whether this process writes the run folder; the others of a distributed run only compute."""
    return jax.process_index() == 0


class Placement:
    """Where arrays live: one mesh with the axes `population` and `data`, over all devices of all processes.

    The compiler does the rest: nothing beneath it is ours. The axes are of type `Auto`, the only one in which the
    solvers of diffrax run. Every process holds the same host arrays, and each device takes its part of them.
    """

    def __init__(self, population: int, batch_size: int, devices: int | None):
        """**Raises:** `ValueError` if there are fewer devices, or they cannot share the batch evenly."""
        available = jax.devices()
        if devices is not None and not 1 <= devices <= len(available):
            raise ValueError(f"runtime.devices is {devices}, but there are {len(available)}: {available[0].platform}.")
        count = devices or len(available)
        across = math.gcd(population, count)
        if batch_size % (count // across):
            raise ValueError(
                f"A batch of {batch_size} does not divide among {count // across} devices. Choose another batch_size, "
                "or fewer devices by runtime.devices."
            )
        self._lone = count == 1
        self._population = population
        self._data = count // across
        if not self._lone:
            shape = (across, self._data)
            self._mesh = jax.make_mesh(
                shape, ("population", "data"), axis_types=(AxisType.Auto,) * 2, devices=available[:count]
            )

    def state(self, tree: T) -> T:
        """Members along the population's devices; a lone run on all of them."""
        return self._put(tree, PartitionSpec("population") if self._population > 1 else PartitionSpec())

    def batch(self, images: np.ndarray, labels: np.ndarray) -> tuple[jax.Array, jax.Array]:
        """Examples along the data devices; a part of a batch that does not divide goes to all."""
        spec = PartitionSpec() if len(images) % self._data else PartitionSpec("data")
        return self._put((jnp.asarray(images), jnp.asarray(labels)) if self._lone else (images, labels), spec)

    def batches(self, images: np.ndarray, labels: np.ndarray) -> tuple[jax.Array, jax.Array]:
        """The same for several batches along a leading axis."""
        spec = PartitionSpec() if images.shape[1] % self._data else PartitionSpec(None, "data")
        return self._put((jnp.asarray(images), jnp.asarray(labels)) if self._lone else (images, labels), spec)

    def everywhere(self, tree: T) -> T:
        """Inside a compiled program: results that every process may read."""
        return tree if self._lone else jax.lax.with_sharding_constraint(tree, self._sharding(PartitionSpec()))

    def gather(self, tree: T) -> T:
        """A tree that every process may read, for a checkpoint."""
        if self._lone or jax.process_count() == 1:
            return tree
        arrays, rest = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.jit(lambda a: a, out_shardings=self._sharding(PartitionSpec()))(arrays), rest)

    def _put(self, tree: Any, spec: PartitionSpec) -> Any:
        if self._lone:
            return tree
        arrays, rest = eqx.partition(tree, eqx.is_array_like)
        if jax.process_count() == 1:
            return eqx.combine(jax.device_put(arrays, self._sharding(spec)), rest)
        return eqx.combine(jax.tree.map(lambda leaf: self._put_own(leaf, spec), arrays), rest)

    def _put_own(self, leaf: Any, spec: PartitionSpec) -> jax.Array:
        """One array over several processes: each puts its own part of what all of them hold."""
        if eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = self._put_own(jax.random.key_data(leaf), spec)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, self._sharding(spec), lambda index: whole[index])

    def _sharding(self, spec: PartitionSpec) -> NamedSharding:
        return NamedSharding(self._mesh, spec)


class Interrupt:
    """Whether a signal asked the run to stop after the present step."""

    signal: int | None = None


REQUESTS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Ctrl-C, and what schedulers announce the end with; Windows has no SIGUSR1."""


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Turn Ctrl-C, SIGTERM and SIGUSR1 into a request to stop after the step; a second one ends the process at once."""
    request = Interrupt()

    def ask(number: int, frame: object) -> None:
        del frame
        request.signal = number
        for each in REQUESTS:
            signal.signal(each, signal.SIG_DFL)

    if threading.current_thread() is not threading.main_thread():  # which alone receives signals
        yield request
        return
    old = {number: signal.signal(number, ask) for number in REQUESTS}
    try:
        yield request
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
