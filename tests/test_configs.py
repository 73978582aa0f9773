"""Every file of configs/ works, and what is misspelt is said in one line, with the nearest name."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hydra.utils import get_method
from omegaconf import OmegaConf

import eqprop.data
from eqprop.run import cli, runtime
from eqprop.run.build import build, instantiate
from eqprop.run.compose import file_of, groups
from eqprop.run.errors import UsageError
from eqprop.run.helptext import about
from eqprop.run.overrides import check_overrides, repaired
from runs import as_users_run, configuration, made_data

FOREIGN = {
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "emnist": ((28, 28, 1), 47),
    "fashion_mnist": ((28, 28, 1), 10),
    "imagenet32": ((32, 32, 3), 1000),
    "kmnist": ((28, 28, 1), 10),
    "mnist": ((28, 28, 1), 10),
}
"""Data that is not shipped: made images of the same shape stand in."""

SMALL = ["network.sizes=[64,12,10]", "batch_size=6", "data.validation=6"]
CHOICES = groups()
EXPERIMENTS = CHOICES.pop("experiment")
NODES = [(group, choice) for group, choices in CHOICES.items() for choice in choices]

NEEDS = {
    "estimator=bptt": ["relaxation=fixed_steps"],
    "estimator=contrastive": ["network=hopfield", "homeostasis=none"],
    "relaxation=krylov": ["estimator=rbp", "relaxation=sweep", "relaxation@nudged=krylov"],
    "network=conv": ["homeostasis=skew", "substrate=none"],
    "network=conv_narrow": ["homeostasis=skew"],
    "network=conv_residual": ["homeostasis=skew"],
    "network=conv_residual_narrow": ["homeostasis=exact"],
    "network=conv_strided": ["homeostasis=exact"],
    "network=conv_tied": ["homeostasis=none"],
    "network=sparse": ["plasticity=none"],
    "plasticity=same_update": ["plasticity=same_update", "homeostasis=none"],
    "network=conv_published": ["homeostasis=skew"],
    "network=resistive": ["relaxation=newton", "relaxation@nudged=newton", "homeostasis=none", "stencil=centred"],
    "network=resistive_amplified": [
        "relaxation=newton",
        "relaxation@nudged=newton",
        "homeostasis=none",
        "stencil=centred",
    ],
    "network=hopfield": ["homeostasis=none"],
    "optimiser=conv_published": ["network=conv", "homeostasis=skew"],
}
"""What a choice goes with, as its file says."""


@pytest.fixture(autouse=True)
def _as_users_run():
    with as_users_run():
        yield


@pytest.fixture
def stand_in(monkeypatch):
    for name, (shape, classes) in FOREIGN.items():
        dataset = made_data(name, shape, classes)
        monkeypatch.setattr(eqprop.data, name, lambda *a, dataset=dataset, **ignored: dataset, raising=False)


def small(cfg):
    """The words that make a network of this configuration tiny, whatever its kind."""
    if "stages" in cfg.network:
        return ["network.stem=3", "network.stages=[[3,1],[4,1]]"]
    if "neurons" in cfg.network:
        return ["network.neurons=30", "network.outputs=10"]
    if "Conv" in cfg.network._target_:
        deep = cfg.data.image_shape[0] >= 16
        return ["network.channels=[4,4,4,4]" if deep else "network.channels=[3,4]"]
    if "layers" in cfg.network:
        return ["network.layers={l1: 5, l2: 5, out: 4}"]
    return [f"network.sizes=[{cfg.data.input_size},6,{cfg.data.num_classes or cfg.data.num_targets}]"]


def check_abstractly(*overrides):
    """Build, which runs one abstract step, and evaluate abstractly."""
    cfg = configuration(*overrides)
    runtime.configure(cfg)
    task = build(cfg)
    images, labels = next(task.batches.epoch(0))
    batch = eqx.filter_eval_shape(task.preprocess, images), task.target(jnp.asarray(labels))
    metrics = eqx.filter_eval_shape(task.trainer.evaluate, task.initial(0).model, batch)
    assert metrics["loss"].shape == ()
    assert metrics["loss"].dtype == ("float64" if cfg.runtime.x64 else "float32")
    return task


@pytest.mark.parametrize("group, name", NODES)
def test_every_choice_composes_instantiates_and_says_what_it_is(group, name):
    cfg = configuration(f"{group}={name}")
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert len(about(group, name)) > 10, f"{file_of(group, name)} begins with no comment"
    node = cfg.get(group)
    if group == "data":
        assert callable(get_method(node.load._target_))
        assert callable(instantiate(node.preprocess))
        assert name.startswith(node.name)
    elif "_target_" in node:
        assert (instantiate(node) is None) == (name == "none")
    else:
        assert name == "default"


SHORT = (
    "allostery",
    "friedman",
    "cifar10_published",
    "cifar10_weak",
    "digits_resistive",
    "fashion_mnist_depth",
    "fashion_mnist_loop",
)


@pytest.mark.parametrize("name", [n if n in SHORT else pytest.param(n, marks=pytest.mark.slow) for n in EXPERIMENTS])
def test_every_experiment_takes_an_abstract_step(name, stand_in):
    own = "published" in name or name in PHYSICAL
    words = [f"experiment={name}", *([] if name in PHYSICAL else ["batch_size=4"])]
    words += [] if own else ["data.validation=2"]
    task = check_abstractly(*words, *([] if name in PHYSICAL else small(configuration(*words))))
    assert task.dataset.name.split("_")[0] in name
    assert len(about("experiment", name)) > 10


CHECKED = [(group, choice) for group, choice in NODES if group not in ("data", "runtime")]
PHYSICAL = ("allostery", "xor_resistive")
"""Experiments on circuits, with data of their own."""


def instantiated(*words):
    """Make every object of a configuration but its data and networks, which take a key."""
    cfg = configuration(*words)
    OmegaConf.to_container(cfg, resolve=True)
    for group in ("stencil", "relaxation", "nudged", "coarse", "estimator", "homeostasis", "substrate", "network"):
        instantiate(cfg[group])
    network = instantiate(cfg.network)
    readout = instantiate(cfg.readout)
    assert callable(network) and (callable(readout) or readout is not None)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_choices_compose_under_every_experiment(experiment):
    """All groups switched at once, to others under every experiment; the slow test takes all choices under all."""
    turn = EXPERIMENTS.index(experiment)
    switched = [f"{group}={c[turn % len(c)]}" for group, c in CHOICES.items() if group not in ("runtime", "data")]
    if "network=sparse" in switched:
        switched.append("network.input_edges.degree=1")  # some inputs have few entries
    instantiated(f"experiment={experiment}", *switched)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [name for name in EXPERIMENTS if name not in PHYSICAL])
def test_every_choice_steps_a_tiny_network_under_every_experiment(experiment, stand_in):
    """The objects are made, and one step is traced, with the companions that the choice's file names."""
    failed = []
    for group, choice in CHECKED:
        override = f"{group}={choice}"
        given = dict(word.split("=", 1) for word in [override, *NEEDS.get(override, [])])
        words = [f"experiment={experiment}", "batch_size=4", *(f"{key}={value}" for key, value in given.items())]
        try:
            cfg = configuration(*words)
            if "Conv" not in cfg.network._target_ and cfg.optimiser.multipliers:
                words.append("optimiser=sgd")  # the published rates are of the layers of a convolutional network
            if "substrate" in cfg.network._target_ and group != "network" or "lattice" in choice:
                continue  # a circuit goes with Newton's method and real nudges alone
            if choice in ("cmos_ota", "passive_resistive") and "Conv" in cfg.network._target_:
                continue  # they have parts that only dense networks do
            if bool(cfg.readout.get("regression")) != (cfg.data.num_classes is None):
                continue
            if group == "substrate":
                words.append("estimator=finite_nudge")  # what is computed beside a device has no readings to spoil
            check_abstractly(*words, *small(cfg), "data.validation=2")
        except (ValueError, UsageError) as error:
            failed.append(f"{' '.join(words)}: {error}")
    assert not failed, "\n".join(failed)


FEW = ("cifar10", "fashion_mnist")


@pytest.mark.parametrize("name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in FOREIGN])
def test_every_data_set_takes_an_abstract_step(name, stand_in):
    shape, classes = FOREIGN[name]
    conv = ["network=conv", "network.channels=[4,4]", "homeostasis=skew"] if shape[-1] == 3 else []
    task = check_abstractly(f"data={name}", "batch_size=4", "data.validation=2", "estimator=rbp", *conv)
    assert (task.dataset.image_shape, task.dataset.num_classes) == (shape, classes)


@pytest.mark.parametrize("name", CHOICES["estimator"])
def test_every_estimator_takes_an_abstract_step(name):
    check_abstractly(f"estimator={name}", *SMALL, *NEEDS.get(f"estimator={name}", []))


def test_a_convolutional_network_reads_grey_images():
    check_abstractly("network=conv", "network.channels=[3,4]", "homeostasis=skew", "batch_size=6")


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_kernels_at_the_start_are_scaled(network):
    """And nothing else is: `init_scale` is of the draw."""
    words = [f"network={network}", "data.image_shape=[8,8,1]", "data.input_size=64"]
    size = "network.channels=[3,4]" if network == "conv" else "network.sizes=[64,5,4]"
    one, two = (
        instantiate(configuration(*words, size, f"network.init_scale={scale}").network)(key=jax.random.key(0))
        for scale in (1.0, 1.5)
    )
    for name, kernel in one.kernels.items():
        np.testing.assert_allclose(two.kernels[name], 1.5 * kernel, rtol=1e-6)
    assert all(not np.any(bias) for bias in two.biases.values())


OTHERS = ("relaxation", "stencil", "coarse", "homeostasis", "plasticity", "readout", "schedule", "substrate")
STEPPED = [f"{group}={name}" for group, name in NODES if group in OTHERS and name != "regression"]
STEPPED += ["optimiser=adamw", "optimiser=sgd"]


@pytest.mark.parametrize("override", STEPPED)
def test_every_choice_takes_an_abstract_step(override):
    words = NEEDS.get(override, [override])
    check_abstractly(*words, *SMALL)


def test_float64_goes_all_the_way():
    check_abstractly("runtime.x64=true", *SMALL)


MISSPELT = [
    ("estimator.stencil.bta=0.2", "estimator.stencil has no 'bta'", "Did you mean 'beta'?"),
    ("estimatr=rbp", "the configuration has no 'estimatr'", "Did you mean 'estimator'?"),
    ("estimator=rpb", "there is no such estimator", "Did you mean 'rbp'?"),
    ("relaxation@nudged=picrd", "there is no such relaxation", "Did you mean 'picard'?"),
    ("sizes=[64,10]", "the configuration has no 'sizes'", "Did you mean 'network.sizes'?"),
    ("learning_rate=0.1", "the configuration has no 'learning_rate'", "Did you mean 'optimiser.learning_rate'?"),
    ("relaxation.max_step=3", "relaxation has no 'max_step'", "Did you mean 'max_steps'?"),
    ("patience=8", "the configuration has no 'patience'", ""),
    ("relaxation.rtoll=0.1", "relaxation has no 'rtoll'", "Did you mean 'rtol'?"),
    ("run.checkpoint_minute=1", "run has no 'checkpoint_minute'", "Did you mean 'checkpoint_minutes'?"),
    ("nudged=krylov", "nudged is a part with settings", "choose it by relaxation@nudged=krylov, or set one"),
    ("homeostasis=none homeostasis.coefficient=1", "has no settings of its own", "Choose another homeostasis."),
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
    ("-m network=dense,hopfield network.channels=[4]", "has no 'channels'", "With"),
]


@pytest.mark.parametrize("line, wrong, remedy", MISSPELT)
def test_what_is_misspelt_is_named_in_one_line(line, wrong, remedy, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", *line.split(), f"run.root={tmp_path}/outputs"])
    written = capsys.readouterr()
    assert stop.value.code == 2
    assert written.out == ""
    assert written.err.startswith("error: ") and written.err.count("\n") == 1
    assert wrong in written.err and remedy in written.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "line",
    [
        "seed=range(3) estimator=glob(*)",
        "estimator=finite_nudge,rbp hydra/launcher=basic hydra.sweeper.max_batch_size=2",
        "+optimiser.multipliers.readout=2 ++epochs=3",
        "relaxation@nudged=fixed_steps nudged.num_steps=3",
        "~optimiser.multipliers",
        "network=dense,hopfield network.angle=45",
    ],
)
def test_what_hydra_understands_passes(line):
    check_overrides(line.split(" "), "train")


@pytest.mark.parametrize(
    "word, value",
    [
        ("run.root=~/runs", "~/runs"),
        ("data.root=~/data", "~/data"),
        ("run.name=a=b", "a=b"),
        ("data.label=lr=0.1", "lr=0.1"),
        ("run.name=größe", "größe"),
        ("data.label=CIFAR-10 (quality 75)", "CIFAR-10 (quality 75)"),
        ("run.name=50%", "50%"),
        ("run.dir=a folder/with 'quotes'", "a folder/with 'quotes'"),
    ],
)
def test_values_that_need_quotes_are_taken_as_they_are(word, value):
    (mended,) = repaired([word])
    check_overrides(["data=mnist", mended], "train")
    cfg = configuration("data=mnist", mended)
    assert OmegaConf.select(cfg, word.partition("=")[0]) == value


def test_what_needs_no_quotes_is_left_alone():
    words = ["seed=1", "network.sizes=[64,10]", "-x", "estimator=choice(rbp,tangent)", "~optimiser.multipliers"]
    assert repaired(words) == words


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
        ("evaluation.measure=test", "evaluation.measure is test; expected last or best"),
        ("max_unsettled=2", "max_unsettled is 2; expected a number from 0 to 1"),
        ("warm_start=-1", "warm_start is -1; expected"),
        ("data.validation=0", "data.validation: .* a part of 0 .*expected a whole number from 1 to"),
        ("data.validation=1.5", "data.validation: .* a part of 1.5"),
        ("data.train_examples=3", "data.train_examples is 3; expected a whole number from batch_size"),
        ("network.feedback_gain=0.0", "feedback_gain is 0.0; expected a number above 0"),
        ("homeostasis.share=2.0", "share is 2.0; expected a part of the batch"),
        ("homeostasis.coefficient=-1.0", "coefficient is -1.0; expected 0 or more"),
        ("relaxation.rtol=1.0", "rtol is 1.0; expected a fraction"),
        ("relaxation.every=0", "every is 0; expected a number of sweeps"),
    ],
)
def test_values_out_of_range_are_errors(override, message):
    with pytest.raises(ValueError, match=message):
        build(configuration(*(word for word in SMALL if word.split("=")[0] != override.split("=")[0]), override))


def test_the_best_model_needs_validation_images():
    with pytest.raises(ValueError, match="evaluation.measure=best needs validation images"):
        build(configuration("evaluation.measure=best", "data.validation=null", *SMALL[:2]))


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["batch_size=5000"], "give a size from 1 to"),
        (["network.sizes=[65,12,10]"], "the network expects 65"),
        (["network.sizes=[64]"], "one layer at least"),
        (["estimator=contrastive"], "has none. Use FiniteNudge"),
        (["stencil.num_points=0"], "at least one point"),
        (["data.num_classes=9"], "Correct the configuration"),
        (["network.activation.path=eqprop.nothing"], "nothing"),
        (["+optimiser.multipliers.nothing=2"], "names no parameter"),
        (["+readout.layer=nowhere"], "nowhere"),
        (["+optimiser.decay_multipliers.readout=2"], "go with coupled weight decay"),
    ],
)
def test_what_does_not_go_together_is_a_value_error(overrides, message):
    kept = [word for word in SMALL if word.split("=")[0] not in [o.split("=")[0] for o in overrides]]
    with pytest.raises(ValueError, match=message):
        build(configuration(*kept, *overrides))


def test_decoupled_decay_is_that_of_the_rule():
    """AdamW's own decay against the same decay of no gradient: what is left of a parameter after one step."""
    model = {"w": jnp.ones(3)}
    for decay, learning_rate in itertools.product((0.0, 0.5), (0.1, 0.01)):
        words = [f"optimiser.weight_decay={decay}", f"optimiser.learning_rate={learning_rate}"]
        optimiser = instantiate(configuration(*words).optimiser)(model, lambda step: 1.0)
        update, _ = optimiser.update({"w": jnp.zeros(3)}, optimiser.init(model), model)
        np.testing.assert_allclose(update["w"], -learning_rate * decay, rtol=1e-6)


def test_coupled_decay_is_added_to_the_gradient_before_momentum():
    """SGD with momentum 0.9 and decay d from no gradient: steps of `-lr d w` and `-lr d (w + 0.9)`, by hand."""
    model = {"w": jnp.ones(1)}
    optimiser = instantiate(configuration("optimiser=sgd", "optimiser.weight_decay=0.2").optimiser)(
        model, lambda s: 1.0
    )
    state, zero = optimiser.init(model), {"w": jnp.zeros(1)}
    first, state = optimiser.update(zero, state, model)
    second, _ = optimiser.update(zero, state, {"w": model["w"] + first["w"]})
    np.testing.assert_allclose(first["w"], -0.01 * 0.2, rtol=1e-6)
    np.testing.assert_allclose(second["w"], -0.01 * (0.9 * 0.2 + 0.2 * (1 - 0.002)), rtol=1e-5)


def test_rates_and_decays_by_parameter_multiply():
    """The published recipe: rates of 25, 15, … and twice the decay of the readout."""
    model = {"in-conv1": jnp.ones(1), "readout": jnp.ones(1), "other": jnp.ones(1)}
    words = ["optimiser=sgd", "optimiser.weight_decay=0.1", "+optimiser.multipliers.in-conv1=25.0"]
    words += ["+optimiser.decay_multipliers.readout=2.0"]
    optimiser = instantiate(configuration(*words).optimiser)(model, lambda step: 1.0)
    update, _ = optimiser.update({name: jnp.ones(1) for name in model}, optimiser.init(model), model)
    for name, factor, decay in (("in-conv1", 25.0, 1.0), ("readout", 1.0, 2.0), ("other", 1.0, 1.0)):
        np.testing.assert_allclose(update[name], -0.01 * factor * (1 + 0.1 * decay), rtol=1e-6)


def test_the_cosine_schedule_ends_at_zero_at_the_end_of_the_last_epoch():
    task = build(configuration(*SMALL, "epochs=3"))
    cfg = configuration(*SMALL, "epochs=3")
    schedule = instantiate(cfg.schedule)(1.0, 3 * len(task.batches))
    assert schedule(0) == 1.0 and abs(float(schedule(3 * len(task.batches)))) < 1e-7


def test_smoothed_labels_are_probabilities():
    task = build(configuration(*SMALL, "label_smoothing=0.2"))
    target = task.target(jnp.asarray([3, 0]))
    np.testing.assert_allclose(target.sum(1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(target[0, 3], 0.8 + 0.02, rtol=1e-6)
    np.testing.assert_allclose(target[1, 5], 0.02, rtol=1e-6)
