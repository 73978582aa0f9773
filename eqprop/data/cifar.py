"""CIFAR-10 and CIFAR-100, binary or pickled, unpacked or in their archive.

A. Krizhevsky, "Learning multiple layers of features from tiny images" (2009).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from eqprop.data.catalogue import CIFAR10, CIFAR100
from eqprop.data.dataset import Dataset, Split, check_labels, join
from eqprop.data.download import fetched
from eqprop.data.faults import damaged, unfit
from eqprop.data.files import Root, contents, sha256
from eqprop.data.pickles import Unknown, read_pickle
from eqprop.data.source import Found, Source, find

_PIXELS = 3 * 32 * 32


def channels_last(planes: UInt8[np.ndarray, "n 3072"]) -> UInt8[np.ndarray, "n 32 32 3"]:
    """Rows of 1024 red, 1024 green and 1024 blue bytes as contiguous images."""
    return np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


class Labels(NamedTuple):
    """Where labels stand: under `key` in a pickle, in byte `column` of the `width` bytes before an image."""

    key: str
    num_classes: int
    column: int = 0
    width: int = 1


def read_binary(data: bytes, labels: Labels, source: str) -> Split:
    """Decode records of one label byte (CIFAR-100: coarse, then fine) and 3072 pixel bytes.

    **Raises:** `ValueError` naming `source` on a partial record or a label out of range.
    """
    size = labels.width + _PIXELS
    if not data or len(data) % size:
        raise damaged(source, f"{len(data)} bytes, expected records of {size}")
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    numbers = records[:, labels.column].astype(np.int32)
    check_labels(numbers, labels.num_classes, source)
    return Split(channels_last(records[:, labels.width :]), numbers, source)


def read_batch(batch: dict[str, object], key: str, source: str) -> Split:
    """Check a pickled or npz batch: `data` of `(n, 3072)` bytes and a list or array of labels.

    **Arguments:**

    - `batch`, `source`: the dictionary and its file's name.
    - `key`: of the labels, whose numbers are left as they are.

    **Raises:** `ValueError` naming `source`.
    """
    if absent := [name for name in ("data", key) if name not in batch]:
        raise unfit(source, f"no {' or '.join(absent)} among {', '.join(batch)}")
    data = batch["data"]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (_PIXELS,):
        what = data if isinstance(data, Unknown) else type(data)
        what = f"{data.dtype}{list(data.shape)}" if isinstance(data, np.ndarray) else what
        raise unfit(source, f"data is {what}, expected uint8[n, {_PIXELS}]")
    labels = batch[key]
    if isinstance(labels, list) and all(type(label) is int for label in labels):
        labels = np.array(labels, np.int64)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        what = labels if isinstance(labels, Unknown) else "not whole numbers"
        raise unfit(source, f"{key} are {what}")
    if labels.shape != data.shape[:1] or not labels.size:
        raise unfit(source, f"{labels.size} {key} for {len(data)} images")
    return Split(channels_last(data), labels.astype(np.int32), source)


def cifar10(root: Root = None, *, download: bool = False) -> Dataset:
    """CIFAR-10: 50,000 and 10,000 colour images of 32x32 in ten classes.

    **Arguments:**

    - `root`: the folder with the files, or one that contains it; by default EQPROP_DATA, then the cache folder.
    - `download`: fetch the files if they are not there.

    **Raises:** `FileNotFoundError` saying where to put the files; `ValueError` on damaged ones.
    """
    return _cifar(CIFAR10, Labels("labels", 10), root, download)


def cifar100(root: Root = None, *, coarse: bool = False, download: bool = False) -> Dataset:
    """CIFAR-100: 50,000 and 10,000 colour images of 32x32 in a hundred classes, or in their twenty superclasses.

    **Arguments:**

    - `root`, `download`: as for `cifar10`.
    - `coarse`: label by superclass; the data set is then called `cifar100_coarse`.

    **Raises:** `FileNotFoundError` saying where to put the files; `ValueError` on damaged ones.
    """
    labels = Labels("coarse_labels", 20, 0, 2) if coarse else Labels("fine_labels", 100, 1, 2)
    return _cifar(CIFAR100, labels, root, download, name="cifar100_coarse" if coarse else "")


def _cifar(source: Source, labels: Labels, root: Root, download: bool, *, name: str = "") -> Dataset:
    checksums: dict[str, str] = {}

    def split(found: Found) -> Split:
        parts: list[Split] = []
        digests: dict[str, str] = {}

        def decode(name: str, data: bytes, file: str) -> Split:
            # Records start with a label, CIFAR-100's with one of 20 coarse ones; no pickle starts below a space.
            if data[:1] < b" ":
                part = read_binary(data, labels, file)
            else:
                part = read_batch(read_pickle(data, file), labels.key, file)
                check_labels(part.labels, labels.num_classes, file)
            # The batches have equal length: one cut at the end of a record would go unseen.
            if parts and len(part) != len(parts[0]):
                raise damaged(file, f"{len(part)} images, {len(parts[0])} in the file before it")
            digests[name] = sha256(data)
            return part

        for part in contents(*found, decode):
            parts.append(part)
        checksums.update(digests)
        return join(parts, str(found.place))

    def load() -> Dataset:
        train, test = (find(source, layouts, root, split) for layouts in (source.train, source.test))
        return Dataset(name or source.name, train, test, num_classes=labels.num_classes, checksums=checksums)

    return fetched(source, root, load, download)
