"""The data sets that need files: names, layouts, addresses and published checksums.

MD5 sums are those published by the authors: CIFAR on https://www.cs.toronto.edu/~kriz/cifar.html,
Fashion-MNIST on https://github.com/zalandoresearch/fashion-mnist; those of MNIST, KMNIST and EMNIST are torchvision's.
"""

import string

from eqprop.data.source import Download, Layout, Source

_IDX_TRAIN = Layout(("train-images-idx3-ubyte", "train-labels-idx1-ubyte"))
_IDX_TEST = Layout(("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"))
_IDX_FILES = (*_IDX_TRAIN.files, *_IDX_TEST.files)


def _idx_downloads(md5s: tuple[str, ...], *addresses: str) -> tuple[Download, ...]:
    return tuple(
        Download(f"{name}.gz", md5, tuple(f"{address}/{name}.gz" for address in addresses))
        for name, md5 in zip(_IDX_FILES, md5s, strict=True)
    )


def _cifar_download(file: str, md5: str) -> tuple[Download, ...]:
    return (Download(file, md5, (f"https://www.cs.toronto.edu/~kriz/{file}",)),)


MNIST = Source(
    "mnist",
    "MNIST",
    ("mnist", "MNIST/raw", "MNIST"),
    train=(_IDX_TRAIN,),
    test=(_IDX_TEST,),
    downloads=_idx_downloads(
        (
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    ),
)

FASHION_MNIST = Source(
    "fashion_mnist",
    "Fashion-MNIST",
    ("fashion-mnist", "fashion_mnist", "FashionMNIST/raw", "FashionMNIST"),
    train=(_IDX_TRAIN,),
    test=(_IDX_TEST,),
    downloads=_idx_downloads(
        (
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    ),
    # Debian and Ubuntu: `apt install dataset-fashion-mnist`.
    system=("/usr/share/datasets/fashion-mnist",),
    # Of the contents of Debian's files. Debian strips names and times from the gzip headers; with
    # the original headers put back, all four files have the MD5 sums above, so these are certain.
    published={
        "train-images-idx3-ubyte": ("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        "train-labels-idx1-ubyte": ("bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        "t10k-images-idx3-ubyte": ("5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
        "t10k-labels-idx1-ubyte": ("0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    },
)

KMNIST = Source(
    "kmnist",
    "KMNIST",
    ("kmnist", "KMNIST/raw", "KMNIST"),
    train=(_IDX_TRAIN,),
    test=(_IDX_TEST,),
    downloads=_idx_downloads(
        (
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist",
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist",
    ),
)


def _emnist(split: str) -> Source:
    def layout(part: str) -> tuple[Layout, ...]:
        kinds = ("images-idx3-ubyte", "labels-idx1-ubyte")
        return (Layout(tuple(f"emnist-{split}-{part}-{kind}" for kind in kinds), "gzip.zip"),)

    return Source(
        "emnist",
        "EMNIST",
        ("emnist", "EMNIST/raw", "EMNIST", "gzip", "emnist/gzip"),
        train=layout("train"),
        test=layout("test"),
        downloads=(
            Download(
                "gzip.zip",
                "58c8d27c78d21e728a6bc7b3cc06412e",
                ("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",),
            ),
        ),
    )


_DIGITS, _CAPITALS = string.digits, string.ascii_uppercase
# Small letters that look like their capitals are one class with them.
_MERGED = _DIGITS + _CAPITALS + "abdefghnqrt"
EMNIST_CLASSES = {
    "balanced": _MERGED,
    "byclass": _DIGITS + _CAPITALS + string.ascii_lowercase,
    "bymerge": _MERGED,
    "digits": _DIGITS,
    "letters": string.ascii_lowercase,
    "mnist": _DIGITS,
}
"""The splits of EMNIST and the characters of their classes, in order."""
EMNIST = {split: _emnist(split) for split in EMNIST_CLASSES}

_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
CIFAR10 = Source(
    "cifar10",
    "CIFAR-10",
    (
        *("cifar10", "cifar-10-batches-bin", "cifar-10-batches-py"),
        *("cifar10/cifar-10-batches-bin", "cifar10/cifar-10-batches-py"),
    ),
    train=(
        Layout(tuple(f"{name}.bin" for name in _BATCHES), "cifar-10-binary.tar.gz"),
        Layout(_BATCHES, "cifar-10-python.tar.gz"),
    ),
    test=(Layout(("test_batch.bin",), "cifar-10-binary.tar.gz"), Layout(("test_batch",), "cifar-10-python.tar.gz")),
    downloads=_cifar_download("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
)

CIFAR100 = Source(
    "cifar100",
    "CIFAR-100",
    ("cifar100", "cifar-100-binary", "cifar-100-python", "cifar100/cifar-100-binary", "cifar100/cifar-100-python"),
    train=(Layout(("train.bin",), "cifar-100-binary.tar.gz"), Layout(("train",), "cifar-100-python.tar.gz")),
    test=(Layout(("test.bin",), "cifar-100-binary.tar.gz"), Layout(("test",), "cifar-100-python.tar.gz")),
    downloads=_cifar_download("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
)

_PARTS = tuple(f"train_data_batch_{k}" for k in range(1, 11))
_ZIPS = ("Imagenet32_train", "Imagenet32_val", "Imagenet32_train_npz", "Imagenet32_val_npz")
IMAGENET32 = Source(
    "imagenet32",
    "ImageNet 32x32",
    ("imagenet32", *_ZIPS, *(f"imagenet32/{name}" for name in _ZIPS)),
    train=(
        Layout(_PARTS, "Imagenet32_train.zip"),
        Layout(tuple(f"{name}.npz" for name in _PARTS), "Imagenet32_train_npz.zip"),
    ),
    test=(Layout(("val_data",), "Imagenet32_val.zip"), Layout(("val_data.npz",), "Imagenet32_val_npz.zip")),
    advice=(
        "log in at https://image-net.org/download-images, accept the terms, and fetch the "
        "downsampled 32x32 train and val archives"
    ),
)

# All splits of EMNIST are in one archive: any of them fetches it.
_ALL = (MNIST, FASHION_MNIST, KMNIST, EMNIST["balanced"], CIFAR10, CIFAR100, IMAGENET32)
SOURCES = {source.name: source for source in _ALL}
