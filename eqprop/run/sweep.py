"""A sweep: what its launcher needs, a job's share of the machine, and an error that costs no other job."""

import os
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from hydra.errors import CompactHydraException
from omegaconf import DictConfig

from eqprop.run.errors import EXPECTED, Interrupted, UsageError, is_of_the_user

T = TypeVar("T")

_held: list[FileLock] = []


def check_launcher(words: Sequence[str], *, dry_run: bool = False) -> None:
    """**Raises:** `UsageError` if the launcher is not installed, or has no SLURM to submit to."""
    launcher = next((word.partition("=")[2] for word in reversed(words) if word.startswith("hydra/launcher=")), "basic")
    plugin = launcher.partition("_")[0]
    if plugin not in ("joblib", "submitit"):
        return
    try:
        version(f"hydra-{plugin}-launcher")
    except PackageNotFoundError:
        raise UsageError(
            f"hydra/launcher={launcher} needs a package that is not installed: pip install hydra-{plugin}-launcher"
        ) from None
    if launcher == "submitit_slurm" and not dry_run and shutil.which("srun") is None:
        raise UsageError(
            f"hydra/launcher={launcher} needs SLURM, and there is no srun on this machine: give the command on a login "
            "node of the cluster. Here, --dry-run prints the batch script."
        )


def job(cfg: DictConfig, run: Callable[[DictConfig], float]) -> float:
    """Run one job of a sweep and return what it is judged by. A job that a signal stops ends its process, and so a
    sweep in that process.

    **Raises:** `CompactHydraException`, which crosses processes and prints as one line, whatever went wrong.
    """
    if cfg.run.slots is not None:
        take_slot(Path(cfg.run.root).expanduser(), cfg.run.slots)
    try:
        return run(cfg)
    except Interrupted as stop:
        print(stop)
        sys.exit(stop.code)
    except Exception as error:
        if not isinstance(error, EXPECTED) or is_of_the_user(error):
            traceback.print_exc()
        line = f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(f"error: {line}", file=sys.stderr)  # Hydra tells the first of a sweep only, at its end
        raise CompactHydraException(line) from None


def take_slot(root: Path, slots: int) -> None:
    """Wait for one of this machine's `slots` places and keep it while the process lives, with its share of the cores
    and graphics cards. A process that dies in any way frees its place.

    **Raises:** `ValueError` if there are no places.
    """
    if slots < 1:
        raise ValueError(f"run.slots is {slots}; expected at least 1.")
    if _held:
        return
    folder = root / ".slots"
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        for place in range(slots):
            lock = FileLock(folder / f"{socket.gethostname()}-{place}", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            _held.append(lock)
            return _confine(place, slots)
        time.sleep(0.5)


def share(items: Sequence[T], place: int, places: int) -> list[T]:
    """An even part for each place; with fewer items than places, some places share one."""
    return list(items[place::places]) or [items[place % len(items)]]


def _confine(place: int, places: int) -> None:
    """JAX reads these when it starts its devices, which is after this."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, share(sorted(os.sched_getaffinity(0)), place, places))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
    cards = found if visible is None else [card for card in visible.split(",") if card]
    if cards:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(share(cards, place, places))
        if places > len(cards):
            os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
