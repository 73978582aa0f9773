"""A study: jobs run or reused, their compact records committed, and read back for tables and figures.

The records under `docs/results/<study>/<scale>/<label>-<seed>/` are what a table is made of. A job whose record is
there with the same configuration is not run, so that a fresh clone draws every table without training anything.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from experiments.cli import CONFIGS
from experiments.record import CONFIG, METRICS, SUMMARY, flatten, read_metrics, read_summary, run_path, settings

SCALES = ("quick", "cpu", "full")
"""A minute; two cores; the published epochs, seeds and widths on a graphics card."""
RESULTS = Path(__file__).parents[2] / "docs" / "results"
ENVIRONMENT, MISSING = "environment.json", "missing.txt"
FILES = (CONFIG, ENVIRONMENT, METRICS, SUMMARY)
NOT_RUN = "not run at this scale"
RUNS_A_WORKER = 6


class Job(NamedTuple):
    """One row of a study."""

    label: str
    """Safe for a file system, unique within a study, as in `published-n2-beta0.5`."""
    overrides: tuple[str, ...]
    """Of Hydra, the experiment among them."""
    seeds: tuple[int, ...]
    """One run a seed, or one population if `population` is among the overrides; empty: not run at this scale."""


class Record(NamedTuple):
    """What is left of one seed of a job."""

    label: str
    config: dict[str, Any]
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    missing: str | None
    """Why there is no result."""


class Options(NamedTuple):
    """The command line that all studies share."""

    scale: str
    workers: int | None = None
    rerun: bool = False
    data_label: str | None = None


class _Run(NamedTuple):
    """One run of a job: what a worker needs."""

    label: str
    seed: int
    overrides: tuple[str, ...]

    def folder(self, study: str, scale: str) -> Path:
        return RESULTS / study / scale / f"{self.label}-{self.seed}"


def run_study(
    study: str,
    scale: str,
    jobs: Sequence[Job],
    *,
    root: str = "outputs",
    workers: int | None = None,
    rerun: bool = False,
) -> dict[str, list[Record]]:
    """Run, resume or reuse every job; copy its records to `docs/results`; return them by label.

    `workers` runs at a time, each with its share of the cores; `None`: two at the scale `cpu` where there are two
    cores, as two processes of one core are faster on small networks than one of two. Absent data and unsettled
    relaxations cost their own job only. With `rerun`, nothing is reused.
    """
    if len({job.label for job in jobs}) != len(jobs):
        raise ValueError(f"The labels of {study} are not unique.")
    runs = [run for job in jobs for run in _runs(job)]
    configurations = {run: configuration(run.overrides, root, rerun) for run in runs}
    todo = [r for r in runs if rerun or not is_recorded(r.folder(study, scale), configurations[r])]
    print(f"{study}, {scale}: {len(runs)} runs, {len(runs) - len(todo)} of them recorded", flush=True)
    for run, reason in _executed(todo, root, rerun, _workers(workers, scale)):
        _keep(configurations[run], run.folder(study, scale), reason)
    return {job.label: _records(job, study, scale, configurations) for job in jobs}


def load_study(study: str, scale: str) -> dict[str, list[Record]]:
    """What is recorded under `docs/results`, by label, without running anything."""
    found: dict[str, list[Record]] = {}
    folders = [path for path in (RESULTS / study / scale).glob("*") if path.is_dir()]
    for path in sorted(folders, key=lambda p: (_parts(p)[0], _parts(p)[1])):
        label = _parts(path)[0]
        found.setdefault(label, []).extend(read_records(path, label))
    return found


def as_rows(records: Mapping[str, Sequence[Record]]) -> list[dict[str, Any]]:
    """A flat dictionary a record, for `pandas.DataFrame`: label, seed, missing, configuration and summary."""
    return [{**_identity(r), **flatten(r.config), **flatten(r.summary), **_identity(r)} for r in _all(records)]


def as_curves(records: Mapping[str, Sequence[Record]]) -> list[dict[str, Any]]:
    """A flat dictionary an epoch of a record: label, seed and metrics."""
    return [{**_identity(r), **line} for r in _all(records) for line in r.metrics]


def options(argv: Sequence[str] | None, default: str = "cpu", description: str | None = None) -> Options:
    """The command line of a study; `--help` explains it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--scale", choices=SCALES, default=default, help=f"how much to run (default: {default})")
    parser.add_argument("--workers", type=int, help="runs at a time, each with its share of the cores")
    parser.add_argument("--rerun", action="store_true", help="train again what is recorded")
    parser.add_argument("--data-label", help="what the tables call the data, where it differs from the original")
    return Options(**vars(parser.parse_args(argv)))


def scale_from_arguments(argv: Sequence[str] | None, default: str = "cpu") -> str:
    """The scale alone."""
    return options(argv, default).scale


def configuration(overrides: Sequence[str], root: str = "outputs", overwrite: bool = False) -> DictConfig:
    """The configuration of a run."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", [*overrides, f"run.root={root}", f"run.overwrite={str(overwrite).lower()}"])


def is_recorded(folder: Path, cfg: DictConfig) -> bool:
    """Whether `folder` holds a result of this configuration."""
    if not all((folder / name).exists() for name in FILES):
        return False
    theirs = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    return _decisive(theirs, cfg) == _decisive(settings(cfg), cfg)


def read_records(folder: Path, label: str) -> list[Record]:
    """The record in a folder, one for each member of a population."""
    config = OmegaConf.to_container(OmegaConf.load(folder / CONFIG)) if (folder / CONFIG).exists() else {}
    assert isinstance(config, dict)
    config = {str(name): value for name, value in config.items()}
    if not (folder / SUMMARY).exists():
        reason = (folder / MISSING).read_text().strip() if (folder / MISSING).exists() else NOT_RUN
        return [Record(label, config, {}, [], {}, reason)]
    environment = json.loads((folder / ENVIRONMENT).read_text())
    return _members(Record(label, config, environment, read_metrics(folder), read_summary(folder) or {}, None))


def _members(record: Record) -> list[Record]:
    """A population as records of one seed each. What its summary does not hold by member is the mean."""
    shared = {**record.summary}
    members = shared.pop("members", None)
    if members is None:
        return [record]

    def pick(value: Any, index: int) -> Any:
        return value[index] if isinstance(value, list) else value

    split = []
    for index, seed in enumerate(shared["seeds"]):
        own = {name: values[index] for name, values in members.items()}
        for name in shared.keys() & own.keys():  # start and end of alignment
            own[name] = {**shared[name], "end": own[name]} if isinstance(shared[name], dict) else own[name]
        lines = [{name: pick(value, index) for name, value in line.items()} for line in record.metrics]
        config = {**record.config, "seed": seed, "population": 1}
        split.append(record._replace(config=config, metrics=lines, summary={**shared, **own, "seeds": [seed]}))
    return split


def _decisive(tree: Any, cfg: DictConfig) -> dict[str, Any]:
    """The settings that decide a result: not where the data lies, nor its label unless one is asked for, nor what is
    off, which older records do not know."""
    ignored = {"root", "label"} if cfg.data.label == cfg.data.name else {"root"}
    data = {name: value for name, value in tree["data"].items() if name not in ignored}
    data["load"] = {name: value for name, value in data["load"].items() if name != "root"}
    return {name: value for name, value in {**tree, "data": data}.items() if value is not None}


def _runs(job: Job) -> list[_Run]:
    seeds = job.seeds[:1] if any(o.startswith("population=") for o in job.overrides) else job.seeds
    return [_Run(job.label, seed, (*job.overrides, f"seed={seed}")) for seed in seeds]


def _workers(asked: int | None, scale: str) -> int:
    cores = os.cpu_count() or 1
    return asked if asked is not None else 2 if scale == "cpu" and cores > 1 else 1


def _executed(runs: Sequence[_Run], root: str, rerun: bool, workers: int) -> Iterator[tuple[_Run, str | None]]:
    """Each run as it ends, with the reason if it has no result."""
    if workers < 2 or len(runs) < 2:
        yield from ((run, _execute(run, root, rerun)) for run in runs)
        return
    # Compiled programs fill the memory maps that a process may hold, so that a worker serves a few runs only. The
    # executor's own way of replacing workers, max_tasks_per_child, can wait for ever (Python issue 115634).
    served = RUNS_A_WORKER * workers
    for block in (runs[start : start + served] for start in range(0, len(runs), served)):
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker, (root, workers))
        try:
            futures = {pool.submit(_execute, run, root, rerun): run for run in block}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker(root: str, workers: int) -> None:
    import jax

    from experiments.sweep import take_slot

    Thread(target=_end_with_parent, daemon=True).start()
    take_slot(Path(root), workers)
    jax.config.update("jax_compilation_cache_dir", str(Path(root).absolute() / ".programs"))  # seeds share a program


def _end_with_parent() -> None:
    """A worker whose study was killed saves its run and ends: it must not keep its place."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
    os._exit(1)  # idle workers ended at the signal; this one has saved, or cannot


def _execute(run: _Run, root: str, rerun: bool) -> str | None:
    """Train; the reason if there is no result. The full message goes to the standard error, as it may name folders."""
    from experiments.loop import Interrupted, Unsettled
    from experiments.train import run as train

    cfg = configuration(run.overrides, root, rerun)
    try:
        train(cfg)
    except FileNotFoundError as error:
        print(f"{run.label}: {error}", file=sys.stderr)
        return f"data not found: {cfg.data.label}"
    except Unsettled as error:
        print(f"{run.label}: {error}", file=sys.stderr)
        return f"stopped: {error}"
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.code)
    return None


def _keep(cfg: DictConfig, folder: Path, reason: str | None) -> None:
    """Copy the record of a run, or note why there is none; a note never replaces a result."""
    if reason is not None and (folder / SUMMARY).exists():
        print(f"note: {folder.name} keeps the record of another configuration: {reason}", file=sys.stderr)
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MISSING).unlink(missing_ok=True)
    if reason is not None:
        (folder / MISSING).write_text(reason + "\n")
        (folder / CONFIG).write_text(OmegaConf.to_yaml(OmegaConf.create(settings(cfg))))
        return
    for name in FILES:
        shutil.copyfile(run_path(cfg) / name, folder / name)


def _records(job: Job, study: str, scale: str, configurations: Mapping[_Run, DictConfig]) -> list[Record]:
    """The records of a job: those of its present configuration only."""
    found: list[Record] = []
    for run in _runs(job):
        folder, cfg = run.folder(study, scale), configurations[run]
        if is_recorded(folder, cfg) or not (folder / SUMMARY).exists():
            found += read_records(folder, job.label)
        else:
            found.append(Record(job.label, settings(cfg), {}, [], {}, "no result of the present configuration"))
    return found or [Record(job.label, {}, {}, [], {}, NOT_RUN)]


def _parts(folder: Path) -> tuple[str, int]:
    label, _, seed = folder.name.rpartition("-")
    return label, int(seed)


def _identity(record: Record) -> dict[str, Any]:
    return {"label": record.label, "seed": record.config.get("seed"), "missing": record.missing}


def _all(records: Mapping[str, Sequence[Record]]) -> Iterator[Record]:
    return (record for group in records.values() for record in group)
