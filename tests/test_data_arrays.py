"""Data of one's own: what is in a file comes back as it was made, and what is wrong is said with its place."""

import gzip
import io
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from eqprop.data import Dataset, Rows, arrays
from eqprop.data.tables import read_table

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 6, 5), np.uint8)
LABELS = np.arange(20) % 4
TEST_IMAGES, TEST_LABELS = IMAGES[:7] ^ np.uint8(1), LABELS[:7]


def check(dataset: Dataset, images=IMAGES, labels=LABELS, test=(TEST_IMAGES, TEST_LABELS)):
    np.testing.assert_array_equal(dataset.train.images, images)
    np.testing.assert_array_equal(dataset.train.labels, labels)
    np.testing.assert_array_equal(dataset.test.images, test[0])
    np.testing.assert_array_equal(dataset.test.labels, test[1])
    assert dataset.num_classes == 4 and dataset.train.labels.dtype == np.int32 and dataset.checksums


# --- .npz and .npy -------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", ["images labels", "x y", "X y", "data target"])
def test_an_npz_for_each_split(tmp_path, keys):
    x, y = keys.split()
    np.savez(tmp_path / "train.npz", **{x: IMAGES, y: LABELS})  # pyright: ignore
    np.savez_compressed(tmp_path / "test.npz", **{x: TEST_IMAGES, y: TEST_LABELS.astype(np.uint8)[:, None]})
    check(arrays(tmp_path / "train.npz", str(tmp_path / "test.npz")))


@pytest.mark.parametrize("keys", ["x_train y_train x_test y_test", "train_images train_labels test_images test_labels"])
def test_an_npz_of_both_splits_under_any_name(tmp_path, keys, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = io.BytesIO()
    content = dict(zip(keys.split(), (IMAGES, LABELS, TEST_IMAGES, TEST_LABELS), strict=True))
    content["notes"] = np.array([{"an": "object"}], object)  # nobody needs them
    np.savez(file, **content)  # pyright: ignore
    for name, data in (("a.dat", file.getvalue()), ("b", gzip.compress(file.getvalue()))):
        (tmp_path / name).write_bytes(data)
        check(arrays(f"~/{name}", name="mine"))


def test_a_pair_of_npy_stays_in_its_file(tmp_path):
    for name, array in {"x": IMAGES, "y": LABELS, "a": TEST_IMAGES, "b": TEST_LABELS}.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "b.gz").write_bytes(gzip.compress((tmp_path / "b.npy").read_bytes()))
    pair = [str(tmp_path / "x.npy"), tmp_path / "y.npy"]
    dataset = arrays(pair, [tmp_path / "a.npy", tmp_path / "b.gz"], image_shape=(6, 5, 1))
    check(dataset, IMAGES[..., None], test=(TEST_IMAGES[..., None], TEST_LABELS))
    assert isinstance(dataset.train.images, np.memmap)
    assert set(dataset.checksums) == {f"{tmp_path.name}/{name}" for name in ("x.npy", "y.npy", "a.npy", "b.gz")}
    assert isinstance(arrays(pair).train.images, Rows)
    with pytest.raises(ValueError, match=r"x.npy: one array; give two, \[images.npy, labels.npy\]"):
        arrays(tmp_path / "x.npy")
    with pytest.raises(ValueError, match="a list of 1 files; expected two. Give"):
        arrays(pair[:1])


def save(tmp_path, images, labels=LABELS):
    np.savez(tmp_path / "mine.npz", images=images, labels=labels)
    return tmp_path / "mine.npz"


def test_without_test_images_an_even_part_is_split_off_always_the_same(tmp_path):
    file = save(tmp_path, IMAGES)
    dataset = arrays(file, test_fraction=0.4)
    assert [np.bincount(part.labels).tolist() for part in (dataset.train, dataset.test)] == [[3] * 4, [2] * 4]
    both = np.concatenate([dataset.train.images, dataset.test.images])
    assert {image.tobytes() for image in both} == {image.tobytes() for image in IMAGES}
    rows = [int(np.flatnonzero((IMAGES == image).all((1, 2)))[0]) for image in dataset.test.images]
    assert rows == PINNED
    with pytest.raises(ValueError, match="mine.npz: a part of 1.0 was asked for"):
        arrays(file, test_fraction=1.0)


PINNED = [4, 6, 10, 11, 12, 13, 15, 17]


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.float32])
def test_whole_numbers_of_another_type_are_pixels(tmp_path, dtype):
    dataset = arrays(save(tmp_path, IMAGES.astype(dtype), LABELS.astype(float)), save(tmp_path, IMAGES))
    assert dataset.train.images.dtype == np.uint8
    np.testing.assert_array_equal(dataset.train.images, IMAGES)


def test_rows_become_images(tmp_path):
    rows = RNG.integers(0, 17, (20, 36), np.uint8)
    dataset = arrays(save(tmp_path, rows), maximum=16)
    assert (dataset.image_shape, dataset.maximum) == ((6, 6, 1), 16)
    shaped = arrays(save(tmp_path, rows), image_shape=[3, 4, 3], num_classes=7)
    assert (shaped.image_shape, shaped.num_classes) == ((3, 4, 3), 7)


@pytest.mark.parametrize(
    "images, labels, options, message",
    [
        (IMAGES / 255, LABELS, {}, r"float64 from 0.0 to 1.0; expected whole numbers .*\(images \* 255\).round"),
        (IMAGES + 0.5, LABELS, {}, "float64 from 0.5 to 255.5; expected whole"),
        (np.where(IMAGES == 7, np.nan, IMAGES), LABELS, {}, "from nan to nan; expected whole"),
        (IMAGES.astype(int) - 1, LABELS, {}, "int64 from -1 to 254; expected whole numbers from 0 to 255"),
        (IMAGES, LABELS, {"maximum": 16}, "above maximum=16"),
        (IMAGES.astype(int), LABELS, {"maximum": 16}, "from 0 to 255; expected whole numbers from 0 to 16"),
        (IMAGES.astype(str), LABELS, {}, "images are <U3; expected uint8"),
        (IMAGES, LABELS[:-1], {}, r"images have shape \[20, 6, 5\] and labels \[19\].*Check"),
        (IMAGES, LABELS + 1, {}, "labels run from 1 to 4; .* Subtract 1, or give num_classes=5"),
        (IMAGES, LABELS - 1, {}, "labels run from -1 to 2; .* Subtract -1"),
        (IMAGES, LABELS, {"num_classes": 3}, "labels run from 0 to 3, expected 0 to 2"),
        (IMAGES, LABELS + 0.5, {}, r"labels are float64\[20\]; expected whole numbers .*np.unique"),
        (IMAGES, LABELS.astype(str), {}, r"labels are <U21\[20\]; expected whole"),
        (IMAGES, np.eye(4)[LABELS], {}, r"labels have shape \[20, 4\]; .*argmax"),
        (IMAGES.reshape(20, 30), LABELS, {}, r"shape \[30\], 30 values, expected \[5, 5\]; give image_shape"),
        (IMAGES, LABELS, {"image_shape": (5, 6)}, r"shape \[6, 5\], 30 values, expected \[5, 6\]"),
        (np.zeros((20, 3, 8, 8), np.uint8), LABELS, {}, "channels first; .*transpose"),
        (np.array([None] * 20), LABELS, {}, "Python objects"),
        (IMAGES, LABELS, {"maximum": 256}, "maximum is 256; .* Give a number from 1 to 255"),
    ],
)
def test_what_is_wrong_with_arrays_is_said(tmp_path, images, labels, options, message):
    file = save(tmp_path, images, labels)
    with pytest.raises(ValueError, match=message) as caught:
        arrays(file, **options)
    assert str(file) in str(caught.value) or "maximum is" in str(caught.value)


def test_a_file_that_is_no_data_is_said(tmp_path):
    with pytest.raises(ValueError, match="train is null; .* Give train=FILE, or data.load.train=FILE"):
        arrays()
    np.savez(tmp_path / "other.npz", a=IMAGES, b=LABELS)
    for content, message in (
        ((tmp_path / "other.npz").read_bytes(), "entries are a, b, expected one of these pairs: images, labels; x, y"),
        (save(tmp_path, IMAGES).read_bytes()[:-30], "damaged"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n", "one image; give a folder"),
        (b"\x00\xff\xfe", "neither a known format nor text"),
        (b"", "empty, 0 bytes"),
    ):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match=f"{tmp_path}/file: .*{message}"):
            arrays(tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="mines.npz: no such file .* has mine.npz, .*Correct the name"):
        arrays(tmp_path / "mines.npz")


# --- tables --------------------------------------------------------------------------------------


def table(delimiter=",", header="", label=0, end="\n"):
    rows = np.insert(IMAGES.reshape(20, 30), label, LABELS, axis=1)
    return header + end.join(delimiter.join(map(str, row)) for row in rows) + end


NAMES = [f"pixel{k}" for k in range(30)]


@pytest.mark.parametrize(
    "text",
    [
        table(),
        table(";", end="\r\n"),
        table("\t", "\t".join(["label", *NAMES]) + "\n"),
        table(",", "\ufeff" + ",".join(['"Class"', *NAMES]) + "\n"),
        table(",", ",".join([*NAMES, "LABEL"]) + "\n", 30),
        table(",", ",".join([*NAMES[:4], "class", *NAMES[4:]]) + "\n\n", 4),
    ],
)
def test_a_table_round_trip(tmp_path, text):
    (tmp_path / "train.csv").write_bytes(text.encode())
    save(tmp_path, TEST_IMAGES, TEST_LABELS)
    check(arrays(tmp_path / "train.csv", tmp_path / "mine.npz", image_shape=(6, 5)))


@pytest.mark.parametrize(
    "line, message",
    [
        ("1,2", "line 4 has 2 columns, the first 5"),
        ("1,2,3,4,5,6", "line 4 has 6 columns, the first 5"),
        ("1,2,x,4,5", "line 4, column 3: 'x' is not a number"),
        ("1,2,,4,5", "line 4, column 3: '' is not a number"),
        ("1,0.5,3,4,5", "line 4, column 2: 0.5 is not a whole number"),
        ("nan,2,3,4,5", "line 4, column 1: nan is not a whole number"),
        ("1,2,3,4,256", "from 1 to 256; expected whole numbers from 0 to 255"),
    ],
)
def test_a_bad_line_of_a_table_is_named(tmp_path, line, message):
    (tmp_path / "a.csv").write_text(f"label,a,b,c,d\n0,1,2,3,4\n\n{line}\n1,1,2,3,4\n")
    with pytest.raises(ValueError, match=message) as caught:
        arrays(tmp_path / "a.csv")
    assert str(caught.value).startswith(str(tmp_path / "a.csv"))


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.sampled_from('0123456789.,;\t\n\r"-+eE xnaif\x00é#'), max_size=60))
def test_no_table_raises_anything_but_a_value_error(text):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            part = read_table(text.encode(), "here")
    except ValueError as error:
        assert str(error).startswith("here: ")
    else:
        assert len(part.images) == len(part.labels) > 0


# --- folders of images ---------------------------------------------------------------------------

COLOUR = RNG.integers(0, 256, (8, 6, 5, 3), np.uint8)


def write_folder(root, images=COLOUR, classes=("10", "9"), suffix="png"):
    for k, image in enumerate(images):
        folder = root / classes[k % len(classes)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{k}.{suffix}")
    return root


def test_folders_of_classes_for_each_split(tmp_path):
    for name, images in (("train", COLOUR), ("test", COLOUR[:2]), ("val", COLOUR[2:5])):
        write_folder(tmp_path / name, images)
    (tmp_path / "train/9/.DS_Store").write_bytes(b"a system's")
    dataset = arrays(tmp_path)
    assert dataset.class_names == ("9", "10") and dataset.num_classes == 2  # as numbers
    order = [1, 3, 5, 7, 0, 2, 4, 6]
    np.testing.assert_array_equal(dataset.train.images, COLOUR[order])
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4
    np.testing.assert_array_equal(dataset.test.images, COLOUR[[1, 0]])
    assert dataset.validation is not None and dataset.validation.labels.tolist() == [0, 1, 1]
    assert len(dataset.checksums) == 3
    other = arrays(tmp_path / "train", tmp_path / "test")
    np.testing.assert_array_equal(other.test.images, dataset.test.images)


def test_one_folder_of_classes_is_split(tmp_path):
    write_folder(tmp_path, COLOUR[..., 0], ("cat", "ant"))
    dataset = arrays(tmp_path, test_fraction=0.5)
    assert dataset.class_names == ("ant", "cat") and dataset.image_shape == (6, 5, 1)
    assert dataset.test.labels.tolist() == dataset.train.labels.tolist() == [0, 0, 1, 1]


def test_grey_among_colour_jpeg_under_another_name_and_a_palette(tmp_path):
    write_folder(tmp_path, COLOUR[:4], ("a",))
    Image.fromarray(COLOUR[0, :, :, 0]).save(tmp_path / "a/4.png")
    Image.fromarray(np.full((6, 5, 3), 77, np.uint8)).save(tmp_path / "a/5.png", "JPEG")
    Image.fromarray(np.full((6, 5, 3), 99, np.uint8)).quantize(2).save(tmp_path / "a/6.png")
    dataset = arrays(tmp_path, tmp_path)
    assert dataset.image_shape == (6, 5, 3) and len(dataset.train) == 7
    np.testing.assert_array_equal(dataset.train.images[4], COLOUR[0, :, :, :1].repeat(3, axis=2))
    assert abs(dataset.train.images[5].astype(int) - 77).max() <= 2 and (dataset.train.images[6] == 99).all()


@pytest.mark.parametrize(
    "spoil, message",
    [
        (
            lambda f: Image.fromarray(COLOUR[0, :5]).save(f / "9/x.png"),
            "9/x.png: an image of 5x5, where 8 of 9 are 5x6",
        ),
        (lambda f: (f / "9/x.png").write_bytes(b"text"), "9/x.png: neither PNG nor JPEG"),
        (lambda f: (f / "9/x.png").write_bytes(b""), "9/x.png: .*empty, 0 bytes"),
        (lambda f: (f / "9/x.png").write_bytes(b"version https://git-lfs.github.com"), "9/x.png: .*git lfs pull"),
        (lambda f: (f / "9/x.png").write_bytes((f / "9/1.png").read_bytes()[:-40]), "9/x.png: damaged"),
        (lambda f: (f / "9/more").mkdir(), "9/more: a folder inside of a class"),
        (lambda f: Image.fromarray(np.ones((6, 5), np.uint16)).save(f / "9/x.png"), "9/x.png: .* more than 8 bits"),
    ],
)
def test_what_is_wrong_in_a_folder_is_named(tmp_path, spoil, message):
    spoil(write_folder(tmp_path))
    with pytest.raises(ValueError, match=f"{tmp_path}/{message}"):
        arrays(tmp_path)


def test_folders_that_are_no_classes_are_said(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no folders in it; expected a folder of images for each class"):
        arrays(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="no images in it"):
        arrays(tmp_path)
    write_folder(tmp_path / "train")
    write_folder(tmp_path / "test", classes=("9", "11"))
    with pytest.raises(ValueError, match="test: it has the classes 11, which the training images do not have"):
        arrays(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match="images of one's own need Pillow: `pip install pillow`"):
        arrays(tmp_path / "train")
