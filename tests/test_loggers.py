"""Loggers besides the files, the real TensorBoard and stand-ins for those that need a server."""

import sys
from types import SimpleNamespace

import pytest

from eqprop.run import loop
from eqprop.run.loggers import LOGGERS, Silent, find_logger, scalars
from eqprop.run.train import run
from runs import as_users_run, compiled_once, programs_folder, tiny

METRICS = {"loss": 0.5, "test_accuracy": [0.25, 0.75]}


class FakeWandb:
    """The calls of Weights & Biases that the logger makes, with their own signatures: any other one fails."""

    def __init__(self):
        self.started, self.logged, self.finished = [], [], 0

    def init(self, *, project: str, name: str, id: str, resume: str, dir: str, config: dict):
        del project, name, dir
        self.started.append({"id": id, "resume": resume, "config": config})
        return self

    def log(self, data: dict, step: int):
        self.logged.append((step, data))

    def finish(self):
        self.finished += 1


class FakeMLflow:
    """The same of MLflow."""

    def __init__(self):
        self.started, self.parameters, self.logged, self.ended = [], [], [], 0

    def set_experiment(self, experiment_name: str):
        assert experiment_name == "eqprop"

    def start_run(self, run_id: str | None = None, *, run_name: str | None = None):
        self.started.append(run_id or run_name)
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    def log_params(self, params: dict):
        self.parameters.append(params)

    def log_metrics(self, metrics: dict, step: int):
        self.logged.append((step, metrics))

    def end_run(self):
        self.ended += 1


def test_members_have_a_number_and_their_mean(tmp_path):
    assert scalars(METRICS) == {
        "loss": 0.5, "test_accuracy/0": 0.25, "test_accuracy/1": 0.75, "test_accuracy": 0.5
    }  # fmt: skip
    logger = find_logger(None)(tmp_path, {})
    assert isinstance(logger, Silent)
    logger.log(1, METRICS)
    logger.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", LOGGERS)
def test_a_missing_package_is_named(name, monkeypatch):
    _, module, packages = LOGGERS[name]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=f"run.logger={name} needs {module}, .*: pip install {packages}"):
        find_logger(name)


def test_an_unknown_logger_is_an_error():
    with pytest.raises(ValueError, match="there are tensorboard, wandb, mlflow"):
        find_logger("tensorbord")


def test_wandb(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    logger = find_logger("wandb")(tmp_path / "digits-1", {"seed": 0})
    logger.log(3, METRICS)
    logger.close()
    (options,) = fake.started
    assert options["id"] == "digits-1" and options["resume"] == "allow" and options["config"] == {"seed": 0}
    assert fake.logged == [(3, scalars(METRICS))] and fake.finished == 1


def test_mlflow_goes_on_in_the_same_run(tmp_path, monkeypatch):
    fake = FakeMLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    for step in (1, 2):
        logger = find_logger("mlflow")(tmp_path, {"network": {"angle": 0}})
        logger.log(step, METRICS)
        logger.close()
    assert fake.started == [tmp_path.name, "abc"] and fake.parameters == [{"network.angle": 0}]
    assert fake.logged == [(1, scalars(METRICS)), (2, scalars(METRICS))] and fake.ended == 2


def test_tensorboard_takes_back_what_a_resumed_run_repeats(tmp_path):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    for first in (1, 2):  # killed after the second epoch was logged, before it was saved
        logger = find_logger("tensorboard")(tmp_path, {})
        for step in range(first, 4 if first == 2 else 3):
            logger.log(step, {"loss": 1 / step})
        logger.close()
    events = _events(tmp_path / "tensorboard")
    restart = next(i for i, event in enumerate(events) if event.session_log.status and event.step == 2)
    kept = {e.step: v.simple_value for e in events[restart:] for v in e.summary.value if v.tag == "loss"}
    assert kept == {2: pytest.approx(1 / 2), 3: pytest.approx(1 / 3)}


def test_a_run_logs_every_epoch(tmp_path, tmp_path_factory):
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    with as_users_run(), compiled_once(programs_folder(tmp_path_factory)):
        run(tiny(tmp_path / "run", "run.logger=tensorboard"))
    found = [(e.step, v.tag) for e in _events(tmp_path / "run" / "tensorboard") for v in e.summary.value]
    assert {step for step, tag in found if tag == "validation_accuracy"} >= {1, 2}


def test_a_missing_logger_stops_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr(loop, "train", None)
    with as_users_run(), pytest.raises(ValueError, match="pip install wandb"):
        run(tiny(tmp_path / "run", "run.logger=wandb"))
    assert not (tmp_path / "run").exists()


def _events(folder):
    from tensorboardX.proto import event_pb2

    events = []
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        content, at = path.read_bytes(), 0
        while at < len(content):  # length, its checksum, the event, its checksum
            size = int.from_bytes(content[at : at + 8], "little")
            events.append(event_pb2.Event.FromString(content[at + 12 : at + 12 + size]))  # pyright: ignore
            at += size + 16
    return events
