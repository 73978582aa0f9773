"""The records of a study: what is left of every run, all of them in one compressed file beside the study's page."""

import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from eqprop.run.checkpoint import write_atomically
from eqprop.run.record import CONFIG, ENVIRONMENT, nan_for_null, read_metrics, read_summary, to_json

FILE = "records.jsonl.gz"


class Record(NamedTuple):
    """What is left of one seed of a run."""

    label: str
    seed: int
    config: dict[str, Any]
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    summary: dict[str, Any]
    missing: str | None = None
    """Why there is no result."""


def load(path: str | Path) -> list[Record]:
    """The records of a study, from its file or the folder that holds it; none if there is no file. What was not finite
    is NaN.

    **Raises:** `ValueError` if the file is damaged.
    """
    path = Path(path).expanduser()
    file = path / FILE if path.is_dir() else path
    if not file.exists():
        return []
    try:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            return [_record(json.loads(line)) for line in stream]
    except (EOFError, ValueError, TypeError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{file} is damaged ({type(error).__name__}: {error}); expected a study's records, one JSON object a line, "
            "compressed. Fetch it again, as by `git checkout`, or delete it and run the study: finished runs are found."
        ) from error


def _record(line: dict[str, Any]) -> Record:
    record = Record(**line)
    return record._replace(metrics=nan_for_null(record.metrics), summary=nan_for_null(record.summary))


def save(path: Path, records: Iterable[Record]) -> None:
    """Write the records, in order of label and seed; the same records make the same bytes."""
    ordered = sorted(records, key=lambda record: (record.label, record.seed))
    text = "".join(to_json(record._asdict()) + "\n" for record in ordered)
    path.mkdir(parents=True, exist_ok=True)
    write_atomically(path / FILE, lambda file: file.write(gzip.compress(text.encode(), 9, mtime=0)))


def read_run(folder: Path, label: str) -> list[Record]:
    """The record in a run folder, one for each member of a population.

    **Raises:** `FileNotFoundError` if the run is not finished, or a file of it is gone.
    """
    config = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    assert isinstance(config, dict)
    summary = read_summary(folder)
    if summary is None:
        raise FileNotFoundError(f"{folder} has no summary: the run is not finished.")
    environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    settings = {str(name): value for name, value in config.items()}
    whole = Record(label, settings["seed"], settings, environment, read_metrics(folder), summary)
    return _members(whole)


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
        summary = {**shared, **own, "seeds": [seed]}
        split.append(record._replace(seed=seed, config=config, metrics=lines, summary=summary))
    return split
