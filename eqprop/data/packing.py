"""Compressed files and archives, told by their first bytes and never by their names."""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from eqprop.data.faults import Unfit, check_is_data, damaged, unfit

ZIP = b"PK\x03\x04"  # of .npz too
_STREAMS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZh": bz2.decompress,
    b"\xfd7zXZ\x00": lzma.decompress,
}
SUFFIXES = ("", ".gz", ".bz2", ".xz", ".zip")
"""What may follow the name of a file that is packed alone."""
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip", ".tar.xz", ".tar.bz2")
"""What may follow the name of an archive."""
# What the standard library raises on damaged files; a RuntimeError where a .zip wants a password.
_DAMAGE = (
    *(EOFError, ValueError, RuntimeError, gzip.BadGzipFile),
    *(zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile),
)


def plain_name(name: str) -> str:
    """The last component of a path as the catalogue spells it: without suffixes of packing, no dot before `idx`."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return re.sub(r"(\.(gz|tgz|bz2|xz|zip|tar))+$", "", last).replace(".idx", "-idx")


def unpack(data: bytes, name: str, source: str | Path) -> bytes:
    """What is left of a file's contents once every packing is taken off: gzip, bz2, xz, a .zip or .tar around it.

    An .npz, which is a .zip of arrays, is left as it is.

    **Arguments:**

    - `name`: of the file, should there be several in a .zip or .tar.
    - `source`: what the file is called in errors.

    **Raises:** `ValueError` naming `source` if a packing is damaged, or if the file is no data at all.
    """
    while True:  # some servers pack once more what is packed; no format that is read here begins like a packed one
        check_is_data(data, source)
        try:
            inner = _unpack_once(data, name, source)
        except Unfit:
            raise
        except (*_DAMAGE, OSError) as error:
            raise damaged(source, error) from error
        if inner is None:
            return data
        data = inner


def members(place: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield each of `names` with its contents, as they are in an archive; nothing is written to disk.

    Members are matched by `plain_name`. From a .zip one is held at a time; a .tar has no index and is read through
    once.

    **Raises:** `ValueError` naming `place` if it lacks one, is cut short or damaged.
    """
    with open(place, "rb") as file:
        head = file.read(512)
    check_is_data(head, place)
    try:
        yield from (_zip_members if head.startswith(ZIP) else _tar_members)(place, names)
    except Unfit:
        raise
    except _DAMAGE as error:
        raise damaged(place, error) from error


def _unpack_once(data: bytes, name: str, source: str | Path) -> bytes | None:
    """`None` if there is nothing to take off."""
    for magic, decompress in _STREAMS.items():
        if data.startswith(magic):
            return decompress(data)
    if data.startswith(ZIP):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = [item for item in archive.namelist() if not item.endswith("/") and not item.startswith("__MACOSX")]
            return None if any(item.endswith(".npy") for item in files) else archive.read(_one(files, name, source))
    if data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            files = {item.name: item for item in archive if item.isfile()}
            file = archive.extractfile(files[_one(list(files), name, source)])
            return file.read() if file else b""
    return None


def _one(files: list[str], name: str, source: str | Path) -> str:
    """The file called `name`, or the only one there is."""
    called = [file for file in files if plain_name(file) == plain_name(name)]
    if len(called or files) != 1:
        raise unfit(source, f"{len(files)} files are packed in it, and {len(called)} of them called {name}")
    return (called or files)[0]


def _tar_members(place: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    wanted, found = {plain_name(name): name for name in names}, {}
    with tarfile.open(place, "r|*") as archive:
        for member in archive:
            name = wanted.get(plain_name(member.name))
            file = archive.extractfile(member) if name is not None and member.isfile() else None
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
        inside = {plain_name(name): name for name in archive.namelist() if not name.startswith("__MACOSX")}
        for name in names:
            if plain_name(name) not in inside:
                raise unfit(place, f"no {name} in it")
            yield name, archive.read(inside[plain_name(name)])
