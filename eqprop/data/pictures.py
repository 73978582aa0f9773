"""Folders of PNG and JPEG images, a folder a class."""

import hashlib
import importlib
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eqprop.data.faults import check_is_data, damaged, unfit
from eqprop.data.own import Part

PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_SPLITS = {"train": ("train", "training"), "test": ("test", "testing"), "validation": ("validation", "valid", "val")}
# What systems leave in folders.
_IGNORED = ("thumbs.db", "desktop.ini")


def read_folder(root: Path, class_names: Sequence[str] = ()) -> tuple[dict[str, Part], tuple[str, ...], dict[str, str]]:
    """The splits in `root/train/CLASS`, `root/test/CLASS` and `root/validation/CLASS`, or the one in `root/CLASS`.

    Classes are numbered in the order of their names, or of their numbers where all are numbers. Grey images among
    coloured ones are read as coloured.

    **Arguments:**

    - `class_names`: the classes in their order, where they are known already.

    **Returns:** The splits, the names of the classes, and a checksum a split.

    **Raises:** `ValueError` naming the folder or the file; `ImportError` without Pillow.
    """
    there = {path.name.lower(): path for path in _entries(root) if path.is_dir()}
    folders = {kind: there[name] for kind, names in _SPLITS.items() for name in names if name in there}
    if "train" not in folders:
        folders = {"train": root}
    names = tuple(class_names) or _classes(folders["train"])
    parts, checksums = {}, {}
    for kind, folder in folders.items():
        if unknown := [name for name in _classes(folder) if name not in names]:
            raise unfit(folder, f"it has the classes {', '.join(unknown)}, which the training images do not have")
        parts[kind], checksums[str(folder.relative_to(root.parent))] = _read(folder, names)
    return parts, names, checksums


def _entries(folder: Path) -> list[Path]:
    paths = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in paths if path.name.lower() not in _IGNORED)


def _classes(folder: Path) -> tuple[str, ...]:
    names = [path.name for path in _entries(folder) if path.is_dir()]
    if not names:
        raise unfit(folder, "no folders in it; expected a folder of images for each class")
    return tuple(sorted(names, key=lambda name: (int(name), name) if all(map(str.isdecimal, names)) else (0, name)))


def _read(folder: Path, names: Sequence[str]) -> tuple[Part, str]:
    images: dict[Path, np.ndarray] = {}
    labels: list[int] = []
    digest = hashlib.sha256()
    for label, name in enumerate(names):
        for path in _entries(folder / name) if (folder / name).is_dir() else []:
            if path.is_dir():
                raise unfit(path, "a folder inside of a class; expected images")
            data = path.read_bytes()
            digest.update(f"{name}/{path.name}\0{len(data)}\0".encode() + data)
            images[path] = _decode(data, path)
            labels.append(label)
    if not images:
        raise unfit(folder, "no images in it; expected a folder of images for each class")
    [(size, number), *others] = Counter(image.shape[:2] for image in images.values()).most_common()
    if others:
        odd = next(path for path, image in images.items() if image.shape[:2] != size)
        raise unfit(
            odd,
            f"an image of {_size(images[odd])}, where {number} of {len(images)} are {size[1]}x{size[0]}; expected one "
            "size, so cut or scale it",
        )
    if len({image.ndim for image in images.values()}) > 1:
        images = {path: image if image.ndim == 3 else image[..., None].repeat(3, 2) for path, image in images.items()}
    return Part(np.stack(list(images.values())), np.array(labels), str(folder)), digest.hexdigest()


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def _decode(data: bytes, path: Path) -> np.ndarray:
    """Grey images as `[H, W]`, all others as `[H, W, 3]`; what is transparent is not."""
    check_is_data(data, path)
    if not data.startswith(PICTURES):
        raise unfit(path, "neither PNG nor JPEG")
    try:
        pillow: Any = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise ImportError("images of one's own need Pillow: `pip install pillow`") from error
    try:
        with pillow.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.mode.startswith(("I", "F")):
                raise unfit(path, f"an image with more than 8 bits a pixel (mode {image.mode}); save it with 8")
            return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (OSError, SyntaxError, pillow.DecompressionBombError) as error:
        raise damaged(path, error) from error
