"""Records are JSON for every reader, whatever the numbers in them are."""

import json
import math

import pytest

from eqprop.run import curve, record
from eqprop.run.record import RunFolder, read_metrics, read_summary, to_json
from eqprop.run.train import run
from runs import tiny

NAN, INF = math.nan, math.inf


def strict(text):
    """What a reader takes that knows JSON and nothing else."""

    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("number", [NAN, INF, -INF])
def test_what_is_not_finite_is_written_as_null_at_any_depth(number):
    content = {"a": number, "b": [1.5, number, (number, "NaN")], "c": {"d": [{"e": number}]}, "f": [0, True, None]}
    expected = {"a": None, "b": [1.5, None, [None, "NaN"]], "c": {"d": [{"e": None}]}, "f": [0, True, None]}
    assert strict(to_json(content)) == strict(to_json(content, indent=2)) == expected


def test_a_run_folder_holds_json_and_gives_nan_back(tmp_path):
    with RunFolder(tiny(tmp_path)) as folder:
        folder.begin({"commit": None, "number": INF})
        folder.write_metrics([{"epoch": 1, "functional_asymmetry": [0.5, NAN]}, {"epoch": 2, "loss": INF}])
        folder.write_json(record.SUMMARY, {"functional_asymmetry": {"start": NAN, "end": 0.5}, "data": "digits"})
    for name in ("environment.json", record.SUMMARY):
        strict((tmp_path / name).read_text())
    lines = (tmp_path / record.METRICS).read_text().splitlines()
    assert [strict(line) for line in lines] == [
        {"epoch": 1, "functional_asymmetry": [0.5, None]},
        {"epoch": 2, "loss": None},
    ]
    first, second = read_metrics(tmp_path)
    assert first["functional_asymmetry"][0] == 0.5 and math.isnan(first["functional_asymmetry"][1])
    assert second["epoch"] == 2 and math.isnan(second["loss"])
    summary = read_summary(tmp_path)
    assert summary is not None and math.isnan(summary["functional_asymmetry"]["start"])
    assert summary["data"] == "digits" and read_summary(tmp_path / "nowhere") is None


def test_a_finished_run_with_undefined_numbers_is_drawn_and_shown_again(tmp_path, capsys):
    cfg = tiny(tmp_path)
    with RunFolder(cfg) as folder:
        folder.begin({})
        folder.write_metrics([{"epoch": epoch, "accuracy": 0.5, "cosine_hidden": [NAN, 0.5]} for epoch in (1, 2)])
        numbers = ("test_accuracy", "test_loss", "unsettled_fraction", "test_unsettled_fraction", "bounded_fraction")
        asymmetry = {"functional_asymmetry": {"start": NAN, "end": NAN}}
        folder.write_json(record.SUMMARY, {**dict.fromkeys(numbers, NAN), **asymmetry, "seconds": 1.0})
    assert curve.learning_curve(tmp_path) is not None
    run(cfg)
    assert "functional asymmetry     nan at the start, nan at the end" in capsys.readouterr().out
