"""Studies: what their files may say, the published figures, records, and processes that are started and stopped."""

import gzip
import json
import math
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate

from eqprop.data import digits
from eqprop.run import cli
from eqprop.run.build import _chosen, build
from eqprop.run.compose import compose
from eqprop.run.errors import Interrupted, UsageError
from eqprop.run.overrides import check_overrides
from eqprop.run.study import options, program, records as store, schedule, spec
from eqprop.run.study.options import Options, parse
from eqprop.run.study.published import NUMBERS, Published, find, table1_error, table2_accuracy
from eqprop.run.study.schedule import Run, execute
from runs import TINY, as_users_run, compiled_once, configuration, programs_folder
from studies import record, study, write_study

STUDIES = {name: spec.read(name) for name in spec.names()}


@pytest.fixture(scope="module", autouse=True)
def _as_users_run(tmp_path_factory):
    with as_users_run(), compiled_once(programs_folder(tmp_path_factory)):
        yield


# Files


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_names_its_cells_once(name):
    for scale in spec.SCALES:
        jobs = STUDIES[name].jobs(scale)
        assert len({job.label for job in jobs}) == len(jobs)
        assert all(re.fullmatch(r"[a-z0-9.-]+", job.label) for job in jobs)
        assert any(job.seeds for job in jobs) or not STUDIES[name].rows


@pytest.mark.parametrize("name", STUDIES)
def test_every_override_of_a_study_is_of_a_key_that_is_there(name):
    """Jobs that bring an override which no job before them had."""
    seen = set()
    for job in (job for scale in spec.SCALES for job in STUDIES[name].jobs(scale)):
        if not seen.issuperset(job.words):
            seen.update(job.words)
            check_overrides(job.words)
            cfg = configuration(*job.words)
            assert set(cfg.estimator) > {"_target_"} and "_target_" in cfg.homeostasis


def test_a_row_counts_more_than_its_column_and_that_more_than_the_scale():
    made = study(
        base=["epochs=7"],
        scales={"quick": {"seeds": [0], "set": ["epochs=1"], "note": "short"}, "cpu": {"seeds": [0, 1]}},
        columns={
            "a": {"set": ["batch_size=10"], "scales": {"quick": {"seeds": [5], "set": ["epochs=2"], "note": "of a"}}},
            "b": {"title": "the other"},
        },
        rows={
            "x": {"set": ["seed=9"], "scales": {"quick": {"seeds": [], "set": ["epochs=3"], "note": "of x"}}},
            "y": {},
        },
    )
    ax, ay, bx, by = made.jobs("quick")
    assert (ax.label, ax.row, ax.column) == ("a-x", "x", "a")
    assert ax.words == ("epochs=7", "batch_size=10", "seed=9", "epochs=1", "epochs=2", "epochs=3")
    assert (ax.seeds, ax.note) == ((), "of x")
    assert (ay.words, ay.seeds, ay.note) == (("epochs=7", "batch_size=10", "epochs=1", "epochs=2"), (5,), "of a")
    assert (bx.seeds, bx.note) == ((), "of x")
    assert (by.words, by.seeds, by.note) == (("epochs=7", "epochs=1"), (0,), None)
    assert [job.seeds for job in made.jobs("cpu")] == [(0, 1)] * 4
    assert (made.columns("cpu")["b"].title, made.rows["y"].title) == ("the other", "y")


def test_a_sweep_makes_a_column_of_each_value():
    made = study(sweep={"key": "network.angle", "title": "angle", "quick": [0, 90], "cpu": [0.0, 0.5]})
    assert [job.label for job in made.jobs("quick")] == ["0-with", "0-without", "90-with", "90-without"]
    assert made.jobs("cpu")[2].words == ("network.angle=0.5",)
    assert [*made.columns("full")] == [*made.columns("cpu")] == ["0", "0.5"]


def test_a_sweep_may_give_overrides_for_each_value():
    depths = {1: ["network.sizes=[64,8]"], 2: ["network.sizes=[64,8,8]", "epochs=2"]}
    made = study(sweep={"title": "layers", "cpu": depths})
    assert [job.label for job in made.jobs("cpu")] == ["1-with", "1-without", "2-with", "2-without"]
    assert made.jobs("cpu")[2].words == ("network.sizes=[64,8,8]", "epochs=2")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"titel": "x"}, "'titel' is no key of a study; there are title, .* Did you mean 'title'?"),
        ({"question": None}, "a study needs 'question'"),
        ({"scales": None}, "a study with rows needs 'scales'"),
        ({"rows": None, "parts": None}, "a study without rows needs 'measure'"),
        ({"scales": {"cpuu": {"seeds": [0]}}}, "'cpuu' is no scale; there are quick, cpu, full. Did you mean 'cpu'?"),
        ({"scales": {"cpu": {"set": []}}}, "a scale cpu needs 'seeds'"),
        ({"scales": {"cpu": {"seeds": [0], "sets": []}}}, "'sets' is no key of a scale; .* Did you mean 'set'?"),
        ({"rows": {"a": {"publish": "x"}}, "parts": []}, "'publish' is no key of a row; .* Did you mean 'published'?"),
        ({"rows": {"a": {"scales": {"ful": {}}}}, "parts": []}, "'ful' is no scale; .* Did you mean 'full'?"),
        ({"rows": {"a": "text"}, "parts": []}, "row a is 'text'; expected keys with values"),
        ({"columns": {"a": {"sett": []}}, "parts": []}, "'sett' is no key of a column; .* Did you mean 'set'?"),
        ({"sweep": {"key": "a", "title": "b", "full": [1]}}, "a sweep needs 'cpu'"),
        ({"sweep": {"title": "b", "cpu": [1]}}, "a sweep over a list of values needs 'key'"),
        ({"parts": [{"rows": ["wiht"]}]}, "'wiht' is no row; there are with, without. Did you mean 'with'?"),
        ({"parts": [{"compare": [["with", "rbp"]]}]}, "'rbp' is no cell; there are with, without"),
        ({"parts": [{"columns": ["a"]}]}, "'a' is no column"),
        ({"measures": ["accuracy"]}, "'accuracy' is no measure; there are test_accuracy, "),
        ({"figures": {"a": {"kind": "curve", "caption": "x"}}}, "'curve' is no kind; .* Did you mean 'curves'?"),
        ({"figures": {"a": {"kind": "curves"}}}, "a figure a needs 'caption'"),
        ({"figures": {"a": {"kind": "rows", "caption": "x", "rows": ["z"]}}}, "'z' is no row"),
        ({"topic": "device"}, "'device' is no topic; there are learning, errors, devices. Did you mean 'devices'"),
    ],
)
def test_what_a_file_cannot_say_is_refused(changes, message, tmp_path):
    write_study(tmp_path, **changes)
    with pytest.raises(UsageError, match=f"configs/study/made.yaml: .*{message.removesuffix('?')}"):
        spec.read("made", tmp_path)


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    path = write_study(tmp_path)
    for text, message in (("", "study is None; expected keys"), ("- a", "study is"), ("a: [", "is no YAML file")):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            spec.read("made", tmp_path)


def test_texts_end_where_they_end_in_blocks_of_yaml(tmp_path):
    """A line break at the end of an emphasised question breaks the emphasis."""
    parts = [{"setting": "Here.\n", "not_shown": "More.\n"}]
    write_study(tmp_path, question="Why?\n", setting="There.\n", parts=parts)
    made = spec.read("made", tmp_path)
    assert (made.spec["question"], made.spec["setting"]) == ("Why?", "There.")
    assert (made.parts()[0].setting, made.parts()[0].not_shown) == ("Here.", "More.")


def test_studies_and_scales_that_there_are_not(tmp_path):
    write_study(tmp_path, scales={"cpu": {"seeds": [0]}})
    assert set(spec.names(tmp_path)) == {*STUDIES, "made"}
    with pytest.raises(UsageError, match="no study 'tabel1'; there are ablations, .* Did you mean 'table1'"):
        spec.read("tabel1", tmp_path)
    with pytest.raises(UsageError, match="The study made has no scale 'full'; it has cpu"):
        spec.read("made", tmp_path).jobs("full")


def test_homeostasis_counts_as_much_at_any_feedback_strength():
    """The coefficient times the strength is 30 wherever homeostasis acts; deep networks are as deep as they say."""
    for name in ("rivals", "depth"):
        jobs = {job.label: configuration(*job.words) for job in STUDIES[name].jobs("cpu")}
        acting = {label: cfg for label, cfg in jobs.items() if cfg.homeostasis._target_ != "eqprop.run.build.nothing"}
        assert acting and all("homeostasis" in label or "symmetric" in label for label in acting)
        for cfg in acting.values():
            assert cfg.homeostasis.coefficient * cfg.network.feedback_gain == pytest.approx(30)
    for label, cfg in jobs.items():
        assert [*cfg.network.sizes] == [784, *[128] * int(label[0]), 32] and cfg.epochs == 3
    assert jobs["8-weak-rbp"].estimator._target_.endswith("RecurrentBackprop")


@pytest.mark.parametrize(
    "row, known_gains, reciprocity",
    [
        ("shared", False, "keeps"),
        ("row-known", True, "gauge"),
        ("direction", False, "breaks"),
        ("homeostasis", False, "breaks"),
    ],
)
def test_rows_of_the_mismatch_study_have_the_device_that_they_say(row, known_gains, reciprocity):
    jobs = {job.label: job for job in STUDIES["mismatch_digits"].jobs("cpu")}
    device: Any = instantiate(configuration(*jobs[f"1-{row}"].words, "substrate.chip=1").substrate)
    assert (device.chip, device.parts["mismatch"].sigma) == (1, 1.0)
    assert (device.known_gains, device.reciprocity) == (known_gains, reciprocity)


# Training images


def test_a_run_trains_on_a_subset_of_what_is_not_held_out():
    dataset = _chosen(digits(test_fraction=0.2), configuration(*TINY, "data.validation=288", "data.train_examples=600"))
    kept, held = dataset.train, dataset.validation
    assert held is not None and (len(kept), len(held)) == (600, 288)
    ours, theirs = ({row.tobytes() for row in np.asarray(part.images)} for part in (kept, held))
    assert len(ours) > 500 and not ours & theirs


@pytest.mark.parametrize(
    "words, message",
    [
        *(
            (f"data.train_examples={size}", "data.train_examples is .*from batch_size")
            for size in (0, 299, 1295, 300.5)
        ),
        *((f"data.validation={size}", "data.validation: .*expected a whole number from 1") for size in (0, 1438, 1.5)),
    ],
)
def test_parts_of_a_wrong_size_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        build(configuration(*TINY, words))


# Published figures


def test_null_is_none():
    assert table1_error("N=1", 0.05) is None
    assert table2_accuracy("hEP without homeostasis", "imagenet32") is None
    assert table2_accuracy("RBP with homeostasis", "cifar100") is None
    assert table1_error(None) is None and table2_accuracy(None, "cifar10") is None


def test_published_figures():
    assert table1_error("N=1", 0.5) == Published(38.4, None, "secondary")
    assert table1_error("true derivative", 0.05) == table1_error("true derivative")
    symmetric = table2_accuracy("symmetric hEP N=2 |beta|=1", "imagenet32", top=5)
    assert symmetric is not None and symmetric[:2] == (60.8, 0.4)
    assert Published(38.4, None, "secondary").complement().mean == pytest.approx(61.6)
    assert str(Published(38.4, 0.1, "primary; Table 1: read off")) == "38.4 ± 0.1 (primary)"
    assert str(Published(38.0, None, "secondary")) == "38 (secondary)"


@pytest.mark.parametrize(
    "table, row, column", [("table1", "N=3", None), ("table2", "N=2", "cifar10"), ("table3", "a", "")]
)
def test_what_is_not_published_at_all_is_an_error(table, row, column):
    with pytest.raises(KeyError):
        find(table, row, 0.5, column)


def test_only_figures_of_the_file():
    """Every number that a table can show stands in the JSON file, and the tables show more than dashes."""
    numbers = {float(number) for number in re.findall(r"-?\d+\.?\d*", NUMBERS.read_text(encoding="utf-8"))}
    for name in ("table1", "table2"):
        made = STUDIES[name]
        columns = [column.published for column in made.columns("full").values() if column.published]
        shown = [find(name, row.published, row.beta, column) for row in made.rows.values() for column in columns]
        figures = [figure for figure in shown if figure is not None]
        assert len(figures) >= 4
        assert all(f.mean in numbers and (f.std is None or f.std in numbers) for f in figures)


# Records


def test_records_come_back_and_the_same_ones_make_the_same_bytes(tmp_path):
    made = [record("b", 80.0), record("a", 70.0, seed=1, summary={"test_loss": math.nan}), record("a", missing="why")]
    store.save(tmp_path / "new folder", made)
    found = store.load(tmp_path / "new folder")
    assert [(r.label, r.seed) for r in found] == [("a", 0), ("a", 1), ("b", 0)]
    assert math.isnan(found[1].summary["test_loss"])
    assert found[2] == made[0] and found[0] == made[2]
    data = (tmp_path / "new folder" / store.FILE).read_bytes()
    store.save(tmp_path / "other", [*reversed(made)])
    assert (tmp_path / "other" / store.FILE).read_bytes() == data
    assert store.load(tmp_path / "other" / store.FILE) == store.load(tmp_path / "other") != []
    assert store.load(tmp_path) == []


@pytest.mark.parametrize(
    "data",
    [
        b"no gzip",
        gzip.compress(b'{"label": "a"}\n'),
        gzip.compress(b"{"),
        gzip.compress(b'{"label": "a", "unknown": 1}\n'),
        gzip.compress(b"a" * 1000)[:15],
        gzip.compress(b"\xff\xff"),
    ],
    ids=["no gzip", "a key is missing", "half a line", "an unknown key", "cut short", "no text"],
)
def test_a_damaged_file_of_records_is_named(data, tmp_path):
    (tmp_path / store.FILE).write_bytes(data)
    with pytest.raises(ValueError, match=f"{store.FILE} is damaged .*Fetch it again, .* or delete it"):
        store.load(tmp_path)


def test_a_population_becomes_its_members(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 3\npopulation: 2\n")
    (tmp_path / "environment.json").write_text('{"commit": "abc"}')
    summary = {
        "seeds": [3, 4],
        "test_accuracy": 0.5,
        "cosine_hidden": {"start": 0.1, "end": 0.8},
        "seconds": 9.0,
        "members": {"test_accuracy": [0.4, 0.6], "cosine_hidden": [0.7, None]},
    }
    lines = [{"epoch": 1, "test_accuracy": [0.4, 0.6], "seconds": 2.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(FileNotFoundError, match="the run is not finished"):
        store.read_run(tmp_path, "a")
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    first, second = store.read_run(tmp_path, "a")
    assert (first.seed, second.seed, second.config["seed"], second.config["population"]) == (3, 4, 4, 1)
    assert (first.summary["test_accuracy"], second.summary["test_accuracy"]) == (0.4, 0.6)
    assert first.summary["cosine_hidden"] == {"start": 0.1, "end": 0.7}
    assert math.isnan(second.summary["cosine_hidden"]["end"])
    assert (second.summary["seeds"], second.summary["seconds"]) == ([4], 9.0)
    assert second.metrics == [{"epoch": 1, "test_accuracy": 0.6, "seconds": 2.0}]
    assert second.environment == {"commit": "abc"}


# Processes

CHILD = """
import json, os, signal, sys, time
from pathlib import Path
folder, action = Path(sys.argv[1]), sys.argv[2]
(folder / f"start-{os.getpid()}").write_text(str(time.monotonic()))
if action == "wait":
    def save(number, frame):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(0.4)  # a second signal would end it here
        (folder / f"saved-{os.getpid()}").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    (folder / f"ready-{os.getpid()}").touch()
    time.sleep(60)
time.sleep(0.3)
(folder / f"end-{os.getpid()}").write_text(str(time.monotonic()))
if action == "absent":
    sys.exit("error: Fashion-MNIST: files not found. Fetch them")
if action == "fails":
    sys.exit("text before\\nerror: Unsettled: too many. Raise it")
if action == "dies":
    os._exit(7)
(folder / "arguments.json").write_text(json.dumps([sys.argv, dict(os.environ)]))
"""


@pytest.fixture
def child(tmp_path, monkeypatch):
    """A program without JAX in the place of `eqprop train`; its folder has a blank in it."""
    script, root = tmp_path / "child.py", tmp_path / "run folders"
    script.write_text(CHILD)
    root.mkdir()
    monkeypatch.setattr(schedule, "PROGRAM", (sys.executable, str(script)))
    return root


def jobs(root: Path, *actions: str) -> list[Run]:
    return [Run(action, seed, (str(root), action), root / f"{action}-{seed}") for seed, action in enumerate(actions)]


def test_a_run_that_fails_says_why_and_stops_no_other(child, capsys, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    reasons = {}
    execute(jobs(child, "dies", "fails", "absent", "ends"), child, 2, lambda run, reason: reasons.update({run: reason}))
    assert {run.label: reason for run, reason in reasons.items()} == {
        "dies": "ended with 7",
        "fails": "stopped: Unsettled: too many",
        "absent": "the data set is not at hand",
        "ends": None,
    }
    told = capsys.readouterr().err
    assert f"fails, seed 1: error: Unsettled: too many. Raise it; see {child / '.logs' / 'fails-1.log'}" in told
    words, environment = json.loads((child / "arguments.json").read_text())
    assert words[1:] == [str(child), "ends", "run.slots=2"]
    assert environment["JAX_COMPILATION_CACHE_DIR"] == "mine"


@pytest.mark.parametrize("workers", [1, 2])
def test_no_more_run_at_once_than_there_are_workers(workers, child):
    ended = []
    execute(jobs(child, *["ends"] * 4), child, workers, lambda run, reason: ended.append((run.seed, reason)))
    assert sorted(ended) == [(seed, None) for seed in range(4)]
    times = [
        (float(path.read_text()), change)
        for kind, change in (("start", 1), ("end", -1))
        for path in child.glob(f"{kind}-*")
    ]
    running = [sum(change for _, change in sorted(times)[: k + 1]) for k in range(len(times))]
    assert max(running) <= workers and len(times) == 8


@pytest.mark.skipif(sys.platform == "win32", reason="asking a process to end kills it there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_stops_what_runs_after_it_has_saved(number, child):
    def send():
        while len([*child.glob("ready-*")]) < 2:
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    ended = []
    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(Interrupted, match=f"signal {number}; the runs are saved. The same command goes on") as stop:
        execute(jobs(child, *["wait"] * 3), child, 2, lambda run, reason: ended.append(run))
    thread.join()
    assert stop.value.code == (0 if number == signal.SIGUSR1 else 128 + number)
    assert len([*child.glob("saved-*")]) == len([*child.glob("start-*")]) == 2
    assert ended == []


def test_an_error_in_recording_leaves_no_process_behind(child):
    def fail(run, reason):
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        execute(jobs(child, "ends", "wait"), child, 2, fail)
    pids = [int(path.name.partition("-")[2]) for path in child.glob("start-*")]
    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


# The command line


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], Options()),
        (["scale=full", "workers=3", "dirty=true"], Options(scale="full", workers=3, dirty=True)),
        (["workers=null", "results=null", "redraw=False", "rerun=True"], Options(rerun=True)),
        (["results=~/a b=c", "root=2024"], Options(results="~/a b=c", root="2024")),
        (["label.cifar10=CIFAR-10 (JPEG: 75 %)"], Options(label={"cifar10": "CIFAR-10 (JPEG: 75 %)"})),
        (["label.cifar10='a \"copy\"'"], Options(label={"cifar10": 'a "copy"'})),
    ],
)
def test_words_are_read(words, expected):
    assert parse(words) == expected


@pytest.mark.parametrize(
    "word, message",
    [
        ("scale=quik", "scale=quik: expected quick, cpu, full. Did you mean 'quick'?"),
        ("sclae=cpu", "A study has no key 'sclae'; it has scale, .* Did you mean 'scale'?"),
        ("workers=0", "workers=0: expected a whole number of at least 1, or null"),
        ("workers=two", "workers=two: expected a whole number"),
        ("rerun=yes", "rerun=yes: expected true, false"),
        ("root=null", "root=null: expected a folder"),
        ("results=", "results=: expected a folder"),
        ("label.cifar1O=x", "the data set of a label=cifar1O: expected .*cifar10, .* Did you mean 'cifar10'?"),
    ],
)
def test_words_that_mean_nothing_are_refused(word, message):
    with pytest.raises(UsageError, match=message.removesuffix("?")):
        parse([word])


def test_help_lists_studies_and_every_key_and_its_examples_are_right(capsys):
    cli.main(["study", "--help"])
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in STUDIES)
    assert all(f"\n  {key}=" in shown for key in options._READERS) and "\n  label.DATA " in shown
    examples = re.findall(r"^  eqprop study (\w+) (\w\S*=(?:\"[^\"]*\"|\S+))", shown, re.MULTILINE)
    assert len(examples) == 4
    for name, word in examples:
        assert name in STUDIES and parse([word]) != Options()


def test_a_label_reaches_the_runs_on_its_data_and_no_others():
    asked = Options(label={"cifar10": "CIFAR-10 (it's a JPEG)", "digits": "UCI"})
    for name, expected in (("table2", ["cifar10", "cifar100", "imagenet32"]), ("digits", ["digits"])):
        found = []
        for job in STUDIES[name].jobs("cpu"):
            if job.row in ("n2-with", "with"):
                ((_, words, cfg),) = [*program._configurations(job, asked, None)][:1]
                label = asked.label.get(cfg.data.name, cfg.data.name)
                assert cfg.data.label == label == compose(words).data.label
                found.append(cfg.data.name)
        assert found == expected
