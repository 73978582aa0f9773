"""A file is read for what it holds: any packing under any name, and what is no data is called by its name."""

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from eqprop.data import cifar10, imagenet32, mnist
from eqprop.data.packing import plain_name, unpack

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 28, 28), np.uint8)
LABELS = np.arange(6, dtype=np.uint8)


@pytest.fixture(autouse=True)
def hermetic(monkeypatch, tmp_path):
    monkeypatch.delenv("EQPROP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


FILES = {
    f"{split}-{kind}": idx(array)
    for split in ("train", "t10k")
    for kind, array in (("images-idx3-ubyte", IMAGES), ("labels-idx1-ubyte", LABELS))
}


def zipped(data, name, *others):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for other in others:
            archive.writestr(other, b"something else")
        archive.writestr(name, data)
    return file.getvalue()


def tarred(data, name):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo(f"a folder/{name}")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


PACKINGS = {
    "plain": lambda data, name: data,
    "gzip": lambda data, name: gzip.compress(data),
    "bz2": lambda data, name: bz2.compress(data),
    "xz": lambda data, name: lzma.compress(data),
    "zip": lambda data, name: zipped(data, f"a folder/{name}", "__MACOSX/._x"),
    "zip of another name": lambda data, name: zipped(data, "data"),
    "zip of several": lambda data, name: zipped(data, f"{name}.gz", "README", "LICENSE"),
    "tar": tarred,
    "tar.gz": lambda data, name: gzip.compress(tarred(data, name)),
    "twice": lambda data, name: gzip.compress(lzma.compress(data)),
    "a zip in a zip": lambda data, name: zipped(zipped(data, name), f"{name}.zip"),
}


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zip"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_any_packing_is_read_under_any_name(tmp_path, packing, suffix):
    for name, data in FILES.items():
        (tmp_path / f"{name}{suffix}").write_bytes(PACKINGS[packing](data, name))
    dataset = mnist(tmp_path)
    np.testing.assert_array_equal(dataset.train.images, IMAGES)
    np.testing.assert_array_equal(dataset.test.labels, LABELS)


@pytest.mark.parametrize("packing", ["gzip", "bz2", "xz", "zip", "tar", "tar.gz"])
@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_packing_that_is_cut_short_is_named(packing, cut):
    # Noise, which nothing makes shorter: every part of the packed file is needed.
    noise = RNG.integers(0, 256, 20_000, np.uint8).tobytes()
    whole = PACKINGS[packing](noise, "a")
    assert unpack(whole, "a", "here") == noise
    with pytest.raises(ValueError, match="^here: damaged"):
        unpack(whole[: int(cut * 20_000)], "a", "here")


def test_several_files_of_which_none_is_the_one_are_said():
    with pytest.raises(ValueError, match="here: 3 files are packed in it, and 0 of them called a; the file is whole"):
        unpack(zipped(b"x", "b", "c", "d"), "a", "here")


@pytest.mark.parametrize("npz", [False, True])
def test_an_npz_is_no_packing(npz):
    file = io.BytesIO()
    np.savez(file, a=LABELS)
    data = gzip.compress(file.getvalue()) if npz else file.getvalue()
    assert unpack(data, "a", "here") == file.getvalue()


@pytest.mark.parametrize(
    "name, plain",
    [
        ("a/train-images.idx3-ubyte.gz", "train-images-idx3-ubyte"),
        ("cifar-10-python.tar.gz", "cifar-10-python"),
        ("data_batch_1.bin.xz", "data_batch_1.bin"),
        ("a\\val_data.npz", "val_data.npz"),
        ("x.tgz", "x"),
    ],
)
def test_the_plain_name(name, plain):
    assert plain_name(name) == plain


@pytest.mark.parametrize("mode, suffix", [("w:bz2", ".tar.bz2"), ("w:xz", ".tar.xz"), ("w:bz2", ".zip"), ("w", ".tgz")])
def test_an_archive_may_be_packed_in_any_way(tmp_path, mode, suffix):
    batch = pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": [3, 4]})
    with tarfile.open(tmp_path / f"cifar-10-python{suffix}", mode) as archive:
        for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
            data = gzip.compress(batch)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}.gz")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert cifar10(tmp_path).train.labels.tolist() == [3, 4] * 5


# --- what is no data -----------------------------------------------------------------------------

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 9912422\n"
STAND_INS = {
    "pointer": (POINTER, "a pointer of Git LFS .*; run `git lfs pull` in its repository"),
    "page": (
        b"\n<!DOCTYPE html>\n<html><title>Log in</title>",
        "a web page, .*fetch it again, with `eqprop data NAME`",
    ),
    "bare page": (b"<HTML><body>404</body></HTML>", "a web page"),
    "error of a store": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
    "packed page": (gzip.compress(b"<!doctype html>"), "a web page"),
    "empty": (b"", "empty, 0 bytes: .*; fetch it again"),
    "packed nothing": (gzip.compress(b""), "empty, 0 bytes"),
}


@pytest.mark.parametrize("name", STAND_INS)
def test_what_stands_in_the_place_of_a_file_is_said(tmp_path, name):
    content, message = STAND_INS[name]
    for file, data in FILES.items():
        (tmp_path / file).write_bytes(data)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=f"t10k-images-idx3-ubyte: .*{message}"):
        mnist(tmp_path)


@pytest.mark.parametrize("name", [name for name in STAND_INS if "packed" not in name])
def test_what_stands_in_the_place_of_an_archive_is_said(tmp_path, name):
    content, message = STAND_INS[name]
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(content)
    with pytest.raises(ValueError, match=f"cifar-10-binary.tar.gz: .*{message}"):
        cifar10(tmp_path)
    for file in ("Imagenet32_train.zip", "Imagenet32_val.zip"):
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"Imagenet32_train.zip: .*{message}"):
        imagenet32(tmp_path)


# --- names that are almost right -----------------------------------------------------------------


@pytest.mark.parametrize(
    "load, name, meant",
    [
        (mnist, "train-image-idx3-ubyte.gz", "train-images-idx3-ubyte"),
        (mnist, "Train-Images-idx3-ubyte", "train-images-idx3-ubyte"),
        (cifar10, "cifar-10-python (1).tar.gz", "cifar-10-python.tar.gz"),
        (cifar10, "data-batch-1.bin", "data_batch_1.bin"),
        (imagenet32, "ImageNet32_train.zip", "Imagenet32_train.zip"),
    ],
)
def test_a_name_that_is_almost_right_is_said(tmp_path, load, name, meant):
    (tmp_path / name).write_bytes(b"contents")
    with pytest.raises(FileNotFoundError) as caught:
        load(tmp_path)
    assert f"{tmp_path} has {name}, which may be meant to be {meant}." in str(caught.value)


def test_a_name_that_is_another_files_is_not_said(tmp_path):
    for name in ("cifar-10-python.tar.gz", "train.csv", "data_batch_11.bin", "notes.txt"):
        (tmp_path / name).write_bytes(b"contents")
    for load in (mnist, imagenet32):
        with pytest.raises(FileNotFoundError) as caught:
            load(tmp_path)
        assert "may be meant" not in str(caught.value)
