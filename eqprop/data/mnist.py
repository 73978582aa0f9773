"""MNIST, Fashion-MNIST, KMNIST and EMNIST: the idx format, one byte a pixel.

Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits" (1998).
H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST" (2017), arXiv:1708.07747, MIT licence.
T. Clanuwat and others, "Deep learning for classical Japanese literature" (2018), arXiv:1812.01718, CC BY-SA 4.0.
G. Cohen, S. Afshar, J. Tapson, A. van Schaik, "EMNIST" (2017), arXiv:1702.05373.
"""

import struct
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from eqprop.data.catalogue import EMNIST, EMNIST_CLASSES, FASHION_MNIST, KMNIST, MNIST
from eqprop.data.dataset import Dataset, Split
from eqprop.data.download import fetched
from eqprop.data.faults import damaged
from eqprop.data.files import Root, contents, sha256
from eqprop.data.source import Found, Source, find

_UNSIGNED_BYTE = 0x08


def read_idx(data: bytes, ndim: int, source: str) -> UInt8[np.ndarray, "..."]:
    """Decode idx contents: bytes 0 0, type code, number of dimensions, sizes, values.

    **Arguments:**

    - `data`: the unpacked contents.
    - `ndim`: dimensions expected: 3 for images, 1 for labels.
    - `source`: the file's name, for errors.

    **Returns:** A read-only `uint8` array.

    **Raises:** `ValueError` naming `source` on another magic number, type, dimension or length.
    """
    start = 4 + 4 * ndim
    if len(data) < start:
        raise damaged(source, f"{len(data)} bytes, too short for an idx header")
    zeros, code, dimensions = struct.unpack_from(">HBB", data)
    if zeros != 0 or code != _UNSIGNED_BYTE or dimensions != ndim:
        raise damaged(source, f"magic 0x{data[:4].hex()}, expected 0x{_UNSIGNED_BYTE:06x}{ndim:02x}")
    shape = struct.unpack_from(f">{ndim}I", data, 4)
    expected = start + int(np.prod(shape, dtype=object))
    if len(data) != expected:
        raise damaged(source, f"{len(data)} bytes, expected {expected} for shape {list(shape)}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def mnist(root: Root = None, *, download: bool = False) -> Dataset:
    """MNIST: 60,000 and 10,000 images of 28x28 handwritten digits.

    **Arguments:**

    - `root`: the folder with the files, or one that contains it; by default EQPROP_DATA, then the cache folder.
    - `download`: fetch the files if they are not there.

    **Raises:** `FileNotFoundError` saying where to put the files; `ValueError` on damaged ones.
    """
    return _idx_dataset(MNIST, root, download)


def fashion_mnist(root: Root = None, *, download: bool = False) -> Dataset:
    """Fashion-MNIST: 60,000 and 10,000 images of 28x28 articles of clothing in ten classes.

    Debian's package `dataset-fashion-mnist` is found by itself. Arguments are those of `mnist`.

    **Raises:** `FileNotFoundError` saying where to put the files; `ValueError` on damaged ones.
    """
    return _idx_dataset(FASHION_MNIST, root, download)


def kmnist(root: Root = None, *, download: bool = False) -> Dataset:
    """Kuzushiji-MNIST: 60,000 and 10,000 images of 28x28 cursive Japanese characters in ten classes.

    Arguments are those of `mnist`.

    **Raises:** `FileNotFoundError` saying where to put the files; `ValueError` on damaged ones.
    """
    return _idx_dataset(KMNIST, root, download)


def emnist(root: Root = None, *, split: str = "balanced", download: bool = False) -> Dataset:
    """EMNIST: images of 28x28 handwritten digits and letters, upright.

    The files hold every image with rows and columns exchanged, which is undone here. The labels of `letters`, which
    start at 1 in its files, start at 0 here. The characters of the classes are in `class_names`.

    **Arguments:**

    - `root`, `download`: as for `mnist`.
    - `split`: "balanced" (47 classes, 112,800 and 18,800 images), "byclass" (62; 697,932 and 116,323), "bymerge" (47;
        697,932 and 116,323), "letters" (26; 124,800 and 20,800), "digits" (10; 240,000 and 40,000) or "mnist" (10;
        60,000 and 10,000).

    **Raises:** `FileNotFoundError` saying where to put the files; `ValueError` on damaged ones and on another split.
    """
    if split not in EMNIST:
        raise ValueError(f"split is {split!r}; EMNIST has {', '.join(EMNIST)}. Give one of these.")
    first = 1 if split == "letters" else 0
    return _idx_dataset(
        EMNIST[split],
        root,
        download,
        name="emnist" if split == "balanced" else f"emnist_{split}",
        class_names=tuple(EMNIST_CLASSES[split]),
        upright=lambda images: np.ascontiguousarray(images.transpose(0, 2, 1)),
        first=first,
    )


def _idx_dataset(
    source: Source,
    root: Root,
    download: bool,
    *,
    name: str = "",
    class_names: tuple[str, ...] = (),
    upright: Callable[[np.ndarray], np.ndarray] = lambda images: images,
    first: int = 0,
) -> Dataset:
    checksums: dict[str, str] = {}

    def decode(name: str, data: bytes, file: str) -> tuple[np.ndarray, str]:
        digest = sha256(data)
        # Data sets share their file names: one put in another's place must not pass.
        if source is not FASHION_MNIST and digest in FASHION_MNIST.published.values():
            raise ValueError(
                f"{file}: this is Fashion-MNIST, not {source.title}; give each "
                f"its own folder, such as {source.folders[0]}/"
            )
        array = read_idx(data, 3 if "images" in name else 1, file)
        checksums[name] = digest
        return array, file

    def split(found: Found) -> Split:
        (images, _), (labels, file) = contents(*found, decode)
        return Split(upright(images), labels.astype(np.int32) - first, file)

    def load() -> Dataset:
        train, test = (find(source, layouts, root, split) for layouts in (source.train, source.test))
        return Dataset(
            name or source.name,
            train,
            test,
            num_classes=len(class_names) or 10,
            class_names=class_names,
            checksums=checksums,
        )

    return fetched(source, root, load, download)
