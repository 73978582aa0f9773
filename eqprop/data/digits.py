"""The small digits of UCI, shipped with the package.

"Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak (1998), UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49, CC BY 4.0. These are its 1,797 test digits, by 13
writers, as the numbers of inked pixels in the 8x8 blocks of a 32x32 bitmap: 0 to 16.
"""

import io
from importlib import resources

import numpy as np

from eqprop.data.batches import permutation
from eqprop.data.dataset import Dataset, Split
from eqprop.data.faults import damaged
from eqprop.data.files import sha256

_FILE = "digits.npz"
_SHA256 = "56691635b5c95f315ed55907c4fe83309809b3b822ee0b8d68e84bba3ffd4ca3"
# The split of every result that names this data set: never change it.
_SHUFFLE_SEED = 0


def digits(test_fraction: float = 0.2) -> Dataset:
    """The 1,797 digits of 8x8 pixels with values 0 to 16, in ten classes.

    They are shuffled by `permutation(1797, 0)`, the same everywhere; the first
    `round(1797 * test_fraction)` are the test split.

    **Raises:** `ValueError` unless `test_fraction` leaves at least one image in either split.
    """
    data = (resources.files("eqprop.data") / "files" / _FILE).read_bytes()
    if sha256(data) != _SHA256:
        raise damaged(_FILE, "its SHA-256 is not the package's; install eqprop again")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        images, labels = arrays["images"], arrays["labels"].astype(np.int32)
    num_test = round(len(images) * test_fraction)
    if not 0 < num_test < len(images):
        raise ValueError(
            f"test_fraction={test_fraction} makes {num_test} test images of {len(images)}; "
            "give a fraction between 0 and 1"
        )
    order = permutation(len(images), _SHUFFLE_SEED)
    whole = Split(images[order], labels[order], _FILE)
    return Dataset("digits", whole[num_test:], whole[:num_test], num_classes=10, maximum=16, checksums={_FILE: _SHA256})
