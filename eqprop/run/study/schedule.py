"""Runs of a study, a process each: what one leaves in memory, or how it dies, is no matter to the next."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from eqprop.run.errors import Interrupted
from eqprop.run.runtime import interruptible


class Run(NamedTuple):
    """One run."""

    label: str
    seed: int
    words: tuple[str, ...]
    folder: Path
    """Where it is recorded."""


def execute(runs: Sequence[Run], root: Path, workers: int, done: Callable[[Run, str | None], None]) -> None:
    """Run all of them, at most `workers` at a time with an even share of the cores each; call `done` as each ends, with
    the reason if it has no result.

    **Raises:** `Interrupted` after a signal, when the running ones have saved and ended.
    """
    waiting, running = list(runs), list[tuple[Run, subprocess.Popen, Path]]()
    with interruptible() as request:
        while waiting or running:
            while waiting and len(running) < workers and not request.signal:
                run = waiting.pop(0)
                running.append((run, *_start(run, root, workers)))
            for entry in [entry for entry in running if entry[1].poll() is not None]:
                running.remove(entry)
                if not request.signal:
                    done(entry[0], _reason(*entry))
            if request.signal:
                for _, process, _ in running:
                    process.terminate()
                if not running:
                    message = f"Stopped by signal {request.signal}; the runs are saved. The same command goes on."
                    raise Interrupted(request.signal, message)
            time.sleep(0.1)


def _start(run: Run, root: Path, workers: int) -> tuple[subprocess.Popen, Path]:
    logs = root / ".logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{run.folder.name}.log"
    command = [sys.executable, "-m", "eqprop", "train", *run.words]
    command += [f"run.slots={workers}"] if workers > 1 else []
    # Seeds of a row share their compiled programs.
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str((root / ".programs").absolute())}
    with open(log, "w", encoding="utf-8") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT), log


def _reason(run: Run, process: subprocess.Popen, log: Path) -> str | None:
    """Why a process that has ended left no result."""
    if process.returncode == 0:
        return None
    lines = log.read_text(encoding="utf-8").splitlines()
    said = next((line for line in reversed(lines) if line.startswith("error: ")), None)
    print(f"{run.label}, seed {run.seed}: {said or f'ended with {process.returncode}'}; see {log}", file=sys.stderr)
    if said is None:
        return f"ended with {process.returncode}"
    if "files not found" in said:
        return "the data set is not at hand"
    return "stopped: " + said.removeprefix("error: ").partition(". ")[0]
