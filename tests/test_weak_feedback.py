"""The study of weak feedback: its jobs, its sentences from records, its page and its figures. Nothing is trained."""

import re

import numpy as np
import pytest
from experiments.paper.study import NOT_RUN, SCALES, Record, configuration
from experiments.paper.weak_feedback import CIFAR, GAINS, PARTS, STRENGTH, figure, jobs, readme_figure, report
from experiments.paper.words import answer, standing

from experiments.paper import weak_feedback
from runs import ROOT, as_users_run


@pytest.fixture(autouse=True)
def _as_users_run():
    with as_users_run():
        yield


def record(label="x", percent=80.0, seed=0, missing=None, data="fashion_mnist", epochs=2):
    """A made record."""
    config = {
        "epochs": epochs, "seed": seed, "data": {"train_examples": None, "label": data},
        "network": {"feedback_gain": 0.25}, "homeostasis": {"coefficient": 120.0},
    }  # fmt: skip
    if missing is not None:
        return Record(label, config, {}, [], {}, missing)
    environment = {"precision": "float32", "devices": ["cpu"], "cores": 2, "commit": "abc", "versions": {"jax": "1"}}
    layers = {f"cosine_{name}": 0.1 * index for index, name in enumerate([*(f"l{n}" for n in range(1, 9)), "out"], 1)}
    metrics = [
        {"epoch": epoch, "test_accuracy": percent * epoch / 100 / epochs, "nudged_steps": 10.0 + seed, **layers}
        for epoch in range(epochs + 1)
    ]
    summary = {
        "test_accuracy": percent / 100, "unsettled_fraction": 0.02, "free_steps": 6.0, "seconds": 30.0,
        "cosine_hidden": {"start": 0.0, "end": 0.97}, "functional_asymmetry": {"start": 0.5, "end": 0.01},
    }  # fmt: skip
    return Record(label, config, environment, metrics, summary, None)


def made(scale="cpu"):
    """Records of every job: EP with homeostasis is 3, 4 and 5 points behind RBP, EP alone 20 points."""
    behind = {"homeostasis": 3.0, "alone": 20.0, "rbp": 0.0}
    records = {}
    for job in jobs(scale):
        kind = job.label.rpartition("-")[2]
        extra = 1.0 if kind == "homeostasis" else 0.0
        epochs = next((int(o[7:]) for o in job.overrides if o.startswith("epochs=")), 3)
        records[job.label] = [
            record(job.label, 90 - behind.get(kind, 50) - extra * seed, seed, epochs=epochs) for seed in job.seeds
        ]
    records[CIFAR] = [record(CIFAR, 42.0, data="CIFAR-10 (JPEG)", epochs=1)]
    return records


def test_jobs_compose():
    for scale in SCALES:
        todo = jobs(scale)
        assert {job.label for job in todo} == {label for part in PARTS for label in part.rows}
        assert len({job.label for job in todo}) == len(todo)
        for job in todo:
            assert re.fullmatch(r"[a-z0-9.-]+", job.label)
            cfg = configuration(job.overrides)
            rbp = job.label.endswith("rbp")
            assert cfg.estimator._target_.endswith("RecurrentBackprop") == rbp
            if job.label == CIFAR:
                continue
            strength = STRENGTH if job.label.endswith("homeostasis") else 0.0
            assert cfg.homeostasis.coefficient * cfg.network.feedback_gain == pytest.approx(strength)
            if job.label.startswith("depth"):
                depth = int(job.label[5])
                assert cfg.network.sizes == [784, *[128] * depth, 32] and cfg.network.feedback_gain == GAINS[depth]
                assert cfg.epochs == (1 if scale == "quick" else 3)
    assert [job.seeds for job in jobs("cpu")] == [(0, 1, 2)] * 12 + [(0,)]
    assert all(configuration(job.overrides).data.train_examples == 2000 for job in jobs("quick"))


def test_standing():
    rbp = [record(percent=85.0, seed=seed) for seed in (0, 1, 2)]
    ours = [record(percent=percent, seed=seed) for seed, percent in enumerate((82.5, 82.1, 81.7))]
    assert standing(ours, rbp, "RBP") == "2.9 ± 0.4 points behind RBP"
    assert standing(rbp, ours, "EP") == "2.9 ± 0.4 points ahead of EP"
    assert standing(ours[:1], rbp, "RBP") == "2.5 points behind RBP (one seed)"
    assert standing([record(percent=86.0), record(percent=84.5, seed=1)], rbp, "RBP") == (
        "level with RBP within one standard deviation (+0.2 ± 1.1 points)"
    )
    stopped = [record(missing="stopped"), *ours[1:]]
    assert standing(stopped, rbp, "RBP") == "3.1 ± 0.3 points behind RBP"
    assert standing(ours[:1], rbp[1:], "RBP") == "without a seed in common with RBP"
    assert answer({"a": ours, "b": [record(missing="stopped")]}, ["a", "b"], lambda a, b: "") == (
        "No answer yet (b: stopped)."
    )


def test_report():
    page = report(made(), "cpu")
    assert "At 8 hidden layers EP with homeostasis is 4.0 ± 1.0 points behind RBP, where EP alone is 20.0 ± 0.0" in page
    assert "with homeostasis (0.10 in l1, the layer aligned least)" in page
    assert "The test accuracy is 42.0 % after one epoch" in page
    assert "After 6 epochs, EP with homeostasis at gain 0.2" in page
    row = (
        "| CIFAR-10 (JPEG), EP with homeostasis | 0.25 | 120 | 1 | 1 | 42.00 | 2.0 | 6.0 | 10.0 | 0.970 | 0.010 | 30 |"
    )
    assert row in page
    assert page.count("commit abc") == len(PARTS) and "make weak-feedback SCALE=cpu" in page


@pytest.mark.parametrize("scale", SCALES)
def test_report_without_results(scale, tmp_path):
    """A page can be made before anything has run, and has every row."""
    nothing = {job.label: [Record(job.label, {}, {}, [], {}, NOT_RUN)] for job in jobs(scale)}
    page = report(nothing, scale)
    assert page.count(f"| {NOT_RUN} |") == len(nothing) and "no results yet" in page and "No answer yet" in page
    figure(nothing, tmp_path / "depth.png")
    assert (tmp_path / "depth.png").stat().st_size > 0


def test_absent_data_is_named():
    records = {**made(), CIFAR: [record(missing="data not found: CIFAR-10 (JPEG)", data="CIFAR-10 (JPEG)")]}
    page = report(records, "cpu")
    assert "| CIFAR-10 (JPEG), EP with homeostasis | – | – | – | 0 | data not found: CIFAR-10 (JPEG) | – |" in page


def test_figures(tmp_path):
    records = made()
    records["depth8-alone"][0] = record(missing="stopped", seed=0)
    for name, make in (("both", figure), ("deepest", readme_figure)):
        make(records, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    panels = weak_feedback.draw(weak_feedback.depths(records)).axes
    assert [panel.get_title() for panel in panels[:2]] == ["4 hidden layers", "8 hidden layers"]
    assert [np.size(line.get_xdata()) for line in panels[2].lines] == [5] * 3 + [9] * 3


def test_makefile_has_the_study():
    text = (ROOT / "Makefile").read_text()
    assert re.search(r"^weak-feedback: .*##", text, re.MULTILINE)
    assert "experiments.paper.weak_feedback $(STUDY)" in text
