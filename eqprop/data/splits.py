"""Parts of the training images: some held out to choose settings on, or fewer of them to train on."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from eqprop.data.batches import permutation
from eqprop.data.dataset import Dataset, Split


def hold_out(dataset: Dataset, size: int | float, seed: int) -> Dataset:
    """The data set with a part of its training images as its validation split.

    Every class gives its share of them: shares are rounded so that the number is exact, by largest remainders. Which
    images of a class are held out is decided by `permutation(len(dataset.train), seed)`. Both parts stay in the order
    of the files. Memory-mapped images stay in their file; images in memory are copied, and the copy takes as much
    memory as they do until the data set that was given is dropped.

    **Arguments:**

    - `size`: a whole number of images from 1, or a fraction above 0 and below 1 of the training images.
    - `seed`: of the shuffle.

    **Raises:** `ValueError` if `size` is neither, if it leaves no image on one of the sides, or if the data set has a
    validation split.
    """
    train = dataset.train
    if dataset.validation is not None:
        raise ValueError(
            f"{dataset.name} has a validation split of {len(dataset.validation)} images, and {size} more were to be "
            "held out; expected a data set without one. Give null to keep the one there is."
        )
    held = stratified(train.strata, size, seed, source=train.source)
    return dataclasses.replace(
        dataset, train=train.take(np.flatnonzero(~held)), validation=train.take(held.nonzero()[0])
    )


def subset(split: Split, size: int, seed: int) -> Split:
    """The first `size` examples of a shuffle in which the classes take turns, in the order of the files.

    The shuffle is `permutation(len(split), seed)`. As long as no class runs out, the numbers of examples of any two
    classes differ by one at most. Memory-mapped images stay in their file.

    **Raises:** `ValueError` unless `size` is a whole number from 1 to the number of examples.
    """
    if isinstance(size, bool) or not 1 <= size <= len(split):
        raise ValueError(
            f"{split.source}: {size} training examples were asked for; expected a whole number from 1 to the "
            f"{len(split)} there are. Give one of these, or null for all."
        )
    order = permutation(len(split), seed)
    turn = _turns(split.strata[order])
    return split.take(np.sort(order[np.argsort(turn, kind="stable")[:size]]))


def stratified(
    labels: Int[np.ndarray, " n"], size: int | float, seed: int, *, source: str = "labels"
) -> Bool[np.ndarray, " n"]:
    """Which examples make up a part of `size` in which every class has its share.

    **Arguments:**

    - `size`: a number of examples, or a fraction of them.
    - `seed`: of the shuffle; the last examples of each class in it are chosen.
    - `source`: where the labels are from, for the error.

    **Raises:** `ValueError` unless `size` is at least one example and leaves one.
    """
    total = len(labels)
    number = round(total * size) if isinstance(size, float) and 0 < size < 1 else size
    if isinstance(number, (bool, float)) or not 1 <= number < total:
        rounded = "" if number is size else f", which is {number} images,"
        raise ValueError(
            f"{source}: a part of {size}{rounded} was asked for; expected a whole number from 1 to {total - 1}, or a "
            f"fraction above 0 and below 1 that leaves an image on either side. There are {total} images: give another "
            "part of them."
        )
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    # In whole numbers, so that no rounding decides: the share of a class and what is left of its division.
    shares, remainders = np.divmod(sizes * number, total)
    shares[np.argsort(-remainders, kind="stable")[: number - shares.sum()]] += 1
    order = permutation(total, seed)[::-1]
    chosen = np.zeros(total, bool)
    chosen[order] = _turns(classes[order]) < shares[classes[order]]
    return chosen


def _turns(labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """For each label, how many of the same class come before it."""
    order = np.argsort(labels, kind="stable")
    _, first, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    turns = np.empty(len(labels), np.int64)
    turns[order] = np.arange(len(labels)) - np.repeat(first, sizes)
    return turns
