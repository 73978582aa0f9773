"""KMNIST and EMNIST in their layouts, loaders that download, and where the cache lies."""

import gzip
import io
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from eqprop.data import SOURCES, cifar10, cifar100, emnist, fashion_mnist, kmnist, mnist
from eqprop.data.catalogue import EMNIST_CLASSES
from eqprop.data.source import cache_folder

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def hermetic(monkeypatch, tmp_path):
    monkeypatch.delenv("EQPROP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder, images, labels):
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


def write_emnist(folder, split, images, labels, where):
    """As published: `gzip/emnist-letters-train-images-idx3-ubyte.gz` and so on, all in gzip.zip."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        f"emnist-{split}-{part}-{kind}": idx(array)
        for part in ("train", "test")
        for kind, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels))
    }
    if where == "archive":
        with zipfile.ZipFile(folder / "gzip.zip", "w") as archive:
            for name, data in contents.items():
                archive.writestr(f"gzip/{name}.gz", gzip.compress(data))
            archive.writestr("gzip/emnist-digits-mapping.txt", "0 48")
        return
    for name, data in contents.items():
        (folder / name).write_bytes(data)


def test_kmnist_round_trip(tmp_path):
    images, labels = RNG.integers(0, 256, (10, 28, 28), np.uint8), np.arange(10, dtype=np.uint8)
    write_mnist(tmp_path / "kmnist", images, labels)
    dataset = kmnist(tmp_path)
    np.testing.assert_array_equal(dataset.train.images, images)
    np.testing.assert_array_equal(dataset.test.labels, labels)
    assert (dataset.name, dataset.num_classes) == ("kmnist", 10)


SIZES = {"balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "letters": 26, "mnist": 10}


@pytest.mark.parametrize("where", ["archive", "EMNIST/raw"])
@pytest.mark.parametrize("split", EMNIST_CLASSES)
def test_emnist_is_upright_and_its_labels_start_at_0(tmp_path, split, where):
    classes = SIZES[split]
    images = RNG.integers(0, 256, (classes, 28, 28), np.uint8)
    labels = np.arange(classes, dtype=np.uint8)
    transposed = np.stack([image.T for image in images])
    folder = tmp_path if where == "archive" else tmp_path / where
    write_emnist(folder, split, transposed, labels + (split == "letters"), where)
    dataset = emnist(tmp_path, split=split)
    np.testing.assert_array_equal(dataset.train.images, images)
    np.testing.assert_array_equal(dataset.test.labels, labels)
    assert dataset.num_classes == len(dataset.class_names) == classes
    assert dataset.train.images.flags.c_contiguous
    assert dataset.name == ("emnist" if split == "balanced" else f"emnist_{split}")


def test_the_characters_of_emnist_are_known():
    """As in the mapping files that are published with the images."""
    assert [EMNIST_CLASSES["balanced"][k] for k in (0, 10, 35, 36, 38, 46)] == ["0", "A", "Z", "a", "d", "t"]
    assert [EMNIST_CLASSES["byclass"][k] for k in (9, 35, 36, 61)] == ["9", "Z", "a", "z"]
    assert {split: len(set(names)) for split, names in EMNIST_CLASSES.items()} == SIZES


def test_labels_of_letters_that_start_at_0_are_refused_and_so_is_an_unknown_split(tmp_path):
    write_emnist(tmp_path, "letters", np.ones((2, 28, 28), np.uint8), np.array([0, 25], np.uint8), "archive")
    with pytest.raises(ValueError, match="labels run from -1 to 24, expected 0 to 25"):
        emnist(tmp_path, split="letters")
    with pytest.raises(ValueError, match="split is 'letter'; EMNIST has balanced, .*Give one"):
        emnist(tmp_path, split="letter")
    with pytest.raises(FileNotFoundError, match="(?s)emnist-digits-train-images.*gzip.zip.*`eqprop data emnist`"):
        emnist(tmp_path / "elsewhere", split="digits")


@pytest.mark.parametrize("load", [mnist, fashion_mnist, kmnist, emnist, cifar10, cifar100])
def test_a_loader_downloads_if_it_is_told_to_and_not_otherwise(tmp_path, monkeypatch, load):
    asked = []

    def fetch(source, root):
        asked.append((source.name, root))
        write_mnist(tmp_path / source.name, np.ones((3, 28, 28), np.uint8), np.arange(3, dtype=np.uint8))
        raise FileNotFoundError("offline")

    # The function of that name hides the module.
    monkeypatch.setattr(sys.modules["eqprop.data.download"], "download", fetch)
    with pytest.raises(FileNotFoundError, match="files not found"):
        load(tmp_path)
    assert not asked
    with pytest.raises(FileNotFoundError, match="offline"):
        load(tmp_path, download=True)
    assert asked == [(load.__name__, tmp_path)]
    if load in (mnist, fashion_mnist, kmnist):
        assert len(load(tmp_path, download=True).train) == 3 and len(asked) == 1


def test_every_download_has_a_checksum():
    for source in SOURCES.values():
        for item in source.downloads:
            assert len(item.md5) == 32 and int(item.md5, 16) and item.urls


@pytest.mark.skipif(sys.platform != "linux", reason="the folders of Linux")
def test_the_cache_is_where_linux_has_it(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache/eqprop"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / "home/.cache/eqprop"


def test_a_tilde_is_the_home_folder_wherever_a_root_is_given(monkeypatch, tmp_path):
    write_mnist(tmp_path / "sets/mnist", np.ones((3, 28, 28), np.uint8), np.arange(3, dtype=np.uint8))
    monkeypatch.setenv("HOME", str(tmp_path))
    for root in ("~/sets", Path("~/sets/mnist")):
        assert len(mnist(root).train) == 3
    monkeypatch.setenv("EQPROP_DATA", "~/sets")
    assert str(tmp_path / "sets") in mnist().train.source


def test_a_split_of_emnist_is_found_beside_others_in_the_archive(tmp_path):
    images = RNG.integers(0, 256, (2, 28, 28), np.uint8)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for split, label in (("balanced", 5), ("mnist", 7)):
            for part in ("train", "test"):
                name = f"gzip/emnist-{split}-{part}"
                archive.writestr(f"{name}-images-idx3-ubyte.gz", gzip.compress(idx(images)))
                archive.writestr(f"{name}-labels-idx1-ubyte.gz", gzip.compress(idx(np.full(2, label, np.uint8))))
    (tmp_path / "gzip.zip").write_bytes(file.getvalue())
    assert emnist(tmp_path).test.labels.tolist() == [5, 5]
    assert emnist(tmp_path, split="mnist").test.labels.tolist() == [7, 7]
