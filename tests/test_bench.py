"""The benchmark's parts: the plain step equals the library's, counts equal hand counts, ratios are ratios."""

import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import eqprop as eq
from experiments.bench import __main__ as program, cost, floor, flops, oracle, plain, report
from experiments.bench.curves import bound_at, ratio_at
from experiments.bench.networks import Trained, made, recipe
from helpers import ROOT, chain, conv, unchecked
from runs import as_users_run

FREE, NUDGED, BETA, BATCH = 30, 20, 0.3, 3


@pytest.fixture(autouse=True)
def as_users():
    """The plain step broadcasts as published code does; tolerances are arguments of compiled programs."""
    with as_users_run(), unchecked():
        yield


def problem(kind: str, **kwargs):
    network_key, readout_key, x_key = jax.random.split(jax.random.key(5), 3)
    network = chain(90.0, key=network_key, **kwargs) if kind == "dense" else conv(90.0, key=network_key)
    model = eq.Model(network, eq.SoftmaxReadout(3 if kind == "dense" else 4, 3, key=readout_key))
    x = jax.random.normal(x_key, (BATCH, *((6,) if kind == "dense" else (8, 8, 2))))
    return model, x, jax.nn.one_hot(jnp.arange(BATCH) % 3, 3, dtype=float)


def stepped(steps: int, damping: float) -> eq.AbstractRelaxation:
    """As many synchronous steps."""
    return eq.FixedSteps(steps) if damping == 1 else eq.Picard(tol=0.0, max_steps=steps, damping=damping)


@pytest.mark.parametrize(
    "kind, num_points, damping, kwargs",
    [
        ("dense", 4, 1.0, {}),
        ("dense", 2, 0.5, {"feedback_gain": 0.3, "activation": eq.tanh}),
        ("conv", 2, 1.0, {}),
    ],
)
def test_plain_gradient_is_the_librarys(kind, num_points, damping, kwargs):
    model, x, y = problem(kind, **kwargs)
    estimator = eq.FiniteNudge(stencil=eq.cauchy(BETA, num_points, on_axis=True), relaxation=stepped(NUDGED, damping))
    trainer = eq.Trainer(stepped(FREE, damping), estimator, optax.identity())
    ours, _ = jax.jit(lambda model, batch: oracle.gradient(trainer, model, batch))(model, (x, y))
    estimate = jax.jit(plain.gradient(model, beta=BETA, num_points=num_points, damping=damping))
    theirs = estimate(plain.parameters(model), x, y, jax.random.key(0), FREE, NUDGED)
    assert oracle.relative_error(theirs, ours) < 1e-9


def test_plain_homeostasis_has_the_exact_expectation():
    model, x, y = problem("dense", feedback_gain=0.3)
    field = model.network.at(x[0])
    value = lambda m: eq.ExactHomeostasis()(m.network.at(x[0]), field.initial_state(), key=jax.random.key(0))
    exact = eqx.filter_grad(value)
    expected: Any = exact(model).network
    parameters = plain.parameters(model)

    def kernels(coefficient: float | None, key: jax.Array) -> dict:
        estimate = plain.gradient(model, beta=BETA, num_points=2, coefficient=coefficient, probes=1)
        return estimate(parameters, x, y, key, 1, 1)["w"]

    without = jax.jit(lambda key: kernels(None, key))(jax.random.key(1))
    draws = jax.jit(jax.vmap(lambda key: kernels(1.0, key)))(jax.random.split(jax.random.key(2), 1000))
    for name, value in expected.kernels.items():
        found = draws[name] - without[name]
        error = jnp.std(found, axis=0) / np.sqrt(len(found))
        assert float(jnp.max(jnp.abs(jnp.mean(found, axis=0) - value) - 5 * error)) < 1e-9


def test_ratio_is_read_between_points_of_both_curves():
    ours = [(0.1, 1.0), (0.01, 2.0), (0.001, 4.0)]
    plain = [(0.2, 8.0), (0.02, 16.0), (0.002, 32.0), (0.05, 100.0)]  # the last is beaten, and plays no part
    assert ratio_at(0.01, ours, plain) == pytest.approx(16 * 2 ** np.log10(2) / 2)
    assert ratio_at(0.15, ours, [(0.15, 9.0), (0.1, 10.0)]) == pytest.approx(9.0)  # ours is better even when loosest
    assert ratio_at(0.0015, ours, plain) is None  # plain is never as accurate
    assert ratio_at(0.0005, ours, plain) is None  # nor is ours
    assert ratio_at(0.5, ours, plain) is None  # plain was not measured there
    assert ratio_at(0.05, [], plain) is None
    assert bound_at(0.001, ours, plain) == pytest.approx(100.0 / 4.0)
    assert bound_at(0.01, ours, plain) is None  # plain does get there


def test_record_on_other_data_is_not_overwritten(tmp_path):
    data = {"some data": {"file": "abc"}}
    section = {"steps": 1, "batch": 1, "seconds": {}, "ratio": 1.1}
    report.refuse_other_data(tmp_path, "resident", data)
    assert "| a lone digits step over one in a scan | ≤ 1.2 | 1.1 | met |" in report.write(
        tmp_path, "resident", section, data
    )
    report.refuse_other_data(tmp_path, "resident", data)
    report.refuse_other_data(tmp_path, "accuracy", {"other data": {"file": "xyz"}})
    for other in ({"some data": {"file": "abd"}}, {"relabelled": {"file": "abc"}}):
        with pytest.raises(report.OtherData, match="--force"):
            report.refuse_other_data(tmp_path, "resident", other)


def test_a_quick_run_measures_a_sparse_network(tmp_path):
    program.run("sparse", program.parse(["--quick", "--only", "sparse", "--out", str(tmp_path)]))
    (found,) = [part for name, part in report.read(tmp_path).items() if name == "sparse"]
    assert (found["neurons"], found["recurrent_edges"], found["input_edges"]) == (1000, 10_000, 8000)
    assert found["steps"]["unsettled_fraction"] == 0.0 and 0 < found["seconds"]["low"] < found["first_seconds"]
    assert "1,000 neurons, 10,000 recurrent and 8,000 input edges, batch 8" in (tmp_path / "table.md").read_text()


def test_quick_run_draws_curves_and_keeps_the_record(tmp_path, monkeypatch):
    def untrained(name: str, *, quick: bool) -> Trained:
        cfg, task = made(recipe(name, quick=quick))
        return Trained(name, task.initial(0).model, cfg, task, 0.1)

    monkeypatch.setattr(program, "trained", untrained)
    program.run("curves", program.parse(["--quick", "--only", "curves", "--out", str(tmp_path)]))
    (part,) = report.read(tmp_path).values()
    assert {curve["family"] for curve in part["curves"]} == {"Sweep", "plain"}
    for curve in part["curves"]:
        errors = [point["error"]["median"] for point in curve["curve"]]
        assert errors == sorted(errors, reverse=True) and 0 < errors[-1] < 0.05
    assert (tmp_path / "time_against_error.png").stat().st_size > 10_000
    assert "dense, N = 2, without homeostasis" in (tmp_path / "table.md").read_text()


def test_command_line_says_what_is_wrong(capsys, tmp_path):
    with pytest.raises(SystemExit):
        program.parse(["--only", "curve"])
    assert "no part is called curve" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="--conv-run"):
        program.run("conv", program.parse(["--only", "conv", "--conv-run", str(tmp_path), "--out", str(tmp_path)]))


def test_backpropagation_is_the_feedforward_nets():
    model, x, y = problem("dense", activation=eq.tanh)
    network: Any = model.network
    found, _ = cost.backpropagation(model, optax.sgd(1.0), [(x, y)])(0)

    def loss(kernels: dict) -> jax.Array:
        s = x
        for edge in (("in", "l1"), ("l1", "l2"), ("l2", "out")):
            s = jnp.tanh(s @ kernels[edge])
        return optax.softmax_cross_entropy(s @ model.readout.kernel, y).mean()  # pyright: ignore

    for edge, change in jax.grad(loss)({edge: network.kernels[edge] for edge in found["w"]}).items():
        np.testing.assert_allclose(found["w"][edge], network.kernels[edge] - change, rtol=1e-12)


def test_counts_are_those_made_by_hand():
    dense, *_ = problem("dense")
    assert flops.total(flops.embed_products(dense.network, 7)) == 2 * 7 * 6 * 5
    assert flops.total(flops.drift_products(dense.network, 7)) == 2 * 7 * 2 * (5 * 4 + 4 * 3)
    network, *_ = problem("conv")
    network = network.network  # 8x8x2 -> 4x4x3 <-> 1x1x4, the second convolution unpadded: 2x2 positions
    assert flops.total(flops.embed_products(network, 7)) == 2 * 7 * 8 * 8 * 9 * 2 * 3
    assert flops.total(flops.drift_products(network, 7)) == 3 * 2 * 7 * 2 * 2 * 9 * 3 * 4


def test_count_is_the_compilers():
    network = eq.DenseNetwork.chain([20, 128, 96, 64], key=jax.random.key(0))
    u = {"l1": jnp.ones((32, 128)), "l2": jnp.ones((32, 96)), "out": jnp.ones((32, 64))}
    cost = jax.jit(jax.vmap(network.drive)).lower(u, u).compile().cost_analysis()
    counted = flops.total(flops.drift_products(network, 32))
    assert cost is not None and abs(cost["flops"] / counted - 1) < 0.1


def test_products_are_what_the_network_multiplies():
    network, *_ = problem("conv")
    for product in flops.drift_products(network.network, 2) + flops.embed_products(network.network, 2):
        y = jax.eval_shape(
            lambda x, k, p=product: floor.multiply(p, x, k), jnp.ones(product.image), jnp.ones(product.kernel)
        )
        assert y.shape[-1] == product.kernel[-1]


def test_floor_adds_up():
    model, *_ = problem("dense")
    parts = flops.drift_products(model.network, 4) + flops.embed_products(model.network, 4)
    measured = floor.floor_of(model.network, 4, {product: 1.0 for product in parts})
    assert (measured.drift, measured.embed, measured.gradient) == (4.0, 1.0, 5.0)
    nudge = eq.FiniteNudge(stencil=eq.cauchy(BETA, 4), relaxation=eq.Sweep())
    count = floor.evaluations({"free_steps": 10.0, "nudged_steps": 6.0}, nudge)
    assert count == 10 + 6 * 2  # a complex node is two real ones: two nodes, four relaxations
    assert floor.step_floor(measured, count) == 22 * 4 + 6


def test_seconds_of_products_are_positive():
    product = flops.Product("matmul", (4, 8), (8, 8))
    assert 0 < floor.seconds_of([product], budget=0.01)[product] < 1.0


def test_the_page_says_of_imagenet_what_its_record_has():
    record = json.loads((ROOT / "docs" / "results" / "imagenet32" / "cpu.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    conversion, training = record["conversion"], record["training"]
    assert record["images"] == {"train": 1281167, "validation": 50000} and record["resumed_equals_whole"]
    assert f"in {conversion['seconds']:.0f} s, with {conversion['peak_gigabytes']:.1f} GB at the peak" in page
    assert f"at {training['images_a_second']:.0f} images a second on one core" in page
    assert f"has {training['peak_gigabytes']:.1f} GB at its peak" in page
    assert {"test_accuracy", "test_top5"} <= set(training["summary"]) and record["environment"]["cores_used"] == 1
