"""Loggers besides the files, the real TensorBoard and stand-ins for those that need a server."""

import sys
from types import SimpleNamespace

import pytest

from experiments import loop
from experiments.loggers import LOGGERS, Silent, find_logger, scalars
from experiments.train import run
from runs import as_users_run, compiled_once, programs_folder, tiny

METRICS = {"loss": 0.5, "test_accuracy": [0.25, 0.75]}


class Fake:
    """A module that notes what is called."""

    def __init__(self, name=""):
        self.calls, self.name = [], name
        self.info = SimpleNamespace(run_id="abc")

    def __getattr__(self, name):
        def call(*arguments, **options):
            self.calls.append((name, arguments, options))
            return self

        return call

    def named(self, name):
        return [(arguments, options) for called, arguments, options in self.calls if called == name]


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
    fake = Fake()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    logger = find_logger("wandb")(tmp_path / "digits-1", {"seed": 0})
    logger.log(3, METRICS)
    logger.close()
    ((_, options),) = fake.named("init")
    assert options["id"] == "digits-1" and options["resume"] == "allow" and options["config"] == {"seed": 0}
    assert fake.named("log") == [((scalars(METRICS),), {"step": 3})]
    assert len(fake.named("finish")) == 1


def test_mlflow_goes_on_in_the_same_run(tmp_path, monkeypatch):
    fake = Fake()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    for step in (1, 2):
        logger = find_logger("mlflow")(tmp_path, {"network": {"angle": 0}})
        logger.log(step, METRICS)
        logger.close()
    assert fake.named("start_run") == [((), {"run_name": tmp_path.name}), ((), {"run_id": "abc"})]
    assert fake.named("log_params") == [(({"network.angle": 0},), {})]
    assert [options["step"] for _, options in fake.named("log_metrics")] == [1, 2]
    assert len(fake.named("end_run")) == 2


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
    assert {step for step, tag in found if tag == "test_accuracy"} >= {1, 2}


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
