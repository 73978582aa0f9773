"""Runs of a study, a process each: what one leaves in memory, or how it dies, is no matter to the next."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eqprop.run.errors import Interrupted
from eqprop.run.runtime import interruptible

PROGRAM = (sys.executable, "-m", "eqprop", "train")
"""What is started for each run."""


class Run(NamedTuple):
    """One run."""

    label: str
    seed: int
    words: tuple[str, ...]
    folder: Path
    """Where it is recorded."""


class _Started(NamedTuple):
    """A run whose process has been started."""

    run: Run
    process: subprocess.Popen
    log: Path


def execute(runs: Sequence[Run], root: Path, workers: int, done: Callable[[Run, str | None], None]) -> None:
    """Run all of them, at most `workers` at a time with an even share of the cores each; call `done` as each ends, with
    the reason if it has no result.

    **Raises:** `Interrupted` after a signal, when the running ones have saved and ended.
    """
    waiting, running = list(runs), list[_Started]()
    with interruptible() as request:
        try:
            stopping = False
            while running or (waiting and not stopping):
                while waiting and len(running) < workers and not request.signal:
                    running.append(_start(waiting.pop(0), root, workers))
                if request.signal and not stopping:
                    stopping = True
                    # Once: a second signal would end them before they have saved. Windows has no way to ask, but there
                    # the Ctrl-C of the terminal has reached them.
                    if sys.platform != "win32":
                        _stop(running)
                for each in [each for each in running if each.process.poll() is not None]:
                    running.remove(each)
                    if not stopping or each.process.returncode == 0:
                        done(each.run, _reason(each))
                if running:
                    time.sleep(0.1)
        except BaseException:
            _stop(running)
            for each in running:
                each.process.wait()
            raise
        if request.signal:
            raise Interrupted(
                request.signal, f"Stopped by signal {request.signal}; the runs are saved. The same command goes on."
            )


def _start(run: Run, root: Path, workers: int) -> _Started:
    logs = root / ".logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"{run.folder.name}.log"
    command = [*PROGRAM, *run.words, *([f"run.slots={workers}"] if workers > 1 else [])]
    # Seeds of a row share their compiled programs.
    environment = {"JAX_COMPILATION_CACHE_DIR": str((root / ".programs").absolute()), **os.environ}
    # In a group of its own: Ctrl-C would reach it from the terminal and from here, and the second ends it at once.
    group: dict[str, Any] = {} if sys.platform == "win32" else {"process_group": 0}
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT, **group)
    return _Started(run, process, log)


def _stop(running: Sequence[_Started]) -> None:
    """Ask them to save and end; on Windows this ends them at once, with their last checkpoint."""
    for each in running:
        each.process.terminate()


def _reason(ended: _Started) -> str | None:
    """Why a process that has ended left no result."""
    run, code = ended.run, ended.process.returncode
    if code == 0:
        return None
    lines = ended.log.read_text(encoding="utf-8", errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.startswith("error: ")), None)
    print(f"{run.label}, seed {run.seed}: {said or f'ended with {code}'}; see {ended.log}", file=sys.stderr)
    if said is None:
        return f"ended with {code}"
    if "files not found" in said:
        return "the data set is not at hand"
    return "stopped: " + said.removeprefix("error: ").partition(". ")[0]
