"""Images a second: augmentation on the device, and batches from a memory-mapped file.

python -m experiments.bench_data
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from eqprop.data import Batches, Split, batch_key, cifar_preprocess

BATCH_SIZE = 256
TARGETS = {"augmentation": 100_000, "memory_mapped": 50_000}


def _best_rate(run: Callable[[], int], repeats: int = 5) -> float:
    """Images a second in the fastest of a few runs: the others measure the machine's other load."""
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        images = run()
        rates.append(images / (time.perf_counter() - start))
    return max(rates)


def augmentation(num_batches: int = 40) -> float:
    """Crop, mirror and normalise batches of 256 images of 32x32x3, compiled."""
    preprocess = eqx.filter_jit(cifar_preprocess())
    shape = (BATCH_SIZE, 32, 32, 3)
    images = jax.device_put(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    keys = [batch_key(0, 0, step) for step in range(num_batches)]
    preprocess(images, key=keys[0]).block_until_ready()

    def run() -> int:
        for key in keys:
            preprocess(images, key=key).block_until_ready()
        return num_batches * BATCH_SIZE

    return _best_rate(run)


def memory_mapped(num_images: int = 300_000, num_batches: int = 200) -> float:
    """Shuffled batches of 32x32x3 images from a mapped file (0.9 GB).

    The file has just been written and is read from memory, as in any epoch but the first.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npy"
        shape = (num_images, 32, 32, 3)
        written = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        block = np.random.default_rng(0).integers(0, 256, (10_000, 32, 32, 3), np.uint8)
        for start in range(0, num_images, len(block)):
            written[start : start + len(block)] = block[: num_images - start]
        written.flush()
        del written
        images = np.load(path, mmap_mode="r")
        batches = Batches(Split(images, np.zeros(num_images, np.int32)), BATCH_SIZE, 0)
        num_batches = min(num_batches, len(batches))
        epochs = iter(range(100))

        def run() -> int:
            count = 0
            for _, batch in zip(range(num_batches), batches.epoch(next(epochs)), strict=False):
                count += len(batch.images)
            return count

        return _best_rate(run)


def measure() -> dict[str, float]:
    """Images a second of each path, ready for JSON."""
    return {"augmentation": augmentation(), "memory_mapped": memory_mapped()}


if __name__ == "__main__":
    for name, rate in measure().items():
        print(f"{name}: {rate:,.0f} images/s (target {TARGETS[name]:,})")
