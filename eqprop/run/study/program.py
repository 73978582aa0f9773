"""Run studies: `eqprop study NAME [scale=quick|cpu|full]`."""

import fnmatch
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from hydra.errors import HydraException
from matplotlib.figure import Figure
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from eqprop.run import train
from eqprop.run.compose import compose, own_folder, quoted
from eqprop.run.errors import UsageError
from eqprop.run.overrides import check_overrides, repaired
from eqprop.run.provenance import changes, checkout, surroundings
from eqprop.run.record import SUMMARY, finished, run_path, settings, to_json
from eqprop.run.study import figures, measured, records as store, style
from eqprop.run.study.index import index
from eqprop.run.study.options import Options, parse
from eqprop.run.study.page import page
from eqprop.run.study.records import Record, read_run
from eqprop.run.study.schedule import Run, execute, launch, sweep
from eqprop.run.study.spec import Job, Study, names, read

USAGE = """
usage: eqprop study NAME [NAME ...] [KEY=VALUE ...]

  eqprop study table1 scale=quick                    a minute of each row
  eqprop study table2 label.cifar10="CIFAR-10 (JPEG q75)"   what tables call a copy of a data set
  eqprop study digits redraw=true                    page and figures again, from the records that are there
  eqprop study table1 scale=full hydra/launcher=submitit_slurm hydra.launcher.partition=gpu    on a cluster
  eqprop study table1 ... --dry-run                  print the batch script for the cluster and submit nothing

A study is a file configs/study/NAME.yaml, of the package or in your own ./configs: question, rows, seeds, scales. Runs
that are recorded with the same configuration, data label and numerics are not run again; a stopped study goes on.

Keys, with their defaults:
  scale=cpu       quick: a minute; cpu: two cores; full: the published length, on a graphics card
  workers=null    runs at a time, a process each; null: one for every core, and at most two
  rerun=false     train again what is recorded
  only=PATTERN    rows to run now, such as 8-weak-*; the page says what is left
  redraw=false    page and figures from the records alone; nothing is run
  results=null    where pages and records go; null: docs/results of a checkout for its own studies, else ./results
  root=outputs    where run folders go
  dirty=false     record runs of uncommitted code among the committed results; the page marks them
  label.DATA      what tables call a data set whose files differ from the original
  hydra/launcher  of Hydra's launchers, the one that takes all runs as one sweep; hydra.launcher.KEY are its settings

Studies:
{studies}
"""


def main(arguments: Sequence[str]) -> None:
    """The command line of `eqprop study`.

    **Raises:** `UsageError` for what is no study, no key or no value of it, and what `make` raises.
    """
    flags = {word for word in arguments if word in ("-h", "--help", "--dry-run")}
    words = [word for word in arguments if word not in flags]
    own = own_folder()
    if not words or flags & {"-h", "--help"}:
        known = names(own)
        width = max(map(len, known)) + 2
        listed = [f"  {name.ljust(width)}{read(name, own).spec['question']}" for name in known]
        print(USAGE.format(studies="\n".join(listed)).strip())
        return
    options = parse([word for word in words if "=" in word])
    if "--dry-run" in flags and not options.launcher:
        raise UsageError("--dry-run is of a study on SLURM; expected hydra/launcher=submitit_slurm with it.")
    studies = [read(word, own) for word in words if "=" not in word]
    if not studies:
        raise UsageError("Name a study, as in `eqprop study table1`; `eqprop study --help` lists them.")
    for study in studies:
        if "--dry-run" in flags:
            dry_run(study, options, own)
        else:
            make(study, options, own)


def folder_of(name: str, options: Options) -> Path:
    """Where page, figures and records of a study lie: among committed results if the study is the package's."""
    root = checkout() if name in names() else None
    results = Path(options.results).expanduser() if options.results else (root or Path()) / RESULTS[root is None]
    return results / name / options.scale


RESULTS = ("docs/results", "results")


def make(study: Study, options: Options, own: Path | None = None) -> Path:
    """Run what is missing, then write records, figures and page.

    **Raises:** `UsageError` for runs of uncommitted code among committed results, for a module that is not at hand, and
    for `redraw` without records; `Interrupted` after a signal, with all that was done recorded.
    """
    folder = folder_of(study.name, options)
    found = store.load(folder)
    measures = measured.module(study.spec["measure"]) if "measure" in study.spec else None
    if options.redraw:
        if not found and not (folder / measured.FILE).exists():
            raise UsageError(f"There are no records in {folder}; run the study without redraw=true.")
    else:
        _check_clean(folder, options)
        jobs = study.jobs(options.scale)
        found = _run(study, jobs, found, folder, options, own) if jobs else []
        if measures is not None:
            result = measures.measure(options.scale)
            measured.save(folder, {**result.data, "environment": surroundings()})
            store.save(folder, [*found, *result.records])
        found = store.load(folder)  # in the order of the file, so that the page is the one that a redraw makes
    write(study, options.scale, folder, found)
    if _is_committed(folder):
        (folder.parents[1] / "README.md").write_text(index(folder.parents[1]), encoding="utf-8", newline="\n")
    print(folder / "README.md")
    return folder


def dry_run(study: Study, options: Options, own: Path | None = None) -> None:
    """Print the batch script of the runs that are missing; nothing is run and nothing written.

    **Raises:** `UsageError` for a launcher that does not submit to SLURM.
    """
    plan = _plan(study.jobs(options.scale), store.load(folder_of(study.name, options)), options, own)
    if not plan.todo:
        print(f"note: all runs of {study.name} are recorded at the scale {options.scale}", file=sys.stderr)
        return
    train.main([*sweep(plan.todo, options.root, options.workers, options.launcher), "--dry-run"])


def write(study: Study, scale: str, folder: Path, records: Sequence[Record]) -> None:
    """Figures and page, from what is recorded.

    **Raises:** `ValueError` if a cell of a table would average runs that differ in more than the seed.
    """
    text, drawn = made(study, scale, folder, records)
    folder.mkdir(parents=True, exist_ok=True)
    with style.styled():
        for name, figure in drawn.items():
            figure.savefig(folder / f"{name}.png")
    (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")


def made(study: Study, scale: str, folder: Path, records: Sequence[Record]) -> tuple[str, dict[str, Figure]]:
    """The page, and its figures by name.

    **Raises:** as `write` and `draw`.
    """
    drawn, answer = draw(study, scale, folder, records)
    captions = {name: caption for name, (_, caption) in drawn.items()}
    environment = measured.load(folder).get("environment") if "measure" in study.spec else None
    text = page(study, scale, records, captions, answer, environment)
    return text, {name: figure for name, (figure, _) in drawn.items()}


def draw(
    study: Study, scale: str, folder: Path, records: Sequence[Record]
) -> tuple[dict[str, tuple[Figure, str]], str | None]:
    """All figures of a study with their captions, and what a measuring study answers.

    **Raises:** `FileNotFoundError` if a study that measures has measured nothing yet.
    """
    drawn, answer = figures.draw(study, scale, records), None
    sources: list[tuple[ModuleType, Any]] = []
    if "measure" in study.spec:
        module, data = measured.module(study.spec["measure"]), measured.load(folder)
        sources.append((module, data))
        answer = module.answer(data)
    if "draw" in study.spec and any(record.missing is None for record in records):
        try:
            sources.append((measured.module(study.spec["draw"]), records))
        except UsageError as error:
            print(f"note: a figure is left out. {error}", file=sys.stderr)
    with style.styled():
        for module, data in sources:
            captions = module.captions(data)
            drawn |= {name: (figure, captions[name]) for name, figure in module.draw(data).items()}
    return drawn, answer


class _Plan(NamedTuple):
    """What there is of a study and what is missing."""

    kept: dict[tuple[str, int], Record]
    """By label and seed."""
    todo: list[Run]
    configurations: dict[tuple[str, int], DictConfig]
    """Of all runs."""


def _plan(jobs: Sequence[Job], found: Sequence[Record], options: Options, own: Path | None) -> _Plan:
    """Records that are there, and those of run folders that another program finished, are not made again."""
    there = {(record.label, record.seed): record for record in found}
    kept: dict[tuple[str, int], Record] = {}
    todo: list[Run] = []
    configurations: dict[tuple[str, int], DictConfig] = {}
    for job in jobs:
        for seed, words, cfg in _configurations(job, options, own):
            configurations[job.label, seed] = cfg
            members = [(job.label, member) for member in range(seed, seed + cfg.population)]
            # Records of another configuration or numerics, or of seeds that are no longer asked for, are dropped.
            same = {key: there[key] for key in members if key in there and _same(there[key], cfg)}
            missing = len(same) < len(members) or any(record.missing for record in same.values())
            if missing and finished(cfg) is not None:
                same, missing = {(r.label, r.seed): r for r in read_run(run_path(cfg), job.label)}, False
            kept |= same
            if (missing or options.rerun) and fnmatch.fnmatch(job.label, options.only):
                todo.append(Run(job.label, seed, words, run_path(cfg)))
    todo.sort(key=lambda run: run.seed)  # so that a study that is stopped has something of every row
    return _Plan(kept, todo, configurations)


def _run(
    study: Study, jobs: Sequence[Job], found: list[Record], folder: Path, options: Options, own: Path | None
) -> list[Record]:
    """The records of all jobs: those that are there, and those of the runs that were missing."""
    kept, todo, configurations = _plan(jobs, found, options, own)
    recorded = sum(key in kept for key in configurations)
    print(
        f"{study.name}, {options.scale}: {len(configurations)} runs, {recorded} recorded, {len(todo)} to do", flush=True
    )

    def done(run: Run, reason: str | None) -> None:
        if reason is None and (run.folder / SUMMARY).exists():
            for record in read_run(run.folder, run.label):
                kept[record.label, record.seed] = record
        else:
            cfg = configurations[run.label, run.seed]
            for member in range(run.seed, run.seed + cfg.population):
                kept[run.label, member] = Record(run.label, member, settings(cfg), {}, [], {}, reason or "no summary")
        store.save(folder, kept.values())
        print(f"  {run.label}, seed {run.seed}: {reason or 'done'}", flush=True)

    if options.launcher:
        store.save(folder, kept.values())
        if todo:
            launch(todo, sweep(todo, options.root, options.workers, options.launcher), done)
    else:
        workers = options.workers or min(2, os.cpu_count() or 1)
        execute(todo, Path(options.root).expanduser(), workers, done)
    store.save(folder, kept.values())
    return list(kept.values())


def _configurations(job: Job, options: Options, own: Path | None) -> Iterator[tuple[int, tuple[str, ...], DictConfig]]:
    """The seed, the words and the configuration of every run of a job.

    **Raises:** `UsageError` for a word of the study's file that does not compose.
    """
    if not job.seeds:
        return
    words = (*repaired(job.words), f"run.root={quoted(options.root)}")
    words += ("run.overwrite=true",) if options.rerun else ()
    try:
        cfg = compose(words, "train", own)
    except (HydraException, OmegaConfBaseException) as error:
        check_overrides(words, "train", own)  # says it better, and names the nearest
        raise UsageError(f"{job.label}: {error}") from error
    if cfg.data.name in options.label:
        label = options.label[cfg.data.name]
        words, cfg.data.label = (*words, f"data.label={quoted(label)}"), label
    # Composed once, as only the seed differs. The members of a population are seeds from its first on.
    for seed in job.seeds[: 1 if cfg.population > 1 else None]:
        mine = cfg.copy()
        mine.seed = seed
        yield seed, (*words, f"seed={seed}"), mine


def _same(record: Record, cfg: DictConfig) -> bool:
    """Whether a record is of this configuration and these numerics; where its data lay does not matter."""

    def decisive(tree: dict[str, Any]) -> dict[str, Any]:
        data = {name: value for name, value in tree["data"].items() if name != "root"}
        data["load"] = {name: value for name, value in data.get("load", {}).items() if name != "root"}
        return {name: value for name, value in {**tree, "data": data}.items() if name not in ("seed", "population")}

    # Through JSON, which a record has been through: what is not finite is null in it.
    return decisive(record.config) == decisive(json.loads(to_json(settings(cfg))))


def _is_committed(folder: Path) -> bool:
    """Whether a folder lies among the committed results of a checkout."""
    root = checkout()
    return root is not None and folder.resolve().is_relative_to((root / RESULTS[0]).resolve())


def _check_clean(folder: Path, options: Options) -> None:
    if changes() and _is_committed(folder) and not options.dirty:
        raise UsageError(
            f"The code differs from its commit, and {folder} is for results of committed code: commit first, or give "
            "results=FOLDER elsewhere, or dirty=true to record and mark them."
        )
    if changes():
        print("note: the code differs from its commit; records and page say so", file=sys.stderr)
