"""Trainings of a minute that must reach an accuracy: the whole program, from configuration to summary."""

import pytest

from eqprop.data import fashion_mnist
from eqprop.run.train import run
from runs import as_users_run, configuration

DENSE = ("experiment=fashion_mnist_best", "epochs=2", "data.train_examples=6000", "data.validation=1000")
CONV = (
    "experiment=cifar10_weak",
    "data=fashion_mnist",
    "network.channels=[8,16]",
    "epochs=1",
    "batch_size=50",
    "data.train_examples=3000",
    "data.validation=500",
    "evaluation.alignment_examples=20",
)


@pytest.fixture(autouse=True)
def _as_users_run():
    try:
        fashion_mnist()
    except FileNotFoundError:
        pytest.skip("Fashion-MNIST is not at hand: apt install dataset-fashion-mnist")
    with as_users_run():
        yield


@pytest.mark.bounded
def test_nudges_with_homeostasis_learn_fashion_mnist(tmp_path):
    """6,000 images twice: measured at 80 % of test images; backpropagation in the same network reaches about 82 %."""
    summary = run(configuration(*DENSE, f"run.dir='{tmp_path}/run'"))
    assert summary["test_accuracy"] >= 0.76
    assert summary["cosine_hidden"]["end"] > 0.9 > 0.2 > abs(summary["cosine_hidden"]["start"])
    assert summary["unsettled_fraction"] < 0.05


@pytest.mark.bounded
def test_a_convolutional_network_learns_fashion_mnist(tmp_path):
    """3,000 images once, from independent feedback kernels with weak feedback."""
    summary = run(configuration(*CONV, f"run.dir='{tmp_path}/run'"))
    assert summary["test_accuracy"] >= 0.60
    assert summary["unsettled_fraction"] < 0.05
