"""Every file of configs/ works, and what is misspelt is said in one line, with the nearest name."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hydra.utils import get_method
from omegaconf import OmegaConf

import eqprop.data
from experiments import runtime, train
from experiments.build import build, instantiate
from experiments.cli import CONFIGS, UsageError, check_overrides
from runs import as_users_run, configuration, made_data

FOREIGN = {
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "fashion_mnist": ((28, 28), 10),
    "imagenet32": ((32, 32, 3), 1000),
    "mnist": ((28, 28), 10),
}
"""Data that is not shipped: made images of the same shape stand in."""

SMALL = ["network.sizes=[64,12,10]", "batch_size=6"]
GROUPS = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name != "experiment")
NODES = [(group, path.stem) for group in GROUPS for path in sorted((CONFIGS / group).glob("*.yaml"))]
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
ESTIMATORS = sorted(path.stem for path in (CONFIGS / "estimator").glob("*.yaml"))
NEEDS = {
    "bptt": ["relaxation=fixed_steps"],
    "contrastive": ["network=hopfield", "homeostasis=none"],
}


@pytest.fixture(autouse=True)
def _as_users_run():
    with as_users_run():
        yield


@pytest.fixture
def stand_in(monkeypatch):
    for name, (shape, classes) in FOREIGN.items():
        dataset = made_data(name, shape, classes)
        monkeypatch.setattr(eqprop.data, name, lambda root=None, dataset=dataset: dataset)


def check_abstractly(*overrides):
    """Build, which runs one abstract step, and evaluate abstractly."""
    cfg = configuration(*overrides)
    runtime.configure(cfg)
    task = build(cfg)
    images, labels = next(task.batches.epoch(0))
    batch = eqx.filter_eval_shape(task.preprocess, images), task.target(jnp.asarray(labels))
    metrics = eqx.filter_eval_shape(task.trainer.evaluate, task.initial(0).model, batch)
    assert metrics["accuracy"].shape == ()
    assert metrics["accuracy"].dtype == ("float64" if cfg.runtime.x64 else "float32")
    return task


@pytest.mark.parametrize("group, name", NODES)
def test_every_node_composes_and_instantiates(group, name):
    cfg = configuration(f"{group}={name}")
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    node = cfg.get(group)
    if group == "data":
        assert callable(get_method(node.load._target_))
        assert callable(instantiate(node.preprocess))
        assert node.name == name
    elif node is not None and "_target_" in node:
        assert instantiate(node) is not None
    else:
        assert name in ("none", "default")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_takes_an_abstract_step(name, stand_in):
    task = small = ["network.channels=[4,4,4,4]"] if "cifar" in name else []
    task = check_abstractly(f"experiment={name}", "batch_size=4", *small)
    assert task.dataset.name in name


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_every_data_set_takes_an_abstract_step(name, stand_in):
    shape, classes = FOREIGN[name]
    conv = ["network=conv", "network.channels=[4,4]", "homeostasis=skew"] if len(shape) == 3 else []
    task = check_abstractly(f"data={name}", "batch_size=4", "estimator=rbp", *conv)
    assert (task.dataset.image_shape, task.dataset.num_classes) == (shape, classes)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_takes_an_abstract_step(name):
    check_abstractly(f"estimator={name}", *SMALL, *NEEDS.get(name, []))


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_kernels_at_the_start_are_scaled(network):
    """And nothing else is: `init_scale` is of the draw."""
    words = [f"network={network}", "data.image_shape=[8,8,1]", "data.input_size=64"]
    small = "network.channels=[3,4]" if network == "conv" else "network.sizes=[64,5,4]"
    one, two = (
        instantiate(configuration(*words, small, f"network.init_scale={scale}").network)(key=jax.random.key(0))
        for scale in (1.0, 1.5)
    )
    for name, kernel in one.kernels.items():
        np.testing.assert_allclose(two.kernels[name], 1.5 * kernel, rtol=1e-6)
    assert all(not np.any(bias) for bias in two.biases.values())


OTHERS = ("relaxation", "stencil", "coarse", "optimiser", "homeostasis", "readout", "schedule", "substrate")


@pytest.mark.parametrize("override", [f"{group}={name}" for group, name in NODES if group in OTHERS])
def test_every_choice_takes_an_abstract_step(override):
    check_abstractly(override, *SMALL)


def test_float64_goes_all_the_way():
    check_abstractly("runtime.x64=true", *SMALL)


MISSPELT = [
    ("estimator.stencil.radus=0.2", "estimator.stencil has no 'radus'", "Did you mean 'radius'?"),
    ("estimatr=rbp", "the configuration has no 'estimatr'", "Did you mean 'estimator'?"),
    ("estimator=rpb", "there is no such estimator", "Did you mean 'rbp'?"),
    ("relaxation@nudged=picrd", "there is no such relaxation", "Did you mean 'picard'?"),
    ("sizes=[64,10]", "the configuration has no 'sizes'", "Did you mean 'network.sizes'?"),
    ("learning_rate=0.1", "the configuration has no 'learning_rate'", "Did you mean 'optimiser.learning_rate'?"),
    ("relaxation.max_step=3", "relaxation has no 'max_step'", "Did you mean 'max_steps'?"),
    ("patience=8", "the configuration has no 'patience'", ""),
    ("relaxation.rtoll=0.1", "relaxation has no 'rtoll'", "Did you mean 'rtol'?"),
    ("run.checkpoint_minute=1", "run has no 'checkpoint_minute'", "Did you mean 'checkpoint_minutes'?"),
    ("homeostasis=none homeostasis.coefficient=1", "it is None", "Choose another homeostasis first."),
    ("network.sizes.0=3", "network.sizes is a list", "give it whole, as in network.sizes=[…]"),
    ("optimiser.multipliers.readout=2", "is empty", "add to it with +optimiser.multipliers.readout=…"),
    ("optimiser.learning_rate=fast", "optimiser.learning_rate=fast", "expected a number"),
    ("-m optimiser.learning_rate=0.1,fast", "optimiser.learning_rate=fast", "expected a number"),
    ("runtime.x64=maybe", "runtime.x64=maybe", "expected true or false"),
    ("network.sizes='64,10'", "network.sizes=64,10", "expected a list"),
    ("data@datum=digits", "Could not override 'data@datum'", "Did you mean to override data?"),
    ("seed", "Error parsing override 'seed'", "expected key=value"),
    ("-m estimator=rbp,rpb", "estimator=rpb", "Did you mean 'rbp'?"),
    ("-m estimator=glob(x*)", "estimator=glob(x*)", "there are asymmetric"),
    ("-m sede=0,1", "the configuration has no 'sede'", "Did you mean 'seed'?"),
]


@pytest.mark.parametrize("line, wrong, remedy", MISSPELT)
def test_what_is_misspelt_is_named_in_one_line(line, wrong, remedy, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["train", *line.split(), f"run.root={tmp_path}/outputs"])
    with pytest.raises(SystemExit) as stop:
        train.main()
    written = capsys.readouterr()
    assert stop.value.code == 2
    assert written.out == ""
    assert written.err.startswith("error: ") and written.err.count("\n") == 1
    assert wrong in written.err and remedy in written.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "--cfg job",
        "--info defaults",
        "-m seed=range(3) estimator=glob(*)",
        "-m estimator=finite_nudge,rbp hydra/launcher=basic hydra.sweeper.max_batch_size=2",
        "+optimiser.multipliers.readout=2 ++epochs=3",
        "relaxation@nudged=fixed_steps nudged.num_steps=3",
        "~optimiser.multipliers",
        "run.dir='a folder/with spaces'",
        "--config-dir elsewhere mine=1",
    ],
)
def test_what_hydra_understands_passes(line):
    check_overrides(line.split(" "), "train") if "spaces" not in line else check_overrides([line], "train")


def test_audit_has_its_own_keys():
    check_overrides(["examples=10"], "audit")
    with pytest.raises(UsageError, match="has no 'examples'"):
        check_overrides(["examples=10"], "train")


@pytest.mark.parametrize(
    "override, message",
    [
        ("epochs=0", "epochs is 0; expected a whole number"),
        ("epochs=abc", "epochs is abc; expected"),
        ("batch_size=1.5", "batch_size is 1.5; expected"),
        ("label_smoothing=1", "label_smoothing is 1; expected"),
        ("population=-1", "population is -1; expected"),
        ("seed=-1", "seed is -1; expected"),
        ("evaluation.every=0", "evaluation.every is 0; expected"),
        ("max_unsettled=2", "max_unsettled is 2; expected a number from 0 to 1"),
        ("warm_start=-1", "warm_start is -1; expected"),
        ("data.holdout=0", "data.holdout is 0; expected"),
        ("network.feedback_gain=0.0", "feedback_gain is 0.0; expected a number above 0"),
        ("homeostasis.share=2.0", "share is 2.0; expected a part of the batch"),
        ("relaxation.rtol=1.0", "rtol is 1.0; expected a fraction"),
        ("relaxation.every=0", "every is 0; expected a number of sweeps"),
    ],
)
def test_values_out_of_range_are_errors(override, message):
    with pytest.raises(ValueError, match=message):
        build(
            configuration(
                override, *(word for word in SMALL if not override.startswith("batch_size") or "batch" not in word)
            )
        )


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["batch_size=5000"], "give a size from 1 to"),
        (["network.sizes=[65,12,10]"], "the network expects 65"),
        (["network.sizes=[64]"], "one layer at least"),
        (["network=conv"], "give \\(height, width, channels\\)"),
        (["estimator=contrastive"], "has none. Use FiniteNudge"),
        (["stencil.num_points=0"], "at least one point"),
        (["data.num_classes=9"], "Correct the configuration"),
        (["network.activation.path=eqprop.nothing"], "nothing"),
        (["+optimiser.multipliers.nothing=2"], "names no parameter"),
        (["+readout.layer=nowhere"], "nowhere"),
    ],
)
def test_what_does_not_go_together_is_a_value_error(overrides, message):
    small = [word for word in SMALL if word.split("=")[0] not in [o.split("=")[0] for o in overrides]]
    small = [] if "network=conv" in overrides else small
    with pytest.raises(ValueError, match=message):
        build(configuration(*small, *overrides))
