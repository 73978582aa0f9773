"""A study as its YAML file says it: rows by columns by seeds, at three scales."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from eqprop.run.compose import CONFIGS
from eqprop.run.errors import UsageError, near
from eqprop.run.measures import MEASURES

SCALES = ("quick", "cpu", "full")
"""A minute; two cores; the published epochs, seeds and widths on a graphics card."""
KINDS = ("curves", "points", "rows", "layers")
"""Of figures; `figures` draws them."""
TOPICS = {
    "learning": "Learning from independent feedback",
    "errors": "Error vectors and relaxation",
    "devices": "Devices",
}
"""By which the page of all results is ordered."""

_KEYS = {
    "study": (
        "title topic question setting base reference rows columns sweep scales parts measures published figures "
        "measure not_shown draw claims"
    ).split(),
    "row": "title set published beta scales".split(),
    "column": "title set scales published".split(),
    "scale": "seeds set note".split(),
    "sweep": ["key", "title", *SCALES],
    "part": "title setting rows measures compare not_shown columns".split(),
    "figure": "kind caption rows columns panels".split(),
}
_NEEDED = {"study": ["title", "question"], "sweep": ["title", "cpu"], "figure": ["kind", "caption"]}


class Line(NamedTuple):
    """A row or a column: what it changes, and what is special about it at a scale."""

    name: str
    title: str
    words: tuple[str, ...]
    scales: Mapping[str, Any]
    published: Any = None
    """Of a row, its name among the published figures; of a column, its name there, or true where figures have none."""
    beta: float | None = None


class Job(NamedTuple):
    """One cell of a study: a run for each seed."""

    label: str
    row: str
    column: str | None
    words: tuple[str, ...]
    seeds: tuple[int, ...]
    """Empty: not run at this scale."""
    note: str | None = None
    """What sets it apart from the other cells at this scale."""


class Part(NamedTuple):
    """A table of the page: a question of its own, some of the rows, and pairs of cells that are compared."""

    title: str | None
    setting: str | None
    rows: tuple[str, ...]
    columns: tuple[str, ...] | None
    measures: tuple[str, ...]
    compare: tuple[tuple[str, str], ...]
    not_shown: str | None


class Study(NamedTuple):
    """A study."""

    name: str
    spec: Mapping[str, Any]

    @property
    def rows(self) -> dict[str, Line]:
        """By name."""
        return {name: _line(name, entry) for name, entry in self.spec.get("rows", {}).items()}

    def columns(self, scale: str) -> dict[str, Line]:
        """By name; a sweep makes a column of each value: of its key, or with overrides of its own. Empty where there is
        one column without a name.
        """
        sweep = self.spec.get("sweep")
        if sweep is not None:
            values = sweep.get(scale, sweep.get("cpu"))
            words = values if isinstance(values, Mapping) else {v: [f"{sweep['key']}={v}"] for v in values}
            return {f"{v:g}": Line(f"{v:g}", f"{v:g}", tuple(words[v]), {}) for v in words}
        return {name: _line(name, entry) for name, entry in self.spec.get("columns", {}).items()}

    @property
    def measures(self) -> tuple[str, ...]:
        """The results that its tables show."""
        return tuple(self.spec.get("measures", ("test_accuracy", "cosine_hidden", "unsettled_fraction")))

    def parts(self) -> list[Part]:
        """The tables of its page; one of all rows if it names none."""
        return [
            Part(
                part.get("title"),
                part.get("setting"),
                tuple(part.get("rows", self.rows)),
                tuple(part["columns"]) if "columns" in part else None,
                tuple(part.get("measures", self.measures)),
                tuple((ours, theirs) for ours, theirs in part.get("compare", ())),
                part.get("not_shown"),
            )
            for part in self.spec.get("parts", [{}] if self.rows else [])
        ]

    def jobs(self, scale: str) -> list[Job]:
        """Every cell, column by column.

        **Raises:** `UsageError` if the study has no such scale.
        """
        columns: list[Line | None] = list(self.columns(scale).values()) or [None]
        return [self._job(row, column, scale) for column in columns for row in self.rows.values()]

    def _job(self, row: Line, column: Line | None, scale: str) -> Job:
        """What a row sets at a scale counts more than what a column sets there, and that more than the scale itself."""
        common = self.spec["scales"].get(scale)
        if common is None:
            raise UsageError(f"The study {self.name} has no scale {scale!r}; it has {', '.join(self.spec['scales'])}.")
        special = [line.scales[scale] for line in (column, row) if line is not None and scale in line.scales]
        seeds = next((s["seeds"] for s in reversed(special) if "seeds" in s), common["seeds"])
        words = [*self.spec.get("base", ()), *(column.words if column else ()), *row.words, *common.get("set", ())]
        words += [word for s in special for word in s.get("set", ())]
        note = next((s["note"] for s in reversed(special) if "note" in s), None)
        name = column.name if column else None
        return Job(cell_label(row.name, name), row.name, name, tuple(words), tuple(seeds), note)


def cell_label(row: str, column: str | None) -> str:
    """What the records of a cell are called."""
    return f"{column}-{row}" if column else row


def names(own: Path | None = None) -> list[str]:
    """All studies, the user's own among them."""
    folders = filter(None, (CONFIGS, own))
    return sorted({path.stem for folder in folders for path in (folder / "study").glob("*.yaml")})


def read(name: str, own: Path | None = None) -> Study:
    """**Raises:** `UsageError` if there is none of that name, or its file says what no study can."""
    paths = (folder / "study" / f"{name}.yaml" for folder in filter(None, (CONFIGS, own)))
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        known = names(own)
        raise UsageError(f"There is no study {name!r}; there are {', '.join(known)}.{near(name, known)}")
    try:
        spec = _stripped(yaml.safe_load(path.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no YAML file: {error}") from error
    _check(name, "study", spec)
    _check_entries(name, spec)
    study = Study(name, spec)
    _check_names(study)
    return study


def _stripped(entry: Any) -> Any:
    """All texts without the line break that YAML's blocks end with."""
    if isinstance(entry, dict):
        return {key: _stripped(value) for key, value in entry.items()}
    if isinstance(entry, list):
        return [_stripped(value) for value in entry]
    return entry.strip() if isinstance(entry, str) else entry


def _line(name: str, entry: Mapping[str, Any]) -> Line:
    words, scales = tuple(entry.get("set", ())), entry.get("scales", {})
    return Line(name, entry.get("title", name), words, scales, entry.get("published"), entry.get("beta"))


def _check_entries(study: str, spec: Mapping[str, Any]) -> None:
    """Every mapping of the file has the keys of its kind."""
    if not spec.get("rows"):
        _need(study, "study without rows", spec, ["measure"])
    else:
        _need(study, "study with rows", spec, ["scales"])
    for scale, entry in _scales(study, spec).items():
        _need(study, f"scale {scale}", entry, ["seeds"])
    for kind in ("row", "column", "figure"):
        for name, entry in spec.get(f"{kind}s", {}).items():
            _check(study, kind, entry, name)
            _scales(study, entry)
    for part in spec.get("parts", ()):
        _check(study, "part", part)
    if "sweep" in spec:
        sweep = spec["sweep"]
        _check(study, "sweep", sweep)
        if not all(isinstance(sweep.get(scale, {}), Mapping) for scale in SCALES):
            _need(study, "sweep over a list of values", sweep, ["key"])


def _scales(study: str, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    found = entry.get("scales", {})
    for scale, special in found.items():
        _known(study, "scale", [scale], SCALES)
        _check(study, "scale", special, scale)
    return found


def _check_names(study: Study) -> None:
    """Parts and figures name what there is; this is said before hours of training and not after them."""
    _known(study.name, "topic", [study.spec["topic"]] if "topic" in study.spec else [], [*TOPICS])
    scales = [*study.spec.get("scales", {})]
    columns = list(dict.fromkeys(name for scale in scales for name in study.columns(scale)))
    labels = list(dict.fromkeys(job.label for scale in scales for job in study.jobs(scale)))
    for part in study.parts():
        _known(study.name, "measure", part.measures, [*MEASURES])
        _known(study.name, "row", part.rows, [*study.rows])
        _known(study.name, "column", part.columns or (), columns)
        _known(study.name, "cell", [label for pair in part.compare for label in pair], labels)
    for figure in study.spec.get("figures", {}).values():
        _known(study.name, "kind", [figure["kind"]], KINDS)
        _known(study.name, "row", figure.get("rows", ()), [*study.rows])
        _known(study.name, "column", map(str, figure.get("columns", ())), columns)


def _check(study: str, kind: str, entry: Any, name: str = "") -> None:
    where = f"{kind} {name}".strip()
    if not isinstance(entry, dict):
        raise UsageError(f"configs/study/{study}.yaml: {where} is {entry!r}; expected keys with values.")
    _known(study, f"key of a {kind}", map(str, entry), _KEYS[kind])
    _need(study, where, entry, _NEEDED.get(kind, ()))


def _need(study: str, where: str, entry: Mapping[str, Any], keys: Iterable[str]) -> None:
    for key in keys:
        if key not in entry:
            raise UsageError(f"configs/study/{study}.yaml: a {where} needs {key!r}.")


def _known(study: str, what: str, given: Iterable[str], options: Sequence[str]) -> None:
    for each in given:
        if each not in options:
            there = f"there are {', '.join(options)}.{near(each, options)}"
            raise UsageError(f"configs/study/{study}.yaml: {each!r} is no {what}; {there}")
