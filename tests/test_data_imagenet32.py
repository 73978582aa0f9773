"""Small files in the layout of downsampled ImageNet: converted once, mapped, never half used."""

import hashlib
import io
import json
import pickle
import shutil
import sys
import weakref
import zipfile

import numpy as np
import pytest

from eqprop.data import imagenet32, memmap
from eqprop.data.cifar import read_batch

NAMES = [*(f"train_data_batch_{k}" for k in range(1, 11)), "val_data"]


@pytest.fixture(autouse=True)
def hermetic(monkeypatch, tmp_path):
    monkeypatch.delenv("EQPROP_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def arrays():
    """Images, channels last, and labels 1 to 1000 of each file; the last batch is shorter."""
    rng = np.random.default_rng(32)
    sizes = [3] * 9 + [2, 4]
    return [(rng.integers(0, 256, (n, 32, 32, 3), np.uint8), rng.integers(1, 1001, n)) for n in sizes]


def encode(images, labels, *, npz):
    data = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(len(images), 3072)
    if npz:
        file = io.BytesIO()
        np.savez(file, data=data, labels=labels, mean=data.mean(axis=0))
        return file.getvalue()
    return pickle.dumps({"data": data, "labels": labels.tolist(), "mean": data.mean(axis=0)}, protocol=2)


def write(root, layout="flat", *, npz=False):
    root.mkdir(parents=True, exist_ok=True)
    for name, pair in zip(NAMES, arrays(), strict=True):
        data = encode(*pair, npz=npz)
        kind = "val" if name == "val_data" else "train"
        place = f"Imagenet32_{kind}" + ("_npz" if npz else "")
        file = name + (".npz" if npz else "")
        if layout == "zip":
            with zipfile.ZipFile(root / f"{place}.zip", "a") as archive:
                archive.writestr(file, data)
            continue
        folder = {"flat": root, "nested": root / place, "deep": root / "imagenet32" / place}
        folder[layout].mkdir(parents=True, exist_ok=True)
        (folder[layout] / file).write_bytes(data)
    return root


def check(dataset):
    images = np.concatenate([x for x, _ in arrays()])
    labels = np.concatenate([y for _, y in arrays()]) - 1
    np.testing.assert_array_equal(dataset.train.images, images[:-4])
    np.testing.assert_array_equal(dataset.train.labels, labels[:-4])
    np.testing.assert_array_equal(dataset.test.images, images[-4:])
    np.testing.assert_array_equal(dataset.test.labels, labels[-4:])
    assert isinstance(dataset.train.images, np.memmap) and not dataset.train.images.flags.writeable
    assert dataset.train.labels.dtype == np.int32 and len(dataset.checksums) == 11


@pytest.mark.parametrize("npz", [False, True])
@pytest.mark.parametrize("layout", ["flat", "nested", "deep", "zip"])
def test_round_trip_and_reuse(tmp_path, layout, npz, monkeypatch):
    root = write(tmp_path / "root", layout, npz=npz)
    check(imagenet32(root))
    monkeypatch.setattr(memmap, "convert", None)  # a second conversion would fail
    check(imagenet32(root))
    check(imagenet32(root, verify=True))


def test_the_conversion_outlives_the_originals(tmp_path):
    root = write(tmp_path / "root")
    digest = hashlib.sha256((root / "val_data").read_bytes()).hexdigest()
    imagenet32(root)
    for name in NAMES:
        (root / name).unlink()
    dataset = imagenet32(root)
    check(dataset)
    assert dataset.checksums["val_data"] == digest


def test_manifest_holds_the_hash_of_each_file(tmp_path):
    imagenet32(write(tmp_path / "root"))
    folder = tmp_path / "root/eqprop-cache/imagenet32"
    listed = json.loads((folder / "manifest.json").read_text())["arrays"]
    files = {path.name for path in folder.iterdir()}
    assert files == {*listed, "manifest.json"} and len(listed) == 4
    for name, entry in listed.items():
        data = (folder / name).read_bytes()
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_a_folder_that_cannot_be_written_uses_the_cache(tmp_path):
    root = write(tmp_path / "root")
    (root / "eqprop-cache").write_text("in the way")
    check(imagenet32(root))
    (folder,) = (tmp_path / "cache/eqprop/eqprop-cache").iterdir()
    assert folder.name.startswith("imagenet32-") and (folder / "manifest.json").is_file()
    check(imagenet32(root))


def test_an_interrupted_conversion_is_not_used(tmp_path):
    root = write(tmp_path / "root")
    good = (root / "train_data_batch_7").read_bytes()
    (root / "train_data_batch_7").write_bytes(good[:2000])
    with pytest.raises(ValueError, match="train_data_batch_7: damaged"):
        imagenet32(root)
    folder = root / "eqprop-cache/imagenet32"
    assert not list(folder.iterdir())
    # A process that was killed leaves its parts, and whole arrays, but no manifest.
    (folder / "train_images.npy").write_bytes(b"anything")
    (folder / "train_images.npy.1.part").write_bytes(b"a half")
    (root / "train_data_batch_7").write_bytes(good)
    check(imagenet32(root))


def test_a_failed_second_conversion_does_not_leave_the_first_one_valid(tmp_path):
    root = write(tmp_path / "root")
    imagenet32(root)
    (root / "val_data").write_bytes(b"replaced, and damaged")
    with (
        pytest.warns(UserWarning, match="files of another name or size"),
        pytest.raises(ValueError, match="val_data: damaged"),
    ):
        imagenet32(root)
    (root / "val_data").unlink()
    with pytest.raises(FileNotFoundError, match="has no test files"):
        imagenet32(root)


def flip_last_byte(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "images cut": lambda f: (f / "train_images.npy").write_bytes(b"\x93NUMPY"),
    "images gone": lambda f: (f / "test_images.npy").unlink(),
    "labels changed": lambda f: flip_last_byte(f / "train_labels.npy"),
    "images changed": lambda f: flip_last_byte(f / "train_images.npy"),
    "manifest cut": lambda f: (f / "manifest.json").write_text("{"),
    "manifest empty": lambda f: (f / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_conversion_is_made_again_or_refused(tmp_path, damage, monkeypatch):
    root = write(tmp_path / "root")
    imagenet32(root)
    DAMAGES[damage](root / "eqprop-cache/imagenet32")
    if damage == "images changed":
        # As for the real file, which is too large to be hashed at each start.
        monkeypatch.setattr(memmap, "_SMALL", 1024)
        imagenet32(root)
    shutil.copytree(root / "eqprop-cache", tmp_path / "alone/eqprop-cache")
    with pytest.warns(UserWarning, match="damaged .*; converting the original files again"):
        check(imagenet32(root, verify=True))
    with pytest.raises(ValueError, match="eqprop-cache/imagenet32/.*: damaged"):
        imagenet32(tmp_path / "alone", verify=True)


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("val_data", encode(arrays()[0][0], np.array([-1, 1, 2]), npz=False), "from -1 to"),
        ("val_data", encode(arrays()[0][0], np.array([1, 2, 1001]), npz=False), "to 1001"),
        (
            "val_data",
            encode(arrays()[0][0], np.array([0, 2, 1000]), npz=False),
            "from 0 to 1000, .* 1 to 1000 or 0 to 999",
        ),
        ("val_data", encode(arrays()[0][0], np.array([1, 2]), npz=False), "2 labels for 3 images"),
        ("val_data.npz", b"garbage", "damaged"),
        ("val_data.npz", encode(*arrays()[0], npz=True)[:-50], "damaged"),
        ("val_data.npz", pickle.dumps({"data": 1}), "no labels among data"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, data, message):
    root = write(tmp_path / "root", npz=name.endswith(".npz"))
    (root / name).write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        imagenet32(root)
    assert str(caught.value).startswith(str(root / name))


@pytest.mark.parametrize("npz", [False, True])
@pytest.mark.parametrize("zero", ["train_data_batch_9", "val_data"])
def test_labels_from_0_are_told_from_labels_from_1_by_all_files_together(tmp_path, npz, zero, monkeypatch):
    pairs = dict(zip(NAMES, arrays(), strict=True))
    images, _ = pairs[zero]
    pairs = {name: (x, np.minimum(y, 999)) for name, (x, y) in pairs.items()}
    pairs[zero] = images, np.arange(len(images))  # no other file has a 0
    for name, pair in pairs.items():
        (tmp_path / (name + ".npz" * npz)).write_bytes(encode(*pair, npz=npz))
    for _ in range(2):
        dataset = imagenet32(tmp_path)
        labels = np.concatenate([y for _, y in pairs.values()])
        np.testing.assert_array_equal(np.concatenate([dataset.train.labels, dataset.test.labels]), labels)
        assert dataset.test.labels.dtype == np.int32
        monkeypatch.setattr(memmap, "convert", None)


def test_files_that_number_classes_differently_are_refused(tmp_path):
    root = write(tmp_path / "root")
    images = arrays()[0][0]
    for name, labels in (("train_data_batch_1", [1, 5, 1000]), ("train_data_batch_8", [0, 5, 999])):
        (root / name).write_bytes(encode(images, np.array(labels), npz=False))
    with pytest.raises(ValueError, match="train_data_batch_8: labels run from 0 to 1000") as caught:
        imagenet32(root)
    assert "fetch" not in str(caught.value)


@pytest.mark.parametrize("npz", [False, True])
def test_a_batch_is_read_for_what_it_is_and_not_for_its_name(tmp_path, npz):
    root = write(tmp_path / "root", npz=npz)
    for path in list(root.iterdir()):
        path.rename(path.with_suffix("" if npz else ".npz"))
    check(imagenet32(root))


def test_a_whole_archive_is_used_in_place_of_a_folder_that_is_half_unpacked(tmp_path, monkeypatch):
    root = write(write(tmp_path / "root", "zip"), "nested")
    cut = root / "Imagenet32_train/train_data_batch_7"
    cut.write_bytes(cut.read_bytes()[:2000])
    with pytest.warns(UserWarning, match=f"{cut}: damaged .*; another copy is used instead"):
        check(imagenet32(root))
    monkeypatch.setattr(memmap, "convert", None)  # a second conversion would fail
    check(imagenet32(root))


def test_missing_files_name_the_archives(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Imagenet32_train.zip Imagenet32_val.zip") as one:
        imagenet32(tmp_path)
    assert "https://image-net.org" in str(one.value) and "eqprop data" not in str(one.value)
    write(tmp_path)
    (tmp_path / "train_data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} lacks train_data_batch_4"):
        imagenet32(tmp_path)


def test_one_batch_file_is_in_memory_at_a_time(tmp_path, monkeypatch):
    """The images of a part are freed before the next but one is read."""
    alive, most = weakref.WeakSet(), 0

    def watched(*arguments, **options):
        nonlocal most
        part = read_batch(*arguments, **options)
        alive.add(part)
        most = max(most, len(alive))
        return part

    # The function of that name hides the module.
    monkeypatch.setattr(sys.modules["eqprop.data.imagenet32"], "read_batch", watched)
    imagenet32(write(tmp_path / "root"))
    assert most <= 2
