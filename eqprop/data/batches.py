"""Batches whose content depends on the seed, the epoch and the step, and on nothing else."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32, UInt8

from eqprop.data.dataset import Split


class Batch(NamedTuple):
    """Images `uint8`, `(b, H, W)` or `(b, H, W, C)`, and labels `int32`, `(b,)`; or `float32` inputs and targets."""

    images: UInt8[np.ndarray, "b ..."] | Float32[np.ndarray, "b ..."]
    labels: Int32[np.ndarray, " b"] | Float32[np.ndarray, "b outputs"]


def permutation(size: int, *entropy: int) -> Int[np.ndarray, " size"]:
    """A random order of `range(size)`, the same on every platform and in every NumPy release.

    It sorts raw Philox words: NumPy promises the stream of a bit generator, but not that of
    `Generator.permutation`. `entropy` are integers of at least 0, such as a seed and an epoch.
    """
    if min(entropy, default=0) < 0:
        raise ValueError(f"seed and epoch are {entropy}; give integers of at least 0")
    words = np.random.Philox(np.random.SeedSequence(entropy)).random_raw(size)
    return np.argsort(words, kind="stable")


@dataclass(frozen=True, eq=False)
class Batches:
    """A split cut into batches, anew in each epoch.

    **Arguments:**

    - `split`, `batch_size`, `seed`: what is cut, into what, and the seed of its order.
    - `drop_last`: leave out a last batch that is smaller than the others.
    - `shuffle`: off for evaluation: every epoch is in the order of the split.

    Inside a batch the examples are in the order of the split: a memory-mapped file is then read
    forwards, five times as fast from disk, and batches do not depend on where the images lie.
    """

    split: Split
    batch_size: int
    seed: int
    _: KW_ONLY
    drop_last: bool = False
    shuffle: bool = True

    def __post_init__(self):
        if not 0 < self.batch_size <= len(self.split):
            raise ValueError(
                f"batch_size={self.batch_size} for {len(self.split)} images; give a size from 1 to {len(self.split)}"
            )

    def __len__(self) -> int:
        """Batches in an epoch."""
        whole, rest = divmod(len(self.split), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> Int[np.ndarray, " n"]:
        """The order in which an epoch takes the examples, before they are sorted in a batch."""
        size = len(self.split)
        return permutation(size, self.seed, epoch) if self.shuffle else np.arange(size)

    def epoch(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from step `start`: the tail of what a run from 0 yields."""
        if not 0 <= start <= len(self):
            raise ValueError(f"start={start} in an epoch of {len(self)} batches")
        order = self.order(epoch)
        images, labels = self.split.images, self.split.targets
        if isinstance(images, np.memmap):
            images = np.asarray(images)  # a plain view: indexing a mapped array costs more, for no purpose
        for step in range(start, len(self)):
            chosen = np.sort(order[step * self.batch_size : (step + 1) * self.batch_size])
            yield Batch(images[chosen], labels[chosen])
