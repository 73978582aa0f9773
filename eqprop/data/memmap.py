"""Convert once, then map: arrays too large for memory as one `.npy` file each.

A conversion writes `train_images.npy`, `train_labels.npy`, `test_images.npy`, `test_labels.npy`
and, last of all, `manifest.json` with their sizes and SHA-256. Each file is written under another
name, flushed to disk and renamed, so there is a manifest only where everything it lists is whole.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from eqprop.data.dataset import Split
from eqprop.data.faults import damaged
from eqprop.data.files import file_digest

_MANIFEST = "manifest.json"
# Files up to this size are hashed whenever they are opened: a tenth of a second at most.
_SMALL = 64 * 2**20


def convert(
    folder: Path,
    splits: Mapping[str, Iterable[Split]],
    *,
    sizes: Mapping[str, int],
    checksums: Mapping[str, str],
    first: Callable[[], int] = lambda: 0,
) -> None:
    """Write each split, given in parts of which one is held at a time.

    **Arguments:**

    - `folder`: for the files; it exists.
    - `splits`: by name, the parts in order.
    - `sizes`, `checksums`: of the original files, kept in the manifest; `checksums` may be filled
        while the parts are read.
    - `first`: the number of the first class, 0 in what is written; asked once all parts are read.
    """
    (folder / _MANIFEST).unlink(missing_ok=True)  # what it describes is about to change
    arrays, numbers = {}, {}
    for split, parts in splits.items():
        images_path, _ = _paths(folder, split)
        numbers[split] = labels = []
        with _whole(images_path) as file:
            # The number of images is known at the end. NumPy pads a header for any length of the
            # first axis, so the true one then fits over this one.
            shape, start = (0,), 0
            for part in parts:
                if not labels:
                    start = _header(file, part.images.shape)
                    shape = part.images.shape
                if part.images.shape[1:] != shape[1:]:
                    raise damaged(part.source, f"images of shape {list(part.images.shape[1:])}")
                file.write(np.ascontiguousarray(part.images).data)
                labels.append(part.labels)
            file.seek(0)
            if _header(file, (sum(map(len, labels)), *shape[1:])) != start:
                raise RuntimeError(f"{images_path}: the .npy header grew while it was written")
    for split, labels in numbers.items():
        with _whole(_paths(folder, split)[1]) as file:
            np.save(file, np.concatenate(labels) - np.int32(first()))
        for path in _paths(folder, split):
            arrays[path.name] = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
    manifest = {"arrays": arrays, "sources": {"bytes": dict(sizes), "sha256": dict(checksums)}}
    with _whole(folder / _MANIFEST) as file:
        file.write(json.dumps(manifest, indent=1).encode())


def load(
    folder: Path, names: Iterable[str], *, sizes: Mapping[str, int] | None, verify: bool = False
) -> tuple[dict[str, Split], dict[str, str]] | None:
    """Map the splits of a finished conversion; `None` where there is none.

    **Arguments:**

    - `folder`, `names`: as they were converted.
    - `sizes`: of the original files if they are there; other ones are another data set.
    - `verify`: hash large files too.

    **Returns:** The splits by name, and the checksums of the original files.

    **Raises:** `ValueError` naming the file that is not what was written.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        return None
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        arrays, sources = manifest["arrays"], manifest["sources"]
        expected = {name: (item["bytes"], item["sha256"]) for name, item in arrays.items()}
        old_sizes, checksums = sources["bytes"], sources["sha256"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"unreadable: {error}") from error
    if sizes is not None and old_sizes != dict(sizes):
        raise ValueError(f"{path}: made from files of another name or size")
    splits = {}
    for name in names:
        images, labels = (_map(file, expected, verify) for file in _paths(folder, name))
        splits[name] = Split(images, np.array(labels), str(folder / name))
    return splits, checksums


def _paths(folder: Path, split: str) -> tuple[Path, Path]:
    return folder / f"{split}_images.npy", folder / f"{split}_labels.npy"


def _header(file: IO[bytes], shape: tuple[int, ...]) -> int:
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.tell()


def _map(path: Path, expected: Mapping[str, tuple[int, str]], verify: bool) -> np.ndarray:
    if path.name not in expected or not path.is_file():
        raise damaged(path, "missing")
    size, digest = expected[path.name]
    if path.stat().st_size != size:
        raise damaged(path, f"{path.stat().st_size} bytes, {size} when it was converted")
    if (verify or size <= _SMALL) and file_digest(path) != digest:
        raise damaged(path, "its SHA-256 is not that of the conversion")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise damaged(path, error) from error


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name only when complete and on disk."""
    # The process number keeps two processes that convert at once from writing into one file.
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
