"""What every loader returns: two splits of images and labels, checked when they are made."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field

import numpy as np


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels, in the order of the files.

    **Arguments:**

    - `images`: `uint8`, `(n, H, W)` or `(n, H, W, C)` with channels last; may be memory-mapped.
    - `labels`: `int32` or `int64`, `(n,)`.
    - `source`: the file or folder they came from, for error messages.
    """

    images: np.ndarray
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
        return Split(self.images[index], self.labels[index], self.source)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named pair of splits.

    **Arguments:**

    - `name`: what results should be called after.
    - `train`, `test`: splits of equal image shape.
    - `num_classes`: labels lie in `[0, num_classes)`.
    - `maximum`: the largest pixel value there can be: `images / maximum` lies in `[0, 1]`.
    - `checksums`: SHA-256 of the *contents* of each file read, as it is once unpacked, so that a
        record of an experiment says what it was run on however the file was packed.
    """

    name: str
    train: Split
    test: Split
    _: KW_ONLY
    num_classes: int
    maximum: int = 255
    checksums: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise ValueError(
                f"{self.name}: training images are {list(self.train.images.shape[1:])} and test "
                f"images {list(self.test.images.shape[1:])}; give both one shape"
            )
        for split in (self.train, self.test):
            check_labels(split.labels, self.num_classes, split.source)
            # Every uint8 is at most 255: a memory-mapped split is never read through.
            if self.maximum < 255 and (largest := int(split.images.max())) > self.maximum:
                raise ValueError(
                    f"{split.source}: a pixel is {largest}, above maximum={self.maximum}; "
                    "give the larger maximum or check the file"
                )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(H, W)` or `(H, W, C)`."""
        return self.train.images.shape[1:]


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
    images = np.concatenate([split.images for split in splits])
    return Split(images, np.concatenate([split.labels for split in splits]), source)
