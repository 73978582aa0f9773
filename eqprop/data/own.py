"""Arrays in `.npz` and `.npy` files, and the checks that turn arrays of one's own into a split."""

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from eqprop.data.dataset import Split
from eqprop.data.faults import damaged, unfit
from eqprop.data.packing import unpack

NPY = b"\x93NUMPY"
_TRAIN_KEYS = (("x_train", "y_train"), ("train_images", "train_labels"))
_TEST_KEYS = (("x_test", "y_test"), ("test_images", "test_labels"))
_PLAIN_KEYS = (("images", "labels"), ("x", "y"), ("data", "target"))


class Part(NamedTuple):
    """Images and labels as a file has them, not yet checked."""

    images: np.ndarray
    labels: np.ndarray
    source: str


def read_npz(data: bytes, source: str) -> dict[str, Part]:
    """The splits in an `.npz`. No other entry of it is read, and nothing in it is executed.

    **Raises:** `ValueError` naming `source` if it is damaged, or has no images and labels under a known pair of names.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            entries = {name.lower(): name for name in file.files}

            def part(pairs: Sequence[tuple[str, str]]) -> Part | None:
                there = [pair for pair in pairs if all(key in entries for key in pair)]
                return Part(file[entries[there[0][0]]], file[entries[there[0][1]]], source) if there else None

            train, test = part(_TRAIN_KEYS), part(_TEST_KEYS)
            train = part(_PLAIN_KEYS) if train is None else train
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile) as error:
        if "allow_pickle" in str(error):
            raise unfit(source, "its images or labels are Python objects, expected an array of numbers") from error
        raise damaged(source, error) from error
    if train is None and test is None:
        known = "; ".join(", ".join(pair) for pair in (*_PLAIN_KEYS, *_TRAIN_KEYS))
        raise unfit(source, f"its entries are {', '.join(entries.values())}, expected one of these pairs: {known}")
    return {kind: part for kind, part in (("train", train), ("test", test)) if part is not None}


def read_pair(images: Path, labels: Path) -> Part:
    """Images and labels from two `.npy` files; images that are not packed stay in theirs.

    **Raises:** `ValueError` naming the file that is damaged or no `.npy`; `FileNotFoundError`.
    """
    return Part(_read_npy(images), np.array(_read_npy(labels)), str(images))


def as_split(part: Part, image_shape: Sequence[int] | None, maximum: int) -> Split:
    """Checked images and labels.

    **Raises:** `ValueError` naming the file, what it has, what was expected and what to do.
    """
    images, labels, source = part
    if len(images.shape) == 0 or labels.shape[:1] != images.shape[:1] or not len(images):
        raise ValueError(
            f"{source}: images have shape {list(images.shape)} and labels {list(labels.shape)}; expected as many of "
            "the one as of the other, and one at least. Check which belong together."
        )
    pixels = _pixels(images, maximum, source)
    return Split(_shaped(pixels, image_shape, source), _numbers(labels, source), source)


def _read_npy(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        head = file.read(512)
    try:
        if head.startswith(NPY):
            return np.load(path, mmap_mode="r", allow_pickle=False)
        data = unpack(path.read_bytes(), path.name, path)
        if not data.startswith(NPY):
            raise unfit(path, "no .npy file, of which a pair was given")
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        if str(error).startswith(str(path)):
            raise
        raise damaged(path, error) from error


def _pixels(images: np.ndarray, maximum: int, source: str) -> UInt8[np.ndarray, "..."]:
    if images.dtype == np.uint8:
        return images
    advice = "Give whole numbers, as in (images * 255).round().astype('uint8')."
    if images.dtype.kind not in "biuf":
        raise ValueError(f"{source}: images are {images.dtype}; expected uint8. {advice}")
    low, high = images.min(), images.max()
    said = f"{source}: images are {images.dtype} from {low} to {high}; expected whole numbers from 0 to {maximum}"
    scaled = images.dtype.kind == "f" and high <= 1 < maximum
    # The comparison is false for what is not a number.
    if scaled or not (0 <= low and high <= maximum) or (images.dtype.kind == "f" and (images % 1 != 0).any()):
        raise ValueError(f"{said}. {advice}")
    return images.astype(np.uint8)


def _shaped(images: np.ndarray, image_shape: Sequence[int] | None, source: str) -> np.ndarray:
    """Rows as images; images as they are, if they have the shape that was given."""
    shape = tuple(image_shape) if image_shape is not None else images.shape[1:]
    if images.ndim == 2 and image_shape is None:
        side = math.isqrt(images.shape[1])
        shape = (side, side)
    stored = images.shape[1:]
    if images.ndim == 4 and stored[0] in (1, 3) and stored[2] not in (1, 3, 4):
        raise ValueError(
            f"{source}: images have shape {list(stored)}, with channels first; expected them last. Give "
            "images.transpose(0, 2, 3, 1)."
        )
    fits = math.prod(shape) == math.prod(stored) and len(shape) in (2, 3)
    # Rows take any shape of their size; other images may gain or lose a channel of one.
    if not fits or (images.ndim > 2 and _bare(stored) != _bare(shape)):
        raise ValueError(
            f"{source}: an image has shape {list(stored)}, {math.prod(stored)} values, expected {list(shape)}; give "
            "image_shape=[height, width] or [height, width, channels] as it is."
        )
    return images.reshape(len(images), *shape)


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:2] if shape[2:] == (1,) else shape


def _numbers(labels: np.ndarray, source: str) -> Int[np.ndarray, " n"]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2:
        raise ValueError(
            f"{source}: labels have shape {list(labels.shape)}; expected one class number an image. Give "
            "labels.argmax(axis=1) of one-hot labels."
        )
    whole = labels.dtype.kind in "iu" or (labels.dtype.kind == "f" and np.isfinite(labels).all())
    if labels.ndim != 1 or not whole or (labels % 1 != 0).any() or abs(labels).max() >= 2**31:
        raise ValueError(
            f"{source}: labels are {labels.dtype}{list(labels.shape)}; expected whole numbers from 0, one an image. "
            "Number the classes, as in np.unique(labels, return_inverse=True)[1]."
        )
    return labels.astype(np.int32)
