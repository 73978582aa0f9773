"""The search: Hydra's syntax to Optuna's, pruning, and going on after an interruption. The runs are stand-ins."""

import pytest

optuna = pytest.importorskip("optuna", reason="optuna is not installed")

from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: E402
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from eqprop.run import search  # noqa: E402
from eqprop.run.errors import UsageError  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.parametrize(
    "word, expected",
    [
        ("a=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("a=interval(0.1,0.5)", FloatDistribution(0.1, 0.5)),
        ("a=int(interval(1,8))", IntDistribution(1, 8)),
        ("a=range(0,91,30)", IntDistribution(0, 90, step=30)),
        ("a=range(0,90,30)", IntDistribution(0, 60, step=30)),
        ("a=choice(none,exact)", CategoricalDistribution(["none", "exact"])),
        ("a=1,2", CategoricalDistribution(["1", "2"])),
    ],
)
def test_what_varies(word, expected):
    (override,) = OverridesParser.create().parse_overrides([word])
    assert search.distribution(override) == expected


def at_rate(cfg, logger):
    """Accuracy is best at a learning rate of 0.01."""
    accuracy = 1 - abs(cfg.optimiser.learning_rate - 0.01)
    for epoch in range(1, 5):
        logger.log(epoch, {"loss": 1.0, "validation_accuracy": [accuracy, accuracy]})
    return {"validation_accuracy": accuracy, "test_accuracy": 1 - accuracy}


SPACE = "optimiser.learning_rate=tag(log,interval(1e-4,1e-1))"


def states(study):
    return [trial.state for trial in study.trials]


def test_the_same_search_goes_on_to_its_number_of_trials(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "run", at_rate)
    words = [SPACE, f"run.root={tmp_path}"]
    path = tmp_path / "new" / "study.log"
    assert len(search.search(words, 3, path).trials) == 3
    study = search.search(words, 40, path)  # trials are drawn at random: of so many, some lag behind
    assert len(study.trials) == 40
    assert TrialState.PRUNED in states(study)
    assert study.best_value > 0.9
    assert study.best_trial.user_attrs["folder"].startswith(str(tmp_path))
    assert len(search.search(words, 40, path).trials) == 40


def test_an_interrupted_trial_is_taken_up_again(tmp_path, monkeypatch):
    words = ["optimiser.learning_rate=choice(0.1,0.2,0.3)", f"run.root={tmp_path}"]
    path = tmp_path / "study.log"

    def killed(cfg, logger):
        folder = search.Path(search_path(cfg))
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("epochs: 3\n")
        raise KeyboardInterrupt

    from eqprop.run.record import run_path as search_path

    monkeypatch.setattr(search, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        search.search(words, 2, path)
    monkeypatch.setattr(search, "run", at_rate)
    study = search.search(words, 1, path)
    assert states(study) == [TrialState.FAIL, TrialState.COMPLETE]
    assert study.trials[0].params == study.trials[1].params


def test_settings_that_cannot_run_end_the_search(tmp_path, monkeypatch, capsys):
    def fails(cfg, logger):
        raise ValueError("cannot run")

    monkeypatch.setattr(search, "run", fails)
    study = search.search([SPACE], 20, tmp_path / "study.log")
    assert states(study) == [TrialState.FAIL] * search.FAILURES
    assert capsys.readouterr().err.count("error: cannot run") == search.FAILURES


def test_something_must_vary(tmp_path):
    with pytest.raises(UsageError, match="Nothing varies"):
        search.search(["seed=1"], 1, tmp_path / "study.log")
    assert not (tmp_path / "study.log").exists()
