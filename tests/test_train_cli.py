"""Training from the command line: records, kills, signals, full disks, wrong data, populations."""

import errno
import json
import os
import random
import shutil
import signal
import sys
import time

import jax
import numpy as np
import pytest
from omegaconf import OmegaConf

from eqprop.run import audit, checkpoint, curve, loop, record
from eqprop.run.checkpoint import DamagedCheckpoint
from eqprop.run.errors import Interrupted, Unsettled
from eqprop.run.train import run
from runs import (
    PER_EPOCH,
    STEPS,
    TINY,
    as_users_run,
    command,
    compiled_once,
    configuration,
    finish,
    outcome,
    programs_folder,
    start,
    tiny,
)

EACH_STEP = "run.checkpoint_minutes=0"

SABOTAGE = """
import os, signal, sys
from eqprop.run import checkpoint, cli, loop

kind, at = sys.argv.pop(1), int(sys.argv.pop(1))
calls = 0

def before(function, act, counts=lambda *arguments: True):
    def replacement(*arguments):
        global calls
        calls += counts(*arguments)
        if calls == at and counts(*arguments):
            act(*arguments)
        return function(*arguments)
    return replacement

def cut_and_die(number):
    os.ftruncate(number, os.fstat(number).st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)

is_step = lambda path, *ignored: "step-" in str(path)
is_checkpoint = lambda number: "step-" in os.readlink(f"/proc/self/fd/{number}")
if kind == "SIGKILL before naming":
    checkpoint.os.replace = before(os.replace, lambda *ignored: os.kill(os.getpid(), signal.SIGKILL), is_step)
elif kind == "SIGKILL while writing":
    checkpoint.os.fsync = before(os.fsync, cut_and_die, is_checkpoint)
else:
    number = getattr(signal, kind)
    loop.batch_key = before(loop.batch_key, lambda *ignored: os.kill(os.getpid(), number))
cli.main(["train", *sys.argv[1:]])
"""
"""Start a training that meets a mishap at its nth save or step."""


@pytest.fixture(autouse=True)
def _as_users_run():
    with as_users_run():
        yield


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    folder = programs_folder(tmp_path_factory)
    with compiled_once(folder):
        yield folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    """A run that nothing interrupts, in a folder with a space; its exit code and output."""
    folder = tmp_path_factory.mktemp("runs") / "a run with spaces"
    return folder, *finish(start(command(*TINY, EACH_STEP, f"run.dir='{folder}'"), cache))


@pytest.fixture(scope="module")
def broken(tmp_path_factory, cache, whole):
    """The same run, with a mishap in every process but the last; what each returned, in which state it left the run."""
    folder = tmp_path_factory.mktemp("runs") / "broken"
    arguments = [*TINY, EACH_STEP, f"run.dir={folder}"]
    stages = {}
    mishaps = [
        ("SIGKILL before naming", 2),
        ("SIGKILL while writing", 2),
        ("SIGTERM", 1),
        ("SIGUSR1", 2),
        ("SIGINT", 1),
    ]
    for kind, at in mishaps:
        process = start([sys.executable, "-c", SABOTAGE, kind, str(at), *arguments], cache)
        stages[kind] = (*finish(process), sorted(path.name for path in (folder / "checkpoints").iterdir()))
    before = set((folder / "checkpoints").iterdir())
    process = start(command(*arguments), cache)
    while set((folder / "checkpoints").iterdir()) <= before and process.poll() is None:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.02))
    process.kill()
    stages["SIGKILL at random"] = (*finish(process), sorted(path.name for path in (folder / "checkpoints").iterdir()))
    stages["last"] = (*finish(start(command(*arguments), cache)), [])
    return folder, stages


# --- records -------------------------------------------------------------------------------------


def test_a_run_leaves_its_records(whole):
    folder, code, output = whole
    assert code == 0, output
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "checkpoints", "config.yaml", "environment.json", "learning_curve.png", "metrics.jsonl", "report.html",
        "summary.json",
    }  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.keys() >= {
        "test_accuracy", "test_loss", "cosine_hidden", "functional_asymmetry", "unsettled_fraction", "seconds"
    }  # fmt: skip
    assert summary["cosine_hidden"].keys() == summary["functional_asymmetry"].keys() == {"start", "end"}
    assert summary["cosine_hidden"]["end"] == pytest.approx(1)  # recurrent backpropagation is the true gradient
    assert 0 <= summary["test_accuracy"] <= 1 and summary["unsettled_fraction"] == 0 and summary["seconds"] > 0
    assert f"{summary['test_accuracy']:.2%}" in output
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in records] == [0, 1, 2]
    assert records[-1]["validation_accuracy"] == summary["validation_accuracy"]
    assert not [name for entry in records for name in entry if name.startswith("test_")]  # measured once, at the end
    saved = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert saved == record.settings(tiny(folder))
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["jax"] == jax.__version__
    assert environment["precision"] == "float32"
    assert environment["data_sha256"]
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["best.eqx", f"step-{STEPS - 1:09d}.eqx", f"step-{STEPS:09d}.eqx"]


def test_output_without_a_terminal_is_a_line_an_epoch(whole):
    _, _, output = whole
    assert "\r" not in output
    assert [line.split()[1] for line in output.splitlines() if line.startswith("epoch ")] == ["1/2", "2/2"]


def test_a_folder_is_named_by_the_configuration(tmp_path):
    first, again = (configuration(*TINY, f"run.root={tmp_path}", *o) for o in ([], ["run.keep=5"]))
    other = configuration(*TINY, f"run.root={tmp_path}", "seed=1")
    assert record.run_path(first) == record.run_path(again) == tmp_path / f"digits-{record.config_hash(first)}"
    assert record.run_path(other) != record.run_path(first)


def test_a_finished_run_is_not_run_again(whole, capsys, monkeypatch):
    folder, *_ = whole
    monkeypatch.setattr("eqprop.run.build.build", None)  # nothing is built, no data read
    summary = run(tiny(folder))
    assert "is finished already; run.overwrite=true starts it again" in capsys.readouterr().out
    assert summary == json.loads((folder / "summary.json").read_text())


def test_another_configuration_is_refused_and_told_apart(whole):
    folder, *_ = whole
    before = outcome(folder)
    with pytest.raises(ValueError, match=r"it differs in batch_size, optimiser\.learning_rate\)"):
        run(tiny(folder, "optimiser.learning_rate=0.1", "batch_size=200"))
    assert outcome(folder) == before


def test_one_folder_takes_one_process(whole, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder)
    with record.RunFolder(tiny(folder)):
        with pytest.raises(ValueError, match="Another process is running in"):
            run(tiny(folder, "run.overwrite=true"))
        assert (folder / "summary.json").exists()
    record.RunFolder(tiny(folder)).close()


def test_overwriting_starts_again(whole, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole[0], folder)
    with record.RunFolder(tiny(folder, "run.overwrite=true", "seed=1")) as opened:
        assert opened.restore(None) is None
    assert {path.name for path in folder.iterdir()} == {".lock", "checkpoints", "environment.json"}


def test_a_missing_matplotlib_costs_only_the_picture(whole, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert curve.learning_curve(whole[0]) is None
    assert "pip install matplotlib" in capsys.readouterr().err


# --- kills and signals ---------------------------------------------------------------------------


@pytest.mark.bounded
def test_kills_at_any_moment_change_nothing(whole, broken):
    folder, stages = broken
    for kind in ("SIGKILL before naming", "SIGKILL while writing", "SIGKILL at random"):
        assert stages[kind][0] == -signal.SIGKILL, stages[kind][1]
    code, output, _ = stages["last"]
    assert code == 0, output
    assert "resuming" in output
    arrays, records, summary = outcome(folder)
    expected_arrays, expected_records, expected_summary = outcome(whole[0])
    assert arrays == expected_arrays
    assert records == expected_records
    assert summary == expected_summary
    assert not list(folder.rglob("*.partial"))


@pytest.mark.bounded
def test_a_kill_inside_a_save_leaves_the_one_before(broken):
    _, stages = broken
    assert stages["SIGKILL before naming"][2] == [".step-000000002.eqx.partial", "step-000000001.eqx"]
    assert stages["SIGKILL while writing"][2][0] == ".step-000000003.eqx.partial"
    assert stages["SIGKILL while writing"][2][-1] == "step-000000002.eqx"
    assert "resuming" in stages["SIGKILL while writing"][1] and "batch 2" in stages["SIGKILL while writing"][1]


@pytest.mark.bounded
@pytest.mark.parametrize("kind, code, last", [("SIGTERM", 143, 3), ("SIGUSR1", 0, 5), ("SIGINT", 130, 6)])
def test_a_signal_finishes_the_step_and_saves(broken, kind, code, last):
    _, stages = broken
    returned, output, saved = stages[kind]
    assert returned == code, output
    assert "The same command goes on from there." in output
    assert saved[-1] == f"step-{last:09d}.eqx"


def test_a_signal_in_the_last_step_lets_the_run_finish(tmp_path, monkeypatch):
    key, sent = loop.batch_key, []

    def last(seed, epoch, number):
        if epoch == 1 and number == PER_EPOCH and not sent:  # a second one would end the process
            sent.append(signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return key(seed, epoch, number)

    monkeypatch.setattr(loop, "batch_key", last)
    assert run(tiny(tmp_path / "run"))["epochs"] == 2


def test_handlers_are_put_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)

    class Stop:
        def log(self, step, metrics):
            os.kill(os.getpid(), signal.SIGUSR1)

        def close(self):
            pass

    with pytest.raises(Interrupted, match=f"Stopped by signal {int(signal.SIGUSR1)}") as stop:
        run(tiny(tmp_path / "run"), logger=Stop())
    assert stop.value.code == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == before
    assert f"Interrupted: Stopped by signal {int(signal.SIGUSR1)}" in (tmp_path / "run" / record.STOPPED).read_text()
    assert not (tmp_path / "run" / record.SUMMARY).exists()


# --- damage --------------------------------------------------------------------------------------


def interrupted(whole, folder):
    """A copy of the finished run as it was before it wrote its summary."""
    shutil.copytree(whole[0], folder)
    (folder / record.SUMMARY).unlink()
    return sorted((folder / "checkpoints").glob("step-*.eqx"))


def test_a_damaged_checkpoint_is_reported_and_the_one_before_used(whole, tmp_path, capsys):
    before, newest = interrupted(whole, tmp_path / "run")
    newest.write_bytes(newest.read_bytes()[:-100])
    run(tiny(tmp_path / "run", EACH_STEP))
    written = capsys.readouterr()
    assert f"warning: {newest} is damaged" in written.err and f"set aside as {newest.stem}.unreadable" in written.err
    assert newest.with_suffix(".unreadable").exists()
    assert "at epoch 2, batch 4" in written.out
    assert outcome(tmp_path / "run") == outcome(whole[0])


def test_without_a_checkpoint_that_can_be_read_a_run_starts_again_and_says_so(whole, tmp_path, capsys):
    """And what it then saves is kept: it neither sorts before what cannot be read, nor is dropped as the oldest."""
    for path in interrupted(whole, tmp_path / "run"):
        path.write_bytes(path.read_bytes()[:-100])
    run(tiny(tmp_path / "run", EACH_STEP))
    assert "can be read; starting again" in capsys.readouterr().err
    assert outcome(tmp_path / "run") == outcome(whole[0])
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.unreadable"))) == 2


def test_a_checkpoint_of_another_configuration_is_not_used(whole, tmp_path, capsys):
    interrupted(whole, tmp_path / "run")
    (tmp_path / "run" / record.CONFIG).unlink()  # as if it were lost
    with record.RunFolder(tiny(tmp_path / "run", "seed=1")) as folder:
        state = folder.restore(jax.tree.map(lambda leaf: leaf, _like(tmp_path)))
    assert state is None
    assert capsys.readouterr().err.count("is of another configuration") == 2


def _like(tmp_path):
    from eqprop.run import runtime
    from eqprop.run.build import build

    cfg = tiny(tmp_path / "run")
    runtime.configure(cfg)
    task = build(cfg)
    programs = loop.Programs(cfg, task)
    state = programs.initial(0)
    return state, programs.zeros(state, next(task.batches.epoch(0)))


def test_a_full_disk_stops_the_run_and_keeps_what_there_was(whole, tmp_path, monkeypatch):
    *_, newest = interrupted(whole, tmp_path / "run")
    before, kept = newest.read_bytes(), newest.with_name(f"step-{STEPS - 1:09d}.eqx")
    newest.unlink()

    def full(*ignored):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "replace", full)
        with pytest.raises(OSError, match="could not be written .No space left on device"):
            run(tiny(tmp_path / "run", EACH_STEP))
    assert kept.exists() and not newest.exists() and not list((tmp_path / "run").rglob("*.partial"))
    run(tiny(tmp_path / "run", EACH_STEP))
    assert newest.read_bytes().split(b"\n", 1)[1][:-32] == before.split(b"\n", 1)[1][:-32]
    assert outcome(tmp_path / "run") == outcome(whole[0])


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"The run folder .*file/run cannot be written .*; choose another run\.dir"):
        record.RunFolder(tiny(tmp_path / "file" / "run"))


# --- data ----------------------------------------------------------------------------------------


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


def write_mnist(folder, side=28, label=9):
    folder.mkdir()
    for split, size in (("train", 12), ("t10k", 6)):
        labels = np.arange(size, dtype=np.uint8) % 10
        labels[0] = label
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx(np.zeros((size, side, side), np.uint8)))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels))


@pytest.mark.parametrize(
    "fault, message",
    [
        ("missing", "MNIST"),
        ("corrupt", "train-images-idx3-ubyte"),
        ("shape", r"images of shape \[27, 27\]|27"),
        ("network", "expects 65"),
        ("label", "labels run from .* to 10"),
    ],
)
def test_wrong_data_is_said_before_anything_is_written(fault, message, tmp_path):
    root = tmp_path / "data"
    if fault != "missing":
        write_mnist(root, side=27 if fault == "shape" else 28, label=10 if fault == "label" else 9)
    if fault == "corrupt":
        path = root / "train-images-idx3-ubyte"
        path.write_bytes(path.read_bytes()[:-5])
    inputs = 65 if fault == "network" else 784
    overrides = [
        "data=mnist",
        f"data.root={root}",
        "batch_size=4",
        f"network.sizes=[{inputs},12,10]",
        "data.validation=2",
    ]
    with pytest.raises((ValueError, OSError), match=message):
        run(tiny(tmp_path / "outputs" / "run", *overrides))
    assert not (tmp_path / "outputs").exists()


def test_the_command_line_says_it_in_one_line(tmp_path, cache):
    words = command("data=mnist", f"data.root={tmp_path}/nothing", f"run.root={tmp_path}/outputs")
    code, output = finish(start(words, cache))
    assert code == 1
    assert output.startswith("error: ") and output.count("\n") == 1
    assert not list(tmp_path.iterdir())


# --- settling and populations --------------------------------------------------------------------


def test_a_relaxation_that_does_not_settle_stops_the_run(tmp_path):
    cfg = tiny(tmp_path / "run", "nudged.max_steps=1", "max_unsettled=0.1")
    with pytest.raises(Unsettled, match=r"In epoch 1, 100\.0% .* allows 10\.0%\. Give the relaxation more"):
        run(cfg)
    assert "Unsettled: In epoch 1" in (tmp_path / "run" / record.STOPPED).read_text()
    with pytest.raises(Unsettled):  # and again, without another epoch
        run(cfg)
    assert len((tmp_path / "run" / record.METRICS).read_text().splitlines()) == 2


@pytest.mark.slow
def test_members_of_a_population_equal_lone_runs(tmp_path):
    both = run(tiny(tmp_path / "both", "population=2", "runtime.x64=true"))
    assert both["seeds"] == [0, 1]
    records = [json.loads(line) for line in (tmp_path / "both" / record.METRICS).read_text().splitlines()]
    for seed in (0, 1):
        run(tiny(tmp_path / str(seed), f"seed={seed}", "runtime.x64=true"))
        _, alone, _ = outcome(tmp_path / str(seed))
        for member, lone in zip(records, alone, strict=True):
            for name in lone.keys() - {"epoch"}:
                assert member[name][seed] == pytest.approx(lone[name], abs=1e-9), name
    assert both["test_accuracy"] == pytest.approx(np.mean(both["members"]["test_accuracy"]))
    # A sweep's jobs share a process: the next one is in float32 again.
    run(tiny(tmp_path / "after"))
    assert json.loads((tmp_path / "after" / "environment.json").read_text())["precision"] == "float32"
    with pytest.raises(DamagedCheckpoint, match="another model"):
        checkpoint.load(tmp_path / "after" / "checkpoints" / "best.eqx", _double(_like(tmp_path)))


def _double(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64) if leaf.dtype == np.float32 else leaf, tree)


# --- audit ---------------------------------------------------------------------------------------


def test_a_trained_network_is_audited_from_its_checkpoint(whole):
    """Not the network as it was made; another model is refused."""
    trained = whole[0] / "checkpoints" / "best.eqx"
    words = [*TINY, "estimator=finite_nudge", "examples=5", f"checkpoint='{trained}'"]

    def asymmetry(*overrides):
        table = audit.run(configuration(*overrides, name="audit"))
        (row,) = [line for line in table.splitlines() if line.startswith("| asymmetry")]
        return float(row.split("|")[2])

    assert abs(asymmetry(*words) - asymmetry(*words[:-1])) > 0.01
    with pytest.raises(ValueError, match="checkpoint=.* holds another model"):
        asymmetry(*words, "network.sizes=[64,11,10]")
    with pytest.raises(ValueError, match="splits finite nudges, not RecurrentBackprop"):
        asymmetry(*TINY, "examples=5")
