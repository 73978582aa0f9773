"""A study as its YAML file says it: rows by columns by seeds, at three scales."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from eqprop.run.compose import CONFIGS
from eqprop.run.errors import UsageError

SCALES = ("quick", "cpu", "full")
"""A minute; two cores; the published epochs, seeds and widths on a graphics card."""

_KEYS = {
    "study": (
        "title question setting base reference rows columns sweep scales parts measures published figures measure "
        "not_shown draw"
    ).split(),
    "row": "title set published beta scales".split(),
    "column": "title set scales published".split(),
    "scale": "seeds set note".split(),
    "sweep": ["key", "title", *SCALES],
    "part": "title setting rows measures compare not_shown columns".split(),
}


class Line(NamedTuple):
    """A row or a column: what it changes, and what is special about it at a scale."""

    name: str
    title: str
    words: tuple[str, ...]
    scales: Mapping[str, Any]
    published: Any = None
    """Its name in the published figures; of a column, whether they stand beside it."""
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
        return {name: _line(self.name, "row", name, entry) for name, entry in self.spec.get("rows", {}).items()}

    def columns(self, scale: str) -> dict[str, Line]:
        """By name; a sweep makes a column of each value. Empty where there is one column without a name."""
        sweep = self.spec.get("sweep")
        if sweep is not None:
            values = sweep.get(scale, sweep.get("cpu"))
            return {f"{v:g}": Line(f"{v:g}", f"{v:g}", (f"{sweep['key']}={v}",), {}) for v in values}
        return {name: _line(self.name, "column", name, e) for name, e in self.spec.get("columns", {}).items()}

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

    def jobs(self, scale: str, labels: Mapping[str, str] | None = None) -> list[Job]:
        """Every cell. `labels` say by the name of a data set what tables call it, where a copy stands in for it."""
        columns: list[Line | None] = list(self.columns(scale).values()) or [None]
        return [self._job(row, column, scale, labels or {}) for column in columns for row in self.rows.values()]

    def _job(self, row: Line, column: Line | None, scale: str, labels: Mapping[str, str]) -> Job:
        common = self.spec["scales"].get(scale)
        if common is None:
            raise UsageError(f"The study {self.name} has no scale {scale}; it has {', '.join(self.spec['scales'])}.")
        special = [line.scales[scale] for line in (column, row) if line is not None and scale in line.scales]
        seeds = next((s["seeds"] for s in reversed(special) if "seeds" in s), common["seeds"])
        words = [*self.spec.get("base", ()), *(column.words if column else ()), *row.words, *common.get("set", ())]
        words += [word for s in special for word in s.get("set", ())]
        words += [f"data.label='{label}'" for data, label in labels.items() if _reads(words, data)]
        label = f"{column.name}-{row.name}" if column else row.name
        note = next((s["note"] for s in reversed(special) if "note" in s), None)
        return Job(label, row.name, column.name if column else None, tuple(words), tuple(seeds), note)


def names(own: Path | None = None) -> list[str]:
    """All studies, the user's own among them."""
    folders = filter(None, (CONFIGS, own))
    return sorted({path.stem for folder in folders for path in (folder / "study").glob("*.yaml")})


def read(name: str, own: Path | None = None) -> Study:
    """**Raises:** `UsageError` if there is none of that name, or its file says what no study has."""
    paths = (folder / "study" / f"{name}.yaml" for folder in filter(None, (CONFIGS, own)))
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        known = names(own)
        raise UsageError(f"There is no study {name!r}; there are {', '.join(known)}.{_near(name, known)}")
    spec = yaml.safe_load(path.read_text(encoding="utf-8"))
    _check(name, "study", spec)
    for scale, entry in spec.get("scales", {}).items():
        _check(name, "scale", entry, scale)
    for part in spec.get("parts", ()):
        _check(name, "part", part)
    _check(name, "sweep", spec.get("sweep", {}))
    study = Study(name, spec)
    for needed in ("title", "question", *(("scales",) if study.rows else ("measure",))):
        if needed not in spec:
            raise UsageError(f"configs/study/{name}.yaml has no {needed!r}.")
    return study


def _line(study: str, kind: str, name: str, entry: Mapping[str, Any]) -> Line:
    _check(study, kind, entry, name)
    words = tuple(entry.get("set", ()))
    return Line(
        name, entry.get("title", name), words, entry.get("scales", {}), entry.get("published"), entry.get("beta")
    )


def _check(study: str, kind: str, entry: Any, where: str = "") -> None:
    if not isinstance(entry, dict):
        raise UsageError(f"configs/study/{study}.yaml: {kind} {where} is {entry!r}; expected keys with values.")
    for key in entry:
        if str(key) not in _KEYS[kind]:
            near = _near(str(key), _KEYS[kind])
            raise UsageError(
                f"configs/study/{study}.yaml: a {kind} has no {key!r}; it has {', '.join(_KEYS[kind])}.{near}"
            )


def _reads(words: list[str], data: str) -> bool:
    """Whether a run of these words reads that data set: the last word that names one decides."""
    named = [word.partition("=")[2] for word in words if word.startswith(("data=", "experiment="))]
    return bool(named) and named[-1].startswith(data) and not (data == "cifar10" and named[-1].startswith("cifar100"))


def _near(word: str, options: list[str]) -> str:
    match = difflib.get_close_matches(word, options, n=1)
    return f" Did you mean {match[0]!r}?" if match else ""
