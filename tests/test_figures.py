"""The figures of the studies: they draw what they are given, label their axes, and their jobs compose."""

import json

import numpy as np
import pytest
from experiments.paper.drawing import Arguments, Entry, Missing
from experiments.paper.study import SCALES, Record

from experiments.paper import (
    angles,
    bias_split,
    conv_curves,
    curves,
    drawing,
    figures,
    homeostasis_curves,
    loop,
    nudge_error,
    settling,
    trained,
)
from runs import configuration

CURVES = {
    "epochs": [0, 1, 2],
    "curves": {
        label: {name: [[0.1, 0.2, 0.3], [0.2, 0.2, 0.4]] for name, *_ in curves.PANELS} for label in curves.CURVES
    },
}
MADE = {
    "nudge_error": {
        "radii": [0.1, 1.0],
        "points": [1, 2],
        "errors": {name: {"median": [[0.1, 0.5], [0.01, None]]} for name in ("float64", "float32")},
        "tolerances": {"float32": 1e-5},
        "error_norm_median": 0.5,
        "map": {"axis": [-1.0, 0.0, 1.0], "settled": [[1.0, 0.5, 0.0]] * 3},
    },
    "angles": {"angles": [0, 90], "accuracy": {method: [[80, 70], [81, 72]] for method in angles.METHODS}},
    "homeostasis_curves": CURVES,
    "loop": CURVES,
    "conv_curves": CURVES,
    "bias_split": {
        "runs": {
            label: {"epochs": [0, 1], "parts": dict.fromkeys(bias_split.PARTS, [1.0, 0.1])} for label in bias_split.RUNS
        }
    },
    "settling": {
        "budgets": [1, 10],
        "quantiles": [0.5, 0.9],
        "tol": 1e-4,
        "limit": 150,
        "kinds": {
            name: {"residuals": [[1.0, 0.1], [None, 0.5]], "steps": [10, 20], "unsettled_fraction": 0.1}
            for name in settling.KINDS
        },
    },
}


@pytest.mark.parametrize("module", figures.MODULES, ids=lambda module: module.ENTRY.name)
def test_a_figure_is_drawn_from_plain_numbers_and_labels_its_axes(module):
    picture = module.ENTRY.draw(MADE[module.ENTRY.name], Arguments())
    picture.canvas.draw()
    for axis in picture.axes:
        assert axis.get_ylabel()
        assert axis.get_xlabel() or axis.get_label() == "<colorbar>"


def test_the_data_label_is_in_the_title():
    picture = conv_curves.draw(MADE["conv_curves"], Arguments(data_label="CIFAR-10 (JPEG q75)"))
    assert "CIFAR-10 (JPEG q75)" in picture.get_suptitle()


@pytest.mark.parametrize("scale", SCALES)
def test_the_jobs_compose_at_every_scale(scale):
    labelled = conv_curves.jobs(scale, "CIFAR-10 (JPEG q75)")
    for jobs in (angles.jobs(scale), homeostasis_curves.jobs(scale), loop.jobs(scale), labelled):
        assert len({job.label for job in jobs}) == len(jobs)
        for job in [jobs[0], jobs[-1]]:
            assert job.seeds
            cfg = configuration(*job.overrides)
            assert cfg.homeostasis is None or "_target_" in cfg.homeostasis
    assert configuration(*labelled[0].overrides).data.label == "CIFAR-10 (JPEG q75)"
    for overrides in (trained.BRIEF[scale], *(bias_split.overrides(label, scale) for label in bias_split.RUNS)):
        configuration(*overrides)
    for module in (nudge_error, settling):
        assert scale in module.SIZES


def test_a_figure_is_written_with_its_data_and_drawn_again_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, "FIGURES", tmp_path)
    monkeypatch.setattr(drawing, "PROGRAMS", tmp_path / "programs")
    data = {**MADE["angles"], "odd": np.array([1.0, np.nan])}
    assert drawing.make(Entry("angles", lambda _: data, angles.draw), Arguments("quick"))
    written = json.loads((tmp_path / "quick" / "angles.json").read_text())
    assert written["odd"] == [1.0, None]
    assert drawing.make(angles.ENTRY, Arguments("quick", redraw=True))
    assert sorted(path.suffix for path in (tmp_path / "quick").iterdir()) == [".json", ".pdf", ".png"]


def test_a_figure_without_its_data_says_why(capsys):
    absent = {"with": [Record("with", {}, {}, [], {}, "data not found: cifar10")]}

    def compute(arguments: Arguments):
        return drawing.present(absent)

    assert not drawing.make(Entry("conv_curves", compute, conv_curves.draw), Arguments("quick"))
    assert "skipped, with: data not found: cifar10" in capsys.readouterr().out
    with pytest.raises(Missing):
        drawing.present({"with": []})
