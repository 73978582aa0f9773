"""The program: seven commands, help made from the files, group files of one's own, and errors for people."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from eqprop.run import cli, train
from eqprop.run.compose import CONFIGS, groups, own_folder
from eqprop.run.errors import UsageError, fail
from runs import ROOT, TINY, as_users_run, command, finish, programs_folder, start


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return programs_folder(tmp_path_factory)


def test_help_shows_the_commands(capsys):
    cli.main([])
    written = capsys.readouterr().out
    assert all(f"\n  {name}" in written for name in ("train", "study", "collect", "data", "audit", "deploy"))
    cli.main(["--version"])
    assert capsys.readouterr().out.startswith("eqprop ")


def test_help_of_training_shows_every_group_with_a_line_for_each_choice_and_the_main_keys(capsys):
    cli.main(["train", "--help"])
    written = capsys.readouterr().out
    for group, choices in groups().items():
        block = written.partition(f"\n{group}")[2].partition("\n\n")[0].splitlines()[1:]
        assert [line[3:].split()[0] for line in block] == choices
        assert all(len(line.split(maxsplit=1 + (line[1] == "*"))) > 1 for line in block), group
    assert " * sweep" in written and " * finite_nudge" in written and " * digits" in written
    assert "epochs=20" in written and "of parameters and noise" in written and "data.validation=0.1" in written
    cli.main(["audit", "--help"])
    assert "examples=100" in capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in ("train", "audit")])
def test_every_command_has_help(name, capsys):
    try:
        cli.main([name, "--help"])
    except SystemExit as stop:  # of argparse
        assert stop.code == 0
    assert f"usage: eqprop {name}" in capsys.readouterr().out


def test_an_unknown_command_names_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["trian"])
    assert stop.value.code == 2
    assert "there is no command 'trian'" in capsys.readouterr().err.lower()


def test_group_files_of_the_users_own_are_choices_with_all_checks_on(tmp_path, monkeypatch, capsys):
    """In `./configs` or in a folder that is named, with a space in its name."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my configs" / "network"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# A network of my own.\ndefaults: [dense, _self_]\nangle: 30.0\n")
    words = ["network=mine", "seed=3"]
    for place in ("my configs", None):
        if place is None:
            (tmp_path / "my configs").rename(tmp_path / "configs")
        flags, own, given = train.parse([*words, *(["--config-dir", place] if place else [])])
        cfg = train.compose(given, "train", own)
        assert (cfg.network.angle, cfg.seed) == (30.0, 3) and "mine" in groups(own)["network"]
    for wrong, message in (("network=mien", "Did you mean 'mine'?"), ("network=mine network.angel=1", "'angle'")):
        with pytest.raises(SystemExit):
            cli.main(["train", *wrong.split()])
        assert message in capsys.readouterr().err
    cli.main(["train", "--help"])
    assert "mine" in capsys.readouterr().out
    (tmp_path / "configs" / "network" / "dense.yaml").write_text("angle: 1.0\n")
    train.parse([])
    assert "dense.yaml is not used" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="--config-dir nowhere: there is no such folder"):
        own_folder("nowhere")


def test_the_home_folder_is_meant_by_a_tilde(tmp_path, monkeypatch):
    from eqprop.run.record import run_path
    from runs import configuration

    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_path(configuration("run.root='~/runs'")).parent == tmp_path / "runs"
    assert run_path(configuration("run.dir='~/run'")) == tmp_path / "run"


def test_jaxs_own_flags_are_respected_or_refused(monkeypatch):
    from eqprop.run import runtime
    from runs import configuration

    with as_users_run():
        monkeypatch.setenv("JAX_ENABLE_X64", "1")
        runtime.configure(configuration("runtime.x64=true"))
        with pytest.raises(ValueError, match="JAX_ENABLE_X64=1, but runtime.x64=false decides"):
            runtime.configure(configuration())
        monkeypatch.setenv("JAX_ENABLE_X64", "0")
        monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "bfloat16")
        with pytest.raises(ValueError, match="runtime.matmul_precision=highest"):
            runtime.configure(configuration())


# --- errors --------------------------------------------------------------------------------------


def test_an_error_in_the_users_own_code_shows_where(tmp_path, cache):
    (tmp_path / "my_rules.py").write_text(
        "def rule(learning_rate, weight_decay=0.0):\n    return helper()\n\n"
        "def helper():\n    raise ValueError('inner')\n"
    )
    words = command(f"run.root={tmp_path}/runs", "optimiser.rule._target_=my_rules.rule")
    search = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    process = subprocess.run(words, env={**os.environ, "PYTHONPATH": search}, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1
    assert "my_rules.py" in process.stderr and "line 5" in process.stderr
    assert process.stderr.splitlines()[-1] == "error: inner"


def test_an_error_of_the_settings_is_one_line(capsys, monkeypatch):
    def broken():
        raise ValueError("a\n  setting")

    from eqprop.data import Batches, digits

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(ValueError) as raised:
        Batches(digits().train, 0, 0)
    with pytest.raises(SystemExit):
        fail(raised.value)
    assert capsys.readouterr().err.startswith("error: batch_size=0") and "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit):
        fail(raised.value)
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_before_the_first_step_leaves_in_one_line(monkeypatch, capsys):
    def interrupt(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "main", interrupt)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train"])
    assert stop.value.code == 130 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
def test_a_second_request_ends_the_process():
    script = "import os, signal, time\nfrom eqprop.run.runtime import interruptible\n"
    script += (
        "with interruptible() as request:\n    os.kill(os.getpid(), signal.SIGINT)\n    assert request.signal == 2\n"
    )
    script += "    print('asked', flush=True)\n    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(60)\n"
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert process.stdout == "asked\n" and process.returncode == -signal.SIGTERM


def test_an_old_hydra_on_a_new_python_is_said_in_words():
    """What Hydra 1.3 raises on Python 3.14, where argparse looks into the help of an option."""
    with pytest.raises(UsageError, match="need a newer Hydra than .*hydra-core>=1.4"):
        with train.hydra_of_this_python():
            raise ValueError("badly formed help string")
    with pytest.raises(ValueError, match="another"):
        with train.hydra_of_this_python():
            raise ValueError("another")


@pytest.mark.bounded
def test_a_sweep_skips_what_cannot_be_built_and_says_which(tmp_path, cache):
    """`angle` is a setting of one of the networks."""
    words = [word for word in TINY if not word.startswith("network")]
    words = command("-m", *words, "homeostasis=none", "epochs=1", "network=dense,hopfield", "network.angle=45")
    code, output = finish(start([*words, f"run.root={tmp_path}"], cache))
    assert code == 1
    assert "With network=hopfield" in output.replace("estimator=rbp ", "") or "network=hopfield" in output
    assert "has no 'angle'" in output and "Traceback" not in output
    assert len(list(tmp_path.glob("*/summary.json"))) == 1


# --- deploying -----------------------------------------------------------------------------------


@pytest.mark.bounded
def test_a_trained_network_is_measured_on_chips(tmp_path, cache, capsys):
    """Without defects every chip is the network itself; with them, chips differ and the run is unchanged."""
    from eqprop.run import deploy
    from eqprop.run.train import run
    from runs import compiled_once, tiny

    with as_users_run(), compiled_once(cache):
        summary = run(tiny(tmp_path / "a run", "estimator=finite_nudge", "stencil=centred", "network.angle=0.0"))
        before = sorted(path.name for path in (tmp_path / "a run").iterdir())
        deploy.main([str(tmp_path / "a run"), "substrate=ideal", "chips=2"])
        deploy.main([str(tmp_path / "a run"), "substrate=ideal", "chips=3", "split=test",
                     "+substrate.mismatch={_target_: eqprop.substrate.Mismatch, sigma: 0.5}"])  # fmt: skip
        deploy.main([str(tmp_path / "a run"), "substrate=ideal", "chips=1", "epochs=20",
                     "+substrate.mismatch={_target_: eqprop.substrate.Mismatch, sigma: 0.5}"])  # fmt: skip
        for number, words in ((4, ()), (5, ("calibrate=50",))):
            deploy.main([str(tmp_path / "a run"), "substrate=ideal", f"chips={number}", *words,
                         "+substrate.adc={_target_: eqprop.substrate.ADC, bits: 7, low: -4.0, high: 4.0}"])  # fmt: skip
        with pytest.raises(ValueError, match="this substrate has none: add an ADC"):
            deploy.main([str(tmp_path / "a run"), "substrate=ideal", "calibrate=9"])
    written = sorted((tmp_path / "a run" / "deployed").iterdir())
    records = [json.loads(path.read_text()) for path in written if path.suffix == ".json"]
    trained, ideal, rough, coarse, ranged = sorted(records, key=lambda record: record["chips"])
    assert [path.suffix for path in written] == [".json", ".png"] * 5
    # A range of each layer's own resolves more of its error vectors than one that no rate takes.
    assert ranged["calibrate"] == 50 and "calibrate" not in coarse
    assert min(ranged["results"]["cosine_hidden"]) > max(coarse["results"]["cosine_hidden"])
    assert trained["epochs"] == 20 and trained["trained"]["accuracy"][0] > 0.2 + trained["results"]["accuracy"][0]
    assert "epochs" not in ideal and "After 20 epochs on each chip" in capsys.readouterr().out
    assert ideal["results"]["accuracy"] == pytest.approx([summary["validation_accuracy"]] * 2, abs=1e-6)
    assert len(set(rough["results"]["accuracy"])) > 1 and rough["split"] == "test"
    assert sorted(p.name for p in (tmp_path / "a run").iterdir()) == sorted([*before, "deployed"])
    capsys.readouterr()
    for words, message in (
        ([str(tmp_path / "a run")], "no device is named"),
        ([str(tmp_path / "a run"), "substrate=ideal", "network.angle=3"], "network.angle=3 is not of the device"),
        ([str(tmp_path), "substrate=ideal"], "holds no run"),
        ([str(tmp_path / "a run"), "substrate=ideal", "chips=0"], "chips=0: expected"),
        ([str(tmp_path / "a run"), "substrate=ideal", "epochs=x"], "epochs=x: expected a whole number of at least 0"),
    ):
        with pytest.raises(SystemExit):
            cli.main(["deploy", *words])
        assert message in capsys.readouterr().err


# --- the wheel -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    folder = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_package_configurations_and_program_alone(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if ".dist-info/" not in name]
        (entry,) = [file.read(name).decode() for name in file.namelist() if name.endswith("entry_points.txt")]
    assert {name.split("/")[0] for name in names} == {"eqprop"}
    shipped = {name.removeprefix("eqprop/configs/") for name in names if name.startswith("eqprop/configs/")}
    assert shipped == {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")}
    assert "eqprop/run/study/paper_numbers.json" in names and "eqprop/run/study/eqprop.mplstyle" in names
    assert "eqprop = eqprop.run.cli:main" in entry


def test_the_wheel_trains_in_any_folder(wheel, tmp_path, cache):
    """With a space in its name, away from the checkout, composed from the configurations that it brought."""
    site, work = tmp_path / "site", tmp_path / "a folder"
    work.mkdir()
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    words = [*command(*TINY, "epochs=1", "run.root=runs")]
    code, output = finish(start(words, cache, cwd=work, env={**os.environ, "PYTHONPATH": str(site)}))
    assert code == 0, output
    (summary,) = work.glob("runs/*/summary.json")
    environment = json.loads((summary.parent / "environment.json").read_text())
    assert environment["commit"] is None
    assert str(Path(site)) not in output
