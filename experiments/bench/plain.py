"""One training step written plainly as published, its loops rolled: the yardstick of `make bench`.

Synchronous steps for a fixed time on the whole batch, complex64 states *and* weights at complex nodes, the transposed
pooling by automatic differentiation, five forward probes for homeostasis. Parameters are those of an `eqprop.Model`, so
that both steps can be asked for the gradient of the same model. Damping and weak feedback are not in the paper: a
feedback gain below one acts as in `eqprop`, and the error vector and the Jacobian are taken in its metric.

Laborieux & Zenke (ICLR 2024); nothing here is used by the library.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from eqprop import ConvNetwork, DenseNetwork, Model
from eqprop.stencil import cauchy

State = dict[str, Array]
Params = dict[str, Any]
Field = Callable[[Params, State, Array, float], State]
"""`(parameters, rates, input, feedback gain) ↦ the input to every layer`, for a whole batch."""
Steps = Int[Array, ""] | int
Estimate = Callable[[Params, Array, Array, PRNGKeyArray, Steps, Steps], Params]
"""`(parameters, inputs, targets, key, free steps, nudged steps) ↦ gradient`; targets are vectors that sum to one."""


def parameters(model: Model) -> Params:
    """The arrays of a chain with a softmax readout."""
    network, readout = model.network, model.readout
    return {"w": dict(network.kernels), "b": dict(network.biases), "r": readout.kernel, "c": readout.bias}  # pyright: ignore


def dense_field(p: Params, s: State, x: Array, gain: float) -> State:
    """The input to the layers of a dense chain."""
    names = ["in", *sorted(s)]
    incoming = {}
    for k, name in enumerate(names[1:], start=1):
        below = x.reshape(x.shape[0], -1) if k == 1 else s[names[k - 1]]
        incoming[name] = below @ p["w"][names[k - 1], name] + p["b"][name]
        if k + 1 < len(names):
            incoming[name] = incoming[name] + _times(gain, s[names[k + 1]] @ p["w"][names[k + 1], name])
    return incoming


def conv_field(p: Params, s: State, x: Array, gain: float) -> State:
    """The input to the layers of a chain of convolutions with softmax pooling."""
    names = ["in", *sorted(s)]
    incoming = {}
    for a, b in zip(names[:-1], names[1:], strict=True):
        incoming[b] = _pool(_conv(x if a == "in" else s[a], p["w"][a, b], b) + p["b"][b])
    for a, b in zip(names[1:-1], names[2:], strict=True):

        def overlap(z: Array, kernel: Array = p["w"][b, a], b: str = b) -> Array:
            return jnp.sum(_pool(_conv(z, kernel, b)) * s[b])

        incoming[a] = incoming[a] + _times(gain, jax.grad(overlap, holomorphic=jnp.iscomplexobj(s[a]))(s[a]))
    return incoming


def _times(gain: float, values: Array) -> Array:
    return values if gain == 1 else gain * values


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
    model: Model,
    *,
    beta: float,
    num_points: int,
    damping: float = 1.0,
    coefficient: float | None = None,
    probes: int = 5,
) -> Estimate:
    """The published estimate for networks like that of `model`.

    **Arguments:** `damping`, 1 as published; `coefficient` of homeostasis, `None` to leave it out.
    """
    network = model.network
    assert isinstance(network, DenseNetwork | ConvNetwork)
    dense = isinstance(network, DenseNetwork)
    field, gain = dense_field if dense else conv_field, network.feedback_gain
    image = (network.kernels["in", "l1"].shape[0],) if dense else network.image_shape
    shapes = jax.eval_shape(network.embed, jax.ShapeDtypeStruct(image, network.biases["out"].dtype))
    depth = {name: level - len(shapes) for level, name in enumerate(sorted(shapes), start=1)}
    stencil = cauchy(beta, num_points, on_axis=True)

    def rates(u: State) -> State:
        return jax.tree.map(network.activation, u)

    def relax(p: Params, u: State, x: Array, y: Array, node: Array | float, steps: Steps) -> State:
        def step(_: Any, u: State) -> State:
            s = rates(u)
            incoming = field(p, s, x, gain)
            logits = s["out"].reshape(y.shape[0], -1) @ p["r"] + p["c"]
            weights = jnp.exp(logits - jnp.max(logits.real, axis=1, keepdims=True))
            error = weights / jnp.sum(weights, axis=1, keepdims=True) - y
            nudge = node * (error @ p["r"].T).reshape(s["out"].shape)
            new = {**incoming, "out": incoming["out"] + nudge}
            return new if damping == 1 else jax.tree.map(lambda a, b: a + damping * (b - a), u, new)

        return jax.lax.fori_loop(0, steps, step, u)

    def respond(p: Params, u: State, x: Array, y: Array, steps: Steps) -> State:
        total = jax.tree.map(jnp.zeros_like, u)
        for k in range(stencil.nodes.shape[0]):
            real = not stencil.holomorphic
            start, q, v, t = (u, p, x, y) if real else jax.tree.map(_complex, (u, p, x, y))
            node = stencil.nodes[k].real if real else stencil.nodes[k]
            nudged = rates(relax(q, start, v, t, node, steps))
            weight = stencil.weights[k].real if real else stencil.weights[k]
            total = jax.tree.map(lambda t, s, w=weight: t + (w * s).real.astype(t.dtype), total, nudged)
        if num_points == 1:
            total = jax.tree.map(lambda t, s: t - s / beta, total, rates(u))
        return {name: _times(gain ** depth[name], leaf) for name, leaf in total.items()}

    def asymmetry(p: Params, s: State, x: Array, key: PRNGKeyArray) -> Array:
        root = {name: math.sqrt(gain**level) for name, level in depth.items()}

        def jacobian(v: State) -> State:
            inside = {n: _times(1 / root[n], leaf) for n, leaf in v.items()}
            outside = jax.jvp(lambda s: field(p, s, x, gain), (s,), (inside,))[1]
            return {n: _times(root[n], leaf) - v[n] for n, leaf in outside.items()}

        noise = {n: jax.random.normal(jax.random.fold_in(key, i), s[n].shape) for i, n in enumerate(sorted(s))}
        once = jacobian(noise)
        twice = jacobian(once)
        total = sum(jnp.sum(once[n] ** 2) - jnp.sum(noise[n] * twice[n]) for n in s)
        return jnp.asarray(total) / sum(leaf.size for leaf in s.values())

    def estimate(p: Params, x: Array, y: Array, key: PRNGKeyArray, free_steps: Steps, nudged_steps: Steps) -> Params:
        zeros = {name: jnp.zeros((x.shape[0], *leaf.shape), leaf.dtype) for name, leaf in shapes.items()}
        u = relax(p, zeros, x, y, 0.0, free_steps)
        s, delta = rates(u), respond(p, u, x, y, nudged_steps)

        def objective(p: Params) -> Array:
            logits = s["out"].reshape(y.shape[0], -1) @ p["r"] + p["c"]
            incoming = field(p, s, x, gain)
            task = sum(jnp.sum(delta[name] * incoming[name]) for name in s)
            loss = (task - jnp.sum(y * jax.nn.log_softmax(logits))) / x.shape[0]
            if coefficient is None:
                return loss
            draws = [asymmetry(p, s, x, k) for k in jax.random.split(key, probes)]
            return loss + coefficient * sum(draws) / probes

        return jax.grad(objective)(p)

    return estimate
