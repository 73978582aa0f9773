"""Batches depend on seed, epoch and step alone."""

import numpy as np
import pytest

from eqprop.data import Batches, Split, permutation


def make_split(n, path=None):
    images = np.arange(n, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    if path is not None:
        np.save(path, images)
        images = np.load(path, mmap_mode="r")
    return Split(images, np.arange(n))


def test_the_order_is_pinned():
    """Any platform, any NumPy: a change here changes every training run."""
    assert permutation(10, 0).tolist() == PINNED[0]
    assert permutation(10, 7, 3).tolist() == PINNED[1]


PINNED = [[0, 8, 9, 3, 7, 5, 1, 2, 6, 4], [7, 1, 9, 6, 0, 4, 2, 8, 3, 5]]


def test_each_epoch_takes_every_example_once_in_its_own_order():
    batches = Batches(make_split(23), 5, 0)
    orders = []
    for epoch in range(3):
        taken = [batch.labels for batch in batches.epoch(epoch)]
        assert [len(labels) for labels in taken] == [5, 5, 5, 5, 3] and len(batches) == 5
        assert sorted(np.concatenate(taken).tolist()) == list(range(23))
        orders.append(tuple(np.concatenate(taken)))
    other_seed = tuple(np.concatenate([b.labels for b in Batches(make_split(23), 5, 1).epoch(0)]))
    assert len({*orders, other_seed}) == 4


def test_a_batch_is_the_slice_of_the_order_sorted():
    batches = Batches(make_split(23), 5, 3)
    order = batches.order(2)
    for step, batch in enumerate(batches.epoch(2)):
        expected = sorted(order[5 * step : 5 * step + 5])
        assert batch.labels.tolist() == expected
        assert batch.images[:, 1, 1].tolist() == expected
        assert batch.labels.dtype == np.int32 and batch.images.dtype == np.uint8


def test_a_resumed_epoch_is_the_tail_of_the_whole():
    whole = list(Batches(make_split(23), 5, 9).epoch(4))
    for start in range(6):
        tail = list(Batches(make_split(23), 5, 9).epoch(4, start=start))
        assert len(tail) == 5 - start
        for a, b in zip(whole[start:], tail, strict=True):
            np.testing.assert_array_equal(a.images, b.images)
            np.testing.assert_array_equal(a.labels, b.labels)


def test_memory_mapped_images_give_the_same_batches(tmp_path):
    mapped = make_split(23, tmp_path / "images.npy")
    assert isinstance(mapped[2:].images, np.memmap)
    pairs = zip(Batches(mapped, 5, 1).epoch(0), Batches(make_split(23), 5, 1).epoch(0), strict=True)
    for a, b in pairs:
        np.testing.assert_array_equal(a.images, b.images)
        assert type(a.images) is np.ndarray


def test_last_batch_and_order_of_the_split():
    batches = Batches(make_split(23), 5, 0, drop_last=True, shuffle=False)
    assert len(batches) == 4 == len(list(batches.epoch(0)))
    labels = np.concatenate([batch.labels for batch in batches.epoch(1)])
    assert labels.tolist() == list(range(20))
    assert len(Batches(make_split(20), 5, 0)) == 4 == len(Batches(make_split(20), 5, 0, drop_last=True))


def test_misuse_is_explained():
    for size in (0, 24):
        with pytest.raises(ValueError, match=f"batch_size={size} for 23 images"):
            Batches(make_split(23), size, 0)
    with pytest.raises(ValueError, match="start=6 in an epoch of 5"):
        list(Batches(make_split(23), 5, 0).epoch(0, start=6))
    with pytest.raises(ValueError, match="at least 0"):
        Batches(make_split(23), 5, -1).order(0)
