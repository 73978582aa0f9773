"""The run folder: configuration, environment, metrics, checkpoints, summary. It is named by its configuration."""

import contextlib
import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from filelock import FileLock, Timeout
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from omegaconf import DictConfig, OmegaConf

from eqprop._numerics import NUMERICS
from eqprop.run import checkpoint
from eqprop.run.checkpoint import DamagedCheckpoint, write_atomically

SUMMARY = "summary.json"
"""Written last: a folder that has it is finished."""
CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
ENVIRONMENT = "environment.json"
REPORT = "report.html"
STOPPED = "stopped.txt"
"""Why a run ended without a summary; absent if it was killed."""
LOCK = ".lock"
BEST = "best.eqx"
"""The checkpoint of the highest validation accuracy."""


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
        self._lock = FileLock(self.path / LOCK, timeout=0)
        if writer:
            self._open(cfg.run.overwrite)
        if jax.process_count() > 1:  # the others read what the writer left
            multihost_utils.sync_global_devices("run folder")

    def _open(self, overwrite: bool) -> None:
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            raise ValueError(
                f"Another process is running in {self.path}; wait for it or choose another run.dir."
            ) from error
        except OSError as error:
            raise OSError(
                error.errno, f"The run folder {self.path} cannot be written ({error.strerror}); choose another run.dir"
            ) from error
        try:
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
        self._lock.release()

    def begin(self, environment: dict) -> None:
        """Write what the run is and where it runs."""
        if self._writer:
            (self.path / STOPPED).unlink(missing_ok=True)
        self.write_text(CONFIG, OmegaConf.to_yaml(OmegaConf.create(self.settings)))
        self.write_json(ENVIRONMENT, environment)

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
            checkpoint.save(self.checkpoints / BEST, tree, {**header, "config_hash": self.hash})
        for old in self._saved()[: -max(self._keep, 1)]:
            old.unlink()

    def restore(self, like: PyTree) -> tuple[PyTree, dict] | None:
        """The newest checkpoint that is whole, or `None`. One that cannot be read is said and set aside under another
        name, so that it neither stands in the way of later ones nor is lost."""
        saved = self._saved()
        for path in reversed(saved):
            try:
                return self._loaded(path, like)
            except DamagedCheckpoint as error:
                aside = path.with_suffix(".unreadable")
                print(f"warning: {error}; it is set aside as {aside.name}", file=sys.stderr)
                if self._writer:
                    path.replace(aside)
        if saved:
            print(f"warning: no checkpoint in {self.checkpoints} can be read; starting again", file=sys.stderr)
        return None

    def restore_best(self, like: PyTree) -> PyTree:
        """The tree of the best checkpoint. **Raises:** `DamagedCheckpoint`, `FileNotFoundError`."""
        return self._loaded(self.checkpoints / BEST, like)[0]

    def _loaded(self, path: Path, like: PyTree) -> tuple[PyTree, dict]:
        tree, header = checkpoint.load(path, like)
        if header.get("config_hash") != self.hash:
            raise DamagedCheckpoint(f"{path} is of another configuration")
        return tree, header

    def _saved(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step-*.eqx"))

    def _clear(self) -> None:
        names = [SUMMARY, STOPPED, METRICS, "learning_curve.png", REPORT, CONFIG]
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


def recorded(folder: Path) -> DictConfig:
    """The configuration of a run as its folder has it, without the numerics and without how it is recorded.

    **Raises:** `FileNotFoundError` if the folder holds no run.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no run: there is no {CONFIG}. Give the folder that `eqprop train` names."
        )
    cfg = OmegaConf.load(path)
    assert isinstance(cfg, DictConfig)
    cfg.pop("numerics", None)
    return cfg


def checkpoint_of(folder: Path, name: str | None = None) -> Path:
    """The checkpoint of a run with that name, by default the last one.

    **Raises:** `ValueError` if it is not there.
    """
    names = sorted(path.name for path in (folder / "checkpoints").glob("*.eqx"))
    steps = [name for name in names if name != BEST]
    path = folder / "checkpoints" / (name or (steps[-1] if steps else BEST))
    if not path.is_file():
        raise ValueError(f"{folder} has no checkpoint {path.name}; there are {', '.join(names) or 'none'}.")
    return path


def run_path(cfg: DictConfig) -> Path:
    """The folder of a run: `run.dir`, or one named by the configuration."""
    return Path(cfg.run.dir or Path(cfg.run.root) / f"{cfg.run.name}-{config_hash(cfg)}").expanduser()


def to_json(content: Any, indent: int | None = None) -> str:
    """JSON that every program reads: arrays are lists, and a number that is not finite is null, as JSON has no word for
    it."""
    return json.dumps(_each(content, _plain), indent=indent, allow_nan=False, ensure_ascii=False)


def nan_for_null(tree: Any) -> Any:
    """What `to_json` wrote of numbers, with NaN again for what was not finite."""
    return _each(tree, lambda leaf: math.nan if leaf is None else leaf)


def _plain(leaf: Any) -> Any:
    if hasattr(leaf, "__array__"):
        return _each(np.asarray(leaf).tolist(), _plain)
    return None if isinstance(leaf, float) and not math.isfinite(leaf) else leaf


def _each(tree: Any, change: Callable[[Any], Any]) -> Any:
    """Mappings and sequences with every other thing in them changed."""
    if isinstance(tree, dict):
        return {str(name): _each(sub, change) for name, sub in tree.items()}
    return [_each(sub, change) for sub in tree] if isinstance(tree, (list, tuple)) else change(tree)


def read_summary(path: Path) -> dict | None:
    """The summary of a finished run, `None` of another. What was not finite is NaN."""
    try:
        return nan_for_null(json.loads((path / SUMMARY).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def read_metrics(path: Path) -> list[dict]:
    """The metrics of a run, one entry an epoch. What was not finite is NaN."""
    return [nan_for_null(json.loads(line)) for line in (path / METRICS).read_text(encoding="utf-8").splitlines()]


def finished(cfg: DictConfig) -> dict | None:
    """The summary, if this very run is finished and shall not start again: no data need be read to know it."""
    path = run_path(cfg)
    if cfg.run.overwrite or not (path / SUMMARY).exists() or not (path / CONFIG).exists():
        return None
    return read_summary(path) if OmegaConf.to_container(OmegaConf.load(path / CONFIG)) == settings(cfg) else None


def settings(cfg: DictConfig) -> dict:
    """What decides the result: the resolved configuration, without where and how it is recorded, and the numerics."""
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    decisive = {str(name): value for name, value in resolved.items() if name not in ("run", "hydra")}
    return {**decisive, "numerics": NUMERICS}


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
