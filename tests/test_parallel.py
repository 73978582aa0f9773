"""Several devices and several processes compute what one does. Each case is a run of its own, in float64."""

import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

RUN = [sys.executable, "-m", "eqprop", "train", "epochs=1", "batch_size=40", "runtime.x64=true"]
SMALL = [
    "network.sizes=[64,24,16]",
    "evaluation.alignment_examples=8",
    "estimator=tangent",
    "data.load.test_fraction=0.9",
    "data.validation=20",
]
# Sums over examples are split among devices: their order, and so the last bits, differ.
ROUNDING = 1e-10


def environment(devices):
    return {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}


@contextmanager
def runs(*cases):
    """Processes side by side, one for each `(folder, devices, arguments)`; none outlives the block."""
    with ExitStack() as stack:
        processes = []
        for folder, devices, arguments in cases:
            small = [word for word in SMALL if "network" not in word or not any("network=" in a for a in arguments)]
            command = [*RUN, *small, f"run.dir='{folder}'", *arguments]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
            process = stack.enter_context(subprocess.Popen(command, env=environment(devices), **pipes))
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def finish(*cases):
    with runs(*cases) as processes:
        for process in processes:
            output, _ = process.communicate(timeout=400)
            assert process.returncode == 0, output


def metrics(folder):
    _, line = (folder / "metrics.jsonl").read_text().splitlines()  # before training, and after an epoch of it
    return {name: np.asarray(value) for name, value in json.loads(line).items() if name != "seconds"}


def assert_equal(ours, expected):
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=ROUNDING, err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One run on one device, and a population of two on one device."""
    folders = [tmp_path_factory.mktemp(name) / "run" for name in ("lone", "population")]
    finish((folders[0], 1, []), (folders[1], 1, ["population=2"]))
    return [metrics(folder) for folder in folders]


@pytest.mark.slow
def test_a_batch_on_four_devices_and_a_population_on_two_by_two_equal_one_device(tmp_path, alone):
    folders = [tmp_path / "a batch", tmp_path / "a population"]
    finish((folders[0], 4, []), (folders[1], 4, ["population=2"]))
    for folder, expected in zip(folders, alone, strict=True):
        assert_equal(metrics(folder), expected)
        assert len(json.loads((folder / "environment.json").read_text())["devices"]) == 4


@pytest.mark.slow
def test_two_processes_over_loopback_equal_one(tmp_path, alone):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path / "run"
    address = f"coordinator_address: '127.0.0.1:{port}', num_processes: 2"
    finish(*((folder, 2, [f"runtime.distributed={{{address}, process_id: {index}}}"]) for index in range(2)))
    assert_equal(metrics(folder), alone[0])
    summary = json.loads((folder / "summary.json").read_text())
    np.testing.assert_allclose(summary["validation_accuracy"], alone[0]["validation_accuracy"], rtol=0, atol=ROUNDING)
    assert "test_accuracy" in summary


CONV = ["network=conv", "network.channels=[3,4]", "homeostasis=skew", "homeostasis.share=0.5"]


@pytest.mark.slow
def test_a_convolutional_network_on_four_devices_and_in_two_processes_equals_one_device(tmp_path):
    """Its batch is split; probes of homeostasis and shares of the batch are those of one device."""
    folders = [tmp_path / name for name in ("one", "four", "two")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"coordinator_address: '127.0.0.1:{port}', num_processes: 2"
    finish((folders[0], 1, CONV), (folders[1], 4, CONV))
    finish(*((folders[2], 2, [*CONV, f"runtime.distributed={{{address}, process_id: {i}}}"]) for i in range(2)))
    for folder in folders[1:]:
        assert_equal(metrics(folder), metrics(folders[0]))


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with runs((tmp_path / "run", 3, [])) as (process,):
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and "A batch of 40 does not divide among 3 devices" in output
