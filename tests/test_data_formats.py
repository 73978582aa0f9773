"""Files made in the original layouts, byte for byte, come back as the arrays they were made of."""

import contextlib
import copyreg
import datetime
import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
from collections import OrderedDict, defaultdict
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from eqprop.data import (
    SOURCES,
    Dataset,
    Split,
    cifar10,
    cifar100,
    digits,
    download,
    fashion_mnist,
    mnist,
)
from eqprop.data.cifar import read_batch
from eqprop.data.pickles import Unknown, read_pickle
from eqprop.data.source import Download, Layout, Source
from eqprop.run import data as program

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(autouse=True)
def hermetic(monkeypatch, tmp_path):
    monkeypatch.delenv("EQPROP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def random_images(n, *shape):
    return np.random.default_rng([n, *shape]).integers(0, 256, (n, *shape), np.uint8)


# --- idx -----------------------------------------------------------------------------------------


def idx(array):
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


IDX_FILES = {
    "train-images-idx3-ubyte": (train_images := random_images(7, 28, 28)),
    "train-labels-idx1-ubyte": (train_labels := np.arange(3, 10, dtype=np.uint8)),
    "t10k-images-idx3-ubyte": (test_images := random_images(4, 28, 28)),
    "t10k-labels-idx1-ubyte": (test_labels := np.arange(4, dtype=np.uint8)),
}


def write_idx(folder, *, packed):
    folder.mkdir(parents=True)
    for name, array in IDX_FILES.items():
        data = idx(array)
        file = folder / (f"{name}.gz" if packed else name)
        file.write_bytes(gzip.compress(data) if packed else data)
    return folder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("loader, folder", [(mnist, "mnist"), (fashion_mnist, "fashion-mnist")])
def test_idx_round_trip(tmp_path, loader, folder, packed):
    write_idx(tmp_path / "root" / folder, packed=packed)
    for root in (tmp_path / "root", str(tmp_path / "root" / folder)):
        dataset = loader(root)
        np.testing.assert_array_equal(dataset.train.images, train_images)
        np.testing.assert_array_equal(dataset.train.labels, train_labels)
        np.testing.assert_array_equal(dataset.test.images, test_images)
        np.testing.assert_array_equal(dataset.test.labels, test_labels)
        assert dataset.train.images.dtype == np.uint8 and dataset.train.labels.dtype == np.int32
        assert (dataset.image_shape, dataset.maximum, len(dataset.test)) == ((28, 28, 1), 255, 4)
        # Checksums are of the unpacked contents, however the file was packed.
        assert dataset.checksums == {name: hashlib.sha256(idx(array)).hexdigest() for name, array in IDX_FILES.items()}


GOOD = idx(train_images)


@pytest.mark.parametrize(
    "file, data, message",
    [
        ("train-images-idx3-ubyte", GOOD[:-1], "5503 bytes, expected 5504"),
        ("train-images-idx3-ubyte", GOOD + b"\0", "5505 bytes, expected 5504"),
        ("train-images-idx3-ubyte", GOOD[:9], "9 bytes, too short"),
        ("train-images-idx3-ubyte", b"\0\0\x0d\x03" + GOOD[4:], "magic 0x00000d03"),
        ("train-images-idx3-ubyte", b"\x01" + GOOD[1:], "magic 0x01000803"),
        ("train-images-idx3-ubyte", GOOD[:4] + b"\xff" * 12 + GOOD[16:], "5504 bytes, expected"),
        ("train-labels-idx1-ubyte", GOOD, "magic 0x00000803, expected 0x00000801"),
        ("train-labels-idx1-ubyte", idx(np.full(7, 10, np.uint8)), "labels run from 10 to 10"),
        ("train-labels-idx1-ubyte", idx(np.zeros(6, np.uint8)), r"int32\[6\] for 7 images"),
        ("train-images-idx3-ubyte.gz", gzip.compress(GOOD)[:-20], "end-of-stream"),
        ("train-images-idx3-ubyte.gz", b"no gzip", "7 bytes, too short"),
        (
            "t10k-images-idx3-ubyte.gz",
            gzip.compress(GOOD)[:600] + b"\xff" * 400 + gzip.compress(GOOD)[1000:],
            "damaged",
        ),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, file, data, message):
    folder = write_idx(tmp_path / "mnist", packed=file.endswith(".gz"))
    (folder / file).write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        mnist(tmp_path)
    assert file.removesuffix(".gz") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, pack",
    [
        ("{}", gzip.compress),
        ("{}.gz", lambda data: data),
        ("{}.gz", lambda data: gzip.compress(gzip.compress(data))),
        ("{0}/{0}", lambda data: data),
        ("{0}.gz/{0}", gzip.compress),
    ],
)
@pytest.mark.parametrize("dot", [False, True])
def test_an_idx_file_is_read_for_what_it_is_and_not_for_its_name(tmp_path, name, pack, dot):
    for file, array in IDX_FILES.items():
        path = tmp_path / name.format(file.replace("-idx", ".idx") if dot else file)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pack(idx(array)))
    dataset = mnist(tmp_path)
    np.testing.assert_array_equal(dataset.train.images, train_images)
    np.testing.assert_array_equal(dataset.test.labels, test_labels)
    assert dataset.checksums == {name: hashlib.sha256(idx(array)).hexdigest() for name, array in IDX_FILES.items()}


def test_a_whole_copy_is_used_in_place_of_one_cut_short(tmp_path):
    folder = write_idx(tmp_path / "mnist", packed=True)
    file = folder / "train-images-idx3-ubyte"
    file.write_bytes(GOOD[:99])
    with pytest.warns(UserWarning, match=f"{file}: damaged .*99 bytes.*; another copy is used instead"):
        np.testing.assert_array_equal(mnist(tmp_path).train.images, train_images)
    # The folder beside it may hold another data set under the same names: it is no copy.
    (folder / f"{file.name}.gz").unlink()
    for path in write_idx(tmp_path / "other", packed=True).iterdir():
        path.rename(tmp_path / path.name)
    with pytest.raises(ValueError, match=f"{file}: damaged"):
        mnist(tmp_path)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_in_full():
    dataset = fashion_mnist()
    assert dataset.checksums == SOURCES["fashion_mnist"].published
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    assert dataset.train.labels[:6].tolist() == [9, 0, 0, 3, 0, 2]
    assert dataset.test.labels[:6].tolist() == [9, 2, 1, 1, 6, 1]
    assert (np.bincount(dataset.train.labels) == 6_000).all()
    # The mean pixel of the training set is known widely as 0.2860, its deviation as 0.3530.
    scaled = dataset.train.images / 255
    assert abs(scaled.mean() - 0.2860) < 1e-4 and abs(scaled.std() - 0.3530) < 1e-4
    with pytest.raises(ValueError, match="this is Fashion-MNIST, not MNIST"):
        mnist(DEBIAN)
    assert program.summary(dataset).count("as published") == 4


def test_digits():
    dataset = digits()
    labels = np.concatenate([dataset.train.labels, dataset.test.labels])
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (len(dataset.test), dataset.maximum, dataset.image_shape) == (359, 16, (8, 8, 1))
    assert max(dataset.train.images.max(), dataset.test.images.max()) == 16
    # The split is part of every result: pinned.
    assert dataset.test.labels[:8].tolist() == PINNED_DIGITS
    again = digits(0.5)
    np.testing.assert_array_equal(again.test.images[:359], dataset.test.images)
    for fraction in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match="fraction between 0 and 1"):
            digits(fraction)


PINNED_DIGITS = [0, 4, 6, 9, 2, 0, 3, 5]


# --- CIFAR ---------------------------------------------------------------------------------------


def planar(images):
    """As the authors write it: all red bytes, all green, all blue; each plane by rows."""
    return np.stack([np.concatenate([x[:, :, c].ravel() for c in range(3)]) for x in images])


def cifar_arrays(num_batches, num_classes):
    """Images and labels of each file; the last is the test file."""
    rng = np.random.default_rng(num_classes)
    return [
        (random_images(4, 32, 32, 3) ^ np.uint8(k), rng.integers(0, num_classes, 4, np.uint8))
        for k in range(num_batches + 1)
    ]


def python2_pickle(planes, **lists):
    """What Python 2 and NumPy 1 wrote: 8-bit strings, `numpy.core`, protocol 2."""
    text = lambda data: b"T" + struct.pack("<i", len(data)) + data
    number = lambda value: b"J" + struct.pack("<i", value)
    dtype = (
        b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\3" + text(b"|") + b"NNN"
        + number(-1) * 2 + b"K\0tb"
    )  # fmt: skip
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b")
        + b"\x87R(K\1" + number(len(planes)) + number(planes.shape[1]) + b"\x86" + dtype
        + b"\x89" + text(planes.tobytes()) + b"tb"
    )  # fmt: skip
    items = b"".join(text(key.encode()) + b"](" + b"".join(map(number, values)) + b"e" for key, values in lists.items())
    return b"\x80\2}(" + text(b"data") + array + items + b"u."


def python3_pickle(planes, protocol, core="numpy._core", **lists):
    data = pickle.dumps({"data": planes, **lists}, protocol=protocol)
    renamed = data.replace(b"numpy._core", core.encode())
    # Below protocol 4 names end with a line, so that a shorter one does no harm.
    return renamed if protocol < 4 else data


CIFAR10_FILES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]
LAYOUTS = {
    "binary": lambda x, y: b"".join(bytes([label]) + row.tobytes() for row, label in zip(planar(x), y, strict=True)),
    "python2": lambda x, y: python2_pickle(planar(x), labels=y.tolist()),
    "protocol2_numpy1": lambda x, y: python3_pickle(planar(x), 2, "numpy.core", labels=y.tolist(), filenames=["a"]),
    "protocol2_fortran": lambda x, y: python3_pickle(np.asfortranarray(planar(x)), 2, labels=y.tolist()),
    "protocol4": lambda x, y: python3_pickle(planar(x), 4, labels=list(map(int, y))),
    "protocol5": lambda x, y: python3_pickle(planar(x), 5, labels=y.astype(np.int64)),
    "scalars": lambda x, y: python3_pickle(planar(x), 3, labels=list(y.astype(np.int64))),
}


def write_cifar10(folder, layout, where):
    arrays = cifar_arrays(5, 10)
    suffix, kind = (".bin", "binary") if layout == "binary" else ("", "python")
    contents = {f"{name}{suffix}": LAYOUTS[layout](*pair) for name, pair in zip(CIFAR10_FILES, arrays, strict=True)}
    if where == "archive":
        folder.mkdir(exist_ok=True)
        with tarfile.open(folder / f"cifar-10-{kind}.tar.gz", "w:gz") as archive:
            for name in sorted(contents, reverse=True):  # not in our order
                member = tarfile.TarInfo(f"cifar-10-batches/{name}")
                member.size = len(contents[name])
                archive.addfile(member, io.BytesIO(contents[name]))
    else:
        target = folder / where
        target.mkdir(parents=True)
        for name, data in contents.items():
            (target / name).write_bytes(data)
    return arrays


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("where", ["archive", "cifar-10-batches-bin", "cifar10"])
def test_cifar10_round_trip(tmp_path, layout, where):
    arrays = write_cifar10(tmp_path / "data", layout, where)
    dataset = cifar10(tmp_path / "data")
    images = np.concatenate([x for x, _ in arrays])
    labels = np.concatenate([y for _, y in arrays])
    np.testing.assert_array_equal(dataset.train.images, images[:-4])
    np.testing.assert_array_equal(dataset.train.labels, labels[:-4])
    np.testing.assert_array_equal(dataset.test.images, images[-4:])
    np.testing.assert_array_equal(dataset.test.labels, labels[-4:])
    assert dataset.train.images.flags.c_contiguous and len(dataset.checksums) == 6


@pytest.mark.parametrize("layout", ["binary", "python2"])
@pytest.mark.parametrize("suffix, mode", [(".tar.gz", "w"), (".tar", "w"), (".tgz", "w:gz"), (".tar.gz", "w:xz")])
def test_an_archive_is_read_for_what_it_is_and_not_for_its_name(tmp_path, layout, suffix, mode):
    arrays = write_cifar10(tmp_path / "data", layout, "archive")
    (packed,) = (tmp_path / "data").iterdir()
    files = tarfile.open(packed)
    packed.unlink()
    with files, tarfile.open(str(packed).replace(".tar.gz", suffix), mode) as archive:
        for member in files:
            archive.addfile(member, files.extractfile(member))
    np.testing.assert_array_equal(cifar10(tmp_path / "data").test.images, arrays[-1][0])


@pytest.mark.parametrize("layout", ["binary", "python2"])
def test_batches_are_read_for_what_they_are_and_not_for_their_names(tmp_path, layout):
    arrays = write_cifar10(tmp_path, layout, "cifar10")
    for path in list((tmp_path / "cifar10").iterdir()):
        path.rename(path.with_suffix("" if layout == "binary" else ".bin"))
    np.testing.assert_array_equal(cifar10(tmp_path).test.labels, arrays[-1][1])


def test_a_whole_archive_is_used_in_place_of_a_folder_that_is_half_unpacked(tmp_path):
    arrays = write_cifar10(tmp_path / "data", "python2", "archive")
    write_cifar10(tmp_path / "data", "python2", "cifar-10-batches-py")
    cut = tmp_path / "data/cifar-10-batches-py/data_batch_4"
    cut.write_bytes(cut.read_bytes()[:5000])
    with pytest.warns(UserWarning, match=f"{cut}: damaged .*; another copy is used instead"):
        dataset = cifar10(tmp_path / "data")
    np.testing.assert_array_equal(dataset.train.images, np.concatenate([x for x, _ in arrays[:-1]]))
    assert len(dataset.checksums) == 6


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize("binary", [True, False])
def test_cifar100_round_trip_takes_the_labels_asked_for(tmp_path, binary, coarse):
    arrays = cifar_arrays(1, 100)
    for name, (x, y) in zip(("train", "test"), arrays, strict=True):
        if binary:
            rows = np.concatenate([(y // 5)[:, None], y[:, None], planar(x)], axis=1)
            (tmp_path / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            lists = {"coarse_labels": (y // 5).tolist(), "fine_labels": y.tolist()}
            (tmp_path / name).write_bytes(python2_pickle(planar(x), **lists))
    dataset = cifar100(tmp_path, coarse=coarse)
    assert (dataset.name, dataset.num_classes) == (("cifar100_coarse", 20) if coarse else ("cifar100", 100))
    for split, (x, y) in zip((dataset.train, dataset.test), arrays, strict=True):
        np.testing.assert_array_equal(split.images, x)
        np.testing.assert_array_equal(split.labels, y // 5 if coarse else y)


PLANES = planar(random_images(4, 32, 32, 3))
RECORDS = np.concatenate([np.zeros((4, 1), np.uint8), PLANES], axis=1)


@pytest.mark.parametrize(
    "layout, name, data, message",
    [
        ("binary", "data_batch_2.bin", RECORDS.tobytes()[:-1], "expected records of 3073"),
        ("binary", "data_batch_2.bin", b"", "0 bytes"),
        ("binary", "data_batch_2.bin", RECORDS[:-1].tobytes(), "3 images, 4 in the file before"),
        ("binary", "data_batch_2.bin", (RECORDS | 16).tobytes(), "labels run from 16 to 16"),
        ("python2", "test_batch", python2_pickle(PLANES, labels=[0, 1, 2]), "3 labels for 4"),
        ("python2", "test_batch", python2_pickle(PLANES, labels=[0, 1, 2, 10]), "from 0 to 10"),
        ("python2", "test_batch", python2_pickle(PLANES, names=[1]), "no labels among data, names"),
        ("python2", "test_batch", python2_pickle(PLANES[:, :9], labels=[0] * 4), r"uint8\[4, 9\]"),
        ("python2", "test_batch", python2_pickle(PLANES, labels=[0] * 4)[:-40], "damaged"),
        ("python2", "test_batch", python2_pickle(PLANES, labels=[0] * 4)[:5000], "cut short"),
        ("python2", "test_batch", b"garbage", "damaged"),
        ("python2", "test_batch", b"", "damaged"),
        ("python2", "test_batch", pickle.dumps([1]), "a pickled list, expected a dictionary"),
        ("python2", "test_batch", pickle.dumps({"data": 1, "labels": []}), "data is <class 'int'>"),
        (
            "python2",
            "test_batch",
            python3_pickle(PLANES, 4, labels=["a"] * 4),
            "labels are not whole numbers",
        ),
    ],
)
def test_a_damaged_cifar_file_is_named(tmp_path, layout, name, data, message):
    write_cifar10(tmp_path, layout, "cifar10")
    (tmp_path / "cifar10" / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        cifar10(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "cifar10" / name))


@pytest.mark.parametrize("cut", [30, 3000, -100])
def test_a_damaged_archive_is_named(tmp_path, cut):
    write_cifar10(tmp_path / "data", "binary", "archive")
    archive = tmp_path / "data" / "cifar-10-binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(ValueError, match="cifar-10-binary.tar.gz: damaged"):
        cifar10(tmp_path / "data")


def test_an_archive_without_a_file_says_which(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("cifar-10-batches-py/data_batch_1"))
    with pytest.raises(ValueError, match="no data_batch_2, data_batch_3, .* in it"):
        cifar10(tmp_path)


# --- pickles that are no data --------------------------------------------------------------------


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def named(module, name, *arguments):
    """A protocol 4 pickle of `{0: module.name(*arguments)}`, dots and all."""
    text = lambda value: b"\x8c" + bytes([len(value)]) + value.encode()
    call = text(module) + text(name) + b"\x93(" + b"".join(map(text, arguments)) + b"tR"
    return b"\x80\4}K\0" + call + b"s."


def attacks(canary):
    code = f"open({canary!r}, 'w').close()"
    shell = f"touch {canary}"
    yield "posix.system", pickle.dumps(Call(os.system, shell))
    yield "posix.system", pickle.dumps({"data": Call(os.system, shell), "labels": [1]}, protocol=0)
    yield "builtins.eval", pickle.dumps(Call(eval, code))
    yield "builtins.exec", pickle.dumps(Call(exec, code))
    yield "__builtin__.eval", b"c__builtin__\neval\n(S" + repr(code).encode() + b"\ntR."
    yield "os.system", b"(S" + repr(shell).encode() + b"\nios\nsystem\n."
    yield "subprocess.Popen", pickle.dumps(Call(subprocess.Popen, ["touch", canary]))
    yield "builtins.getattr", pickle.dumps(Call(getattr, Call(getattr, "", "join"), "real"))
    yield "functools.partial", pickle.dumps(Call(partial(os.system, shell)))
    # Modules and names that look like NumPy's, reach through it, or walk attributes.
    yield "runstring", named("numpy.testing._private.utils", "runstring", code, "x")
    yield "fromfile", named("numpy._core.multiarray", "fromfile", canary)
    yield "memmap", named("numpy", "memmap", canary)
    yield "load", named("numpy", "load", canary)
    yield "f2py.os.system", named("numpy", "f2py.os.system", shell)
    yield "ndarray.tofile", named("numpy", "ndarray.tofile", canary)
    yield "_reconstruct.__globals__", named("numpy.core.multiarray", "_reconstruct.__globals__")
    yield "_Array", named("eqprop.data.pickles", "_Array")
    yield "_codecs.lookup", named("_codecs", "lookup", "latin1")
    yield "encoding 'hex'", named("_codecs", "encode", "00", "hex")
    # An object array would take arbitrary elements; a state could replace a method.
    yield "array of type 'O8'", pickle.dumps({"data": np.array([None])})
    yield "array of type 'V2'", pickle.dumps({"data": np.zeros(2, "u1,u1")})
    yield "argument: 'state'", b"\x80\2cnumpy\nndarray\nN}U\1xK\1s\x86b."
    yield "argument: 'state'", b"\x80\2cnumpy._core.numeric\n_frombuffer\nN}U\1xK\1s\x86b."
    yield "persistent", b"\x80\2K\0Q."
    # An index of four thousand million, for which a table of 64 GiB could be allocated.
    yield "dictionary", b"\x80\2K\0r\xff\xff\xff\xff."
    # One number, said to be 65,535: nothing is allocated for it.
    yield (
        "1 numbers for",
        pickle.dumps({"data": np.zeros((1, 1), np.uint8)}, 2).replace(b"K\x01K\x01\x86", b"M\xff\xffK\x01\x86"),
    )


def test_the_attack_works_without_protection(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(dict(attacks(str(canary)))["builtins.eval"])
    assert canary.exists()


def test_a_malicious_pickle_runs_nothing_and_gives_no_batch(tmp_path):
    canary = tmp_path / "canary"
    for message, payload in attacks(str(canary)):
        with pytest.raises(ValueError) as caught:
            read_batch(read_pickle(payload, "batch"), "labels", "batch")
        assert str(caught.value).startswith("batch: "), message
        # It is refused at once, or what it asks for is there by name and nothing else.
        said = str(caught.value)
        with contextlib.suppress(ValueError):
            entries = read_pickle(payload, "batch")
            assert {type(entry) for entry in entries.values()} <= {Unknown, list}, message
            said = repr(entries)
        assert message in said
        assert not canary.exists(), message


class Custom:
    """A class with a state, with arguments to be made with, and with items and entries."""

    def __init__(self, parts):
        self.parts = parts

    def __reduce_ex__(self, protocol):
        if protocol < 4:
            return self.parts, (1,), {"state": 2}, iter([1]), iter([("key", 3)])
        return copyreg.__newobj_ex__, (type(self), (1,), {"parts": 2}), None, iter([1, 2]), iter([("key", 3)])  # pyright: ignore


UNNEEDED = {
    "text": np.array(["a.png"] * 4),
    "bytes": np.array([b"a.png"] * 4),
    "a text": np.str_("a"),
    "objects": np.array([None, "a", {}]),
    "records": np.zeros(2, "u1,f4").view(np.recarray),
    "times": np.array(["2020-01-01"], "M8[D]"),
    "masked": np.ma.masked_array([1, 2], [True, False]),
    "complex": np.zeros(2, complex),
    "path": Path("a.png"),
    "date": datetime.date(2020, 1, 1),
    "ordered": OrderedDict(a=np.zeros(2), b=[{1, 2}, frozenset({3}), slice(1, 2)]),
    "counts": defaultdict(list, a=[1]),
    "called": [Call(getattr, "", "join")],
    "custom": Custom(OrderedDict),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("entry", UNNEEDED)
def test_an_entry_that_nobody_needs_may_be_anything(entry, protocol):
    data = pickle.dumps({"a": UNNEEDED[entry], "data": PLANES, "labels": [3, 1, 4, 1]}, protocol)
    batch = read_pickle(data, "batch")
    np.testing.assert_array_equal(batch["data"], PLANES)
    assert batch["labels"] == [3, 1, 4, 1]
    # In the place of one that is needed it is refused, and the file, which is whole, need not be fetched again.
    for needed in ("data", "labels"):
        wrong = {"data": PLANES, "labels": [3, 1, 4, 1], needed: UNNEEDED[entry]}
        with pytest.raises(ValueError, match=f"batch: {needed} (is|are) .*; the file is whole") as caught:
            read_batch(read_pickle(pickle.dumps(wrong, protocol), "batch"), "labels", "batch")
        assert "fetch" not in str(caught.value)


def test_random_bytes_raise_nothing_but_value_errors():
    rng = np.random.default_rng(0)
    good = bytearray(python2_pickle(PLANES[:1, :8], labels=[1]))
    for _ in range(2_000):
        data = good.copy()
        for position in rng.integers(0, len(data), 3):
            data[position] = rng.integers(256)
        try:
            read_pickle(bytes(data), "batch")
        except ValueError as error:
            assert str(error).startswith("batch: ")


# --- data sets, folders, downloads ---------------------------------------------------------------


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (np.zeros((2, 3, 3)), np.zeros(2, np.int32), r"float64\[2, 3, 3\]; give a uint8"),
        (np.zeros((2, 9), np.uint8), np.zeros(2, np.int32), r"uint8\[2, 9\]; give"),
        (np.zeros((0, 3, 3), np.uint8), np.zeros(0, np.int32), "at least one image"),
        (np.zeros((2, 3, 3), np.uint8), np.zeros(3, np.int32), r"int32\[3\] for 2 images"),
        (np.zeros((2, 3, 3), np.uint8), np.zeros(2), r"float64\[2\] for 2 images"),
    ],
)
def test_a_wrong_split_is_refused(images, labels, message):
    with pytest.raises(ValueError, match=f"here: .*{message}"):
        Split(images, labels, "here")


def test_a_wrong_dataset_is_refused():
    split = Split(np.full((2, 3, 3), 17, np.uint8), np.array([-1, 1]), "here")
    other = Split(np.zeros((1, 4, 4), np.uint8), np.array([0]), "there")
    with pytest.raises(ValueError, match=r"x: training images are \[3, 3\] and test images \[4, 4"):
        Dataset("x", split, other, num_classes=2)
    with pytest.raises(ValueError, match="here: labels run from -1 to 1, expected 0 to 1"):
        Dataset("x", split, split, num_classes=2)
    good = split[1:]
    with pytest.raises(ValueError, match="here: a pixel is 17, above maximum=16"):
        Dataset("x", good, good, num_classes=2, maximum=16)


def test_missing_files_say_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("EQPROP_DATA", str(tmp_path / "mine"))
    with pytest.raises(FileNotFoundError) as caught:
        cifar10()
    message = str(caught.value)
    for part in (
        f"looked in: {tmp_path}/mine, {tmp_path}/cache/eqprop\n",
        f"into {tmp_path}/mine/cifar10 ",
        "data_batch_1.bin ... data_batch_5.bin test_batch.bin\n",
        "cifar-10-binary.tar.gz\n",
        "data.root=DIR or EQPROP_DATA=DIR",
        "`eqprop data cifar10`",
    ):
        assert part in message
    write_cifar10(tmp_path / "mine", "binary", "cifar10")
    (tmp_path / "mine/cifar10/data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/mine/cifar10 lacks data_batch_3.bin"):
        cifar10()


def test_root_comes_before_the_environment_before_the_cache(tmp_path, monkeypatch):
    write_idx(tmp_path / "cache/eqprop/mnist", packed=True)
    assert str(tmp_path / "cache") in mnist().train.source
    write_idx(tmp_path / "variable", packed=True)
    monkeypatch.setenv("EQPROP_DATA", str(tmp_path / "variable"))
    assert str(tmp_path / "variable") in mnist().train.source
    write_idx(tmp_path / "argument", packed=True)
    assert str(tmp_path / "argument") in mnist(tmp_path / "argument").train.source
    # A root that is given is the only one: no other data takes its place.
    with pytest.raises(FileNotFoundError):
        mnist(tmp_path / "nowhere")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on this machine; yields its folder and a source with one file on it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "www"
    folder.mkdir()

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            del format, args

    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder)))
    thread = Thread(target=web.serve_forever, args=(0.02,))
    thread.start()
    address = f"http://127.0.0.1:{web.server_port}"
    item = Download(
        "a.bin",
        hashlib.md5(b"contents").hexdigest(),
        (f"{address}/gone.bin", f"{address}/a.bin"),
    )
    layouts = (Layout(("a.bin",)),)
    yield folder, Source("a", "A", ("a",), train=layouts, test=layouts, downloads=(item,))
    web.shutdown()
    thread.join()
    web.server_close()


def test_download_is_verified_and_tries_every_address(tmp_path, server):
    folder, source = server
    (folder / "a.bin").write_bytes(b"contents")
    target = download(source, tmp_path / "root")
    assert target == tmp_path / "root/a" and (target / "a.bin").read_bytes() == b"contents"
    (folder / "a.bin").unlink()
    download(source, tmp_path / "root")  # already there: no address is asked


def test_a_download_with_a_wrong_checksum_is_not_kept(tmp_path, server):
    folder, source = server
    (folder / "a.bin").write_bytes(b"something else")
    with pytest.raises(FileNotFoundError, match="(?s)gone.bin .*404.*a.bin .*eqprop data a"):
        download(source, tmp_path / "root")
    assert not list((tmp_path / "root/a").iterdir())


def test_without_pooch_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"`pip install pooch`"):
        download(SOURCES["mnist"], tmp_path)


def test_the_program_fetches_what_is_missing_and_reports(tmp_path, monkeypatch, capsys):
    asked = []

    def fetch(source, root):
        asked.append(source.name)
        write_idx(Path(root) / "mnist", packed=True)

    # The function of that name hides the module.
    monkeypatch.setattr(sys.modules["eqprop.data.download"], "download", fetch)
    for _ in range(2):
        program.main(["mnist", "--root", str(tmp_path)])
    assert asked == ["mnist"]
    assert "train: 7 images [28, 28, 1] in memory, 0 to 1 a class" in capsys.readouterr().out
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError, match="ImageNet 32x32: .*\n.*\n.*\n.*train_data_batch_1"):
        program.main(["imagenet32", "--root", str(tmp_path)])
