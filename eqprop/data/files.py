"""Contents of files, wherever they are packed. How a file is packed is read from its first bytes, not from its name."""

import gzip
import hashlib
import os
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

Root = str | os.PathLike[str] | None

_T = TypeVar("_T")
_Place = TypeVar("_Place")

_GZIP = b"\x1f\x8b"
ZIP = b"PK"  # of .npz too
_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError, zipfile.BadZipFile)


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """A digest of a whole file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def damaged(source: str | Path, reason: object) -> ValueError:
    """The one error for a file that cannot be what its name says."""
    return ValueError(f"{source}: damaged or not what its name says ({reason}); fetch it again")


def unfit(source: str | Path, reason: object) -> ValueError:
    """The one error for a file that is whole and holds something else: no other copy of it would help."""
    return ValueError(f"{source}: {reason}; the file is whole but not the one expected, check where it is from")


def candidates(folder: Path, name: str) -> list[Path]:
    """The files that may hold `name`, best first: also with a dot before `idx`, as .gz, or in a folder of its own."""
    spellings = dict.fromkeys((name, name.replace("-idx", ".idx")))
    files = [f"{spelling}{suffix}" for spelling in spellings for suffix in ("", ".gz")]
    paths = [folder / own / file for own in ("", *files) for file in files]
    return [path for path in paths if path.is_file()]


def archives(folder: Path, name: str) -> list[Path]:
    """The files that may be the archive `name`, best first: some browsers unpack one without telling."""
    stem = name.removesuffix(".zip").removesuffix(".tar.gz")
    paths = [folder / f"{stem}{suffix}" for suffix in (".tar.gz", ".tgz", ".tar", ".zip")]
    return [path for path in paths if name and path.is_file()]


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

    Members of an archive are matched by their last path component and never written to disk. From a folder or a .zip
    one file is held at a time; a .tar has no index and is read through once. Where a folder has several copies of a
    file, the first that `decode` takes counts.

    **Raises:** `ValueError` naming the file that is missing, cut short or damaged.
    """
    if place.is_dir():
        for name in names:
            paths = candidates(place, name)
            if not paths:
                raise damaged(place / name, "no such file")
            yield first_whole(paths, lambda path, name=name: decode(name, _unpack(path.read_bytes(), path), str(path)))
        return
    with open(place, "rb") as file:
        read = _zip_members if file.read(2) == ZIP else _tar_members
    try:
        for name, data in read(place, names):
            yield decode(name, _unpack(data, place / name), str(place / name))
    except _DAMAGE as error:
        raise damaged(place, error) from error


def _unpack(data: bytes, source: Path) -> bytes:
    try:
        while data.startswith(_GZIP):  # twice where a server packed it once more; no format read here begins so
            data = gzip.decompress(data)
        return data
    except _DAMAGE as error:
        raise damaged(source, error) from error


def _tar_members(place: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    found: dict[str, bytes] = {}
    with tarfile.open(place, "r|*") as archive:
        for member in archive:
            name = member.name.rpartition("/")[2]
            file = archive.extractfile(member) if name in names and member.isfile() else None
            if file is not None:
                found[name] = file.read()
            if len(found) == len(names):
                break
    if absent := [name for name in names if name not in found]:
        raise EOFError(f"no {', '.join(absent)} in it")
    for name in names:
        yield name, found.pop(name)


def _zip_members(place: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(place) as archive:
        members = {name.rpartition("/")[2]: name for name in archive.namelist()}
        for name in names:
            if name not in members:
                raise unfit(place, f"no {name} in it")
            yield name, archive.read(members[name])
