"""Studies that look into networks: what their modules offer, and the file of what they measured."""

import gzip
import importlib
import json
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
    """The module of a study, with `measure(scale) -> Measured`, `draw(data) -> {name: Figure}` and
    `answer(data) -> str`, in Markdown.

    **Raises:** `UsageError` where it is not at hand, as in an installation without the repository.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise
        raise UsageError(
            f"This study measures with {name}, which is a part of the repository and not of the installed package: "
            "clone the repository and run the same command in its root."
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
