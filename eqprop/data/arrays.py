"""Data of one's own: arrays, tables and folders of images as a data set."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from eqprop.data.dataset import Dataset, Split
from eqprop.data.faults import unfit
from eqprop.data.files import file_digest, sha256, similar
from eqprop.data.own import NPY, Part, as_split, read_npz, read_pair
from eqprop.data.packing import ZIP, unpack
from eqprop.data.pictures import PICTURES, read_folder
from eqprop.data.splits import stratified
from eqprop.data.tables import read_table

_Place = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
# Of the images that become the test split where none is given: part of every result, never change it.
_SEED = 0


def arrays(
    train: _Place | None = None,
    test: _Place | None = None,
    *,
    name: str = "arrays",
    test_fraction: float = 0.2,
    image_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    maximum: int = 255,
) -> Dataset:
    """A data set from files of one's own.

    What a file is, its first bytes say. It may be packed by gzip, bz2, xz or zip.

    - `.npz`: images and labels under `images`, `labels`, or `x`, `y`, or `data`, `target`; or both splits under
        `x_train`, `y_train`, `x_test`, `y_test`, or `train_images`, `train_labels`, `test_images`, `test_labels`.
        Capitals do not matter, and what else is in it is not read.
    - two `.npy` as a list: the images, the labels. Images that are `uint8` stay memory-mapped.
    - a table, as in `.csv`: a line an image, with commas, semicolons or tabs; the label in the column called `label` or
        `class`, or else in the first; a line of column names may come first.
    - a folder: `train/CLASS/*.png` and `test/CLASS/*.png`, perhaps `validation/CLASS/*.png`; or `CLASS/*.png`. Images
        are PNG or JPEG, read by Pillow.

    Images are `uint8`, or whole numbers from 0 to `maximum` of another type: `[n, H, W]`, `[n, H, W, C]`, or `[n, d]`
    with an `image_shape`, which is not needed for squares. Labels are whole numbers from 0; folders are numbered in the
    order of their names. Where there are no test images, a stratified part of the training images is split off, always
    the same one.

    **Arguments:**

    - `train`: a file, a folder, or a list of two `.npy` files.
    - `test`: the same for the test images; by default what `train` has of them, or else a part of the training images.
    - `name`: what results should be called after.
    - `test_fraction`: the part of the training images that is split off where there are no test images.
    - `image_shape`: `(H, W)` or `(H, W, C)` of images that are stored as rows.
    - `num_classes`: by default one more than the largest label.
    - `maximum`: the largest pixel value there can be, up to 255.

    **Raises:** `ValueError` or `FileNotFoundError` that names the file, what is wrong and what to do; `ImportError` if
    a folder of images is given without Pillow.
    """
    if train is None:
        raise ValueError("train is null; expected a file or a folder. Give train=FILE, or data.load.train=FILE.")
    if not 1 <= maximum <= 255:
        raise ValueError(f"maximum is {maximum}; pixels are stored in bytes. Give a number from 1 to 255.")
    parts, class_names, checksums = _read(train)
    if "train" not in parts:
        raise unfit(parts["test"].source, "it has test images alone, and was given as train")
    if test is not None:
        others, _, more = _read(test, class_names)
        parts["test"] = others["test"] if "test" in others else others["train"]
        checksums = {**checksums, **more}
    splits = {kind: as_split(part, image_shape, maximum) for kind, part in parts.items()}
    if "test" not in splits:
        whole = splits["train"]
        chosen = stratified(whole.labels, float(test_fraction), _SEED, source=whole.source)
        splits["train"], splits["test"] = whole.take(np.flatnonzero(~chosen)), whole.take(np.flatnonzero(chosen))
    if num_classes is None:
        num_classes = len(class_names) or _count_classes(splits)
    return Dataset(
        name,
        splits["train"],
        splits["test"],
        num_classes=num_classes,
        maximum=maximum,
        validation=splits.get("validation"),
        class_names=class_names,
        checksums=checksums,
    )


def _read(place: _Place, class_names: Sequence[str] = ()) -> tuple[dict[str, Part], tuple[str, ...], dict[str, str]]:
    """The splits in a place, the names of the classes where there are any, and checksums of the files."""
    if not isinstance(place, (str, os.PathLike)):
        if len(place) != 2:
            raise ValueError(
                f"{', '.join(map(str, place))}: a list of {len(place)} files; expected two. Give "
                "[images.npy, labels.npy]."
            )
        images, labels = (_existing(Path(item)) for item in place)
        return {"train": read_pair(images, labels)}, (), {_called(path): file_digest(path) for path in (images, labels)}
    path = _existing(Path(place))
    if path.is_dir():
        return read_folder(path, class_names)
    data = unpack(path.read_bytes(), path.name, path)
    if data.startswith(NPY):
        raise unfit(path, "one array; give two, [images.npy, labels.npy]")
    if data.startswith(PICTURES):
        raise unfit(path, "one image; give a folder that has a folder of images for each class")
    parts = read_npz(data, str(path)) if data.startswith(ZIP) else {"train": read_table(data, str(path))}
    return parts, (), {_called(path): sha256(data)}


def _called(path: Path) -> str:
    """A file in a record of what was read: with its folder, as those of two splits may have one name."""
    return f"{path.parent.name}/{path.name}"


def _existing(path: Path) -> Path:
    path = path.expanduser()
    if path.exists():
        return path
    near = similar(path.parent, [path.name])
    hint = f"{path.parent} has {near[0]}" if near else "nothing beside it is called almost so"
    raise FileNotFoundError(f"{path}: no such file or folder; {hint}. Correct the name.")


def _count_classes(splits: Mapping[str, Split]) -> int:
    low, high = (int(which(which(split.labels) for split in splits.values())) for which in (min, max))
    if low != 0:
        raise ValueError(
            f"{splits['train'].source}: labels run from {low} to {high}; expected classes numbered from 0. Subtract "
            f"{low}, or give num_classes={high + 1} if the first classes have no images."
        )
    return high + 1
