"""Figures of studies: each kind draws from records, labels its axes, shows every run and says how many there are."""

import math
from statistics import fmean, stdev
from typing import Any

import pytest

from eqprop.run.study import figures, style
from eqprop.run.study.figures import KINDS, cosines, draw, epochs
from eqprop.run.study.records import Record
from eqprop.run.study.spec import KINDS as NAMES, names, read
from experiments.paper import idea
from studies import record, rows, study

SWEEP = {"key": "network.angle", "title": "angle (degrees)", "cpu": [0, 90]}
MADE = {"curves": rows(), "layers": rows(), "rows": rows()}
MADE["points"] = [r._replace(label=f"{x}-{r.label}") for x in (0, 90) for r in rows()]


def figure_of(kind: str, records: list[Record], **asked: Any) -> tuple[Any, str]:
    sweep = {"sweep": SWEEP} if kind == "points" else {}
    made = study(figures={"made": {"kind": kind, "caption": "What happens. ", **asked}}, parts=[], **sweep)
    return draw(made, "cpu", records)["made"]


def seen(axis: Any) -> list[list[float]]:
    """The heights of every line that is drawn."""
    return [[float(y) for y in line.get_ydata()] for line in axis.lines]


def test_a_file_can_ask_for_every_kind():
    assert tuple(KINDS) == NAMES == tuple(figures.SPREAD)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_and_labels_its_axes(kind):
    figure, caption = figure_of(kind, MADE[kind])
    figure.canvas.draw()
    for axis in figure.axes:
        assert axis.get_xlabel()
        assert axis.get_ylabel() or [label.get_text() for label in axis.get_yticklabels()] == [
            "with homeostasis",
            "without",
        ]
    assert caption.startswith("What happens. ") and caption.endswith("; n = 3 seeds.")


def test_curves_show_the_mean_and_every_run():
    figure, _ = figure_of("curves", rows(), panels=["accuracy", "cosine_hidden"])
    accuracy, cosine = figure.axes
    assert accuracy.get_ylabel() == "validation accuracy (%)" and accuracy.get_xlabel() == "epoch"
    mean, *runs = accuracy.lines[:4]
    assert [*mean.get_xdata()] == [1, 2] and [*mean.get_ydata()] == pytest.approx([40.5, 81])  # not chance
    assert [run.get_ydata()[-1] for run in runs] == pytest.approx([80, 81, 82])
    assert all(run.get_linewidth() < mean.get_linewidth() / 2 for run in runs)
    assert len(accuracy.lines) == 8
    legend = accuracy.get_legend()
    assert legend is not None and [t.get_text() for t in legend.get_texts()] == ["with homeostasis", "without"]
    assert cosine.get_legend() is None and seen(cosine)[0] == pytest.approx([0, 0.2, 0.4])


def test_a_single_run_is_one_line_and_one_seed():
    figure, caption = figure_of("curves", [record("with"), record("without", seed=4)])
    assert len(figure.axes[0].lines) == 2 and caption.endswith("n = 1 seed.")


def test_curves_of_several_columns_are_panels_and_what_is_missing_is_left_out():
    columns = {"a": {"title": "first"}, "b": {"title": "second"}}
    made = study(columns=columns, parts=[], figures={"c": {"kind": "curves", "caption": "C."}})
    found = [record("b-with", seed=seed) for seed in (0, 1)] + [record("b-without"), record("a-with", missing="why")]
    figure: Any
    figure, caption = draw(made, "cpu", found)["c"]
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("first", "second")
    assert len(first.lines) == 0 and len(second.lines) == 3 + 1 + 0
    assert first.get_legend() is None and second.get_legend() is not None
    assert caption == "C. Thick lines are means, thin lines the runs; n = 1 to 2 seeds."


def test_points_have_a_mean_a_deviation_and_every_run():
    figure, caption = figure_of("points", MADE["points"], panels=["test_accuracy", "cosine_hidden"])
    axis = figure.axes[0]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("angle (degrees)", "test accuracy (%)")
    assert [*axis.get_xticks()] == [0, 90]
    bars = axis.containers[0]
    assert [*bars[0].get_xdata()] == [0, 90] and [*bars[0].get_ydata()] == pytest.approx([81, 81])
    low, high = bars[2][0].get_segments()[0][:, 1]
    assert (low, high) == pytest.approx((81 - stdev([80, 81, 82]), 81 + stdev([80, 81, 82])))
    dots = [line for line in axis.lines if line.get_marker() == "."]
    assert len(dots) == 4 and [*dots[0].get_ydata()] == pytest.approx([80, 81, 82])
    assert "Bars are one standard deviation" in caption


def test_rows_lie_one_below_the_other():
    figure, _ = figure_of("rows", rows(), panels=["test_accuracy"])
    axis = figure.axes[0]
    means = [line for line in axis.lines if line.get_marker() != "|"]
    assert [float(line.get_xdata()[0]) for line in means] == pytest.approx([81, 70])
    assert [line.get_ydata()[0] for line in means] == [0, 1]
    marks = [line for line in axis.lines if line.get_marker() == "|"]
    assert [*marks[0].get_xdata()] == pytest.approx([80, 81, 82])
    assert axis.get_ylim()[0] > axis.get_ylim()[1]


def test_layers_go_from_the_input_to_the_output_with_a_place_for_each():
    figure, _ = figure_of("layers", rows())
    assert seen(figure.axes[0])[0] == pytest.approx([0.3, 0.5, 0.9])
    lines = [{"epoch": 1, "cosine_hidden": 0.5} | {f"cosine_l{k}": k / 10 for k in (10, 2, 1)} | {"cosine_out": 1.0}]
    made = record()._replace(metrics=lines)
    assert [*cosines(made)] == ["l1", "l2", "l10", "out"]
    residual = ["stem", "stage1_1a", "stage1_1b", "stage2_1a", "out"]
    found = {"cosine_hidden": 0.5, "cosine_hidden_median": 0.5} | {f"cosine_{name}": 1.0 for name in residual[::-1]}
    assert [*cosines(made._replace(metrics=[{"epoch": 1, **found}]))] == residual
    assert cosines(made._replace(metrics=[{"epoch": 1, "loss": 0.5}])) == {}


def test_accuracy_of_older_runs_is_that_of_test_images():
    lines = [{"epoch": 0, "test_accuracy": 0.1}, {"epoch": 1}, {"epoch": 2, "test_accuracy": 0.3}]
    assert epochs(record()._replace(metrics=lines), "accuracy", 100.0) == {2: 30}  # not the chance of epoch 0
    lines[2]["validation_accuracy"] = 0.2
    assert epochs(record()._replace(metrics=lines), "accuracy")[2] == 0.2


def test_without_results_there_is_no_figure():
    assert draw(study(), "cpu", [record(missing="why"), record("without", missing="why")]) == {}
    assert draw(study(), "cpu", []) == {}


@pytest.mark.parametrize("name", names())
def test_the_figures_of_every_study_are_drawn_from_made_records(name):
    made = read(name)
    found = [record(job.label, seed=seed) for job in made.jobs("cpu") for seed in job.seeds[:2]]
    drawn = draw(made, "cpu", found)
    assert [*drawn] == [*made.spec.get("figures", {})]
    for figure, caption in drawn.values():
        assert " n = " in caption and any(len(axis.lines) for axis in figure.axes)


def test_gaps_are_gaps_and_means_are_means():
    figure, axes = style.canvas()
    axis: Any = axes[0]
    style.line(axis, [0, 1, 2], [1.0, None, 3.0], 0)
    assert math.isnan(seen(axis)[0][1])
    style.points(axis, [0, 1], [[1.0, 3.0], []], 1)
    assert float(axis.containers[0][0].get_ydata()[0]) == fmean([1, 3])
    assert math.isnan(axis.containers[0][0].get_ydata()[1])
    figure.canvas.draw()


@pytest.mark.parametrize(
    "ns, words", [([], "no runs"), ([3, 3], "n = 3 seeds"), ([1], "n = 1 seed"), ([1, 3, 2], "n = 1 to 3 seeds")]
)
def test_the_number_of_runs_is_said(ns, words):
    assert style.counted(ns) == words


def test_the_idea_is_drawn_of_the_records_of_digits():
    found = rows()
    drawn, captions = idea.draw(found), idea.captions(found)
    assert [*drawn] == [*captions] == ["idea"] and captions["idea"].endswith("n = 3 seeds.")
    sketch, cosine, accuracy = drawn["idea"].axes
    drawn["idea"].canvas.draw()
    assert len(sketch.patches) > 5
    for axis in (cosine, accuracy):
        assert axis.get_xlabel() == "epoch" and axis.get_ylabel() and len(axis.lines) == 8
