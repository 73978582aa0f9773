"""Run folders gathered into a table."""

import csv
import io
import json
import math
import sys
from typing import Any

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from eqprop.run import collect
from eqprop.run.collect import differing, load, table
from eqprop.run.frame import grouped, of_rows

CONFIG = {
    "seed": 0,
    "population": 1,
    "epochs": 3,
    "data": {"name": "digits"},
    "relaxation": {"_target_": "eqprop.Picard", "tol": 1e-4},
    "estimator": {
        "_target_": "eqprop.FiniteNudge",
        "relaxation": {"_target_": "eqprop.Picard", "tol": 1e-4},
        "stencil": {"_target_": "eqprop.cauchy", "radius": 0.4},
    },
}
RBP = {"_target_": "eqprop.RecurrentBackprop", "relaxation": {"_target_": "eqprop.Picard", "tol": 1e-4}}


def write(folder, accuracy=None, *, seeds=None, cosine=0.5, members=None, **changes):
    folder.mkdir(parents=True)
    config = {**CONFIG, **changes}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    (folder / ".lock").touch()
    if accuracy is None:
        return folder
    summary = {
        "seeds": seeds or [config["seed"]],
        "test_accuracy": accuracy,
        "cosine_hidden": {"start": 0.0, "end": cosine},
        "functional_asymmetry": {"start": 1.0, "end": 0.25},
        "unsettled_fraction": 0.01,
        "seconds": 12.0,
    }
    (folder / "summary.json").write_text(json.dumps(summary | ({"members": members} if members else {})))
    return folder


def group(rows, by):
    """Grouped runs as dictionaries."""
    return grouped(of_rows(rows), by).to_dict("records")


@pytest.fixture
def runs(tmp_path):
    for seed, accuracy in enumerate((0.90, 0.92, 0.94)):
        write(tmp_path / "deep" / f"nudge-{seed}", accuracy, seed=seed)
    for seed, accuracy in enumerate((0.80, 0.84)):
        write(tmp_path / f"rbp-{seed}", accuracy, seed=seed, estimator=RBP, cosine=1.0)
    return tmp_path


def test_rows_are_flat_and_found_at_any_depth(runs):
    rows = load(runs)
    assert len(rows) == 5
    assert {row["status"] for row in rows} == {"finished"}
    row = next(row for row in rows if row["folder"].endswith("nudge-2"))
    assert (row["seed"], row["estimator.stencil.radius"], row["test_accuracy"]) == (2, 0.4, 0.94)
    assert (row["cosine_hidden"], row["functional_asymmetry"], row["seconds"]) == (0.5, 0.25, 12.0)
    assert load([runs / "deep", runs]) == rows  # each once


def test_what_differs_is_named_by_the_fewest_and_outermost_keys(runs):
    rows = load(runs)
    assert differing(rows) == ["estimator._target_"]
    write(runs / "tol", 0.5, relaxation={"_target_": "eqprop.Picard", "tol": 1e-3})
    write(
        runs / "radius", 0.5, estimator={**CONFIG["estimator"], "stencil": {"_target_": "eqprop.cauchy", "radius": 1}}
    )
    assert differing(load(runs)) == ["estimator._target_", "relaxation.tol", "estimator.stencil.radius"]
    assert differing(rows[:1]) == []


def test_statistics_over_seeds(runs):
    rows = load(runs)
    nudge, rbp = sorted(group(rows, ["estimator._target_"]), key=lambda row: -row["runs"])
    assert (nudge["runs"], rbp["runs"]) == (3, 2)
    assert nudge["test_accuracy"] == pytest.approx(0.92)
    assert nudge["test_accuracy_std"] == pytest.approx(0.02)  # of a sample
    assert rbp["test_accuracy_std"] == pytest.approx(0.04 / 2**0.5)
    (one,) = group(rows[:1], [])
    assert one["runs"] == 1 and math.isnan(one["test_accuracy_std"])


def test_members_of_a_population_count_each(runs):
    members = {
        "test_accuracy": [0.7, 0.9],
        "cosine_hidden": [0.1, 0.3],
        "functional_asymmetry": [0, 1],
        "test_loss": [1, 2],
    }
    write(runs / "two", 0.8, seeds=[3, 4], population=2, seed=3, members=members)
    rows = [row for row in load(runs) if row["folder"].endswith("two")]
    assert [(row["seed"], row["test_accuracy"], row["cosine_hidden"]) for row in rows] == [(3, 0.7, 0.1), (4, 0.9, 0.3)]
    assert sorted(row["runs"] for row in group(load(runs), differing(load(runs)))) == [2, 5]


def test_an_estimator_without_error_vectors_has_no_cosine(tmp_path):
    folder = write(tmp_path / "bptt", 0.9)
    summary = json.loads((folder / "summary.json").read_text())
    del summary["cosine_hidden"]
    (folder / "summary.json").write_text(json.dumps(summary))
    frame: Any = grouped(of_rows(load(tmp_path)), [])
    assert math.isnan(frame["cosine_hidden"][0])
    assert "| 90.00 |  |  | 0.250 |" in table(frame)


def test_settings_stay_what_they_are_beside_runs_that_lack_them(tmp_path):
    """A whole number is not made a decimal one, and a key that is not there is no other value than null."""
    four = {**CONFIG["estimator"], "stencil": {"_target_": "eqprop.cauchy", "radius": 0.4, "num_points": 4}}
    write(tmp_path / "four", 0.9, estimator=four)
    write(tmp_path / "null", 0.8, estimator={**RBP, "stencil": None})
    write(tmp_path / "absent", 0.7, estimator=RBP, seed=1)
    rows = load(tmp_path)
    frame = grouped(of_rows(rows), ["estimator._target_", "estimator.stencil"])
    assert sorted(frame["runs"]) == [1, 2]
    assert "| 4 | 1 | 90.00 |" in table(grouped(of_rows(rows), ["estimator.stencil.num_points"]))


def test_markdown(runs, capsys):
    collect.main([str(runs)])
    written = capsys.readouterr()
    assert written.err == ""
    lines = written.out.splitlines()
    assert lines[0].startswith("| estimator | runs | test accuracy (%) | validation accuracy (%) | hidden cosine |")
    assert "| FiniteNudge | 3 | 92.00 ± 2.00 |  | 0.500 ± 0.000 | 0.250 ± 0.000 | 1.00 ± 0.00 | 12.0 ± 0.0 |" in lines
    assert (
        "| RecurrentBackprop | 2 | 82.00 ± 2.83 |  | 1.000 ± 0.000 | 0.250 ± 0.000 | 1.00 ± 0.00 | 12.0 ± 0.0 |"
        in lines
    )


def test_latex(runs, capsys):
    """Empty cells keep their place; signs of LaTeX are escaped."""
    write(runs / "other", 0.5, data={"name": "50% & #1|_x"})
    write(runs / "nameless", 0.4, data={"name": None})
    collect.main([str(runs), "--by", "data.name", "--format", "latex"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "\\begin{tabular}{llllllll}" and lines[-1] == "\\end{tabular}"
    assert lines[1].startswith("data.name & runs & test accuracy (\\%) & ")
    assert {line.count(" & ") for line in lines[1:-1]} == {7}
    assert any(line.startswith("50\\% \\& \\#1|\\_x & 1 & 50.00 &  & 0.500 & ") for line in lines)
    assert any(line.startswith(" & 1 & 40.00 & ") for line in lines)
    assert any(" & 5 & 88.00 $\\pm$ " in line for line in lines)


def test_csv(runs, tmp_path, capsys):
    output = tmp_path / "table.csv"
    collect.main([str(runs), "--by", "estimator", "seed", "--format", "csv", "--output", str(output)])
    rows = list(csv.DictReader(io.StringIO(output.read_text())))
    assert len(rows) == 5
    assert rows[0]["runs"] == "1" and rows[0]["test_accuracy_std"] == ""
    assert {row["estimator._target_"] for row in rows} == {"FiniteNudge", "RecurrentBackprop"}
    assert capsys.readouterr().out == ""


def test_parquet(runs, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    output = tmp_path / "table.parquet"
    collect.main([str(runs), "--format", "parquet", "--output", str(output)])
    read = parquet.read_table(output).to_pylist()
    assert sorted(row["runs"] for row in read) == [2, 3]


def test_parquet_without_pyarrow_says_what_to_install(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match="pip install pyarrow"):
        collect.main([str(runs), "--format", "parquet", "--output", str(tmp_path / "table.parquet")])
    with pytest.raises(ValueError, match="needs --output FILE"):
        collect.main([str(runs), "--format", "parquet"])


def test_what_is_not_finished_is_listed(runs, capsys):
    write(runs / "killed")
    (runs / "killed" / "metrics.jsonl").write_text('{"epoch": 0}\n{"epoch": 1}\n')
    (write(runs / "stopped") / "stopped.txt").write_text("Unsettled: In epoch 1, too many\n")
    write(runs / "running")
    (write(runs / "cut") / "metrics.jsonl").write_text('{"epo')
    (write(runs / "odd") / "summary.json").write_text("{}")
    (write(runs / "damaged", 0.5) / "summary.json").write_text("{")
    with FileLock(runs / "running" / ".lock"):
        collect.main([str(runs)])
    written = capsys.readouterr()
    lines = dict(line.removeprefix(f"not in the table: {runs}/").split(": ", 1) for line in written.err.splitlines())
    assert lines["killed"] == "unfinished, 1 of 3 epochs done; it was killed, and goes on when run again"
    assert lines["stopped"] == "stopped, 0 of 3 epochs done; Unsettled: In epoch 1, too many"
    assert lines["running"] == "running, 0 of 3 epochs done"
    assert lines["damaged"].startswith("damaged, JSONDecodeError")
    assert lines["cut"].startswith("damaged, JSONDecodeError")
    assert lines["odd"].startswith("damaged, KeyError")
    assert len(lines) == 6
    assert written.out.count("\n") == 4  # the finished ones alone


def test_means_over_more_than_seeds_are_told(runs, capsys):
    collect.main([str(runs), "--by", "data.name"])
    assert "rows average over runs that differ in estimator._target_" in capsys.readouterr().err


def test_the_same_run_twice_is_told(runs, capsys):
    write(runs / "again", 0.9)
    collect.main([str(runs)])
    assert "more than once with seed 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nowhere"], "There is no folder nowhere"),
        (["."], "There is no run in"),
        (["unfinished"], "None of the 1 runs is finished"),
        (["runs", "--by", "nothing"], "--by nothing: no run has such a setting"),
    ],
)
def test_what_cannot_be_collected_is_an_error(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if arguments != ["."]:
        write(tmp_path / "unfinished" / "one")
        write(tmp_path / "runs" / "one", 0.9)
    with pytest.raises((ValueError, OSError), match=message):
        collect.main(arguments)
