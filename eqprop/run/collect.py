"""Gather run folders into one table, mean and deviation over seeds: `eqprop collect`."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from eqprop.run.frame import MEASURES, grouped, of_rows, results
from eqprop.run.record import CONFIG, LOCK, METRICS, STOPPED, flatten, read_summary
from eqprop.run.tables import markdown

SHOWN = (
    "test_accuracy",
    "validation_accuracy",
    "cosine_hidden",
    "functional_asymmetry",
    "unsettled_fraction",
    "seconds",
)
"""Results of a Markdown table; a CSV or Parquet file has all of them."""
FINISHED = "finished"
Row = dict[str, Any]


def load(folders: str | Path | Iterable[str | Path]) -> list[Row]:
    """One flat dictionary a run, or a member of a population: `folder`, `status`, `reason`, the configuration by dotted
    names, and the results of a finished run. `pandas.DataFrame(load("outputs"))` is the table of them.

    Runs are found at any depth by their `config.yaml`. The status is `finished`, `running`, `stopped` (with the
    reason), `unfinished` (killed) or `damaged`.

    **Raises:** `FileNotFoundError` if there is no such folder.
    """
    roots = [folders] if isinstance(folders, (str, Path)) else folders
    paths = sorted({path.parent for root in roots for path in _found(Path(root).expanduser())})
    return [row for path in paths for row in _rows(path)]


def differing(rows: Sequence[Row]) -> list[str]:
    """The fewest configuration keys that tell the rows apart, seeds aside; the outermost first.

    A key that follows from others, such as a setting of an estimator that is the only one to have it, is left out.
    """
    keys = dict.fromkeys(key for row in rows for key in row["config"])
    kept: list[str] = []
    classes = 1
    for key in sorted(keys, key=_depth):
        if key in ("seed", "population"):
            continue
        finer = len({tuple(_text(row["config"].get(name)) for name in [*kept, key]) for row in rows})
        if finer > classes:
            kept, classes = [*kept, key], finer
    return kept


def table(frame: pd.DataFrame) -> str:
    """Grouped runs in Markdown."""
    return markdown(*_shown(frame))


def _shown(frame: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Head and cells of grouped runs."""
    keys = _keys(frame)
    head = [*(key.removesuffix("._target_") for key in keys), "runs", *(MEASURES[name].title for name in SHOWN)]
    lines = []
    for row in frame.to_dict("records"):
        cells = (_cell(row[name], row[f"{name}_std"], name) for name in SHOWN)
        lines.append([*(_text(row[key]) for key in keys), str(row["runs"]), *cells])
    return head, lines


def main(arguments: Sequence[str]) -> None:
    """The command line of `eqprop collect`.

    **Raises:** `ValueError`, `OSError` for what cannot be collected or written.
    """
    parser = argparse.ArgumentParser(prog="eqprop collect", description="Gather run folders into one table.")
    parser.add_argument("folders", nargs="*", default=["outputs"], help="where to look for run folders, at any depth")
    parser.add_argument(
        "--by", nargs="+", metavar="KEY", help="configuration keys of the rows; default: all that differ"
    )
    parser.add_argument("--format", choices=["md", "csv", "parquet", "latex"], default="md")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: the standard output")
    options = parser.parse_args(arguments)
    if options.format == "parquet" and options.output is None:
        raise ValueError("--format parquet needs --output FILE.")
    rows = load(options.folders)
    if not rows:
        raise ValueError(f"There is no run in {', '.join(options.folders)}: no {CONFIG} at any depth.")
    done = [row for row in rows if row["status"] == FINISHED]
    for row in rows:
        if row["status"] != FINISHED:
            print(f"not in the table: {row['folder']}: {row['status']}, {row['reason']}", file=sys.stderr)
    if not done:
        raise ValueError(f"None of the {len(rows)} runs is finished.")
    found = differing(done)
    by = found if options.by is None else [_resolve(key, done) for key in options.by]
    frame = of_rows(done)
    _warn(frame, by, found)
    _write(grouped(frame, by), options.format, options.output)


def _write(frame: pd.DataFrame, form: str, path: Path | None) -> None:
    if form in ("csv", "parquet"):
        frame = frame.assign(runs=frame["runs"].astype(int), **{key: frame[key].map(_text) for key in _keys(frame)})
    if form == "parquet":
        try:
            frame.to_parquet(path)
        except ImportError as error:
            raise ValueError("--format parquet needs pyarrow: pip install pyarrow") from error
        return
    writers = {"md": table, "csv": lambda f: f.to_csv(index=False, lineterminator="\n"), "latex": _latex}
    text = writers[form](frame)
    if path is None:
        sys.stdout.write(text)
    else:
        path.write_text(text, encoding="utf-8", newline="\n")


def _latex(frame: pd.DataFrame) -> str:
    """The columns of the Markdown table as a LaTeX one; without Jinja, which pandas would want."""
    head, lines = _shown(frame)
    rows = [" & ".join(cell.translate(_ESCAPES) for cell in line) for line in (head, *lines)]
    return f"\\begin{{tabular}}{{{'l' * len(head)}}}\n" + "".join(f"{row} \\\\\n" for row in rows) + "\\end{tabular}\n"


_ESCAPES = str.maketrans({sign: f"\\{sign}" for sign in "_%&#$"} | {"±": r"$\pm$"})


def _keys(frame: pd.DataFrame) -> list[str]:
    """What grouped runs were grouped by: the columns before `runs`."""
    return [*frame.columns[: frame.columns.get_loc("runs")]]


def _warn(frame: pd.DataFrame, by: Sequence[str], found: Sequence[str]) -> None:
    """Say what a mean hides: runs that differ in more than the seed, and the same run twice."""
    hidden = [key for key in found if key not in by]
    if hidden and len(grouped(frame, [*by, *hidden])) > len(grouped(frame, by)):
        print(f"note: rows average over runs that differ in {', '.join(hidden)}", file=sys.stderr)
    every = grouped(frame, [*found, "seed"])
    twice = every[every["runs"] > 1]
    if len(twice):
        seeds = ", ".join(sorted({str(seed) for seed in twice["seed"]}))
        print(f"note: the same configuration is there more than once with seed {seeds}; all count", file=sys.stderr)


def _found(root: Path) -> list[Path]:
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root}.")
    return list(root.rglob(CONFIG))


def _rows(path: Path) -> list[Row]:
    row: Row = {"folder": str(path), "status": "damaged", "reason": "", "config": {}}
    try:
        config = flatten(OmegaConf.to_container(OmegaConf.load(path / CONFIG)))
        summary = read_summary(path)
        read = {**row, **config, "config": config}
        if summary is None:
            status, reason = _unfinished(path, config)
            return [{**read, "status": status, "reason": reason}]
        members = summary.get("members", {})
        return [
            {**read, "status": FINISHED, "seed": seed, **results(summary | {k: v[i] for k, v in members.items()})}
            for i, seed in enumerate(summary["seeds"])
        ]
    except Exception as error:  # whatever a damaged file makes a parser raise
        return [{**row, "reason": f"{type(error).__name__}: {' '.join(str(error).split())}"}]


def _unfinished(path: Path, config: Row) -> tuple[str, str]:
    metrics = path / METRICS
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    epochs = json.loads(lines[-1])["epoch"] if lines else 0
    reached = f"{epochs} of {config.get('epochs')} epochs done"
    if _locked(path / LOCK):
        return "running", reached
    stopped = path / STOPPED
    if stopped.exists():
        return "stopped", f"{reached}; {' '.join(stopped.read_text(encoding='utf-8').split())}"
    return "unfinished", f"{reached}; it was killed, and goes on when run again"


def _locked(path: Path) -> bool:
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # of somebody else's folder, which cannot be locked, nothing is known
        return False


def _resolve(key: str, rows: Sequence[Row]) -> str:
    names = {name for row in rows for name in row["config"]}
    for name in (key, f"{key}._target_"):
        if name in names:
            return name
    raise ValueError(f"--by {key}: no run has such a setting.")


def _cell(mean: float | None, deviation: float | None, name: str) -> str:
    measure = MEASURES[name]
    if mean is None or pd.isna(mean):
        return ""
    spread = "" if deviation is None or pd.isna(deviation) else f" ± {measure.factor * deviation:.{measure.digits}f}"
    return f"{measure.factor * mean:.{measure.digits}f}{spread}"


def _text(value: Any) -> str:
    """A class without its modules, nothing for nothing."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    return value.rpartition(".")[2] if isinstance(value, str) and value.startswith("eqprop.") else str(value)


def _depth(key: str) -> int:
    return key.removesuffix("._target_").count(".")
