"""MNIST and Fashion-MNIST: the idx format, one byte a pixel.

Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits" (1998).
H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST" (2017), arXiv:1708.07747, MIT licence.
"""

import struct

import numpy as np
from jaxtyping import UInt8

from eqprop.data.catalogue import FASHION_MNIST, MNIST
from eqprop.data.dataset import Dataset, Split
from eqprop.data.files import Root, contents, damaged, sha256
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


def mnist(root: Root = None) -> Dataset:
    """MNIST: 60,000 and 10,000 images of 28x28 handwritten digits.

    **Raises:** `FileNotFoundError` saying where to put the files; `ValueError` on damaged ones.
    """
    return _idx_dataset(MNIST, root)


def fashion_mnist(root: Root = None) -> Dataset:
    """Fashion-MNIST: 60,000 and 10,000 images of 28x28 articles of clothing in ten classes.

    Debian's package `dataset-fashion-mnist` is found by itself.

    **Raises:** `FileNotFoundError` saying where to put the files; `ValueError` on damaged ones.
    """
    return _idx_dataset(FASHION_MNIST, root)


def _idx_dataset(source: Source, root: Root) -> Dataset:
    checksums: dict[str, str] = {}

    def decode(name: str, data: bytes, file: str) -> tuple[np.ndarray, str]:
        digest = sha256(data)
        # The two share their file names: one put in the other's place must not pass.
        if source is not FASHION_MNIST and digest == FASHION_MNIST.published[name]:
            raise ValueError(
                f"{file}: this is Fashion-MNIST, not {source.title}; give each "
                f"its own folder, such as {source.folders[0]}/"
            )
        array = read_idx(data, 3 if "images" in name else 1, file)
        checksums[name] = digest
        return array, file

    def split(found: Found) -> Split:
        (images, _), (labels, file) = contents(*found, decode)
        return Split(images, labels.astype(np.int32), file)

    train, test = (find(source, layouts, root, split) for layouts in (source.train, source.test))
    return Dataset(source.name, train, test, num_classes=10, checksums=checksums)
