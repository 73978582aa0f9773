"""`eqprop study` from its command line to its page: what runs, what is not run again, what is refused."""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from eqprop.run import cli, record as run_record
from eqprop.run.compose import compose, own_folder
from eqprop.run.errors import Interrupted, UsageError
from eqprop.run.record import settings
from eqprop.run.study import measured, program, records as store, schedule, spec
from eqprop.run.study.options import Options
from eqprop.run.study.schedule import Run
from runs import TINY, as_users_run, command, finish, programs_folder, start
from studies import record, write_study


@pytest.fixture(scope="module", autouse=True)
def _as_users_run():
    with as_users_run():
        yield


ONE = {"rows": {"with": {}}, "parts": None, "figures": None}
"""Of a study with one row and no figure."""


@pytest.fixture
def asked(tmp_path, monkeypatch) -> list[Run]:
    """What would have been run, in a working directory of the test; every run is made up."""
    runs: list[Run] = []

    def execute(given: Sequence[Run], root: Path, workers: int, done) -> None:
        for run in given:
            runs.append(run)
            done(run, "the data set is not at hand" if run.label == "absent" else leave(run))

    monkeypatch.setattr(program, "execute", execute)
    monkeypatch.setattr(program, "changes", lambda: None)
    monkeypatch.chdir(tmp_path)
    return runs


def leave(run: Run) -> None:
    """What a finished run leaves in its folder."""
    cfg = compose(run.words, "train", own_folder())
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(settings(cfg))))
    made = record(run.label, seed=run.seed)
    (run.folder / "environment.json").write_text(
        json.dumps({**made.environment, "commit": f"{run.label} of {run.seed}"})
    )
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in made.metrics))
    summary = made.summary
    if cfg.population > 1:
        seeds = [run.seed + index for index in range(cfg.population)]
        summary = {**summary, "seeds": seeds, "members": {"test_accuracy": [0.5 + seed / 100 for seed in seeds]}}
    (run.folder / "summary.json").write_text(json.dumps(summary))


def make(*words: str) -> None:
    """The command line, with results beside the configurations."""
    cli.main(["study", "made", "scale=quick", "results=results", *words])


def said(capsys) -> str:
    return capsys.readouterr().err


def labels(folder: Path = Path("results/made/quick")) -> list[tuple[str, int]]:
    return [(found.label, found.seed) for found in store.load(folder)]


def test_some_rows_first(asked, tmp_path):
    """What is left out stays as it is, also where all would run again."""
    rows = {"with": {"title": "with"}, "without": {"title": "without", "set": ["data.seed=1"]}}
    write_study(tmp_path / "configs", **{**ONE, "rows": rows})
    make("only=*out")
    assert [run.label for run in asked] == ["without"] and labels() == [("without", 0)]
    make("only=with*", "rerun=true")
    assert sorted(run.label for run in asked[1:]) == ["with", "without"]
    make("only=with", "rerun=true")
    assert [run.label for run in asked[3:]] == ["with"] and labels() == [("with", 0), ("without", 0)]


def test_what_is_recorded_is_not_run_again(asked, tmp_path, monkeypatch):
    """What counts is the configuration, the label of the data and the numerics; not where the runs lie."""
    write_study(tmp_path / "configs", **ONE)
    make()
    assert [(run.label, run.seed) for run in asked] == [("with", 0)] == labels()
    page = (tmp_path / "results/made/quick/README.md").read_bytes()
    make("root=elsewhere")
    assert len(asked) == 1
    assert (tmp_path / "results/made/quick/README.md").read_bytes() == page
    make("rerun=true")
    assert len(asked) == 2 and "run.overwrite=true" in asked[1].words
    monkeypatch.setattr(run_record, "NUMERICS", 99)
    make()
    assert len(asked) == 3
    assert [found.config["numerics"] for found in store.load("results/made/quick")] == [99]
    make("label.digits=a copy")
    assert len(asked) == 4 and asked[3].words[-2:] == ("data.label='a copy'", "seed=0")
    make("label.digits=a copy", "label.mnist=another")
    assert len(asked) == 4
    write_study(tmp_path / "configs", base=["epochs=3"], **ONE)
    make("label.digits=a copy")
    assert len(asked) == 5


def test_a_page_is_the_one_that_its_records_make(asked, tmp_path):
    """Whatever the order in which the runs were made."""
    write_study(tmp_path / "configs", rows={"with": {}, "without": {"set": ["data.seed=1"]}}, parts=None)
    make("only=without")
    make()
    page = tmp_path / "results/made/quick/README.md"
    before = page.read_text()
    assert "commit `with of 0` (1 run), `without of` (1 run)" in before
    make("redraw=true")
    assert page.read_text() == before


def test_records_that_are_no_longer_asked_for_are_dropped(asked, tmp_path):
    write_study(tmp_path / "configs", figures=None, scales={"quick": {"seeds": [0, 1]}})
    make()
    assert labels() == [("with", 0), ("with", 1), ("without", 0), ("without", 1)]
    write_study(tmp_path / "configs", **ONE, scales={"quick": {"seeds": [1]}})
    make()
    assert labels() == [("with", 1)] and len(asked) == 4


def test_absent_data_cost_one_row_and_are_tried_again(asked, tmp_path):
    write_study(tmp_path / "configs", rows={"absent": {"set": ["data=mnist"]}, "with": {}}, parts=None)
    make()
    page = (tmp_path / "results/made/quick/README.md").read_text()
    assert "| absent | the data set is not at hand | – | – | – |" in page and "| with | 80.00 |" in page
    found = store.load("results/made/quick")[0]
    assert (found.label, found.missing, found.config["data"]["name"]) == (
        "absent",
        "the data set is not at hand",
        "mnist",
    )
    make()
    assert [run.label for run in asked] == ["absent", "with", "absent"]


def test_a_stopped_study_goes_on(asked, tmp_path, monkeypatch):
    write_study(tmp_path / "configs", figures=None)
    whole = program.execute

    def stop(given, root, workers, done):
        whole(given[:1], root, workers, done)
        raise Interrupted(15, "Stopped by signal 15")

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(program, "execute", stop)
        make()
    assert end.value.code == 143
    assert labels() == [("with", 0)] and not (tmp_path / "results/made/quick/README.md").exists()
    make()
    assert [run.label for run in asked] == ["with", "without"]


def test_a_population_is_one_run_and_as_many_records(asked, tmp_path):
    write_study(tmp_path / "configs", rows={"with": {"set": ["population=3"]}}, parts=None)
    make()
    found = store.load("results/made/quick")
    assert [(r.seed, r.summary["test_accuracy"]) for r in found] == [(0, 0.5), (1, 0.51), (2, 0.52)]
    assert "n = 3 seeds" in (tmp_path / "results/made/quick/README.md").read_text()
    make()
    assert len(asked) == 1
    store.save(Path("results/made/quick"), found[:2])
    make()  # finds it finished in its folder
    assert len(asked) == 1 and len(labels()) == 3


def test_folders_may_have_blanks_and_begin_at_home(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "a home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "a home"))
    write_study(tmp_path / "configs", **{**ONE, "rows": {"with": {"set": ["data=mnist", "data.root=~/d=1"]}}})
    cli.main(["study", "made", "scale=quick", "results=~/my results", "root=~/my runs"])
    assert (tmp_path / "a home/my results/made/quick/README.md").exists()
    assert asked[0].folder.parent == tmp_path / "a home/my runs" and asked[0].folder.exists()


def test_redrawing_needs_records_and_runs_nothing(asked, tmp_path, capsys):
    write_study(tmp_path / "configs")
    with pytest.raises(SystemExit):
        make("redraw=true")
    assert "There are no records in results" in said(capsys) and not (tmp_path / "results").exists()
    make()
    folder = tmp_path / "results/made/quick"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(before) == ["README.md", "curves.png", store.FILE]
    for name in ("README.md", "curves.png"):
        (folder / name).unlink()
    make("redraw=true")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before and len(asked) == 2


def test_uncommitted_code_makes_no_committed_results(asked, tmp_path, monkeypatch, capsys):
    write_study(tmp_path / "configs", **ONE)
    monkeypatch.setattr(program, "checkout", lambda: tmp_path)
    monkeypatch.setattr(program, "names", lambda: ["made"])
    monkeypatch.setattr(program, "changes", lambda: "0123456789ab")
    with pytest.raises(SystemExit) as end:
        cli.main(["study", "made", "scale=quick"])
    refused = said(capsys)
    assert end.value.code == 2 and "commit first, or give results=FOLDER elsewhere, or dirty=true" in refused
    assert str(tmp_path / "docs/results/made/quick") in refused and asked == []
    cli.main(["study", "made", "scale=quick", "dirty=true"])
    assert (tmp_path / "docs/results/made/quick/README.md").exists() and len(asked) == 1
    make()
    assert "note: the code differs from its commit" in said(capsys)
    monkeypatch.setattr(program, "changes", lambda: None)
    cli.main(["study", "made", "scale=quick"])
    assert said(capsys) == "" and len(asked) == 1


def test_results_go_to_the_checkout_or_to_the_working_directory(tmp_path, monkeypatch):
    """A study of the user's own is none of the checkout's."""
    monkeypatch.setattr(program, "checkout", lambda: tmp_path)
    assert program.folder_of("table1", Options("full")) == tmp_path / "docs/results/table1/full"
    assert program.folder_of("mine", Options("full")) == Path("results/mine/full")
    monkeypatch.setattr(program, "checkout", lambda: None)
    assert program.folder_of("table1", Options("full")) == Path("results/table1/full")
    assert program.folder_of("a", Options("full", results="b")) == Path("b/a/full")


@pytest.mark.parametrize(
    "words, changes, message",
    [
        (
            [],
            {"rows": {"a": {"set": ["network.angel=3"]}}},
            "network.angel: network has no 'angel'.*Did you mean 'angle'",
        ),
        ([], {"rows": {"a": {"set": ["homeostasis=exat"]}}}, "there is no such homeostasis.*Did you mean 'exact'"),
        ([], {"rows": None, "figures": None, "measure": "experiments.paper.absent"}, "clone the repository and run"),
        (["digit"], {}, "There is no study 'digit'.*Did you mean 'digits'"),
    ],
)
def test_mistakes_are_said_before_anything_runs(words, changes, message, asked, tmp_path, capsys):
    write_study(tmp_path / "configs", parts=None, **changes)
    with pytest.raises(SystemExit) as end:
        make(*words)
    error = said(capsys)
    assert end.value.code == 2 and asked == [] and error.count("\n") == 1
    assert re.search(message, error)


def test_without_a_name_there_is_nothing_to_do():
    with pytest.raises(UsageError, match="Name a study, as in `eqprop study table1`"):
        program.main(["scale=quick"])


MODULE = """
from matplotlib.figure import Figure
from eqprop.run.study.measured import Measured
from studies import record

def measure(scale):
    return Measured({"scale": scale, "values": [1.0, float("nan")]}, [record("trained")])

def draw(data):
    figure = Figure()
    figure.subplots().plot(data["values"])
    return {"own": figure}

def captions(data):
    return {"own": f"{len(data['values'])} values."}

def answer(data):
    return f"The first is {data['values'][0]:g}."
"""


def test_a_study_measures_with_a_module_of_the_working_directory(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "made_measure.py").write_text(MODULE)
    write_study(tmp_path / "configs", rows=None, scales=None, parts=None, figures=None, measure="made_measure")
    make()
    folder = tmp_path / "results/made/quick"
    page = (folder / "README.md").read_text()
    assert "![2 values.](own.png)" in page and "The first is 1.\n" in page and "; 1 run." in page
    found = measured.load(folder)
    assert {**found, "environment": None} == {"scale": "quick", "values": [1.0, None], "environment": None}
    assert found["environment"].keys() >= {"commit", "processor", "versions", "numerics"}
    assert labels() == [("trained", 0)] and asked == [] and (folder / "own.png").exists()
    data = (folder / measured.FILE).read_bytes()
    (folder / "README.md").unlink()
    make("redraw=true")
    assert (folder / "README.md").read_text() == page
    measured.save(folder, measured.load(folder))
    assert (folder / measured.FILE).read_bytes() == data


def test_a_module_that_lacks_another_package_says_which(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "made_broken.py").write_text("import there_is_no_such_package")
    with pytest.raises(ModuleNotFoundError, match="there_is_no_such_package"):
        measured.module("made_broken")


# --- clusters ------------------------------------------------------------------------------------

SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.timeout_min=30")


def test_a_dry_run_prints_the_script_of_what_is_missing_and_writes_nothing(asked, tmp_path, capsys):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    write_study(tmp_path / "configs", scales={"quick": {"seeds": [0, 1]}}, parts=None, figures=None)
    before = sorted(tmp_path.rglob("*"))
    make(*SLURM, "--dry-run")
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash\n") and "#SBATCH --array=0-3%4\n" in script
    assert "#SBATCH --partition=gpu\n" in script and "#SBATCH --time=30\n" in script
    assert asked == [] and sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "words, message",
    [
        (["--dry-run"], "--dry-run is of a study on SLURM; expected hydra/launcher=submitit_slurm with it"),
        (["hydra/launcher=basic", "--dry-run"], "--dry-run got hydra/launcher=basic, which submits nothing to SLURM"),
        (["hydra.launcher.partition=gpu"], "no launcher is named; expected hydra/launcher=submitit_slurm"),
        (["hydra.luncher.partition=gpu"], "A study has no key 'hydra.luncher.partition'"),
    ],
)
def test_what_goes_to_no_cluster_is_refused(words, message, asked, tmp_path, capsys):
    write_study(tmp_path / "configs", **ONE)
    with pytest.raises(SystemExit) as end:
        make(*words)
    assert end.value.code == 2 and message in said(capsys) and asked == []


def test_a_launcher_takes_all_runs_as_one_sweep(asked, tmp_path, monkeypatch, capsys):
    """What is finished and what cannot go on is recorded; the same command asks for the rest alone."""
    write_study(tmp_path / "configs", scales={"quick": {"seeds": [0, 1]}}, parts=None, figures=None)
    sweeps = []

    def launched(words):
        """Of the runs that are asked for, the first is finished, the second did not settle, the third was killed."""
        sweeps.append(words)
        runs = planned.pop(0)
        leave(runs[0])
        for run, line in zip(runs[1:], ["Unsettled: In epoch 1. More.", "Interrupted: Signal"], strict=False):
            run.folder.mkdir(parents=True)
            (run.folder / "stopped.txt").write_text(line)
        raise SystemExit(1)

    planned = []
    whole = program.sweep
    monkeypatch.setattr(program, "sweep", lambda runs, *rest: planned.append(runs) or whole(runs, *rest))
    monkeypatch.setattr(schedule.train, "main", launched)
    given = list(sys.argv)
    with pytest.raises(SystemExit) as end:
        make(*SLURM, "workers=3")
    assert end.value.code == 1 and "2 of 4 runs have no result. When their jobs have ended" in said(capsys)
    assert [(found.label, found.seed, found.missing) for found in store.load("results/made/quick")] == [
        ("with", 0, None),
        ("without", 0, "stopped: In epoch 1"),
    ]
    first = "['run.root=\\'outputs\\'','seed=0'],['homeostasis=none','run.root=\\'outputs\\'','seed=0']"
    assert sweeps[0][1].startswith(f"run.words=choice({first},")
    assert sweeps[0][2:] == ["run.root='outputs'", "run.slots=3", *SLURM] and sys.argv == given and asked == []
    with pytest.raises(SystemExit):
        make(*SLURM)
    assert sweeps[1][1].count("seed=") == 3


@pytest.mark.slow
def test_a_tiny_study_by_a_launcher(tiny_study, tmp_path, tmp_path_factory):
    """Its records are those of processes of its own, command and all."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    words = command("tiny", "scale=quick", "results=my results", "root=my runs", name="study")
    words += ["hydra/launcher=submitit_local", "workers=1"]
    code, output = finish(start(words, programs_folder(tmp_path_factory), cwd=tmp_path))
    assert code == 0 and "with, seed 0: done" in output, output
    found = store.load(tiny_study)
    assert [(r.label, r.missing, len(r.metrics)) for r in found] == [("with", None, 2), ("without", None, 2)]
    assert all(r.environment["command"].startswith("eqprop train ") for r in found)
    assert "data.seed=1" in found[1].environment["command"] and (tiny_study / "README.md").exists()


@pytest.fixture
def tiny_study(tmp_path, tmp_path_factory, monkeypatch) -> Path:
    """Two runs that are really trained; the folder of their page."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(programs_folder(tmp_path_factory)))
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # it is to compile fast, and not to run fast
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    monkeypatch.setenv("PYTHONPATH", str(spec.CONFIGS.parent))
    # The rows differ in what compiles to the same programs.
    rows = {"with": {"title": "in order"}, "without": {"title": "in another order", "set": ["data.seed=1"]}}
    write_study(tmp_path / "configs", "tiny", base=[*TINY, "homeostasis=none", "epochs=1"], rows=rows)
    return tmp_path / "my results/tiny/quick"


@pytest.mark.bounded
def test_a_tiny_study_from_its_file_to_its_page(tiny_study, monkeypatch, capsys):
    """Two runs in processes of their own; the second time none."""
    words = ["study", "tiny", "scale=quick", "results=my results", "root=my runs", "workers=1"]
    cli.main(words)
    folder = tiny_study
    told = capsys.readouterr().out
    assert "2 runs, 0 recorded, 2 to do" in told and "with, seed 0: done" in told and "README.md" in told
    found = store.load(folder)
    assert [(r.label, r.missing, len(r.metrics)) for r in found] == [("with", None, 2), ("without", None, 2)]
    assert all(0 < r.summary["test_accuracy"] <= 1 and r.summary["measured"] == "last" for r in found)
    command = found[0].environment["command"]
    assert command.startswith("eqprop train ") and command.endswith("seed=0")
    page = (folder / "README.md").read_text()
    assert f"| in order | {100 * found[0].summary['test_accuracy']:.2f} |" in page and "n = 1 seed." in page

    monkeypatch.setattr(schedule, "PROGRAM", (sys.executable, "-c", "raise SystemExit('run again')"))
    cli.main(words)
    assert "2 runs, 2 recorded, 0 to do" in capsys.readouterr().out
    assert (folder / "README.md").read_text() == page and store.load(folder) == found
