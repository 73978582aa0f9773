"""Tables beside the published figures: nothing invented, nothing mixed, nothing run twice."""

import csv
import json
import re

import pytest
from experiments.paper.published import Published, table1_error, table2_accuracy
from experiments.paper.study import NOT_RUN, SCALES, Job, Record, as_curves, as_rows, configuration, load_study
from experiments.paper.tables import Entry, Row, accuracy, cell, check_one_scale, error, markdown, provenance, write_csv
from omegaconf import OmegaConf

from eqprop.data import Split, digits
from eqprop.run import train
from eqprop.run.build import _held_out, _subset, build
from eqprop.run.loop import Unsettled
from eqprop.run.record import run_path, settings
from experiments.paper import ablations, best, study, table1, table2
from runs import ROOT, TINY, as_users_run

STUDIES = (table1, table2, ablations, best)


@pytest.fixture(autouse=True)
def _as_users_run():
    with as_users_run():
        yield


def record(percent=80.0, seed=0, epochs=2, examples=None, label="data", missing=None):
    """A made record."""
    config = {"epochs": epochs, "seed": seed, "data": {"train_examples": examples, "label": label}}
    environment = {"precision": "float32", "devices": ["cpu"], "cores": 2, "commit": None, "versions": {"jax": "1"}}
    summary = {"test_accuracy": percent / 100, "unsettled_fraction": 0.25}
    return Record("x", config, environment, [], {} if missing else summary, missing)


# The published figures


def test_null_is_none():
    assert table1_error("N=1", 0.05) is None
    assert table2_accuracy("hEP without homeostasis", "imagenet32") is None
    assert table2_accuracy("RBP with homeostasis", "cifar100") is None
    assert table1_error(None) is None and table2_accuracy(None, "cifar10") is None


def test_published_figures():
    assert table1_error("N=1", 0.5) == Published(38.4, None, "secondary")
    assert table1_error("true derivative", 0.05) == table1_error("true derivative")
    symmetric = table2_accuracy("symmetric hEP N=2 |beta|=1", "imagenet32", top=5)
    assert symmetric is not None and symmetric[:2] == (60.8, 0.4)
    assert Published(38.4, None, "secondary").complement().mean == pytest.approx(61.6)
    with pytest.raises(KeyError):
        table1_error("N=3", 0.5)


def test_only_figures_of_the_file():
    """Every number that a table can show stands in the JSON file."""
    text = (ROOT / "experiments/paper/paper_numbers.json").read_text()
    numbers = {float(number) for number in re.findall(r"-?\d+\.?\d*", text)}
    shown = [table1_error(line.published, line.beta) for line in table1.lines()]
    shown += [table2_accuracy(line.published, data) for line in table2.LINES for data in table2.DATA]
    assert any(shown)
    for figure in filter(None, shown):
        assert figure.mean in numbers and (figure.std is None or figure.std in numbers)


# Tables


def test_mean_and_deviation():
    made = cell(Entry([record(80), record(82), record(84)]), error)
    assert made.mean == pytest.approx(18) and made.std == pytest.approx(2) and made.seeds == 3
    assert made.unsettled == pytest.approx(25) and made.missing is None and made.difference is None
    assert cell(Entry([record(80)]), accuracy).std is None


@pytest.mark.parametrize(
    ("published", "flag"),
    [
        (Published(82.0, None, "secondary"), ""),
        (Published(90.0, None, "secondary"), "≠"),
        (Published(86.5, 2.0, "primary"), ""),  # 4.5 within 2 √(2² + 2²)
        (Published(76.3, 0.1, "primary"), "≠"),
        (None, ""),
    ],
)
def test_flag(published, flag):
    entry = Entry([record(p) for p in (80, 82, 84)] if flag == "" else [record(p) for p in (81, 82, 83)], published)
    assert cell(entry, accuracy).flag == flag


def test_flag_without_any_deviation():
    assert cell(Entry([record(80)], Published(99.0, None, "secondary")), accuracy).flag == "?"


def test_missing_cells(tmp_path):
    rows = [
        Row("a", {"one": Entry([record(80), record(missing="stopped")], Published(80.5, None, "secondary; quoted"))}),
        Row("b", {"two": Entry([record(missing="data not found: cifar100")], Published(51.1, None, "secondary"))}),
    ]
    page = markdown(rows, accuracy, "accuracy")
    assert "80.00 (n = 1; 1 of 2 seeds: stopped) | 2 | 25.0 | 80.5 (secondary) | -0.5 ?" in page
    assert "data not found: cifar100 | – | – | 51.1 (secondary) | –" in page
    assert len({line.count("|") for line in page.splitlines()}) == 1
    write_csv(rows, accuracy, tmp_path / "table.csv")
    with open(tmp_path / "table.csv") as file:
        lines = list(csv.DictReader(file))
    assert lines[1]["mean"] == "" and lines[1]["published"] == "51.1"
    assert provenance([record(missing="stopped")], "cpu") == "Scale `cpu`: no results yet."
    assert "2 epochs, all training images, seeds 0" in provenance([record()], "cpu")


@pytest.mark.parametrize("other", [{"epochs": 50}, {"examples": 5000}, {"label": "copy"}])
def test_scales_do_not_mix(other):
    with pytest.raises(ValueError, match="mixes scales"):
        cell(Entry([record(), record(**other)]), accuracy)
    rows = [Row("a", {"one": Entry([record()])}), Row("b", {"one": Entry([record(**other)])})]
    with pytest.raises(ValueError, match="The column 'one' mixes scales"):
        check_one_scale(rows)
    check_one_scale([rows[0], rows[1]._replace(note="has less")])


@pytest.mark.parametrize("module", STUDIES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_reports_without_results(module):
    """A page can be made before anything has run, and has every row."""
    for scale in SCALES:
        nothing = {job.label: [Record(job.label, {}, {}, [], {}, NOT_RUN)] for job in module.jobs(scale)}
        page = module.report(nothing, scale)
        assert NOT_RUN in page and "no results yet" in page


def test_ablation_times():
    lines = [{"epoch": 0}, {"epoch": 1, "seconds": 10.0}, {"epoch": 2, "seconds": 14.0}]
    made = record(examples=20000)._replace(metrics=lines)
    made.config["batch_size"] = 50
    assert ablations.milliseconds_a_step(made) == pytest.approx(10)


# Jobs


@pytest.mark.parametrize("module", STUDIES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_jobs_compose(module):
    """All of them, at the scale of the committed records; scales differ in sizes, and so one job of each other."""
    for scale in SCALES:
        jobs = module.jobs(scale)
        assert len({job.label for job in jobs}) == len(jobs)
        assert all(re.fullmatch(r"[a-z0-9.-]+", job.label) for job in jobs)
        for job in jobs if scale == "cpu" else jobs[:1]:
            cfg = configuration(job.overrides)
            assert set(cfg.estimator) > {"_target_"}
            assert cfg.homeostasis is None or "_target_" in cfg.homeostasis


def test_makefile_has_the_studies():
    text = (ROOT / "Makefile").read_text()
    for name in ("table1", "table2", "ablations", "best"):
        assert re.search(rf"^{name}: .*##", text, re.MULTILINE)
        assert f"experiments.paper.{name} $(STUDY)" in text


# Records


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Records go to a folder of the test, and a run is made up: the loop that trains has tests of its own."""
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(train, "run", made_run)
    return tmp_path


def made_run(cfg):
    """What a run leaves, or the error that ends it."""
    if cfg.data.name == "mnist":
        raise FileNotFoundError(f"nothing in {cfg.data.root}")
    if cfg.max_unsettled == 0.01:
        raise Unsettled("In epoch 1, 30.0% of the examples did not settle")
    folder = run_path(cfg)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(settings(cfg))))
    (folder / "environment.json").write_text(json.dumps({"cores": 1}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"epoch": epoch}) + "\n" for epoch in range(3)))
    (folder / "summary.json").write_text(json.dumps({"seeds": [cfg.seed], "test_accuracy": 0.5}))


def test_committed_records_are_reused(results, monkeypatch):
    root = str(results / "outputs")
    job = Job("a-b0.5", tuple(TINY), (0, 1))
    first = study.run_study("made", "quick", [job], root=root)
    assert [r.summary["seeds"] for r in first["a-b0.5"]] == [[0], [1]]

    def refuse(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr(study, "_execute", refuse)
    again = study.run_study("made", "quick", [job], root=str(results / "elsewhere"))
    assert again == first == load_study("made", "quick")
    rows, curves = as_rows(again), as_curves(again)
    assert [row["seed"] for row in rows] == [0, 1] and rows[0]["data.label"] == "digits"
    assert len(curves) == 2 * 3 and curves[0]["label"] == "a-b0.5"
    with pytest.raises(AssertionError, match="trained again"):
        study.run_study("made", "quick", [job], root=root, rerun=True)
    for change in ("epochs=3", "data.label=copy"):
        with pytest.raises(AssertionError, match="trained again"):
            study.run_study("made", "quick", [job._replace(overrides=(*TINY, change))], root=root)


def test_missing_data_costs_one_job(results, capsys):
    jobs = [
        Job("absent", ("data=mnist", f"data.root='{results}'"), (0,)),
        Job("stops", (*TINY, "max_unsettled=0.01"), (0,)),
        Job("later", (), ()),
    ]
    records = study.run_study("made", "quick", jobs, root=str(results / "outputs"))
    assert records["absent"][0].missing == "data not found: mnist"
    assert str(results) in capsys.readouterr().err
    assert (records["stops"][0].missing or "").startswith("stopped: In epoch 1")
    assert records["later"][0].missing == NOT_RUN
    assert load_study("made", "quick")["absent"][0].missing == "data not found: mnist"


def test_workers_are_replaced(results, monkeypatch):
    """All runs end, though each worker process serves one only."""
    monkeypatch.setattr(study, "RUNS_A_WORKER", 1)
    job = Job("absent", ("data=mnist", f"data.root='{results}'"), (0, 1, 2))
    records = study.run_study("made", "quick", [job], root=str(results / "outputs"), workers=2)
    assert [r.missing for r in records["absent"]] == ["data not found: mnist"] * 3


def test_population_becomes_members():
    summary = {
        "seeds": [0, 1], "test_accuracy": 0.5, "cosine_hidden": {"start": 0.1, "end": 0.8},
        "members": {"test_accuracy": [0.4, 0.6], "cosine_hidden": [0.7, 0.9]},
    }  # fmt: skip
    lines = [{"epoch": 1, "test_accuracy": [0.4, 0.6], "seconds": 2.0}]
    made = Record("a", {"seed": 0, "population": 2}, {}, lines, summary, None)
    first, second = study._members(made)
    assert (first.summary["test_accuracy"], second.summary["test_accuracy"]) == (0.4, 0.6)
    assert second.summary["cosine_hidden"] == {"start": 0.1, "end": 0.9} and second.config["seed"] == 1
    assert second.metrics == [{"epoch": 1, "test_accuracy": 0.6, "seconds": 2.0}]
    json.dumps(second.summary)


# Subsets


def test_training_subset_is_balanced_and_nested():
    train = digits(test_fraction=0.2).train

    def subset(size: int, seed: int = 0) -> Split:
        return _subset(train, configuration([*TINY, f"data.train_examples={size}", f"data.seed={seed}"]))

    counts = [sum(subset(305).labels == label) for label in range(10)]
    assert set(counts) == {30, 31}
    small, large = ({image.tobytes() for image in subset(size).images} for size in (305, 600))
    assert small <= large
    assert small != {image.tobytes() for image in subset(305, seed=1).images}
    assert len(subset(305)) == 305


@pytest.mark.parametrize("size", [0, 299, 1439, 300.5])
def test_training_subset_of_a_wrong_size(size):
    with pytest.raises(ValueError, match="data.train_examples is"):
        build(configuration([*TINY, f"data.train_examples={size}"]))


def test_held_out_images_stand_in_for_the_test_images():
    """They are training images that are no longer trained on, the same for the same `data.seed`."""
    whole = digits(test_fraction=0.2)

    def split(*overrides: str):
        return _held_out(whole, configuration([*TINY, *overrides]))

    def images(part: Split) -> list[bytes]:
        return [image.tobytes() for image in part.images]

    assert split() is whole
    held = split("data.holdout=288")
    assert (len(held.train), len(held.test), held.num_classes) == (len(whole.train) - 288, 288, 10)
    assert sorted(images(held.train) + images(held.test)) == sorted(images(whole.train))
    assert images(split("data.holdout=288").test) == images(held.test)
    assert images(split("data.holdout=288", "data.seed=1").test) != images(held.test)
    assert set(images(split("data.holdout=100").test)) < set(images(held.test))
    labels = {image: label for image, label in zip(images(whole.train), whole.train.labels, strict=True)}
    assert [labels[image] for image in images(held.test)] == list(held.test.labels)


def test_a_run_is_measured_on_what_is_held_out():
    """A subset is taken of what is left to train on."""
    task = build(configuration([*TINY, "data.holdout=288", "data.train_examples=600"]))
    assert (len(task.dataset.train), len(task.dataset.test)) == (600, 288)
    kept, held = ({image.tobytes() for image in part.images} for part in (task.dataset.train, task.dataset.test))
    assert not kept & held


@pytest.mark.parametrize("size", [0, 1139, 10.5])
def test_a_holdout_of_a_wrong_size(size):
    with pytest.raises(ValueError, match="data.holdout is .*expected a whole number from 1 to 1138"):
        build(configuration([*TINY, f"data.holdout={size}"]))
