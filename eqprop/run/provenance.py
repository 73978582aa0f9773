"""Where a number comes from: code, versions, machine, precision and data."""

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
from omegaconf import DictConfig

from eqprop._numerics import NUMERICS
from eqprop.run.compose import PACKAGE

CHANGES = "+changes"
"""What a commit ends with where files of the code differ from it."""
CODE = ("eqprop", "experiments", "configs", "pyproject.toml")
"""The parts of a checkout that decide results."""
_PACKAGES = ("eqprop", "jax", "jaxlib", "equinox", "diffrax", "lineax", "optimistix", "optax", "hydra-core", "numpy")
_FLAGS = ("XLA_FLAGS", "JAX_ENABLE_X64", "JAX_PLATFORMS", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_DISABLE_JIT")


def environment(cfg: DictConfig, checksums: Mapping[str, str]) -> dict[str, Any]:
    """The provenance of a run: its surroundings, its precision and the checksums of its data."""
    return {
        **surroundings(),
        "precision": "float64" if cfg.runtime.x64 else "float32",
        "matmul_precision": cfg.runtime.matmul_precision,
        "data_sha256": dict(checksums),
    }


def surroundings() -> dict[str, Any]:
    """Numerics, versions, commit, machine, flags, and the words that followed the name of the program."""
    return {
        "numerics": NUMERICS,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "commit": commit(),
        "changes": changes(),
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "cores_used": _cores_used(),
        "flags": {name: os.environ[name] for name in _FLAGS if os.environ.get(name)},
        "command": command(),
    }


def command() -> str | None:
    """The command line of the program, as a shell takes it; `None` in another program, such as a notebook."""
    if Path(sys.argv[0]).parent.name != "eqprop" and Path(sys.argv[0]).stem not in ("eqprop", "eqprop train"):
        return None
    return shlex.join(["eqprop", *sys.argv[1:]])


@cache
def commit() -> str | None:
    """The commit of the checkout, with `+changes` if its code differs from it; `None` outside a checkout."""
    found = _git("rev-parse", "HEAD")
    return None if found is None else found + (CHANGES if changes() else "")


@cache
def changes() -> str | None:
    """Twelve hexadecimal digits that name what the code differs in from its commit; `None` if in nothing."""
    found = _git("status", "--porcelain", "--untracked-files=normal", "--", *CODE)
    if not found:
        return None
    return hashlib.sha256((found + (_git("diff", "HEAD", "--", *CODE) or "")).encode()).hexdigest()[:12]


def checkout() -> Path | None:
    """The root of the checkout that the package runs from; `None` if it was installed."""
    root = PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "configs").is_dir() else None


@cache
def processor() -> str:
    """The name of the processor as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def version(package: str) -> str | None:
    """Its installed version."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cores_used() -> int | None:
    """Those this process may run on: fewer than there are where runs share a machine."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()


def _git(*arguments: str) -> str | None:
    """What git says in the checkout; `None` outside one, or without git."""
    root = checkout()
    if root is None:
        return None
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
