"""What every loader returns: splits of images with labels or targets, checked when they are made."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int

from eqprop.data.rows import Images, Rows


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, or inputs with the numbers to be predicted, in the order of the files.

    **Arguments:**

    - `images`: `uint8`, `(n, H, W)` or `(n, H, W, C)` with channels last; they may be memory-mapped, or `Rows` of a
        memory-mapped array. The inputs of a regression are `float32`.
    - `labels`: `int32` or `int64`, `(n,)`; or, in a regression, targets, `float32`, `(n, outputs)`.
    - `source`: the file or folder they came from, for error messages.
    """

    images: Images
    labels: np.ndarray
    source: str = "split"

    def __post_init__(self):
        images, labels = self.images, self.labels
        if labels.dtype == np.float32:
            self._check_targets()
            return
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

    def _check_targets(self) -> None:
        images, targets = self.images, self.labels
        if images.dtype != np.float32 or images.ndim not in (3, 4) or targets.ndim != 2 or len(images) != len(targets):
            raise ValueError(
                f"{self.source}: inputs are {images.dtype}{list(images.shape)} and targets "
                f"{targets.dtype}{list(targets.shape)}; give float32 arrays [n, H, W] and [n, outputs]"
            )
        if not np.isfinite(targets).all() or not np.isfinite(np.asarray(images)).all():
            raise ValueError(f"{self.source}: inputs or targets are not finite; leave such examples out")

    @property
    def targets(self) -> np.ndarray:
        """What a loss takes: labels as `int32`, or targets as they are."""
        return self.labels if self.labels.dtype == np.float32 else self.labels.astype(np.int32)

    @property
    def strata(self) -> np.ndarray:
        """The class of every example; one class for all in a regression."""
        return self.labels if self.labels.ndim == 1 else np.zeros(len(self.labels), np.int64)

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
    - `num_classes`: labels lie in `[0, num_classes)`; `None` in a regression.
    - `maximum`: the largest pixel value there can be: `images / maximum` lies in `[0, 1]`.
    - `class_names`: what the classes are called, in the order of their numbers, where that is known.
    - `checksums`: SHA-256 of the *contents* of each file read, as it is once unpacked, so that a
        record of an experiment says what it was run on however the file was packed.
    """

    name: str
    train: Split
    test: Split
    _: KW_ONLY
    num_classes: int | None
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
            if (self.num_classes is None) != (split.labels.dtype == np.float32):
                raise ValueError(f"{split.source}: num_classes is null for targets of a regression, and for them only")
            if self.num_classes is None:
                continue
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
