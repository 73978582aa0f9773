"""The benchmark's parts: the plain step equals the library's, counts equal hand counts, ratios are ratios."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import eqprop as eq
from experiments.bench import floor, flops, oracle, plain
from experiments.bench.compare import over_floor
from experiments.bench.settings import our_trainer
from helpers import chain, conv
from runs import as_users_run

FREE, NUDGED, BETA, BATCH = 30, 20, 0.3, 3


@pytest.fixture(autouse=True)
def as_users():
    """The plain step broadcasts as published code does."""
    with as_users_run():
        yield


def problem(kind: str):
    network_key, readout_key, x_key = jax.random.split(jax.random.key(5), 3)
    network = chain(90.0, key=network_key) if kind == "dense" else conv(90.0, key=network_key)
    model = eq.Model(network, eq.SoftmaxReadout(3 if kind == "dense" else 4, 3, key=readout_key))
    x = jax.random.normal(x_key, (BATCH, *((6,) if kind == "dense" else (8, 8, 2))))
    return model, x, jnp.arange(BATCH) % 3


def plain_estimate(kind: str, model: Any, x: jax.Array, num_points: int, coefficient: float | None = None, **kwargs):
    shapes = {name: leaf.shape for name, leaf in jax.eval_shape(model.network.embed, x[0]).items()}
    field = plain.dense_field if kind == "dense" else plain.conv_field
    options = {"beta": BETA, "num_points": num_points, "free_steps": FREE, "nudged_steps": NUDGED} | kwargs
    return jax.jit(plain.gradient(field, model.network.activation, shapes, coefficient=coefficient, **options))


@pytest.mark.parametrize("kind, num_points", [("dense", 1), ("dense", 2), ("dense", 4), ("conv", 2)])
def test_plain_gradient_is_the_librarys(kind, num_points):
    model, x, y = problem(kind)
    trainer = eq.Trainer(
        eq.FixedSteps(FREE),
        eq.FiniteNudge(stencil=eq.cauchy(BETA, num_points), relaxation=eq.FixedSteps(NUDGED)),
        oracle.recorder(),
        keep_unsettled=True,
    )
    (ours,), _ = oracle.step_gradients(trainer, model, [(x, y)])
    key = jax.random.key(0)
    theirs = plain_estimate(kind, model, x, num_points)(plain.parameters(model), x, jax.nn.one_hot(y, 3), key)
    assert oracle.relative_error({"w": theirs["w"], "b": theirs["b"]}, ours) < 1e-9


def test_plain_homeostasis_has_the_exact_expectation():
    model, x, y = problem("dense")
    exact = eqx.filter_grad(lambda m: eq.ExactHomeostasis()(m.network, m.initial_state(x[0]), key=jax.random.key(0)))
    expected = exact(model).network.kernels
    kwargs = {"free_steps": 1, "nudged_steps": 1}
    arguments = plain.parameters(model), x, jax.nn.one_hot(y, 3), jax.random.key(1)

    def chunk(key: jax.Array) -> dict:
        return plain_estimate("dense", model, x, 2, 1.0, **kwargs)(*arguments[:3], key)["w"]

    without = plain_estimate("dense", model, x, 2, **kwargs)(*arguments)["w"]
    draws = jax.jit(jax.vmap(chunk))(jax.random.split(jax.random.key(2), 2000))
    for name, value in expected.items():
        found = draws[name] - without[name]
        error = jnp.std(found, axis=0) / np.sqrt(len(found))
        assert float(jnp.max(jnp.abs(jnp.mean(found, axis=0) - value) - 5 * error)) < 1e-9


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
    cost = jax.jit(jax.vmap(network.drive)).lower(u).compile().cost_analysis()
    counted = flops.total(flops.drift_products(network, 32))
    assert cost is not None and abs(cost["flops"] / counted - 1) < 0.1


def test_products_are_what_the_network_multiplies():
    network, *_ = problem("conv")
    for product in flops.drift_products(network.network, 2) + flops.embed_products(network.network, 2):
        y = jax.eval_shape(
            lambda x, k, p=product: floor.multiply(p, x, k), jnp.ones(product.image), jnp.ones(product.kernel)
        )
        assert y.shape[-1] == product.kernel[-1]


def test_floor_adds_up_and_ratios_divide():
    model, *_ = problem("dense")
    parts = flops.drift_products(model.network, 4) + flops.embed_products(model.network, 4)
    measured = floor.floor_of(model.network, 4, {product: 1.0 for product in parts})
    assert (measured.drift, measured.embed, measured.gradient) == (4.0, 1.0, 5.0)
    trainer = our_trainer("dense", "N=4", oracle.recorder(), homeostatic=False)
    row = over_floor(measured, trainer, {"free_steps": 10.0, "nudged_steps": 6.0}, ours=196.0)
    assert row["drift_evaluations"] == 10 + 6 * 4 / 3  # a complex node is two real ones: three nodes, four relaxations
    assert row["floor_seconds"] == 18 * 4 + 6
    assert row["ours_over_floor"] == pytest.approx(196 / 78)


def test_seconds_of_products_are_positive():
    product = flops.Product("matmul", (4, 8), (8, 8))
    assert 0 < floor.seconds_of([product], budget=0.01)[product] < 1.0
