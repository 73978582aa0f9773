"""Contents of files, wherever they are packed: a folder, plain or .gz, a .tar.gz or a .zip."""

import gzip
import hashlib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

Root = str | os.PathLike[str] | None

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


def locate(folder: Path, name: str) -> Path | None:
    """`folder/name` or, failing that, `folder/name.gz`."""
    paths = (folder / name, folder / f"{name}.gz")
    return next((path for path in paths if path.is_file()), None)


def contents(place: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield `(name, unpacked bytes)` for each of `names`, in order, from a folder or an archive.

    Members of an archive are matched by their last path component and never written to disk. From
    a folder or a .zip one file is held at a time; a .tar.gz has no index and is read through once.

    **Raises:** `ValueError` naming the file that is missing, cut short or damaged.
    """
    if place.is_dir():
        for name in names:
            path = locate(place, name)
            if path is None:
                raise damaged(place / name, "no such file")
            try:
                data = path.read_bytes()
                yield name, data if path.name == name else gzip.decompress(data)
            except _DAMAGE as error:
                raise damaged(path, error) from error
        return
    read = _zip_members if place.suffix == ".zip" else _tar_members
    try:
        yield from read(place, names)
    except _DAMAGE as error:
        raise damaged(place, error) from error


def _tar_members(place: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    found: dict[str, bytes] = {}
    with tarfile.open(place, "r|gz") as archive:
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
                raise EOFError(f"no {name} in it")
            yield name, archive.read(members[name])
