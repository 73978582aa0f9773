"""Sweeps: a job that fails or is killed costs only itself, and the same command does what is left."""

import os
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf

from eqprop.run import cli, collect, frame, sweep, train
from eqprop.run.compose import CONFIGS, quoted
from eqprop.run.errors import Interrupted, Unsettled, UsageError
from runs import TINY, command, configuration, finish, programs_folder, start

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return programs_folder(tmp_path_factory)


@pytest.fixture(scope="module")
def swept(tmp_path_factory, cache):
    """Four jobs of the basic launcher, the second of which fails; the same command again."""
    root = tmp_path_factory.mktemp("runs")
    words = command("-m", *TINY, f"run.root={root}", "seed=0,1", "nudged.tol=-1,1e-4")
    return root, finish(start(words, cache)), finish(start(words, cache))


@pytest.mark.slow
def test_a_failing_job_costs_only_itself(swept):
    root, (code, output), _ = swept
    assert code == 1
    assert output.count("error: ValueError: Picard got tol=-1") == 2  # where they happen
    assert "Traceback" not in output
    rows = collect.load(root)
    assert [(row["status"], row["nudged.tol"]) for row in rows] == [("finished", 1e-4)] * 2
    assert sorted(row["seed"] for row in rows) == [0, 1]
    assert list(frame.grouped(pd.DataFrame(rows), collect.differing(rows))["runs"]) == [2]


@pytest.mark.slow
def test_the_same_sweep_again_skips_what_is_finished(swept):
    root, _, (code, output) = swept
    assert code == 1
    assert output.count("is finished already") == 2
    assert "epoch " not in output
    assert {path.name for path in root.iterdir() if not path.name.startswith("digits-")} == {"multirun.yaml"}


def die(**ignored):
    """A data set that kills who reads it."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_job_costs_only_itself(tmp_path, cache, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    words = command("-m", *TINY, f"run.root={tmp_path}", "hydra/launcher=submitit_local", "run.slots=1")
    code, output = finish(start([*words, "data.load._target_=test_sweep.die,eqprop.data.digits"], cache))
    assert code != 0
    deadline = time.monotonic() + 120  # the command ends at the first job that is lost; the others go on
    while not list(tmp_path.glob("*/summary.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    (row,) = collect.load(tmp_path)
    assert (row["status"], row["data.load._target_"]) == ("finished", "eqprop.data.digits"), output
    assert list((tmp_path / ".submitit").glob("*/*_log.out"))


@pytest.mark.slow
def test_joblib(tmp_path, cache):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    words = command("-m", *TINY, f"run.root={tmp_path}", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    words += ["run.slots=2", "seed=0,1", "nudged.tol=-1,1e-4"]
    code, output = finish(start(words, cache))
    assert code == 1 and "Picard got tol=-1" in output
    assert sorted((row["status"], row["seed"]) for row in collect.load(tmp_path)) == [("finished", 0), ("finished", 1)]


@pytest.mark.parametrize("launcher", ["submitit_local", "submitit_slurm", "joblib"])
def test_launchers_keep_their_files_with_the_runs(launcher):
    plugin = launcher.split("_")[0]
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher", reason=f"hydra-{plugin}-launcher is not installed")
    overrides = [f"hydra/launcher={launcher}", "run.root=results"]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides, return_hydra_config=True)
    assert cfg.hydra.sweep.dir == "results" and cfg.hydra.sweep.subdir == "."
    if plugin == "submitit":
        OmegaConf.update(cfg, "hydra.job.name", "train")
        assert cfg.hydra.launcher.submitit_folder == "results/.submitit/%j"


# --- SLURM ---------------------------------------------------------------------------------------


@pytest.fixture
def own_argv(monkeypatch):
    """Hydra reads its words from there."""
    monkeypatch.setattr(sys, "argv", ["eqprop"])


SLURM = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=gpu", "hydra.launcher.gpus_per_node=1")
SLURM += ("hydra.launcher.timeout_min=240", "hydra.launcher.array_parallelism=4")


def test_a_dry_run_prints_the_batch_script_and_writes_nothing(tmp_path, capsys):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    cli.main(
        ["train", "-m", "seed=range(5)", "stencil.beta=0.2,0.4", f"run.root={tmp_path}/my runs", *SLURM, "--dry-run"]
    )
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash\n") and f"'{tmp_path}/my runs/.submitit/%A_%a/" in script
    for asked in ("partition=gpu", "gpus-per-node=1", "array=0-9%4", "time=240"):
        assert f"#SBATCH --{asked}\n" in script
    assert not list(tmp_path.iterdir())
    cli.main(["train", "-m", "seed=0", *SLURM, "--dry-run"])  # one job is no array
    assert "--array" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for sbatch is a shell script")
@pytest.mark.parametrize("seeds", ["seed=range(5)", "seed=0"])
def test_the_script_of_a_dry_run_is_what_sbatch_gets(seeds, tmp_path, monkeypatch, cache, capsys):
    """A stand-in for `sbatch` keeps the file that the launcher submits, and refuses it."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    for name, script in (("srun", ""), ("sbatch", f"cp \"$1\" '{tmp_path}/submitted'\nexit 1\n")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    words = ["-m", seeds, *(["network=dense,hopfield", "network.angle=45"] if "range" in seeds else []), *SLURM]
    words += [f"run.root={tmp_path}/my runs"]
    code, output = finish(start(command(*words), cache))
    assert code == 1, output
    cli.main(["train", *words, "--dry-run"])
    assert capsys.readouterr().out == (tmp_path / "submitted").read_text()


@pytest.mark.parametrize(
    "words, message",
    [
        ("-m seed=0,1", "got hydra/launcher=basic, which submits nothing to SLURM; expected hydra/launcher=submitit_s"),
        ("seed=0", "--dry-run is of a sweep on SLURM; expected -m and hydra/launcher=submitit_slurm"),
        ("-m seed=0,1 hydra/launcher=submitit_slurm hydra.launcher.partiton=gpu", "override 'hydra.launcher.partiton'"),
        ("-m seed=interval(0,1) hydra/launcher=submitit_slurm", "Can only enumerate CHOICE and RANGE sweeps"),
    ],
)
def test_a_dry_run_is_of_a_sweep_on_slurm(words, message, capsys):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--dry-run", *words.split()])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_ctrl_c_while_jobs_run_elsewhere_says_that_they_go_on(monkeypatch, capsys, own_argv):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_hydra", interrupt)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "-m", "seed=0,1"])
    assert stop.value.code == 130 and "Jobs that were submitted go on" in capsys.readouterr().out


def test_a_launcher_that_is_not_at_hand_says_what_to_do(monkeypatch):
    monkeypatch.setattr(sweep.shutil, "which", lambda name: None)
    monkeypatch.setattr(sweep, "version", lambda package: "1.2.0")
    sweep.check_launcher(["seed=0"])
    sweep.check_launcher(["hydra/launcher=submitit_slurm"], dry_run=True)
    with pytest.raises(UsageError, match="needs SLURM, and there is no srun on this machine.*--dry-run"):
        sweep.check_launcher(["hydra/launcher=submitit_slurm"])

    def missing(package):
        raise sweep.PackageNotFoundError(package)

    monkeypatch.setattr(sweep, "version", missing)
    for name, plugin in (("submitit_slurm", "submitit"), ("submitit_local", "submitit"), ("joblib", "joblib")):
        with pytest.raises(UsageError, match=f"launcher={name} needs .*: pip install hydra-{plugin}-launcher"):
            sweep.check_launcher([f"hydra/launcher={name}", "seed=0"], dry_run=True)


def test_a_sweep_of_a_list_of_runs(tmp_path, monkeypatch, own_argv):
    """Each job has the overrides of its own, choices too, with signs and blanks in them."""
    ran = []
    monkeypatch.setattr(train, "run", lambda cfg: ran.append((cfg, list(sys.argv))) or {})
    words = ["network=hopfield", "run.root='a b'", "data.label='a=b, c'", "seed=3"]
    cli.main(["train", "-m", f"run.words=choice([{','.join(map(quoted, words))}])", f"run.root={tmp_path}"])
    ((cfg, command),) = ran
    assert (cfg.seed, cfg.run.root, cfg.data.label, "angle" in cfg.network) == (3, "a b", "a=b, c", False)
    assert command == ["eqprop", "train", *words]


# --- one job -------------------------------------------------------------------------------------


def fails_with(error):
    def run(cfg):
        raise error

    return run


@pytest.mark.parametrize(
    "error, line",
    [
        (ValueError("a\n  setting"), "ValueError: a setting"),
        (OSError(28, "No space"), "OSError: [Errno 28] No space"),
        (Unsettled("too many"), "Unsettled: too many"),
    ],
)
def test_an_error_becomes_a_line(error, line, capsys):
    with pytest.raises(CompactHydraException) as raised:
        sweep.job(configuration(), fails_with(error))
    assert str(raised.value) == line
    assert capsys.readouterr().err.endswith(f"error: {line}\n")


def test_a_mistake_in_the_program_keeps_its_traceback(capsys):
    with pytest.raises(CompactHydraException, match="ZeroDivisionError: division by zero"):
        sweep.job(configuration(), lambda cfg: 1 / 0)
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGUSR1, 0)])
def test_a_signal_ends_the_sweep(number, code):
    with pytest.raises(SystemExit) as stop:
        sweep.job(configuration(), fails_with(Interrupted(number, "stopped")))
    assert stop.value.code == code


def test_shares_are_even_and_never_empty():
    assert sweep.share([0, 1, 2, 3], 0, 2) == [0, 2]
    assert sweep.share([0, 1, 2, 3], 1, 2) == [1, 3]
    assert [sweep.share(["0", "1"], place, 4) for place in range(4)] == [["0"], ["1"], ["0"], ["1"]]


@pytest.fixture
def own_process(monkeypatch):
    """What a job changes in its process, put back."""
    monkeypatch.setattr(sweep, "_held", [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    cores = os.sched_getaffinity(0) if sys.platform == "linux" else None
    yield
    if cores is not None:
        os.sched_setaffinity(0, cores)
    for lock in sweep._held:
        lock.release()


@pytest.mark.skipif(sys.platform != "linux", reason="cores are shared on Linux only")
def test_a_slot_is_one_place_and_its_share(tmp_path, own_process):
    cores = sorted(os.sched_getaffinity(0))
    folder = tmp_path / ".slots"
    folder.mkdir()
    with FileLock(folder / f"{sweep.socket.gethostname()}-0"):  # another process has the first place
        sweep.take_slot(tmp_path, 2)
        sweep.take_slot(tmp_path, 2)  # a process needs no second one
    assert len(sweep._held) == 1
    assert sorted(os.sched_getaffinity(0)) == sweep.share(cores, 1, 2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"


def test_slots_must_be_some(tmp_path, own_process):
    with pytest.raises(ValueError, match=r"run\.slots is 0; expected at least 1"):
        sweep.take_slot(tmp_path, 0)
