"""What follows the name of a study on its command line."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from eqprop.run.compose import groups, own_folder
from eqprop.run.errors import UsageError, near
from eqprop.run.study.spec import SCALES


class Options(NamedTuple):
    """The keys and their defaults."""

    scale: str = "cpu"
    workers: int | None = None
    rerun: bool = False
    only: str = "*"
    """A pattern of the labels of rows to run now."""
    redraw: bool = False
    results: str | None = None
    root: str = "outputs"
    dirty: bool = False
    label: Mapping[str, str] = {}
    """By the name of a data set, what tables call a copy of it."""
    launcher: tuple[str, ...] = ()
    """What a launcher of Hydra is told, as on the command line of a sweep; with nothing, each run is a process here."""


def parse(words: Sequence[str]) -> Options:
    """Words as they stand after the first `=`: a path may have blanks, signs and a `~` in it.

    **Raises:** `UsageError` for a key that is none of a study's, or a value that it cannot have.
    """
    given: dict[str, Any] = {}
    labels: dict[str, str] = {}
    launcher: list[str] = []
    for word in words:
        key, _, value = word.partition("=")
        if key.startswith("label."):
            data = groups(own_folder())["data"]
            labels[_choice("the data set of a label", key.removeprefix("label."), data)] = _unquoted(value)
        elif key == "hydra/launcher" or key.startswith("hydra.launcher."):
            launcher.append(word)
        elif key in _READERS:
            given[key] = _READERS[key](key, value)
        else:
            known = (*_READERS, "label.DATA", "hydra/launcher", "hydra.launcher.KEY")
            raise UsageError(f"A study has no key {key!r}; it has {', '.join(known)}.{near(key, known)}")
    if launcher and not any(word.startswith("hydra/launcher=") for word in launcher):
        raise UsageError(f"{launcher[0]}: no launcher is named; expected hydra/launcher=submitit_slurm, or another.")
    return Options(**given, label=labels, launcher=tuple(launcher))


def _choice(key: str, value: str, options: Sequence[str]) -> str:
    if value not in options:
        raise UsageError(f"{key}={value}: expected {', '.join(options)}.{near(value, options)}")
    return value


def _unquoted(value: str) -> str:
    """Without the quotes that Hydra's command lines want around blanks."""
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value


def _flag(key: str, value: str) -> bool:
    return _choice(key, value.lower(), ("true", "false")) == "true"


def _count(key: str, value: str) -> int | None:
    if value == "null":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"{key}={value}: expected a whole number of at least 1, or null.")
    return int(value)


def _path(key: str, value: str) -> str | None:
    if not value or (value == "null" and key == "root"):
        raise UsageError(f"{key}={value}: expected a folder.")
    return None if value == "null" else value


_READERS: dict[str, Callable[[str, str], Any]] = {
    "scale": lambda key, value: _choice(key, value, SCALES),
    "workers": _count,
    "rerun": _flag,
    "only": lambda key, value: value,
    "redraw": _flag,
    "results": _path,
    "root": _path,
    "dirty": _flag,
}
