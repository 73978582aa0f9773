"""Files by name, in a folder or an archive, and their contents."""

import difflib
import hashlib
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from eqprop.data.faults import damaged
from eqprop.data.packing import ARCHIVES, SUFFIXES, members, plain_name, unpack

Root = str | os.PathLike[str] | None

_T = TypeVar("_T")
_Place = TypeVar("_Place")


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """A digest of a whole file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def candidates(folder: Path, name: str) -> list[Path]:
    """The files that may hold `name`, best first: also with a dot before `idx`, packed, or in a folder of its own."""
    spellings = dict.fromkeys((name, name.replace("-idx", ".idx")))
    files = [f"{spelling}{suffix}" for spelling in spellings for suffix in SUFFIXES]
    own = [folder / file for file in files if (folder / file).is_dir()]
    paths = [place / file for place in (folder, *own) for file in files]
    return [path for path in paths if path.is_file()]


def archives(folder: Path, name: str) -> list[Path]:
    """The files that may be the archive `name`, best first: some browsers unpack one without telling."""
    paths = [folder / f"{plain_name(name)}{suffix}" for suffix in ARCHIVES]
    return [path for path in paths if name and path.is_file()]


def similar(folder: Path, names: Sequence[str]) -> list[str]:
    """What in `folder` is called almost as one of `names`, each with the name that it may be meant to have."""
    try:
        # A folder of any size may be looked in; a misspelt file is among few.
        present = [entry.name for entry in itertools.islice(os.scandir(folder), 1000)]
    except OSError:
        return []
    found = []
    for entry in present:
        # A browser numbers the copies it saves. Other numbers tell files apart: data_batch_1, cifar-10 and cifar-100.
        plain = re.sub(r" ?\(\d+\)", "", plain_name(entry))
        known = {plain_name(name).lower(): name for name in names if _numbers(name) == _numbers(plain)}
        close = difflib.get_close_matches(plain.lower(), list(known), n=1, cutoff=0.85)
        if close and plain_name(entry) != plain_name(known[close[0]]):
            found.append(f"{entry}, which may be meant to be {known[close[0]]}")
    return sorted(found)


def _numbers(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def first_whole(places: Sequence[_Place], read: Callable[[_Place], _T]) -> _T:
    """What `read` makes of the first of `places` that raises no `ValueError`; if all do, the first error is raised.

    Those passed over are named in warnings."""
    errors = []
    for place in places:
        try:
            result = read(place)
        except ValueError as error:
            errors.append(error)
            continue
        for error in errors:
            warnings.warn(f"{error}; another copy is used instead", stacklevel=2)
        return result
    raise errors[0]


def contents(place: Path, names: Sequence[str], decode: Callable[[str, bytes, str], _T]) -> Iterator[_T]:
    """Yield `decode(name, unpacked bytes, source)` for each of `names`, in order, from a folder or an archive.

    From a folder or a .zip one file is held at a time; a .tar has no index and is read through once. Where a folder
    has several copies of a file, the first that `decode` takes counts.

    **Raises:** `ValueError` naming the file that is missing, cut short or damaged.
    """
    if not place.is_dir():
        for name, data in members(place, names):
            yield decode(name, unpack(data, name, place / name), str(place / name))
        return
    for name in names:
        paths = candidates(place, name)
        if not paths:
            raise damaged(place / name, "no such file")
        yield first_whole(paths, lambda path, name=name: decode(name, unpack(path.read_bytes(), name, path), str(path)))
