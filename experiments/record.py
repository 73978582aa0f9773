"""The run folder: configuration, environment, metrics, checkpoints, summary. It is named by its configuration."""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import jax
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from omegaconf import DictConfig, OmegaConf

from experiments import checkpoint
from experiments.checkpoint import DamagedCheckpoint, write_atomically

SUMMARY = "summary.json"
"""Written last: a folder that has it is finished."""
CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
STOPPED = "stopped.txt"
"""Why a run ended without a summary; absent if it was killed."""

_PACKAGES = ("eqprop", "jax", "jaxlib", "equinox", "diffrax", "optax", "hydra-core", "numpy")


class RunFolder:
    """One run on disk. Every file in it is replaced whole or not at all. Of several processes of one run, one writes.

    It is locked until it is closed. As a context it notes an error that ends it in `stopped.txt`."""

    def __init__(self, cfg: DictConfig, *, writer: bool = True):
        """**Raises:** `ValueError` if the folder holds a run of another configuration, or is in use; `OSError` if it
        cannot be written."""
        self.settings = settings(cfg)
        self.hash = config_hash(cfg)
        self.path = run_path(cfg)
        self.checkpoints = self.path / "checkpoints"
        self._keep = cfg.run.keep
        self._writer = writer
        self._lock: TextIO | None = None
        if writer:
            self._open(cfg.run.overwrite)
        if jax.process_count() > 1:  # the others read what the writer left
            multihost_utils.sync_global_devices("run folder")

    def _open(self, overwrite: bool) -> None:
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "w")
        except OSError as error:
            raise OSError(
                error.errno, f"The run folder {self.path} cannot be written ({error.strerror}); choose another run.dir"
            ) from error
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ValueError(
                    f"Another process is running in {self.path}; wait for it or choose another run.dir."
                ) from error
            if overwrite:
                self._clear()
            self._check_same_run()
        except BaseException:
            self.close()
            raise
        for partial in [*self.path.glob(".*.partial"), *self.checkpoints.glob(".*.partial")]:
            partial.unlink(missing_ok=True)  # of a writer that was killed

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        del kind, trace
        with contextlib.suppress(OSError):  # the disk may be what stopped it
            if isinstance(error, Exception):
                self.write_text(STOPPED, f"{type(error).__name__}: {error}\n")
        self.close()

    def close(self) -> None:
        """Let another process use the folder."""
        if self._lock is not None:
            self._lock.close()

    def begin(self, environment: dict) -> None:
        """Write what the run is and where it runs."""
        if self._writer:
            (self.path / STOPPED).unlink(missing_ok=True)
        self.write_text(CONFIG, OmegaConf.to_yaml(OmegaConf.create(self.settings)))
        self.write_json("environment.json", environment)

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file."""
        self.write_text(name, to_json(content, indent=2) + "\n")

    def write_text(self, name: str, content: str) -> None:
        """Write a text file."""
        if self._writer:
            write_atomically(self.path / name, lambda file: file.write(content.encode()))

    def write_metrics(self, records: list[dict]) -> None:
        """Write `metrics.jsonl`, one line an epoch."""
        self.write_text(METRICS, "".join(to_json(record) + "\n" for record in records))

    def save(self, tree: PyTree, header: dict, *, best: bool) -> None:
        """Save a checkpoint, and drop the oldest beyond `run.keep`."""
        if not self._writer:
            return
        steps = f"step-{header['position']:09d}.eqx"
        checkpoint.save(self.checkpoints / steps, tree, {**header, "config_hash": self.hash})
        if best:
            checkpoint.save(self.checkpoints / "best.eqx", tree, {**header, "config_hash": self.hash})
        for old in self._saved()[: -max(self._keep, 1)]:
            old.unlink()

    def restore(self, like: PyTree) -> tuple[PyTree, dict] | None:
        """The newest checkpoint that is whole, or `None`. A damaged one is reported and passed over."""
        for path in reversed(self._saved()):
            try:
                tree, header = checkpoint.load(path, like)
                if header.get("config_hash") != self.hash:
                    raise DamagedCheckpoint(f"{path} is of another configuration")
                return tree, header
            except DamagedCheckpoint as error:
                print(f"warning: {error}; trying the one before it", file=sys.stderr)
        return None

    def _saved(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step-*.eqx"))

    def _clear(self) -> None:
        names = [SUMMARY, STOPPED, METRICS, "learning_curve.png", CONFIG]
        # The configuration goes last: while a checkpoint is there, it says of what.
        for path in [*self.checkpoints.glob("*.eqx"), *(self.path / name for name in names)]:
            path.unlink(missing_ok=True)

    def _check_same_run(self) -> None:
        path = self.path / CONFIG
        if not path.exists():
            return
        theirs = OmegaConf.to_container(OmegaConf.load(path))
        if theirs != self.settings:
            ours, other = flatten(self.settings), flatten(theirs)
            differ = sorted(name for name in ours.keys() | other.keys() if ours.get(name) != other.get(name))
            raise ValueError(
                f"{self.path} holds a run of another configuration (it differs in {', '.join(differ[:5])}). "
                "Choose another run.dir, or run.overwrite=true to start again there."
            )


def run_path(cfg: DictConfig) -> Path:
    """The folder of a run: `run.dir`, or one named by the configuration."""
    return Path(cfg.run.dir or Path(cfg.run.root) / f"{cfg.run.name}-{config_hash(cfg)}")


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON that every program reads: a number that is not finite becomes null, as JSON has no word for it."""
    finite = _each(content, lambda leaf: None if isinstance(leaf, float) and not math.isfinite(leaf) else leaf)
    return json.dumps(finite, indent=indent, allow_nan=False)


def _each(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Mappings and sequences with every other thing in them changed."""
    if isinstance(tree, dict):
        return {name: _each(sub, change) for name, sub in tree.items()}
    return [_each(sub, change) for sub in tree] if isinstance(tree, (list, tuple)) else change(tree)


def _numbers(text: str) -> Any:
    """What `to_json` wrote of numbers and words: null is NaN."""
    return _each(json.loads(text), lambda leaf: math.nan if leaf is None else leaf)


def read_summary(path: Path) -> dict | None:
    """The summary of a finished run, `None` of another. What was not finite is NaN."""
    try:
        return _numbers((path / SUMMARY).read_text())
    except FileNotFoundError:
        return None


def read_metrics(path: Path) -> list[dict]:
    """The metrics of a run, one entry an epoch. What was not finite is NaN."""
    return [_numbers(line) for line in (path / METRICS).read_text().splitlines()]


def finished(cfg: DictConfig) -> dict | None:
    """The summary, if this very run is finished and shall not start again: no data need be read to know it."""
    path = run_path(cfg)
    if cfg.run.overwrite or not (path / SUMMARY).exists() or not (path / CONFIG).exists():
        return None
    return read_summary(path) if OmegaConf.to_container(OmegaConf.load(path / CONFIG)) == settings(cfg) else None


def settings(cfg: DictConfig) -> dict:
    """The resolved configuration without where and how it is recorded: what decides the result."""
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    return {str(name): value for name, value in resolved.items() if name not in ("run", "hydra")}


def config_hash(cfg: DictConfig) -> str:
    """Ten hexadecimal digits that name a configuration."""
    canonical = json.dumps(settings(cfg), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    parts = ((f"{prefix}.{name}" if prefix else str(name), sub) for name, sub in tree.items())
    return {name: value for path, sub in parts for name, value in flatten(sub, path).items()}


def environment(cfg: DictConfig, checksums: dict[str, str]) -> dict:
    """Versions, devices, precision, commit and data checksums: the provenance of a number."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
        "cores": os.cpu_count(),
        "cores_used": _cores_used(),
        "precision": "float64" if cfg.runtime.x64 else "float32",
        "matmul_precision": cfg.runtime.matmul_precision,
        "commit": _commit(),
        "data_sha256": checksums,
    }


def _cores_used() -> int | None:
    """Those this process may run on: fewer than there are where runs share a machine."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout, with `+changes` if files differ from it; `None` outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
