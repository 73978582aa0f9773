"""Fetch a data set, verify it, convert it where that is needed, and say what is there: `eqprop data`.

Nothing else of the project downloads, unless a loader is told to by `download=True`.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from eqprop.data import (
    SOURCES,
    Dataset,
    Rows,
    cifar10,
    cifar100,
    digits,
    emnist,
    fashion_mnist,
    imagenet32,
    kmnist,
    mnist,
)

LOADERS: Mapping[str, Callable[..., Dataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "kmnist": kmnist,
    "emnist": emnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagenet32": imagenet32,
}


def prepare(name: str, root: str | None = None, verify: bool = False) -> Dataset:
    """Load a data set, after fetching its files if they are not there."""
    if name not in SOURCES:
        return LOADERS[name]()
    options = {"download": True} if SOURCES[name].downloads else {"verify": verify}
    return LOADERS[name](root, **options)


def summary(dataset: Dataset) -> str:
    """Shapes, class counts and checksums; a published checksum is compared."""
    targets = dataset.train.labels.shape[1:]
    kind = f"{dataset.num_classes} classes, pixels 0 to {dataset.maximum}" if not targets else f"{targets[0]} targets"
    lines = [f"{dataset.name}: {kind}"]
    splits = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    for name, split in splits.items():
        if split is None:
            continue
        counts = np.bincount(split.strata, minlength=dataset.num_classes or 1)
        kind = "memory-mapped" if isinstance(split.images, (np.memmap, Rows)) else "in memory"
        lines.append(
            f"  {name}: {len(split)} images {list(dataset.image_shape)} {kind}, "
            f"{counts.min()} to {counts.max()} a class, from {split.source}"
        )
    source = SOURCES.get(dataset.name)
    published = source.published if source else {}
    for file, digest in dataset.checksums.items():
        verdict = {None: "", digest: "  as published"}.get(
            published.get(file), "  NOT as published: name results on it differently"
        )
        lines.append(f"  sha256 {digest}  {file}{verdict}")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """The command line of `eqprop data`."""
    parser = argparse.ArgumentParser(prog="eqprop data", description="Fetch, verify and describe a data set.")
    parser.add_argument("dataset", choices=LOADERS)
    parser.add_argument("--root", help="folder of the files; default EQPROP_DATA or the cache")
    parser.add_argument("--verify", action="store_true", help="hash converted files in full")
    options = parser.parse_args(arguments)
    print(summary(prepare(options.dataset, options.root, options.verify)))
