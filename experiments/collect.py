"""Gather run folders into one table: mean, deviation and count over seeds.

    python -m experiments.collect outputs
    python -m experiments.collect outputs --by estimator stencil.radius --format csv --output table.csv

In a notebook, `pandas.DataFrame(experiments.collect.load("outputs"))`.
"""

import argparse
import csv
import fcntl
import io
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.record import CONFIG, METRICS, STOPPED, flatten, read_summary

COLUMNS = {
    "test_accuracy": ("test accuracy (%)", 100, 2),
    "cosine_hidden": ("hidden cosine", 1, 3),
    "functional_asymmetry": ("functional asymmetry", 1, 3),
    "unsettled_fraction": ("unsettled (%)", 100, 2),
    "seconds": ("seconds", 1, 1),
}
"""Results, those of alignment at the end of training; title, scale and digits in a Markdown table."""

FINISHED = "finished"
Row = dict[str, Any]


def load(folders: str | Path | Iterable[str | Path]) -> list[Row]:
    """One flat dictionary a run, or a member of a population: `folder`, `status`, `reason`, the configuration by dotted
    names, and the results of `COLUMNS` for a finished run.

    Runs are found at any depth by their `config.yaml`. The status is `finished`, `running`, `stopped` (with the
    reason), `unfinished` (killed) or `damaged`.
    """
    roots = [folders] if isinstance(folders, (str, Path)) else folders
    paths = sorted({path.parent for root in roots for path in _found(Path(root))})
    return [row for path in paths for row in _rows(path)]


def group(rows: Sequence[Row], by: Sequence[str]) -> list[Row]:
    """A row for each combination of the keys `by`: their values, `runs`, and for every result its mean and, as
    `<name>_std`, the standard deviation of a sample."""
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(_hashable(row.get(key)) for key in by)].append(row)
    return [
        {**{key: members[0].get(key) for key in by}, "runs": len(members), **_statistics(members)}
        for members in groups.values()
    ]


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
        finer = len({tuple(_hashable(row["config"].get(name)) for name in [*kept, key]) for row in rows})
        if finer > classes:
            kept, classes = [*kept, key], finer
    return kept


def table(rows: Sequence[Row], form: str) -> str:
    """Grouped rows as `md` or `csv`."""
    keys = list(rows[0])[: list(rows[0]).index("runs")]
    if form == "csv":
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows([{name: _text(value) for name, value in row.items()} for row in rows])
        return stream.getvalue()
    lines = [[*(key.removesuffix("._target_") for key in keys), "runs", *(title for title, *_ in COLUMNS.values())]]
    lines.append(["---"] * len(keys) + ["---:"] * (len(COLUMNS) + 1))
    for row in rows:
        lines.append([*(_text(row[key]) for key in keys), str(row["runs"]), *(_cell(row, name) for name in COLUMNS)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Write grouped rows as a Parquet file.

    **Raises:** `ValueError` if pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError("--format parquet needs pyarrow: pip install pyarrow") from error
    plain = [{k: _text(v) if isinstance(v, (list, dict)) else v for k, v in row.items()} for row in rows]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(plain), path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folders", nargs="+", help="where to look for run folders, at any depth")
    parser.add_argument(
        "--by", nargs="+", metavar="KEY", help="configuration keys of the rows; default: all that differ"
    )
    parser.add_argument("--format", choices=["md", "csv", "parquet"], default="md")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: the standard output")
    options = parser.parse_args(arguments)
    try:
        _run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def _run(options: argparse.Namespace) -> None:
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
    _warn(done, by, found)
    grouped = group(done, by)
    if options.format == "parquet":
        write_parquet(grouped, options.output)
    elif options.output is not None:
        options.output.write_text(table(grouped, options.format), encoding="utf-8")
    else:
        sys.stdout.write(table(grouped, options.format))


def _warn(rows: Sequence[Row], by: Sequence[str], found: Sequence[str]) -> None:
    """Say what a mean hides: runs that differ in more than the seed, and the same run twice."""
    hidden = [key for key in found if key not in by]
    if hidden and len(group(rows, [*by, *hidden])) > len(group(rows, by)):
        print(f"note: rows average over runs that differ in {', '.join(hidden)}", file=sys.stderr)
    twice = [row for row in group(rows, [*found, "seed"]) if row["runs"] > 1]
    if twice:
        seeds = ", ".join(sorted({str(row["seed"]) for row in twice}))
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
    except Exception as error:  # whatever a damaged file makes a parser raise
        return [{**row, "reason": f"{type(error).__name__}: {' '.join(str(error).split())}"}]
    row.update(config, config=config)
    if summary is None:
        status, reason = _unfinished(path, config)
        return [{**row, "status": status, "reason": reason}]
    ends = {name: v["end"] if isinstance(v := summary.get(name), dict) else v for name in COLUMNS}
    members = summary.get("members", {})
    return [
        {**row, "status": FINISHED, "seed": seed, **ends, **{k: v[i] for k, v in members.items() if k in COLUMNS}}
        for i, seed in enumerate(summary["seeds"])
    ]


def _unfinished(path: Path, config: Row) -> tuple[str, str]:
    metrics = path / METRICS
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    epochs = json.loads(lines[-1])["epoch"] if lines else 0
    reached = f"{epochs} of {config.get('epochs')} epochs done"
    if _locked(path / ".lock"):
        return "running", reached
    stopped = path / STOPPED
    if stopped.exists():
        return "stopped", f"{reached}; {' '.join(stopped.read_text().split())}"
    return "unfinished", f"{reached}; it was killed, and goes on when run again"


def _locked(path: Path) -> bool:
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _resolve(key: str, rows: Sequence[Row]) -> str:
    """`estimator` means its class."""
    names = {name for row in rows for name in row["config"]}
    for name in (key, f"{key}._target_"):
        if name in names:
            return name
    raise ValueError(f"--by {key}: no run has such a setting.")


def _statistics(rows: Sequence[Row]) -> Row:
    out: Row = {}
    for name in COLUMNS:
        values = [float(row[name]) for row in rows if row.get(name) is not None]
        out[name] = statistics.fmean(values) if values else None
        out[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else None
    return out


def _cell(row: Row, name: str) -> str:
    _, scale, digits = COLUMNS[name]
    mean, deviation = row[name], row[f"{name}_std"]
    if mean is None:
        return ""
    return f"{scale * mean:.{digits}f}" + ("" if deviation is None else f" ± {scale * deviation:.{digits}f}")


def _text(value: Any) -> str:
    """A class without its modules, nothing for nothing."""
    if value is None:
        return ""
    return value.rpartition(".")[2] if isinstance(value, str) and value.startswith("eqprop.") else str(value)


def _hashable(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _depth(key: str) -> int:
    return key.removesuffix("._target_").count(".")


if __name__ == "__main__":
    main()
