"""Runs as tests need them: tiny, composed in this process or started in another, and compared bit by bit."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from omegaconf import DictConfig

from eqprop.data import Dataset, Split
from eqprop.run.compose import CONFIGS, compose

ROOT = CONFIGS.parent

TINY = [
    "network.sizes=[64,12,10]",
    "epochs=2",
    "batch_size=300",
    "data.validation=200",
    "evaluation.batch_size=360",
    "evaluation.alignment_examples=10",
    "estimator=rbp",
    "relaxation=picard",
    "relaxation@nudged=picard",
]
"""Eight steps of one small program on the shipped digits."""
STEPS, PER_EPOCH = 8, 4


def configuration(*overrides: str, name: str = "train") -> DictConfig:
    """The configuration of a command line."""
    return compose(overrides, name)


def tiny(folder: Path, *overrides: str) -> DictConfig:
    """A tiny run in `folder`."""
    return configuration(*TINY, f"run.dir='{folder}'", *overrides)


def command(*arguments: str, name: str = "train") -> list[str]:
    """A command line that the shell would run."""
    return [sys.executable, "-m", "eqprop", name, *arguments]


def start(words: list[str], cache: Path, **options: Any) -> subprocess.Popen:
    """Start it in the checkout; programs compiled once are found in `cache` again."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT} | options
    settings = {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    environment = {**os.environ, **options.pop("env", {}), **settings}
    return subprocess.Popen(words, env=environment, **options)


def finish(process: subprocess.Popen, timeout: float = 300) -> tuple[int, str]:
    """Its exit code and all it wrote."""
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def outcome(folder: Path) -> tuple[bytes, list[dict], dict]:
    """What a run led to, without the time it took: the arrays of its last checkpoint, its metrics, its summary."""
    last = max((folder / "checkpoints").glob("step-*.eqx")).read_bytes()
    arrays = last.split(b"\n", 1)[1][:-32]  # between the header, which has the time, and the digest
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    for entry in (*records, summary):
        entry.pop("seconds", None)
    return arrays, records, summary


@contextmanager
def _jax_settings(settings: dict, *restored: str):
    """JAX with other settings; these and those named in `restored` are put back afterwards."""
    before = {name: getattr(jax.config, name) for name in (*settings, *restored)}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@contextmanager
def as_users_run():
    """JAX as it is outside the tests: without their strictness, which optax's schedules do not pass, and optimised in
    full; a run sets the precision."""
    loose = {"jax_numpy_dtype_promotion": "standard", "jax_numpy_rank_promotion": "allow"}
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        with _jax_settings(loose, "jax_enable_x64", "jax_default_matmul_precision"):
            yield
    finally:
        jax.config.update("jax_disable_most_optimizations", True)


def run_python(path: Path, names: dict[str, Any]) -> int:
    """Run the Python blocks of a page, one after the other, on these names; how many there are."""
    blocks = re.findall(r"^```python\n(.*?)^```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for block in blocks:
        exec(block, names)
    return len(blocks)


def programs_folder(factory: pytest.TempPathFactory) -> Path:
    """Where the modules of a test session share compiled programs."""
    return factory.getbasetemp() / "compiled"


@contextmanager
def compiled_once(folder: Path):
    """Programs of this process kept in `folder`, and found there by later runs."""
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    try:
        with _jax_settings(settings):
            yield
    finally:
        compilation_cache.reset_cache()


def made_data(name: str, image_shape: tuple[int, ...], classes: int, size: int = 12) -> Dataset:
    """A made data set in another's place."""

    def split(seed: int) -> Split:
        images = np.random.default_rng(seed).integers(0, 256, (size, *image_shape), np.uint8)
        return Split(images, np.arange(size, dtype=np.int32) % classes)

    return Dataset(name, split(0), split(1), num_classes=classes)
