"""One training step written plainly as published, its loops rolled: the yardstick of `make bench`.

Synchronous undamped steps for a fixed time on the whole batch, complex64 states *and* weights at complex nodes, the
transposed pooling by automatic differentiation, five forward probes for homeostasis. Parameters are those of an
`eqprop.Model`, so that both steps can be asked for the gradient of the same model.

Laborieux & Zenke (ICLR 2024); nothing here is used by the library.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from eqprop import Model
from eqprop.stencil import cauchy

State = dict[str, Array]
Params = dict[str, Any]
Field = Callable[[Params, State, Array], State]
"""`(parameters, rates, input) ↦ the input to every layer`, for a whole batch."""


def parameters(model: Model) -> Params:
    """The arrays of a chain with a softmax readout."""
    network, readout = model.network, model.readout
    return {"w": dict(network.kernels), "b": dict(network.biases), "r": readout.kernel, "c": readout.bias}  # pyright: ignore


def dense_field(p: Params, s: State, x: Array) -> State:
    """The input to the layers of a dense chain."""
    names = ["in", *sorted(s)]
    incoming = {}
    for k, name in enumerate(names[1:], start=1):
        below = x.reshape(x.shape[0], -1) if k == 1 else s[names[k - 1]]
        incoming[name] = below @ p["w"][f"{names[k - 1]}-{name}"] + p["b"][name]
        if k + 1 < len(names):
            incoming[name] = incoming[name] + s[names[k + 1]] @ p["w"][f"{names[k + 1]}-{name}"]
    return incoming


def conv_field(p: Params, s: State, x: Array) -> State:
    """The input to the layers of a chain of convolutions with softmax pooling."""
    names = ["in", *sorted(s)]
    incoming = {}
    for a, b in zip(names[:-1], names[1:], strict=True):
        incoming[b] = _pool(_conv(x if a == "in" else s[a], p["w"][f"{a}-{b}"], b) + p["b"][b])
    for a, b in zip(names[1:-1], names[2:], strict=True):

        def overlap(z: Array, kernel: Array = p["w"][f"{b}-{a}"], b: str = b) -> Array:
            return jnp.sum(_pool(_conv(z, kernel, b)) * s[b])

        incoming[a] = incoming[a] + jax.grad(overlap, holomorphic=jnp.iscomplexobj(s[a]))(s[a])
    return incoming


def _complex(leaf: Array) -> Array:
    """complex64, and complex128 where all is float64."""
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.complex64))


def _conv(s: Array, kernel: Array, target: str) -> Array:
    padding = "VALID" if target == "out" else "SAME"
    return jax.lax.conv_general_dilated(s, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _pool(v: Array) -> Array:
    batch, height, width, channels = v.shape
    windows = v.reshape(batch, height // 2, 2, width // 2, 2, channels)
    shift = jax.lax.stop_gradient(jnp.max(windows.real, axis=(2, 4), keepdims=True))
    weights = jnp.exp(windows - shift)
    return jnp.sum(weights * windows, axis=(2, 4)) / jnp.sum(weights, axis=(2, 4))


def gradient(
    field: Field,
    activation: Callable[[Array], Array],
    shapes: dict[str, tuple[int, ...]],
    *,
    beta: float,
    num_points: int,
    free_steps: int,
    nudged_steps: int,
    coefficient: float | None = None,
    num_probes: int = 5,
) -> Callable[[Params, Array, Array, PRNGKeyArray], Params]:
    """The published estimate as a function of parameters, inputs, one-hot targets and a key.

    **Arguments:** `shapes`, of the layers of one example; `coefficient` of homeostasis, `None` to leave it out.
    """
    stencil = cauchy(beta, num_points)

    def rates(u: State) -> State:
        return jax.tree.map(activation, u)

    def relax(p: Params, u: State, x: Array, y: Array, node: Array | float, steps: int) -> State:
        def step(u: State, _: None) -> tuple[State, None]:
            s = rates(u)
            incoming = field(p, s, x)
            logits = s["out"].reshape(y.shape[0], -1) @ p["r"] + p["c"]
            weights = jnp.exp(logits - jnp.max(logits.real, axis=1, keepdims=True))
            error = weights / jnp.sum(weights, axis=1, keepdims=True) - y
            nudge = node * (error @ p["r"].T).reshape(s["out"].shape)
            return {**incoming, "out": incoming["out"] + nudge}, None

        return jax.lax.scan(step, u, None, length=steps)[0]

    def respond(p: Params, u: State, x: Array, y: Array) -> State:
        total = jax.tree.map(jnp.zeros_like, u)
        for k in range(stencil.nodes.shape[0]):
            real = k < stencil.num_real
            start, q, v, t = (u, p, x, y) if real else jax.tree.map(_complex, (u, p, x, y))
            node = stencil.nodes[k].real if real else stencil.nodes[k]
            nudged = rates(relax(q, start, v, t, node, nudged_steps))
            weight = stencil.weights[k].real if real else stencil.weights[k]
            total = jax.tree.map(lambda t, s, w=weight: t + (w * s).real.astype(t.dtype), total, nudged)
        if num_points == 1:
            total = jax.tree.map(lambda t, s: t - s / beta, total, rates(u))
        return total

    def asymmetry(p: Params, s: State, x: Array, key: PRNGKeyArray) -> Array:
        def jacobian(v: State) -> State:
            return jax.tree.map(jnp.subtract, jax.jvp(lambda s: field(p, s, x), (s,), (v,))[1], v)

        noise = {n: jax.random.normal(jax.random.fold_in(key, i), s[n].shape) for i, n in enumerate(sorted(s))}
        once = jacobian(noise)
        twice = jacobian(once)
        total = sum(jnp.sum(once[n] ** 2) - jnp.sum(noise[n] * twice[n]) for n in s)
        return jnp.asarray(total) / sum(leaf.size for leaf in s.values())

    def estimate(p: Params, x: Array, y: Array, key: PRNGKeyArray) -> Params:
        zeros = {name: jnp.zeros((x.shape[0], *shape)) for name, shape in shapes.items()}
        u = relax(p, zeros, x, y, 0.0, free_steps)
        s, delta = rates(u), respond(p, u, x, y)

        def objective(p: Params) -> Array:
            logits = s["out"].reshape(y.shape[0], -1) @ p["r"] + p["c"]
            incoming = field(p, s, x)
            task = sum(jnp.sum(delta[name] * incoming[name]) for name in s)
            loss = (task - jnp.sum(y * jax.nn.log_softmax(logits))) / x.shape[0]
            if coefficient is None:
                return loss
            draws = [asymmetry(p, s, x, k) for k in jax.random.split(key, num_probes)]
            return loss + coefficient * sum(draws) / num_probes

        return jax.grad(objective)(p)

    return estimate
