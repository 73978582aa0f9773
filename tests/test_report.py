"""The report of a run: what it says of the records, and what it adds of the network."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from eqprop.run import cli, report, show
from eqprop.run.train import run
from runs import as_users_run, tiny
from studies import record


@pytest.fixture(scope="module", autouse=True)
def _as_users_run():
    with as_users_run():
        yield


def leave(folder: Path, *, summary: dict | None = None, **changes: float) -> Path:
    """The files of a made run, whose last epoch measured `changes`."""
    made = record()
    metrics = [*made.metrics[:-1], {**made.metrics[-1], "unsettled_fraction": 0.0, "cosine_hidden": 0.9, **changes}]
    folder.mkdir()
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create({**made.config, "norm_bound": 1.0})))
    (folder / "environment.json").write_text(json.dumps(made.environment))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def parts(path: Path) -> list[ElementTree.Element]:
    """The figures of a page, which are well-formed and need no other file."""
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!#)', text.replace("xlink:href", "href").replace('href="http', 'named="'))
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def test_a_report_of_records_alone(tmp_path):
    folder = leave(tmp_path / "a <run>", summary={**record().summary, "test_accuracy": 0.8125})
    path = report.write(folder)
    text = path.read_text(encoding="utf-8")
    assert "<h1>a &lt;run&gt;</h1>" in text and "Finished after epoch 2" in text
    assert "<th>test accuracy (%)</th><td>81.25</td>" in text
    assert "<th>data.label</th><td>digits</td>" in text and "<th>versions.jax</th><td>0.7.2</td>" in text
    assert [figure.get("role") for figure in parts(path)] == ["img", "img"]
    assert all("cosine" in (figure.get("aria-label") or "").lower() or "epoch" in figure.get("aria-label", "")
               for figure in parts(path))  # fmt: skip
    assert "warning" not in text.partition("</style>")[2]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"unsettled_fraction": 0.25}, "25.0% of the training examples did not settle in the last epoch"),
        ({"validation_unsettled_fraction": 0.03}, "3.0% of the validation examples did not settle"),
        ({"cosine_hidden": 0.25}, "Hidden error vectors have a cosine of 0.25 to the true ones"),
        ({"bounded_fraction": 0.75}, "75% of the error vectors were shortened to norm_bound=1.0"),
        ({"skipped_steps": 0.01}, "1.0% of the steps of the last epoch had no gradient"),
    ],
)
def test_warnings_are_words(changes, words):
    (said,) = report.warnings(None, [{"cosine_hidden": 0.9, **changes}], {"norm_bound": 1.0})
    assert said.startswith(words)


def test_a_model_that_was_better_before_is_said():
    records = [{"epoch": 2, "validation_accuracy": 0.75}]
    settings = {"evaluation": {"measure": "last"}}
    (said,) = report.warnings({"best_validation_accuracy": 0.8}, records, settings)
    assert said.startswith("The last model is 0.050 below the best by validation (0.800)")
    assert not report.warnings({"best_validation_accuracy": 0.76}, records, settings)
    assert not report.warnings({"best_validation_accuracy": 0.8}, records, {"evaluation": {"measure": "best"}})


def test_a_report_without_its_network_says_why(tmp_path, capsys):
    """No checkpoint is left, or the data set is not at hand: the records are shown all the same."""
    cfg = tiny(tmp_path / "run")
    folder = leave(tmp_path / "run")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    cli.main(["show", str(folder)])
    assert capsys.readouterr().out.splitlines()[-1] == str(folder / "report.html")
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "Not finished: running, or ended without a word, after epoch 2." in text
    assert f"The trained network is not shown: {folder} has no checkpoint best.eqx; there are none." in text


@pytest.mark.parametrize(
    "arguments, words", [(["nowhere"], "nowhere holds no run"), (["a", "b"], "the folder of one run; it got 2: a b")]
)
def test_what_is_no_run_is_refused(arguments, words, capsys):
    with pytest.raises(SystemExit):
        cli.main(["show", *arguments])
    assert words in capsys.readouterr().err


def test_a_run_and_its_network(tmp_path):
    """Training leaves a report; `show` adds the network, whose counts are those of the validation images."""
    cfg = tiny(tmp_path / "run", "epochs=1")
    run(cfg)
    folder = tmp_path / "run"
    assert "Confusion" not in (folder / "report.html").read_text(encoding="utf-8")
    drawings = {drawing.title: drawing for drawing in show.of_network(folder)}
    path = show.show(folder)
    assert [*drawings] == ["Confusion", "Relaxation of single images", "Spectrum"]
    assert all(f"<h2>{title}</h2>" in path.read_text(encoding="utf-8") for title in drawings)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert f"on 200 images; {records[-1]['validation_accuracy']:.1%} are right" in drawings["Confusion"].caption
    (image,) = drawings["Confusion"].figure.axes[0].get_images()
    shares = np.asarray(image.get_array())
    assert shares.shape == (10, 10) and np.allclose(shares.sum(axis=1), 1)
    assert drawings["Relaxation of single images"].caption.count("settled") == 3
