"""The page of a study, made from records alone: words come from its file, numbers from its runs."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from eqprop.run.compose import compose
from eqprop.run.frame import cell, of_records
from eqprop.run.measures import MEASURES
from eqprop.run.provenance import CHANGES
from eqprop.run.record import flatten, settings
from eqprop.run.study.published import Published, find
from eqprop.run.study.records import Record
from eqprop.run.study.spec import Job, Line, Part, Study
from eqprop.run.tables import DASH, markdown

NOTE = (
    "Mean ± standard deviation over n seeds, at the end of training. {tested} Unsettled: share of training examples "
    "with a phase that missed its tolerance. Seconds are those of a whole run, with compilation, beside other work on "
    "the machine: they are no measure of speed."
)
ONCE = (
    "The test images were measured once, at the end of each run; choices were made on validation images, where the "
    "setting has any."
)
OLD = (
    "The test images were measured in every epoch of {count} of the {all} runs, as there was no validation split when "
    "they were made."
)
NOT_RUN = "not run at this scale"


def page(
    study: Study,
    scale: str,
    records: Sequence[Record],
    figures: Mapping[str, str] | None = None,
    answer: str | None = None,
    environment: Mapping[str, Any] | None = None,
) -> str:
    """The page in Markdown. `figures` are captions by file name, `answer` what a measuring study says of its data, and
    `environment` where it measured them, for one that has no records of runs."""
    spec = study.spec
    lines = [f"# {spec['title']}", "", f"*{spec['question']}*", ""]
    lines += [spec["setting"], ""] if "setting" in spec else []
    lines += [provenance(records, scale, environment), "", *earlier(records)]
    lines += [f"![{caption}]({name}.png)\n\n{caption}\n" for name, caption in (figures or {}).items()]
    lines += [answer.strip(), ""] if answer else []
    for part in study.parts():
        lines += _part(study, part, scale, records)
    if study.rows:
        lines += differences(study, scale, records)
        lines += [_note(records), ""]
    lines += [f"Not shown: {spec['not_shown']}", ""] if "not_shown" in spec else []
    lines += [f"Made by `eqprop study {study.name} scale={scale}`; its records are the `*.gz` files beside this page."]
    return "\n".join(lines) + "\n"


def _note(records: Sequence[Record]) -> str:
    done = [record for record in records if record.missing is None]
    old = [record for record in done if "measured" not in record.summary]
    return NOTE.format(tested=OLD.format(count=len(old), all=len(done)) if old else ONCE)


def provenance(records: Iterable[Record], scale: str, environment: Mapping[str, Any] | None = None) -> str:
    """The scale, and where the records come from: every commit, version and machine that a run names. Without records,
    where something else was measured."""
    done = [record for record in records if record.missing is None]
    if not done and environment is not None:
        at = environment
        return (
            f"Scale `{scale}`. Measured on {', '.join(at['devices'])} ({at['processor']}), {at['cores_used']} cores; "
            f"JAX {at['versions']['jax']}; numerics {at['numerics']}; commit {_short(at['commit'])}."
        )
    if not done:
        return f"Scale `{scale}`: no results yet."

    def of(*path: str, default: Any = None) -> str:
        """What the environments or configurations say, each once."""
        found = []
        for record in done:
            value: Any = record._asdict()
            for name in path:
                value = value.get(name, default) if isinstance(value, dict) else default
            if isinstance(value, list):
                value = f"{len(value)} x {value[0]}" if len(value) > 1 else (value or [default])[0]
            found.append(str(value))
        return ", ".join(dict.fromkeys(found))

    commits: dict[str, int] = {}
    for record in done:
        name = _short(record.environment.get("commit"))
        commits[name] = commits.get(name, 0) + 1
    several = [f"{name} ({_runs(count)})" for name, count in commits.items()]
    counted = ", ".join(several if len(several) > 1 else commits)
    return (
        f"Scale `{scale}`; {_runs(len(done))}. Data: {of('config', 'data', 'label')}. {of('environment', 'precision')} "
        f"on {of('environment', 'devices')} ({of('environment', 'processor', default='processor not recorded')}), "
        f"{of('environment', 'cores_used', default='all')} cores a run; JAX {of('environment', 'versions', 'jax')}; "
        f"numerics {of('config', 'numerics', default='not numbered yet')}; commit {counted}."
    )


def _short(commit: str | None) -> str:
    commit = commit or "unknown"
    return f"`{commit[:10]}`" + (" with uncommitted changes" if commit.endswith(CHANGES) else "")


EARLIER = (
    "epochs batch_size data.train_examples network.sizes network.channels network.angle network.feedback_gain "
    "homeostasis.coefficient stencil.beta stencil.radius optimiser.learning_rate"
).split()
"""What is said of runs that earlier code made, whose settings may differ from the words of the present study."""


def earlier(records: Sequence[Record]) -> list[str]:
    """What runs were made of that are older than the numbers of the numerics, as their records have it."""
    old = [flatten(r.config) for r in records if r.missing is None and "numerics" not in r.config]
    if not old:
        return []
    settings_of = {key: _several(c[key] for c in old if c.get(key) is not None) for key in EARLIER}
    listed = "; ".join(f"{key} = {value}" for key, value in settings_of.items() if value)
    return [
        f"**{_runs(len(old))} of {len([r for r in records if r.missing is None])} were made by earlier code**, and its "
        f"settings hold for them where the words of this page say otherwise: {listed}.",
        "",
    ]


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _part(study: Study, part: Part, scale: str, records: Sequence[Record]) -> list[str]:
    lines = [f"## {part.title}", ""] if part.title else []
    lines += [part.setting, ""] if part.setting else []
    lines += [table(study, part, scale, records)]
    compared = [compare(*pair, study, scale, records) for pair in part.compare]
    lines += [" ".join(filter(None, compared)), ""] if any(compared) else []
    return lines + ([f"Not shown: {part.not_shown}", ""] if part.not_shown else [])


def table(study: Study, part: Part, scale: str, records: Sequence[Record]) -> str:
    """Rows by columns, each with the measures, the runs behind them, and the published figure where there is one.

    **Raises:** `ValueError` if a cell would average runs of different length or data.
    """
    jobs = {(job.row, job.column): job for job in study.jobs(scale)}
    columns: list[Line | None] = list(study.columns(scale).values()) or [None]
    columns = [c for c in columns if part.columns is None or (c is not None and c.name in part.columns)]
    head = [""]
    for column in columns:
        prefix = f"{column.title}: " if column else ""
        head += [prefix + MEASURES[name].title for name in part.measures] + [f"{prefix}n"]
        head += [f"{prefix}published"] * _is_published(study, column)
    rows = []
    for name in part.rows:
        row = study.rows[name]
        line = [_title(row, [jobs[name, c.name if c else None] for c in columns])]
        for column in columns:
            job = jobs[name, column.name if column else None]
            found = [record for record in records if record.label == job.label]
            line += _cells(job, found, part.measures)
            if _is_published(study, column):
                line.append(_published(study, row, column, scale, found))
        rows.append(line)
    return markdown(head, rows)


def _title(row: Line, jobs: Sequence[Job]) -> str:
    notes = list(dict.fromkeys(job.note for job in jobs if job.note))
    return f"{row.title} ({'; '.join(notes)})" if notes else row.title


def _cells(job: Job, found: Sequence[Record], measures: Sequence[str]) -> list[str]:
    """**Raises:** `ValueError` if runs of different length or data would be averaged."""
    done = [record for record in found if record.missing is None]
    missing = [record.missing for record in found if record.missing is not None]
    if not done:
        reason = missing[0] if missing else NOT_RUN if not job.seeds else "no record"
        return [str(reason), *[DASH] * len(measures)]
    kinds = {(r.config["epochs"], r.config["data"]["train_examples"], r.config["data"]["label"]) for r in done}
    if len(kinds) > 1:
        raise ValueError(f"{job.label} mixes runs: (epochs, training examples, data) are {sorted(map(str, kinds))}.")
    frame = of_records(done)
    failed = f" ({len(missing)} of {len(found)}: {missing[0]})" if missing else ""
    return [*(cell(frame, name) for name in measures), f"{len(done)}{failed}"]


def _is_published(study: Study, column: Line | None) -> bool:
    return "published" in study.spec and (column is None or bool(column.published))


def _published(study: Study, row: Line, column: Line | None, scale: str, found: Sequence[Record]) -> str:
    """The published figure; beside it the difference, where and only where the run is the published one."""
    figure: Published | None = find(
        study.spec["published"], row.published, row.beta, column.published if column else None
    )
    if figure is None:
        return DASH
    done = [record for record in found if record.missing is None]
    if scale != "full" or not done:
        return str(figure)
    error = study.spec["published"] == "table1"
    ours = [100 * (1 - r.summary["test_accuracy"] if error else r.summary["test_accuracy"]) for r in done]
    spread = f", standard error {stdev(ours) / len(ours) ** 0.5:.2f}" if len(ours) > 1 else ""
    return f"{figure}; ours {fmean(ours) - figure.mean:+.1f}{spread}"


def compare(ours: str, theirs: str, study: Study, scale: str, records: Sequence[Record]) -> str | None:
    """One sentence: how far apart two cells are in test accuracy, seed by seed."""
    titles = {job.label: _cell_title(study, job, scale) for job in study.jobs(scale)}
    gaps = paired(ours, theirs, records)
    if not gaps:
        return None
    spread = f" ± {stdev(gaps):.1f}" if len(gaps) > 1 else ""
    return (
        f"{titles[ours]} minus {titles[theirs]}: {fmean(gaps):+.1f}{spread} points of test accuracy (n = {len(gaps)})."
    )


def paired(ours: str, theirs: str, records: Sequence[Record]) -> list[float]:
    """The differences of two cells in test accuracy, in points, one for each seed that both have."""
    by = {(r.label, r.seed): 100 * r.summary["test_accuracy"] for r in records if r.missing is None}
    return [value - by[theirs, seed] for (label, seed), value in by.items() if label == ours and (theirs, seed) in by]


def _cell_title(study: Study, job: Job, scale: str) -> str:
    row = study.rows[job.row].title
    return f"{row}, {study.columns(scale)[job.column].title}" if job.column else row


def differences(study: Study, scale: str, records: Sequence[Record]) -> list[str]:
    """What sets the runs apart from the reference setting, read from the configurations."""
    reference = study.spec.get("reference")
    if reference is None or all(record.missing is not None for record in records):
        return []
    theirs = flatten(settings(compose(reference)))
    lines = [f"What differs from the reference setting, `{' '.join(reference)}`, in the runs of each column:", ""]
    columns = [*study.columns(scale)] or [None]
    for column in columns:
        labels = {job.label for job in study.jobs(scale) if job.column == column}
        configs = [flatten(r.config) for r in records if r.label in labels and r.missing is None]
        if not configs:
            continue
        keys = [key for key in theirs if all(c.get(key) != theirs[key] for c in configs) and key not in _IGNORED]
        keys = [key for key in keys if theirs[key] != NOTHING or any(key in c for c in configs)]
        changes = [f"{key} = {_several(c.get(key, 'absent') for c in configs)} ({theirs[key]})" for key in keys]
        title = f"{study.columns(scale)[column].title}: " if column else ""
        lines.append(f"- {title}{'; '.join(changes) or 'nothing'}.")
    return [*lines, "", "The reference value stands in brackets.", ""]


NOTHING = "eqprop.run.build.nothing"
"""What a choice of none makes: it is no difference to a run that had no such group yet."""

_IGNORED = ("seed", "numerics", "data.label", "data.root", "data.load.root")


def _several(values: Iterable[Any]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
