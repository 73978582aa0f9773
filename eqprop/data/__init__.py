"""Data sets as arrays: files to `uint8` images, deterministic batches, on-device preprocessing.

Nothing here knows a network or a training loop, and nothing is downloaded unless `download` is
called or a loader is told to. See `docs/data.md`.
"""

from eqprop.data.arrays import arrays as arrays
from eqprop.data.augment import (
    CIFAR_MEAN as CIFAR_MEAN,
    CIFAR_STD as CIFAR_STD,
    Preprocess as Preprocess,
    batch_key as batch_key,
    cifar_preprocess as cifar_preprocess,
    normalise as normalise,
    random_crop_flip as random_crop_flip,
)
from eqprop.data.batches import Batch as Batch, Batches as Batches, permutation as permutation
from eqprop.data.catalogue import SOURCES as SOURCES
from eqprop.data.cifar import cifar10 as cifar10, cifar100 as cifar100
from eqprop.data.curves import PulseCurves as PulseCurves, pulse_curves as pulse_curves
from eqprop.data.dataset import Dataset as Dataset, Split as Split
from eqprop.data.digits import digits as digits
from eqprop.data.download import download as download
from eqprop.data.imagenet32 import imagenet32 as imagenet32
from eqprop.data.mnist import (
    emnist as emnist,
    fashion_mnist as fashion_mnist,
    kmnist as kmnist,
    mnist as mnist,
)
from eqprop.data.rows import Rows as Rows
from eqprop.data.source import Source as Source
from eqprop.data.splits import hold_out as hold_out, subset as subset
from eqprop.data.tasks import (
    allostery as allostery,
    friedman as friedman,
    in_turns as in_turns,
    linear_regression as linear_regression,
    xor as xor,
)
