"""Problems, methods and oracles that the tests share: everything here is small, float64 and settled to rounding.

An oracle takes another route than the library: dense Jacobians and dense solves, finite differences, a recorded file.
"""

import functools
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
from jax.flatten_util import ravel_pytree

import eqprop
from eqprop._tree import add, real_linear

ROOT = Path(__file__).parents[1]

SETTLE_TOL = 1e-14
"""About 50 roundings: a settled state of some ten to a thousand neurons of order one gets there in float64."""

SETTLE = eqprop.Picard(tol=SETTLE_TOL, max_steps=3000, rtol=1e-9)
"""The relaxation of all tests that are not about relaxation."""

BATCH = 3


# Problems: a model with a batch of examples.


class Problem(NamedTuple):
    model: eqprop.Model
    x: jax.Array
    y: jax.Array


def scaled(network, gain: float):
    """The same network with all kernels times `gain`."""
    return eqx.tree_at(lambda n: n.kernels, network, jax.tree.map(lambda k: gain * k, network.kernels))


def chain(angle: float, *, key: jax.Array, sizes=(6, 5, 4, 3), **kwargs) -> eqprop.DenseNetwork:
    return eqprop.DenseNetwork.chain(sizes, angle=angle, key=key, **kwargs)


def loop(*, key: jax.Array) -> eqprop.DenseNetwork:
    """A graph that is no chain: a skip edge, a long loop, a layer feeding itself, no reciprocal pair."""
    edges = [("in", "l1"), ("l1", "l2"), ("l2", "out"), ("l1", "out"), ("in", "out"), ("l2", "l2"), ("out", "l1")]
    return scaled(eqprop.DenseNetwork(6, {"l1": 5, "l2": 4, "out": 3}, edges, key=key), 0.5)


def conv(angle: float, *, key: jax.Array) -> eqprop.ConvNetwork:
    """8x8x2 → 4x4x3 ⇄ 1x1x4."""
    return eqprop.ConvNetwork.chain((8, 8, 2), (3, 4), angle=angle, key=key)


def hopfield(*, key: jax.Array) -> eqprop.HopfieldNetwork:
    return scaled(eqprop.HopfieldNetwork.chain((6, 5, 4, 3), key=key), 0.5)


NETWORKS = {
    "symmetric": lambda key: chain(0.0, key=key),
    "asymmetric": lambda key: chain(90.0, key=key),
    "loop": lambda key: loop(key=key),
    "conv_symmetric": lambda key: conv(0.0, key=key),
    "conv": lambda key: conv(90.0, key=key),
    "hopfield": lambda key: hopfield(key=key),
}
ASYMMETRIC = ["asymmetric", "loop", "conv"]
SYMMETRIC = ["symmetric", "conv_symmetric", "hopfield"]


@functools.cache
def problem(name: str, seed: int = 0) -> Problem:
    """A random model with biases, and a batch for it: one-hot targets of a cross-entropy."""
    network_key, readout_key, bias_key, x_key, y_key = jax.random.split(jax.random.key(seed), 5)
    network = NETWORKS[name](network_key)
    leaves, structure = jax.tree.flatten(network.biases)
    keys = jax.random.split(bias_key, len(leaves))
    biases = [0.2 * jax.random.normal(k, b.shape) for k, b in zip(keys, leaves, strict=True)]
    network = eqx.tree_at(lambda n: n.biases, network, jax.tree.unflatten(structure, biases))
    is_conv = isinstance(network, eqprop.ConvNetwork)
    shape = network.image_shape if is_conv else (6,)
    readout = eqprop.SoftmaxReadout(4 if is_conv else 3, 3, key=readout_key)
    x = jax.random.normal(x_key, (BATCH, *shape))
    y = jax.nn.one_hot(jax.random.randint(y_key, (BATCH,), 0, 3), 3, dtype=float)
    return Problem(eqprop.Model(network, readout), x, y)


class Ring(eqprop.AbstractNetwork):
    """What a user may bring: `drive` is nonlinear in the rates, and nothing is said of metric and blocks."""

    weights: jax.Array
    into: jax.Array
    activation: ClassVar[Any] = staticmethod(eqprop.shifted_sigmoid)
    holomorphic: ClassVar[bool] = True

    def __init__(self, key: jax.Array):
        first, second = jax.random.split(key)
        self.weights = 0.5 * jax.random.normal(first, (4, 4))
        self.into = jax.random.normal(second, (6, 4))

    def embed(self, x):
        return {"hidden": x @ self.into, "out": jnp.zeros(4)}

    def drive(self, s, current):
        recurrent = {"hidden": eqprop.tanh(s["out"]), "out": product(s["hidden"], self.weights)}
        return add(recurrent, current)


class Tied(eqprop.AbstractNetwork):
    """What a user may bring: a subclass with a drive of its own."""

    weights: jax.Array
    activation: Any = eqx.field(static=True, default=eqprop.tanh)
    holomorphic: ClassVar[bool] = True

    def embed(self, x):
        return {"hidden": x[:4], "out": x[2:6]}

    def drive(self, s, current):
        out = product(s["hidden"], self.weights)
        return add({"hidden": product(s["out"], self.weights.T), "out": out - 0.1 * s["out"] ** 2}, current)


class Rectified(Tied):
    """A network that is not analytic."""

    activation: Any = eqx.field(static=True, default=jax.nn.relu)
    holomorphic: ClassVar[bool] = False


def product(s, kernel):
    """Rates, real or complex, through a real kernel."""
    return real_linear(lambda z: z @ kernel, s)


@contextmanager
def unchecked():
    """Without the checks of annotated types, as users run the library: it sees what is traced or of a wrong type."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


# The library, compiled once a structure of its arguments.


@eqx.filter_jit
def free_phase(model, x, relaxation: eqprop.AbstractRelaxation = SETTLE) -> eqprop.Solution:
    return eqx.filter_vmap(lambda x: relaxation(model.network.at(x).drift, model.network.at(x).initial_state()))(x)


@eqx.filter_jit
def respond(estimator, model, x, y, free) -> eqprop.Response:
    return eqx.filter_vmap(lambda x, y, free: estimator.respond(model.at(x, y), free))(x, y, free)


@eqx.filter_jit
def gradient(estimator, model, x, y, response) -> eqprop.Model:
    """Of the mean surrogate: what a training step hands to the optimiser."""

    def objective(model):
        return jnp.mean(jax.vmap(lambda x, y, r: estimator.surrogate(model.at(x, y), r))(x, y, response))

    return eqx.filter_grad(objective)(model)


def estimate(estimator, model, x, y) -> tuple[eqprop.Response, eqprop.Model]:
    """Response and gradient, from a settled free phase."""
    response = respond(estimator, model, x, y, free_phase(model, x))
    return response, gradient(estimator, model, x, y, response)


audit = eqx.filter_jit(eqprop.audit)
"""Compiled, and so without its warnings."""


# Oracles.


def flat(state) -> jax.Array:
    """The layers of one example concatenated."""
    return ravel_pytree(state)[0]


flat_batch = jax.vmap(flat)


class Oracle(NamedTuple):
    """Dense linear algebra at the free fixed point of every example; arrays have a leading batch axis."""

    u: jax.Array
    s: jax.Array
    A: jax.Array
    D: jax.Array
    g: jax.Array
    tangent: jax.Array
    rbp: jax.Array
    J: jax.Array


@eqx.filter_jit
def oracle(model: eqprop.Model, x, y) -> Oracle:
    """`M⁻¹ g` and `M⁻ᵀ g` with `M = diag(1/σ′) − A`, from a fixed point polished by Newton steps. `J = −M diag σ′` is
    what is inverted, since a neuron may have no slope."""
    network = model.network

    def one(x, y):
        current = network.embed(x)
        _, unravel = ravel_pytree(network.initial_state(current))
        u = flat(SETTLE(lambda u: network.drift(u, current), network.initial_state(current)).state)

        def drift(u):
            return flat(network.drift(unravel(u), current))

        for _ in range(2):
            u = u - jnp.linalg.solve(jax.jacfwd(drift)(u), drift(u))
        s = network.activation(u)
        D = jax.vmap(jax.grad(network.activation))(u)
        A = jax.jacfwd(lambda s: flat(network.drive(unravel(s), current)))(s)
        g = jax.grad(lambda s: model.readout.loss(unravel(s), y))(s)
        J = A * D[None] - jnp.eye(u.size)
        return Oracle(u, s, A, D, g, -D * jnp.linalg.solve(J, g), -jnp.linalg.solve(J.T, D * g), J)

    return jax.vmap(one)(x, y)


FD_STEP = 1e-3
FD_TOL = 2e-10
"""Five-point differences: truncation about `FD_STEP⁴/30` of a fifth derivative, rounding 1e-16/FD_STEP."""


def finite_differences(function, params) -> Any:
    """The gradient of `function(params)` by five-point central differences, one parameter after the other."""
    vector, unravel = ravel_pytree(params)

    @jax.jit
    def derivatives(vector):
        def along(direction):
            at = [function(unravel(vector + k * FD_STEP * direction)) for k in (-2, -1, 1, 2)]
            return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * FD_STEP)

        return jax.lax.map(along, jnp.eye(vector.size), batch_size=64)

    return unravel(derivatives(vector))


def loss_gradient(model: eqprop.Model, x, y) -> eqprop.Model:
    """Finite differences of the mean loss at the free fixed point, which moves with the parameters."""
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params):
        model = eqx.combine(params, static)

        def one(x, y):
            u = SETTLE(model.network.at(x).drift, model.network.at(x).initial_state()).state
            return model.readout.loss(model.network.rates(u), y)

        return jnp.mean(jax.vmap(one)(x, y))

    return finite_differences(loss, params)


@eqx.filter_jit
def surrogate_gradient(model: eqprop.Model, x, y, u, delta) -> eqprop.Model:
    """`⟨δ, ∂F/∂θ⟩` plus the readout's own gradient, for raveled `u` and `δ` of a batch."""

    def objective(model):
        def one(x, y, u, delta):
            current = model.network.embed(x)
            u = ravel_pytree(model.network.initial_state(current))[1](u)
            return delta @ flat(model.network.drift(u, current)) + model.readout.loss(model.network.rates(u), y)

        return jnp.mean(jax.vmap(one)(x, y, u, delta))

    return eqx.filter_grad(objective)(model)


# Comparison.


def gap(a, b) -> float:
    """`max |a − b|` over all arrays of two trees of one structure."""
    a, b = (jax.tree.leaves(eqx.filter(t, eqx.is_array)) for t in (a, b))
    assert len(a) == len(b) and all(p.shape == q.shape for p, q in zip(a, b, strict=True))
    return max(float(np.max(np.abs(np.asarray(p) - np.asarray(q)))) for p, q in zip(a, b, strict=True))


def relative_error(a, b) -> float:
    """`‖a − b‖ / ‖b‖`, trees raveled."""
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(eqx.filter(t, eqx.is_array))]) for t in (a, b))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def slope(x, y) -> float:
    """Of the least-squares line through the points."""
    return float(np.polyfit(np.asarray(x), np.asarray(y), 1)[0])


# The recorded files.

FIXTURES = ("mlp_chain_a0", "mlp_chain_a90", "mlp_loop", "conv_a0", "conv_a90")


class Fixture(NamedTuple):
    data: dict[str, np.ndarray]
    model: eqprop.Model
    x: jax.Array
    y: jax.Array

    def state(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays under `prefix/`, one a layer."""
        return {name: self.data[f"{prefix}/{name}"] for name in self.layers}

    @property
    def layers(self) -> list[str]:
        return sorted(self.model.network.biases)  # pyright: ignore[reportAttributeAccessIssue]

    def parameters(self, prefix: str) -> eqprop.Model:
        """The arrays under `prefix/`, in the places where a `Model` keeps them."""
        return _with_parameters(self.model, self.data, prefix)


@functools.cache
def fixture(name: str) -> Fixture:
    """A recorded file, with its parameters in a `Model`."""
    with np.load(Path(__file__).parent / "fixtures" / f"{name}.npz") as file:
        data = dict(file)
    key = jax.random.key(0)
    if name.startswith("conv"):
        network = eqprop.ConvNetwork.chain((32, 32, 3), (4, 5, 6, 6), key=key)
    else:
        feedback = [("out", "l1")] if name == "mlp_loop" else [("l2", "l1"), ("out", "l2")]
        forward = [("in", "l1"), ("l1", "l2"), ("l2", "out")]
        network = eqprop.DenseNetwork(20, {"l1": 16, "l2": 14, "out": 8}, forward, feedback=feedback, key=key)
    features, classes = data["param/readout/Dense_0/kernel"].shape
    model = eqprop.Model(network, eqprop.SoftmaxReadout(features, classes, key=key))
    model = _with_parameters(model, data, "param")
    return Fixture(data, model, jnp.asarray(data["x"]), jnp.asarray(data["y"]))


def _with_parameters(model, data, prefix):
    def take(name):
        return jnp.asarray(data[f"{prefix}/{name}"])

    kernels = {edge: take(f"{'-'.join(edge)}/kernel") for edge in model.network.kernels}
    # The published code keeps a bias with the forward edge into a layer, the only edge of it that has one.
    named = {"-".join(edge): edge[1] for edge in kernels}
    biases = {layer: take(f"{name}/bias") for name, layer in named.items() if f"{prefix}/{name}/bias" in data}
    readout = take("readout/Dense_0/kernel"), take("readout/Dense_0/bias")
    where = lambda m: (m.network.kernels, m.network.biases, m.readout.kernel, m.readout.bias)
    return eqx.tree_at(where, model, (kernels, biases, *readout))
