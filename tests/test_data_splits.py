"""Parts of the training images: exact in number, even in their classes, the same everywhere."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from eqprop.data import Batches, Dataset, Rows, Split, hold_out, permutation, subset


def make_split(labels, path=None):
    """Images that say at which row they stand."""
    rows = np.arange(len(labels))
    images = np.stack([rows // 256, rows % 256], axis=1).astype(np.uint8)[:, :, None]
    if path is not None:
        np.save(path, images)
        images = np.load(path, mmap_mode="r")
    return Split(images, np.asarray(labels, np.int64), "here")


def make_dataset(labels, path=None):
    return Dataset("made", make_split(labels, path), make_split([0]), num_classes=1 + max(labels))


def rows(split):
    images = np.asarray(split.images)[:, :, 0].astype(int)
    return (256 * images[:, 0] + images[:, 1]).tolist()


LABELS = [int(label) for label in np.random.default_rng(0).integers(0, 3, 90) ** 2]


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("size, number", [(9, 9), (0.1, 9), (1, 1), (89, 89), (0.99, 89)])
def test_what_is_held_out_leaves_the_training_images(tmp_path, mapped, size, number):
    whole = make_dataset(LABELS, tmp_path / "images.npy" if mapped else None)
    dataset = hold_out(whole, size, 3)
    assert dataset.validation is not None
    train, validation = rows(dataset.train), rows(dataset.validation)
    assert len(validation) == number and sorted(train + validation) == list(range(90))
    # Both in the order of the files, each image with its label.
    assert train == sorted(train) and validation == sorted(validation)
    for split, chosen in ((dataset.train, train), (dataset.validation, validation)):
        assert split.labels.tolist() == [LABELS[row] for row in chosen] and split.source == "here"
    assert dataset.test is whole.test and len(whole.train) == 90


def largest_remainders(sizes, number):
    """By hand, in fractions of whole numbers: what each class gives."""
    total = sum(sizes)
    shares = [number * size // total for size in sizes]
    order = sorted(range(len(sizes)), key=lambda k: (-(number * sizes[k] % total), k))
    for k in order[: number - sum(shares)]:
        shares[k] += 1
    return shares


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6), share=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_every_class_gives_its_share_and_the_number_is_exact(sizes, share, seed):
    total = sum(sizes)
    number = math.ceil(share * total)
    if not 0 < number < total:
        return
    labels = np.repeat(np.arange(len(sizes)), sizes)[permutation(total, 7)].tolist()
    validation = hold_out(make_dataset(labels), number, seed).validation
    assert validation is not None
    counts = np.bincount(validation.labels, minlength=len(sizes)).tolist()
    assert sum(counts) == number and counts == largest_remainders(sizes, number)
    for count, size in zip(counts, sizes, strict=True):
        assert abs(count - number * size / total) < 1


def test_what_is_held_out_is_pinned_and_follows_the_seed():
    """Any platform, any NumPy: a change here changes what settings are chosen on."""
    held = {seed: rows(hold_out(make_dataset(LABELS), 6, seed).validation) for seed in (0, 1)}
    assert held == PINNED
    # The last of each class in the shuffle.
    order = permutation(90, 0)
    for label in (0, 1, 4):
        of_class = [int(row) for row in order if LABELS[row] == label]
        expected = of_class[len(of_class) - sum(LABELS[row] == label for row in held[0]) :]
        assert sorted(expected) == [row for row in held[0] if LABELS[row] == label]


PINNED = {0: [4, 12, 47, 62, 64, 83], 1: [31, 33, 35, 44, 84, 86]}


@pytest.mark.parametrize("size", [0, -1, 90, 91, 0.0, 1.0, 1.5, 0.001, 0.999, True, math.nan])
def test_a_size_that_leaves_nothing_is_explained(size):
    with pytest.raises(ValueError, match=f"here: a part of {size}.*from 1 to 89, or a fraction.*There are 90 images"):
        hold_out(make_dataset(LABELS), size, 0)


def test_a_second_validation_split_is_refused():
    dataset = hold_out(make_dataset(LABELS), 9, 0)
    with pytest.raises(ValueError, match="made has a validation split of 9 images, and 0.1 more .* Give null"):
        hold_out(dataset, 0.1, 0)


def test_a_validation_split_is_checked_as_the_others_are():
    dataset = make_dataset([0, 1])
    for images, labels, message in (
        (np.zeros((1, 3, 3), np.uint8), [0], r"training images are \[2, 1\] and validation images \[3, 3\]"),
        (np.zeros((1, 2, 1), np.uint8), [2], "there: labels run from 2 to 2, expected 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(dataset, validation=Split(images, np.array(labels), "there"))
    with pytest.raises(ValueError, match="made: 3 class names for 2 classes"):
        dataclasses.replace(dataset, class_names=("a", "b", "c"))


def test_a_memory_mapped_split_stays_in_its_file(tmp_path):
    dataset = hold_out(make_dataset(LABELS, tmp_path / "images.npy"), 0.2, 0)
    plain = hold_out(make_dataset(LABELS), 0.2, 0)
    assert isinstance(dataset.train.images, Rows) and isinstance(subset(dataset.train, 40, 0).images, Rows)
    assert isinstance(dataset.train[3:9].images, Rows) and rows(dataset.train[3:9]) == rows(plain.train)[3:9]
    assert rows(subset(dataset.train, 40, 1)) == rows(subset(plain.train, 40, 1))
    assert (dataset.train.images.shape, dataset.train.images.nbytes) == ((72, 2, 1), 144)
    for a, b in zip(Batches(dataset.train, 7, 1).epoch(2), Batches(plain.train, 7, 1).epoch(2), strict=True):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        assert type(a.images) is np.ndarray
    pixels = np.asarray(plain.train.images)
    np.testing.assert_array_equal(dataset.train.images[5], pixels[5])
    np.testing.assert_array_equal(dataset.train.images[2:8, 1], pixels[2:8, 1])
    np.testing.assert_array_equal(dataset.train.images[5, 1], pixels[5, 1])
    assert np.mean(dataset.train.images) == pixels.mean() and len(list(dataset.train.images)) == 72
    assert np.asarray(dataset.train.images, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="ask for a copy"):
        np.asarray(dataset.train.images, copy=False)


@pytest.mark.parametrize("size", [1, 2, 3, 10, 47, 90])
def test_a_subset_keeps_classes_even_until_one_runs_out(size):
    split = make_split(LABELS)
    chosen = subset(split, size, 5)
    taken = rows(chosen)
    assert len(set(taken)) == size and taken == sorted(taken)
    assert chosen.labels.tolist() == [LABELS[row] for row in taken]
    counts = {label: chosen.labels.tolist().count(label) for label in (0, 1, 4)}
    most = max(counts.values())
    for label, count in counts.items():
        assert count >= most - 1 or count == LABELS.count(label)
    # One after another: a smaller subset is part of a larger one.
    assert set(rows(subset(split, max(1, size // 2), 5))) <= set(taken)


def test_a_subset_is_pinned():
    assert rows(subset(make_split(LABELS), 6, 0)) == PINNED_SUBSET


PINNED_SUBSET = [0, 8, 19, 31, 51, 72]


@pytest.mark.parametrize("size", [0, -3, 91, True])
def test_a_subset_that_there_is_not_is_explained(size):
    with pytest.raises(ValueError, match=f"here: {size} training examples.*from 1 to the 90 there are.*null"):
        subset(make_split(LABELS), size, 0)
