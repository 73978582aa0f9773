"""Downsampled ImageNet, 32x32: 1,281,167 training and 50,000 validation images, 1,000 classes.

P. Chrabaszcz, I. Loshchilov, F. Hutter, "A downsampled variant of ImageNet as an alternative to the CIFAR datasets"
(2017), arXiv:1707.08819. The licence is ImageNet's: research, no redistribution.
"""

import io
import warnings
import zipfile
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from eqprop.data import memmap
from eqprop.data.catalogue import IMAGENET32
from eqprop.data.cifar import read_batch
from eqprop.data.dataset import Dataset, Split
from eqprop.data.faults import damaged, unfit
from eqprop.data.files import Root, contents, first_whole, sha256
from eqprop.data.packing import ZIP
from eqprop.data.pickles import read_pickle
from eqprop.data.source import Found, bases, cache_folder, missing, search

_NUM_CLASSES = 1000


def imagenet32(root: Root = None, *, verify: bool = False) -> Dataset:
    """Downsampled ImageNet, memory-mapped; the validation images are the test split.

    The first call converts the files as they are published, pickles or .npz, to one array a split (3.9 GB, about a
    minute, one batch file in memory at a time: 2.5 GB at most) in `eqprop-cache` beside them, or in the user's cache
    folder where that cannot be written. The originals may then be deleted.

    **Arguments:**

    - `root`: the folder with the files, or one that contains it.
    - `verify`: hash the converted files in full. Otherwise only their sizes, shapes and labels are checked.

    **Raises:** `FileNotFoundError` saying which files to put where; `ValueError` on damaged ones.
    """
    reasons = []
    for base in bases(IMAGENET32, root):
        layouts = {"train": IMAGENET32.train, "test": IMAGENET32.test}
        sources = {name: search(IMAGENET32, layouts[name], base) for name in layouts}
        pairs = product(*(complete for complete, _ in sources.values()))
        choices = [dict(zip(sources, pair, strict=True)) for pair in pairs]
        damage = None
        # `None` where the originals are gone: the conversion stands for itself.
        for folder, sizes in product(_folders(base), [*map(_sizes, choices)] or [None]):
            try:
                loaded = memmap.load(folder, ("train", "test"), sizes=sizes, verify=verify)
            except ValueError as error:
                damage, loaded = damage or error, None
            if loaded is not None:
                return _dataset(*loaded)
        if choices:
            if damage is not None:
                warnings.warn(f"{damage}; converting the original files again", stacklevel=2)
            first_whole(choices, partial(_convert, _writable(base)))
            return imagenet32(base, verify=verify)
        if damage is not None:
            raise damage
        some = any(complete for complete, _ in sources.values())
        reasons += [
            lacks or f"{base} has no {name} files."
            for name, (complete, lacks) in sources.items()
            if not complete and (lacks or some)
        ]
    raise missing(IMAGENET32, root, " ".join(reasons))


def _dataset(splits: dict[str, Split], checksums: dict[str, str]) -> Dataset:
    train, test = splits["train"], splits["test"]
    return Dataset(IMAGENET32.name, train, test, num_classes=_NUM_CLASSES, checksums=checksums)


def _sizes(found: dict[str, Found]) -> dict[str, int]:
    return {name: size for place in found.values() for name, size in place.sizes().items()}


def _folders(base: Path) -> tuple[Path, Path]:
    """Beside the files, or else in the user's cache under a name of that place."""
    place = sha256(str(base.resolve()).encode())[:12]
    name = IMAGENET32.name
    return base / "eqprop-cache" / name, cache_folder() / "eqprop-cache" / f"{name}-{place}"


def _writable(base: Path) -> Path:
    beside, fallback = _folders(base)
    try:
        beside.mkdir(parents=True, exist_ok=True)
        probe = beside / "writable.part"
        probe.touch()
        probe.unlink()
        return beside
    except OSError:
        fallback.mkdir(parents=True, exist_ok=True)
        return fallback


def _convert(folder: Path, found: dict[str, Found]) -> None:
    checksums: dict[str, str] = {}
    labels: set[int] = set()
    parts = {name: _parts(place, checksums, labels) for name, place in found.items()}
    # Published with labels from 1 to 1000; there are copies from 0 to 999.
    first = lambda: 0 if 0 in labels else 1
    memmap.convert(folder, parts, sizes=_sizes(found), checksums=checksums, first=first)


def _parts(found: Found, checksums: dict[str, str], labels: set[int]) -> Iterator[Split]:
    """The files of a split one by one; the least and the greatest label of each are added to `labels`."""

    def decode(name: str, data: bytes, source: str) -> Split:
        batch = _read_npz(data, source) if data.startswith(ZIP) else read_pickle(data, source)
        part = read_batch(batch, "labels", source)
        span = {int(part.labels.min()), int(part.labels.max()), *labels}
        if min(span) < 0 or max(span) > _NUM_CLASSES or span >= {0, _NUM_CLASSES}:
            raise unfit(
                source,
                f"labels run from {min(span)} to {max(span)}, with those of the files before it; "
                f"expected 1 to {_NUM_CLASSES} or 0 to {_NUM_CLASSES - 1} in all files",
            )
        labels.update(span)
        checksums[name] = sha256(data)
        return part

    yield from contents(*found, decode)


def _read_npz(data: bytes, source: str) -> dict[str, object]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in ("data", "labels") if name in arrays}
    # A file that is no .npz at all may come back as a bare array, without a context manager.
    except (ValueError, EOFError, OSError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise damaged(source, error) from error
