"""Runs of a study: a process each, or a sweep that one of Hydra's launchers takes to a cluster.

What a run leaves in memory, or how it dies, is no matter to the next.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eqprop.run import train
from eqprop.run.compose import quoted
from eqprop.run.errors import Interrupted
from eqprop.run.record import STOPPED, SUMMARY
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
    return _stopped(said.removeprefix("error: "))


def _stopped(message: str) -> str:
    return "stopped: " + " ".join(message.split()).partition(". ")[0]


def sweep(runs: Sequence[Run], root: str, slots: int | None, launcher: Sequence[str]) -> list[str]:
    """What follows `eqprop train` on the command line of a sweep that has just these runs."""
    lists = ",".join(f"[{','.join(map(quoted, run.words))}]" for run in runs)
    shared = [f"run.root={quoted(root)}", *([f"run.slots={slots}"] if slots else [])]
    return ["-m", f"run.words=choice({lists})", *shared, *launcher]


def launch(runs: Sequence[Run], words: Sequence[str], done: Callable[[Run, str | None], None]) -> None:
    """Start the sweep of these runs and wait for it. Then call `done` for each that is finished, or that stopped for a
    reason of its own.

    **Raises:** `UsageError` for a launcher that is not at hand; `ChildProcessError` if runs are left.
    """
    given = sys.argv
    try:
        train.main(words)
    except SystemExit as end:
        if end.code != 1:  # which says that a run failed, and not which: all are looked at below
            raise
    finally:
        sys.argv = given  # Hydra reads its words there
    left = 0
    for run in runs:
        stopped = run.folder / STOPPED
        error = stopped.read_text(encoding="utf-8") if stopped.exists() else ""
        kind, _, message = error.partition(": ")
        if (run.folder / SUMMARY).exists():
            done(run, None)
        elif error and kind != Interrupted.__name__:
            done(run, _stopped(message))
        else:
            left += 1
    if left:
        raise ChildProcessError(
            f"{left} of {len(runs)} runs have no result. When their jobs have ended, which `eqprop collect` tells, the "
            "same command starts them again. Without hydra/launcher it runs them here, and the page says what fails."
        )
