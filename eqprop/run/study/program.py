"""Run studies: `eqprop study NAME [scale=quick|cpu|full]`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from eqprop.run.compose import compose, own_folder, quoted
from eqprop.run.errors import UsageError
from eqprop.run.provenance import changes, checkout
from eqprop.run.record import SUMMARY, run_path, settings
from eqprop.run.study import figures, measured, records as store, style
from eqprop.run.study.page import page
from eqprop.run.study.records import Record, read_run
from eqprop.run.study.schedule import Run, execute
from eqprop.run.study.spec import SCALES, Job, Study, names, read

USAGE = """
usage: eqprop study NAME [NAME ...] [KEY=VALUE ...]

  eqprop study table1 scale=quick                    a minute of each row
  eqprop study table2 label.cifar10="CIFAR-10 (JPEG q75)"   what tables call a copy of a data set
  eqprop study depth redraw=true                     page and figures again, from the records that are there

A study is a file configs/study/NAME.yaml, of the package or in your own ./configs: question, rows, seeds, scales. Runs
that are recorded with the same configuration and numerics are not run again; a stopped study goes on.

Keys, with their defaults:
  scale=cpu       quick: a minute; cpu: two cores; full: the published length, on a graphics card
  workers=null    runs at a time, a process each; null: one for every core, and at most two
  rerun=false     train again what is recorded
  redraw=false    page and figures from the records alone; nothing is run
  results=null    where pages and records go; null: docs/results of the checkout, else ./results
  root=outputs    where run folders go
  dirty=false     record runs of uncommitted code among the committed results; the page marks them
  label.DATA      what tables call a data set whose files differ from the original

Studies:
{studies}
"""


class Options(NamedTuple):
    """What follows the name of a study."""

    scale: str = "cpu"
    workers: int | None = None
    rerun: bool = False
    redraw: bool = False
    results: str | None = None
    root: str = "outputs"
    dirty: bool = False
    label: dict[str, str] = {}


def main(arguments: Sequence[str]) -> None:
    """The command line of `eqprop study`."""
    words = [word for word in arguments if word not in ("-h", "--help")]
    own = own_folder()
    if not words or len(words) < len(arguments):
        listed = [f"  {name.ljust(20)}{read(name, own).spec['question']}" for name in names(own)]
        print(USAGE.format(studies="\n".join(listed)).strip())
        return
    options = parse([word for word in words if "=" in word])
    studies = [read(word, own) for word in words if "=" not in word]
    if not studies:
        raise UsageError("Name a study, as in `eqprop study table1`; `eqprop study --help` lists them.")
    for study in studies:
        make(study, options, own)


def parse(words: Sequence[str]) -> Options:
    """**Raises:** `UsageError` for a key that is none of a study's."""
    given: Any = OmegaConf.to_container(OmegaConf.from_dotlist(list(words)))
    unknown = [key for key in given if key not in Options._fields]
    if unknown:
        raise UsageError(f"A study has no key {unknown[0]!r}; it has {', '.join(Options._fields)}.")
    options = Options(**given)
    if options.scale not in SCALES:
        raise UsageError(f"scale={options.scale}: expected {', '.join(SCALES)}.")
    return options


def folder_of(name: str, options: Options) -> Path:
    """Where page, figures and records of a study lie."""
    root = checkout()
    results = Path(options.results).expanduser() if options.results else (root or Path()) / RESULTS[root is None]
    return results / name / options.scale


RESULTS = ("docs/results", "results")


def make(study: Study, options: Options, own: Path | None = None) -> Path:
    """Run what is missing, then write records, figures and page.

    **Raises:** `UsageError` for runs of uncommitted code among committed results; `Interrupted` after a signal.
    """
    folder = folder_of(study.name, options)
    found = store.load(folder)
    if not options.redraw:
        _check_clean(folder, options)
        jobs = study.jobs(options.scale, options.label)
        found = _run(study, jobs, found, folder, options, own) if jobs else found
        if "measure" in study.spec:
            result = measured.module(study.spec["measure"]).measure(options.scale)
            measured.save(folder, result.data)
            found = [r for r in found if r.label in {job.label for job in jobs}] + list(result.records)
            store.save(folder, found)
    write(study, options.scale, folder, found)
    print(folder / "README.md")
    return folder


def write(study: Study, scale: str, folder: Path, records: Sequence[Record]) -> None:
    """Figures and page, from what is recorded."""
    captions = {}
    for name, (figure, caption) in figures.draw(study, scale, records).items():
        with style.styled():
            figure.savefig(folder / f"{name}.png")
        captions[name] = caption
    answer = None
    if "measure" in study.spec:
        module, data = measured.module(study.spec["measure"]), measured.load(folder)
        captions |= module.captions(data)
        answer = module.answer(data)
        with style.styled():
            for name, figure in module.draw(data).items():
                figure.savefig(folder / f"{name}.png")
    if "draw" in study.spec:
        extra = measured.module(study.spec["draw"])
        captions |= extra.captions(records)
        with style.styled():
            for name, figure in extra.draw(records).items():
                figure.savefig(folder / f"{name}.png")
    (folder / "README.md").write_text(page(study, scale, records, captions, answer), encoding="utf-8")


def _run(
    study: Study, jobs: Sequence[Job], found: list[Record], folder: Path, options: Options, own: Path | None
) -> list[Record]:
    """The records of all jobs: those that are there, and those of the runs that were missing."""
    labels = {job.label for job in jobs}
    kept = {(r.label, r.seed): r for r in found if r.label in labels}
    todo, folders = [], dict[tuple[str, int], DictConfig]()
    for job in jobs:
        for seed, cfg in _configurations(job, options, own).items():
            folders[job.label, seed] = cfg
            record = kept.get((job.label, seed))
            if options.rerun or record is None or record.missing or not _same(record, cfg):
                words = (*job.words, f"seed={seed}", f"run.root={quoted(options.root)}")
                words += ("run.overwrite=true",) if options.rerun else ()
                todo.append(Run(job.label, seed, words, run_path(cfg)))
    print(
        f"{study.name}, {options.scale}: {len(folders)} runs, {len(folders) - len(todo)} of them recorded", flush=True
    )

    def done(run: Run, reason: str | None) -> None:
        cfg = folders[run.label, run.seed]
        if reason is None and (run.folder / SUMMARY).exists():
            for record in read_run(run.folder, run.label):
                kept[record.label, record.seed] = record
        else:
            kept[run.label, run.seed] = Record(run.label, run.seed, settings(cfg), {}, [], {}, reason or "no summary")
        store.save(folder, kept.values())
        print(f"  {run.label}, seed {run.seed}: {reason or 'done'}", flush=True)

    workers = options.workers or min(2, os.cpu_count() or 1)
    execute(todo, Path(options.root).expanduser(), workers, done)
    store.save(folder, kept.values())
    return list(kept.values())


def _configurations(job: Job, options: Options, own: Path | None) -> dict[int, DictConfig]:
    """The configuration of every seed; composed once, as only the seed differs."""
    found: dict[int, DictConfig] = {}
    if not job.seeds:
        return found
    first = compose([*job.words, f"run.root={quoted(options.root)}"], "train", own)
    for seed in job.seeds:
        cfg = first.copy()
        cfg.seed = seed
        found[seed] = cfg
        if cfg.population > 1:
            break  # its members are the seeds from here on
    return found


def _same(record: Record, cfg: DictConfig) -> bool:
    """Whether a record is of this configuration; where its data lay does not matter."""

    def decisive(tree: dict[str, Any]) -> dict[str, Any]:
        data = {name: value for name, value in tree["data"].items() if name not in ("root", "label")}
        data["load"] = {name: value for name, value in data["load"].items() if name != "root"}
        return {name: value for name, value in {**tree, "data": data}.items() if name not in ("seed", "population")}

    return decisive(record.config) == decisive(settings(cfg))


def _check_clean(folder: Path, options: Options) -> None:
    root = checkout()
    committed = root is not None and folder.resolve().is_relative_to((root / RESULTS[0]).resolve())
    if changes() and committed and not options.dirty:
        raise UsageError(
            f"The code differs from its commit, and {folder} is for results of committed code: commit first, or give "
            "results=FOLDER elsewhere, or dirty=true to record and mark them."
        )
    if changes():
        print("note: the code differs from its commit; records and page say so", file=sys.stderr)
