"""How a run that cannot go on ends: in one line for its settings and files, with a traceback for a user's own code."""

import difflib
import os
import signal
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from eqprop.run.compose import PACKAGE


class UsageError(Exception):
    """A command line that cannot run; the message says why and what to do."""


class Unsettled(Exception):
    """Too many examples did not settle for the gradient to mean anything."""


class Interrupted(Exception):
    """A signal stopped the run after a step; what it had done is saved."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.code = 0 if number == getattr(signal, "SIGUSR1", None) else 128 + number
        """Of the process: 0 after SIGUSR1, with which schedulers ask to make room, else what a shell reports."""


EXPECTED = (ValueError, OSError, Unsettled)
"""What settings, files and data can bring about: said in one line."""


def near(word: str, options: Iterable[str]) -> str:
    """A sentence that asks whether the option most like a word was meant; nothing if none is like it."""
    match = difflib.get_close_matches(word, options, n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


def fail(error: Exception | str, code: int = 1) -> NoReturn:
    """Say what is wrong, in one line, and leave. An error raised in code that is neither the project's nor a library's
    shows its traceback too, as every error does under HYDRA_FULL_ERROR=1."""
    if isinstance(error, Exception) and (os.environ.get("HYDRA_FULL_ERROR") == "1" or is_of_the_user(error)):
        traceback.print_exception(error)
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    sys.exit(code)


def is_of_the_user(error: BaseException) -> bool:
    """Whether the line that raised it lies outside the project and every installed package."""
    trace = traceback.extract_tb(error.__traceback__)
    if not trace:
        return False
    raised = Path(trace[-1].filename)
    libraries = {Path(path) for name, path in sysconfig.get_paths().items() if name in ("stdlib", "purelib", "platlib")}
    return raised.is_file() and not any(raised.is_relative_to(folder) for folder in {*libraries, PACKAGE})
