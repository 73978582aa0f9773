"""What every loader returns: splits of images and labels, checked when they are made."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from eqprop.data.rows import Images, Rows


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, in the order of the files.

    **Arguments:**

    - `images`: `uint8`, `(n, H, W)` or `(n, H, W, C)` with channels last; they may be memory-mapped, or `Rows` of a
        memory-mapped array.
    - `labels`: `int32` or `int64`, `(n,)`.
    - `source`: the file or folder they came from, for error messages.
    """

    images: Images
    labels: np.ndarray
    source: str = "split"

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
            raise ValueError(
                f"{self.source}: images are {images.dtype}{list(images.shape)}; give a uint8 array "
                "[n, H, W] or [n, H, W, C] with at least one image"
            )
        if labels.dtype not in (np.int32, np.int64) or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{self.source}: labels are {labels.dtype}{list(labels.shape)} for {len(images)} "
                f"images; give an int32 or int64 array [{len(images)}]"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice) -> "Split":
        """The examples of a slice; a memory-mapped split stays memory-mapped."""
        images: Any = self.images
        images = images.take(index) if isinstance(images, Rows) else images[index]
        return Split(images, self.labels[index], self.source)

    def take(self, rows: Int[np.ndarray, " m"]) -> "Split":
        """The examples at `rows` in order. Those of a memory-mapped split stay in its file, others are copied."""
        images: Any = self.images
        if isinstance(images, np.memmap):
            images = Rows(images, rows)
        else:
            images = images.take(rows) if isinstance(images, Rows) else images[rows]
        return Split(images, self.labels[rows], self.source)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Named splits of one kind of image.

    **Arguments:**

    - `name`: what results should be called after.
    - `train`, `test`: splits of equal image shape.
    - `validation`: a split to choose settings on, so that the test images decide nothing; `hold_out` makes one.
    - `num_classes`: labels lie in `[0, num_classes)`.
    - `maximum`: the largest pixel value there can be: `images / maximum` lies in `[0, 1]`.
    - `class_names`: what the classes are called, in the order of their numbers, where that is known.
    - `checksums`: SHA-256 of the *contents* of each file read, as it is once unpacked, so that a
        record of an experiment says what it was run on however the file was packed.
    """

    name: str
    train: Split
    test: Split
    _: KW_ONLY
    num_classes: int
    maximum: int = 255
    validation: Split | None = None
    class_names: tuple[str, ...] = ()
    checksums: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if self.class_names and len(self.class_names) != self.num_classes:
            raise ValueError(
                f"{self.name}: {len(self.class_names)} class names for {self.num_classes} classes; name all or "
                "none of them"
            )
        shape = self.train.images.shape[1:]
        splits = {"training": self.train, "test": self.test}
        splits |= {} if self.validation is None else {"validation": self.validation}
        for kind, split in splits.items():
            if split.images.shape[1:] != shape:
                raise ValueError(
                    f"{self.name}: training images are {list(shape)} and {kind} images {list(split.images.shape[1:])}; "
                    "give both one shape"
                )
        for split in splits.values():
            check_labels(split.labels, self.num_classes, split.source)
            # Every uint8 is at most 255: a memory-mapped split is never read through.
            if self.maximum < 255 and (largest := int(np.asarray(split.images).max())) > self.maximum:
                raise ValueError(
                    f"{split.source}: a pixel is {largest}, above maximum={self.maximum}; "
                    "give the larger maximum or check the file"
                )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(H, W, C)`; images that are stored as `(H, W)` have one channel."""
        shape = self.train.images.shape[1:]
        return shape if len(shape) == 3 else (*shape, 1)


def check_labels(labels: np.ndarray, num_classes: int, source: str) -> None:
    """`ValueError` naming `source` unless every label lies in `[0, num_classes)`."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"{source}: labels run from {low} to {high}, expected 0 to {num_classes - 1}; "
            "the file is damaged or belongs to another data set"
        )


def join(splits: Sequence[Split], source: str) -> Split:
    """One split after the other, in memory."""
    images = np.concatenate([np.asarray(split.images) for split in splits])
    return Split(images, np.concatenate([split.labels for split in splits]), source)
