"""Studies that look into networks: what their modules offer, and the file of what they measured."""

import gzip
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from eqprop.run.checkpoint import write_atomically
from eqprop.run.errors import UsageError
from eqprop.run.record import to_json
from eqprop.run.study.records import Record

FILE = "measured.json.gz"


class Measured(NamedTuple):
    """What a module measured."""

    data: dict[str, Any]
    """Plain numbers, lists and words, from which figures and sentences are made."""
    records: Sequence[Record] = ()
    """Of the networks that were trained for it."""


def module(name: str) -> ModuleType:
    """The module that a study measures with. It has `measure(scale) -> Measured`, and of what was measured
    `draw(data) -> {name: Figure}`, `captions(data) -> {name: sentence}` and `answer(data) -> str`, in Markdown. One
    that a study draws with has `draw` and `captions` of the study's records instead.

    It is looked for in the working directory too.

    **Raises:** `UsageError` where it is not at hand, as in an installation without the repository.
    """
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # as `python -m` has it, and the installed program has not
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise UsageError(
            f"This study needs {name}, which is a part of the repository and not of the installed package: clone the "
            "repository and run the same command in its root."
        ) from error


def save(path: Path, data: dict[str, Any]) -> None:
    """Write what was measured; the same data make the same bytes."""
    path.mkdir(parents=True, exist_ok=True)
    write_atomically(path / FILE, lambda file: file.write(gzip.compress(to_json(data).encode(), 9, mtime=0)))


def load(path: Path) -> dict[str, Any]:
    """What was measured. A null is what was not finite.

    **Raises:** `FileNotFoundError` if nothing was.
    """
    with gzip.open(path / FILE, "rt", encoding="utf-8") as stream:
        return json.load(stream)
