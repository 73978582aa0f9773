"""Tables, frames and pages: every number from records, nothing mixed, nothing compared that does not compare."""

import itertools
import math
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eqprop.run.compose import CONFIGS, compose
from eqprop.run.frame import MEASURES, cell, epochs_of, grouped, of_records, results
from eqprop.run.record import settings
from eqprop.run.study import program, records as store, spec, style
from eqprop.run.study.page import NOT_RUN, compare, page, provenance
from eqprop.run.tables import DASH, markdown, spread
from runs import as_users_run
from studies import record, rows, study

RESULTS = CONFIGS.parent / "docs/results"
COMMITTED = sorted(
    path.parent.relative_to(RESULTS) for path in RESULTS.glob("*/*/README.md") if any(path.parent.glob("*.gz"))
)


@pytest.fixture(scope="module", autouse=True)
def _as_users_run():
    with as_users_run():
        yield


def lines(text: str, start: str) -> list[str]:
    """The lines that begin so."""
    return [line for line in text.splitlines() if line.startswith(start)]


# Tables


def test_a_table_escapes_bars_and_sets_numbers_to_the_right():
    text = markdown(["", "|β|", "n"], [["a|b\nc", "–", "1 ± 2"], ["d", "-0.5", ""]])
    assert text == "|  | \\|β\\| | n |\n| --- | ---: | ---: |\n| a\\|b c | – | 1 ± 2 |\n| d | -0.5 |  |\n"
    assert markdown(["a"], []) == "| a |\n| --- |\n"


@pytest.mark.parametrize("values", [[0.8123, 0.82, 0.8451], [0.1, 0.1], [-1.0, 2.0, 5.5, 7.25]])
def test_spread_is_the_mean_and_the_deviation_of_a_sample(values):
    assert spread(values, 2, 100.0) == f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"
    assert (spread(values[:1], 1), spread([], 1)) == (f"{values[0]:.1f}", DASH)


# Frames


def test_a_frame_has_a_row_a_record_and_the_end_of_what_has_an_end():
    frame: Any = of_records([record("with", 80.0, 1), record("without", seed=2, missing="why")])
    assert (
        [*frame["label"]] == ["with", "without"] and [*frame["seed"]] == [1, 2] and [*frame["missing"]] == [None, "why"]
    )
    assert [*frame["data.label"]] == ["digits"] * 2 and [*frame["epochs"]] == [2, 2]
    assert frame["test_accuracy"][0] == 0.8 and frame["test_error"][0] == pytest.approx(0.2)
    assert (frame["cosine_hidden"][0], frame["functional_asymmetry"][0]) == (0.4, 0.01)
    assert frame.loc[1, ["test_accuracy", "seconds"]].isna().all()
    assert all(frame[name].dtype == float for name in MEASURES if name in frame)
    assert len(of_records([])) == 0


def test_results_of_a_population_are_those_of_its_summary():
    assert results({"test_accuracy": 0.5, "members": {"test_accuracy": [0.4, 0.6]}, "data": "digits"}) == {
        "test_accuracy": 0.5,
        "test_error": 0.5,
    }


def test_epochs_have_a_row_each():
    frame: Any = epochs_of([record("with", 80.0, 1), record("without", missing="why")])
    assert len(frame) == 3 and set(frame["label"]) == {"with"} and set(frame["seed"]) == {1}
    assert [*frame["epoch"]] == [0, 1, 2] and [*frame["validation_accuracy"]] == pytest.approx([0, 0.4, 0.8])


def test_grouping_is_what_one_computes_by_hand():
    frame: Any = grouped(of_records(rows()), ["label"])
    assert [*frame["label"]] == ["with", "without"] and [*frame["runs"]] == [3, 3]
    assert [*frame["test_accuracy"]] == pytest.approx([0.81, 0.70])
    assert [*frame["test_accuracy_std"]] == pytest.approx([0.01, 0.0])
    by_two: Any = grouped(of_records(rows()), ["label", "seed"])
    assert [*by_two["runs"]] == [1] * 6 and by_two["test_accuracy_std"].isna().all()
    assert [*by_two["seed"]] == [0, 1, 2] * 2
    (whole,) = grouped(of_records(rows()), []).to_dict("records")
    assert whole["runs"] == 6 and whole["test_accuracy"] == pytest.approx(0.755)
    assert isinstance(frame, pd.DataFrame) and math.isnan(whole["free_steps"])


def test_a_cell_is_in_the_unit_of_its_title():
    frame: Any = of_records(rows())[:3]
    assert cell(frame, "test_accuracy") == "81.00 ± 1.00"
    assert cell(frame, "cosine_hidden") == "0.400 ± 0.000"
    assert cell(frame, "free_steps") == DASH


# Pages


def test_a_page_has_question_provenance_figures_table_comparison_and_what_is_not_shown():
    text = page(study(), "cpu", rows(), {"curves": "What happens; n = 3 seeds."})
    assert text.startswith(
        "# A made study\n\n*Does it do what it says?*\n\nNothing is trained.\n\nScale `cpu`; 6 runs. "
    )
    assert "![What happens; n = 3 seeds.](curves.png)\n\nWhat happens; n = 3 seeds.\n" in text
    assert lines(text, "|") == [
        "|  | test accuracy (%) | hidden cosine | unsettled (%) | n |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| with homeostasis | 81.00 ± 1.00 | 0.400 ± 0.000 | 25.00 ± 0.00 | 3 |",
        "| without | 70.00 ± 0.00 | 0.400 ± 0.000 | 25.00 ± 0.00 | 3 |",
    ]
    assert "with homeostasis minus without: +11.0 ± 1.0 points of test accuracy (n = 3)." in text
    assert "Not shown: The rest.\n" in text and text.endswith(
        "Made by `eqprop study made scale=cpu`; its records are the `*.gz` files beside this page.\n"
    )


def test_parts_have_their_rows_columns_measures_and_words():
    columns = {"a": {"title": "first"}, "b": {"title": "second"}}
    parts = [
        {"title": "One", "setting": "Here.", "rows": ["without"], "columns": ["b"], "measures": ["test_error"]},
        {"title": "Two", "compare": [["a-with", "b-with"]], "not_shown": "That."},
    ]
    found = [record("a-with", 80.0), record("b-with", 75.0), record("b-without", 70.0)]
    text = page(study(columns=columns, parts=parts), "quick", found)
    one, two = text.split("## One\n\nHere.\n\n")[1].split("## Two\n\n")
    assert lines(one, "|") == [
        "|  | second: test error (%) | second: n |",
        "| --- | ---: | ---: |",
        "| without | 30.00 | 1 |",
    ]
    assert lines(two, "| with ")[0].startswith("| with homeostasis | 80.00 | 0.400 | 25.00 | 1 | 75.00 |")
    assert "with homeostasis, first minus with homeostasis, second: +5.0 points of test accuracy (n = 1)." in two
    assert "Not shown: That.\n" in two


def test_comparisons_pair_the_seeds():
    percents = {"with": {0: 85.0, 1: 82.5, 2: 90.0}, "without": {1: 80.0, 2: 84.0, 7: 10.0}}
    found = [record(label, value, seed) for label, of in percents.items() for seed, value in of.items()]
    found += [record("without", seed=0, missing="stopped")]
    gaps = [82.5 - 80.0, 90.0 - 84.0]
    expected = (
        f"with homeostasis minus without: {fmean(gaps):+.1f} ± {stdev(gaps):.1f} points of test accuracy (n = 2)."
    )
    assert compare("with", "without", study(), "cpu", found) == expected
    assert compare("without", "with", study(), "cpu", found) == (
        f"without minus with homeostasis: {-fmean(gaps):+.1f} ± {stdev(gaps):.1f} points of test accuracy (n = 2)."
    )
    assert compare("with", "without", study(), "cpu", [record(seed=0), record("without", seed=1)]) is None


@pytest.mark.parametrize("other", [{"epochs": 50}, {"examples": 5000}, {"data": "copy"}])
def test_a_cell_never_mixes_scales_or_data(other):
    with pytest.raises(ValueError, match=r"with mixes runs: \(epochs, training examples, data\) are "):
        page(study(), "cpu", [record(), record(seed=1, **other)])
    assert "| 2 |" not in page(study(), "cpu", [record(), record("without", **other)])


def test_what_is_missing_says_why():
    found = [
        record("with"),
        record("with", seed=1, missing="stopped: too many"),
        record("without", missing="no | data"),
    ]
    text = page(study(), "cpu", found)
    assert "| with homeostasis | 80.00 | 0.400 | 25.00 | 1 (1 of 2: stopped: too many) |" in text
    assert "| without | no \\| data | – | – | – |" in text
    assert "minus" not in text


@pytest.mark.parametrize("name", spec.names())
def test_every_study_has_a_page_before_anything_has_run(name):
    """It has every row, and claims nothing."""
    made = spec.read(name)
    for scale in spec.SCALES:
        text = page(made, scale, [])
        assert f"Scale `{scale}`: no results yet." in text
        reasons = sum("no record" in line or NOT_RUN in line for line in lines(text, "|"))
        assert reasons == sum(len(part.rows) for part in made.parts())
        assert (" ± standard" in text) == bool(made.rows) and "differs from the reference" not in text


def test_provenance_names_every_commit_machine_and_numerics():
    text = provenance([record(), record(seed=1)], "cpu")
    assert text == (
        "Scale `cpu`; 2 runs. Data: digits. float32 on cpu: cpu (a processor), 1 cores a run; JAX 0.7.2; numerics 2; "
        "commit `0123456789`."
    )
    changed = {"commit": "fedcba9876543210+changes", "devices": ["gpu: H100"] * 4, "processor": "another"}
    several = provenance(
        [record(), record(), record(environment=changed, config={"numerics": 3}), record(missing="why")], "full"
    )
    assert "3 runs" in several and "numerics 2, 3;" in several and "(a processor, another)" in several
    assert "commit `0123456789` (2 runs), `fedcba9876` with uncommitted changes (1 run)." in several
    assert "cpu: cpu, 4 x gpu: H100" in several
    alone = provenance([record(environment={"commit": None}), record(environment={"commit": None})], "cpu")
    assert alone.endswith("commit `unknown`.")
    first = record()
    for name in ("numerics", "seed"):
        first.config.pop(name)
    for name in ("processor", "cores_used"):
        first.environment.pop(name)
    assert "(processor not recorded), all cores" in provenance([first], "cpu")
    assert "numerics not numbered yet" in provenance([first], "cpu")
    assert provenance([record(missing="why")], "quick") == "Scale `quick`: no results yet."
    at = {
        "devices": ["cpu: cpu"],
        "processor": "a processor",
        "cores_used": 2,
        "numerics": 3,
        "commit": "0123456789abc",
    }
    assert provenance([], "cpu", {**at, "versions": {"jax": "0.9"}}) == (
        "Scale `cpu`. Measured on cpu: cpu (a processor), 2 cores; JAX 0.9; numerics 3; commit `0123456789`."
    )


def test_a_page_says_how_often_the_test_images_were_measured():
    once, every = "The test images were measured once", "The test images were measured in every epoch of"
    old = record("without")
    old.summary.pop("measured")
    assert once in page(study(), "cpu", rows()) and every not in page(study(), "cpu", rows())
    assert f"{every} 1 of the 1 runs" in page(study(), "cpu", [old])
    mixed = page(study(), "cpu", [record(), old, record("without", seed=1, missing="why")])
    assert f"{every} 1 of the 2 runs" in mixed and once not in mixed


PUBLISHED = {
    "rows": {"n2": {"title": "N = 2", "published": "N=1", "beta": 0.5}, "own": {"title": "own"}},
    "columns": {"a": {"published": True}, "b": {}},
    "published": "table1",
    "measures": ["test_error"],
    "parts": [{}],
}


def test_a_published_figure_is_compared_at_the_full_scale_alone():
    found = [record("a-n2", percent, seed) for seed, percent in enumerate((60.0, 62.0, 64.0))]
    for scale in ("quick", "cpu"):
        text = page(study(**PUBLISHED), scale, found)
        assert lines(text, "| N = 2")[0].split(" | ")[1:4] == ["38.00 ± 2.00", "3", "38.4 (secondary)"]
        assert "ours" not in text
    text = page(study(**PUBLISHED), "full", found)
    assert f"| 38.4 (secondary); ours -0.4, standard error {2 / 3**0.5:.2f} |" in text
    assert "| 38.4 (secondary); ours +1.6 |" in page(study(**PUBLISHED), "full", found[:1])
    assert "| a: published |" in text and "b: published" not in text
    assert lines(text, "| own")[0].split(" | ")[3] == DASH
    assert "ours" not in page(study(**PUBLISHED), "full", [record("a-n2", missing="why")])


def test_notes_of_a_cell_stand_in_its_row():
    made = study(rows={"with": {"scales": {"cpu": {"note": "one epoch"}}}, "without": {}})
    assert lines(page(made, "cpu", rows()), "| with (one epoch) |")
    assert not lines(page(made, "quick", rows()), "| with (one epoch) |")


def test_what_differs_from_the_reference_is_read_from_configurations():
    reference = ["estimator=rbp"]
    base = settings(compose(reference))
    longer = {**base, "epochs": 7, "data": {**base["data"], "train_examples": 100, "label": "copy"}}
    wide = {**longer, "network": {**base["network"], "sizes": [64, 8, 10]}, "numerics": base["numerics"]}
    without = {key: value for key, value in longer.items() if key != "warm_start"}
    made = study(reference=reference, columns={"a": {"title": "first"}, "b": {}}, parts=[{}])
    found = [
        record("a-with", config=longer),
        record("a-without", config=wide, seed=1),
        record("b-with", config=without),
        record("b-without", config=base, missing="why"),
    ]
    text = page(made, "cpu", found)
    assert "What differs from the reference setting, `estimator=rbp`, in the runs of each column:" in text
    assert "- first: epochs = 7 (20); data.train_examples = 100 (None)." in text
    assert "- b: epochs = 7 (20); warm_start = absent (0); data.train_examples = 100 (None)." in text
    assert "- first: nothing." in page(made, "cpu", [record("a-with", config=base)])


def test_a_dozen_lines_differ_in_two_of_colour_dash_and_marker():
    looks = [(s["color"], str(s["linestyle"]), s["marker"] + s.get("markerfacecolor", "")) for s in style.STYLES]
    assert len(looks) == 12
    assert all(sum(map(str.__ne__, a, b)) >= 2 for a, b in itertools.combinations(looks, 2))


# What is committed


def regenerated(made: spec.Study, scale: str, folder: Path) -> str:
    """The page from the records in its folder, with every figure drawn in memory."""
    text, drawn = program.made(made, scale, folder, store.load(folder))
    for figure in drawn.values():
        figure.canvas.draw()
    return text


@pytest.mark.parametrize("path", COMMITTED, ids=str)
def test_committed_pages_are_made_by_their_records(path):
    name, scale = path.parts
    assert regenerated(spec.read(name), scale, RESULTS / path) == (RESULTS / path / "README.md").read_text(
        encoding="utf-8"
    )
    pictures = {file.stem for file in (RESULTS / path).glob("*.png")}
    assert pictures == set(program.draw(spec.read(name), scale, RESULTS / path, store.load(RESULTS / path))[0])


def test_a_written_page_is_made_by_its_records(tmp_path):
    store.save(tmp_path, rows())
    program.write(study(), "cpu", tmp_path, store.load(tmp_path))
    text = (tmp_path / "README.md").read_bytes().decode()
    assert text == regenerated(study(), "cpu", tmp_path) and "\r" not in text
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    first = (tmp_path / "curves.png").read_bytes()
    program.write(study(), "cpu", tmp_path, store.load(tmp_path))
    assert (tmp_path / "curves.png").read_bytes() == first


def test_a_figure_whose_module_is_not_at_hand_is_left_out(tmp_path, capsys):
    made = study(draw="experiments.paper.absent")
    program.write(made, "cpu", tmp_path, rows())
    assert "note: a figure is left out. This study needs experiments.paper.absent" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == page(made, "cpu", rows(), {"curves": CAPTION})


CAPTION = "What happens. Thick lines are means, thin lines the runs; n = 3 seeds."
