# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own energy, vector field and estimator
#
# This page adds three things to the library without changing it: a network given by an energy, a network given by a
# vector field, and an estimator of the error vector. Each is checked against recurrent backpropagation (RBP), against
# dense linear algebra and against finite differences of the loss. The energy is then trained on digits by the new
# estimator.
#
# All numbers are in double precision, so that a small difference is a statement about the method and not about
# rounding.

# %%
import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

import eqprop as eq
from eqprop.data import digits, hold_out

jax.config.update("jax_enable_x64", True)

# %% [markdown]
# ## An energy
#
# The interaction below has pairs of neurons and triples of neurons: an output neuron gates how hidden neurons excite
# each other,
#
# $$\Phi(s, x) = x U h + h W o + \tfrac12 \sum_k o_k (h \cdot a_k)^2 .$$
#
# `eq.EnergyNetwork` needs this scalar and nothing else. It derives the drive $\partial\Phi/\partial s$. The dynamics
# $F(u) = \partial\Phi/\partial s - u$ descend an energy. The Jacobian of the drive is a Hessian,
# $A = \partial^2\Phi/\partial s^2 = A^\top$, and it depends on the state here. `holomorphic=True` says that the energy
# and the activation are analytic, so that nudges may be complex.


# %%
class Triples(eqx.Module):
    into: jax.Array
    pairs: jax.Array
    gates: jax.Array

    def __init__(self, inputs: int, hidden: int, outputs: int, *, key: jax.Array):
        first, second, third = jax.random.split(key, 3)
        self.into = jax.random.normal(first, (inputs, hidden)) / inputs**0.5
        self.pairs = jax.random.normal(second, (hidden, outputs)) / hidden**0.5
        self.gates = jax.random.normal(third, (outputs, hidden)) / hidden

    def __call__(self, s, x):
        hidden, out = s["hidden"], s["out"]
        field = x.reshape(-1) @ self.into
        return field @ hidden + hidden @ self.pairs @ out + 0.5 * out @ (self.gates @ hidden) ** 2


network_key, readout_key, field_key, fit_key = jax.random.split(jax.random.key(0), 4)
network = eq.EnergyNetwork(
    Triples(64, 32, 16, key=network_key), {"hidden": 32, "out": 16}, activation=eq.tanh, holomorphic=True
)
model = eq.Model(network, eq.SoftmaxReadout(16, 10, key=readout_key))
data = hold_out(digits(), 0.1, seed=0)
x, y = jnp.asarray(data.train.images[0]) / 16.0, jnp.asarray(data.train.labels[0])

# %% [markdown]
# The dense check of one example: with $M = \mathrm{diag}(1/\sigma') - A$ and the teaching signal
# $g = \partial\ell/\partial s$, the true error vector is $M^{-\top} g$ and the response to a weak nudge is $M^{-1} g$
# ([conventions](../theory.md), equation 3). Both are solved by NumPy from a Jacobian that JAX writes out.


# %%
def dense(model, x, y, u):
    """The response and the true error vector, as flat arrays, and A."""
    example = model.at(x, y)
    s = example.field.rates(u)
    flat, unravel = ravel_pytree(s)
    A = np.asarray(jax.jacfwd(lambda v: ravel_pytree(example.field.drive(unravel(v)))[0])(flat))
    slope = ravel_pytree(jax.jvp(example.field.rates, (u,), (jax.tree.map(jnp.ones_like, u),))[1])[0]
    g = np.asarray(ravel_pytree(example.teaching(s))[0])
    M = np.diag(1 / np.asarray(slope)) - A
    return np.linalg.solve(M, g), np.linalg.solve(M.T, g), A


@eqx.filter_jit
def error_of(estimator, model, x, y):
    example = model.at(x, y)
    free = relaxation(example.field.drift, example.field.initial_state())
    return free.state, ravel_pytree(estimator.estimate(example, free).delta)[0]


def deviation(a, b):
    """The largest difference, relative to the largest entry."""
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


relaxation = eq.Sweep(tol=1e-13, rtol=1e-10, max_steps=2000, damping=0.7)
u, rbp = error_of(eq.RecurrentBackprop(relaxation=relaxation), model, x, y)
_, circle = error_of(eq.FiniteNudge(stencil=eq.cauchy(0.1, 8), relaxation=relaxation), model, x, y)
response, truth, A = dense(model, x, y, u)

print(f"asymmetry of A:                        {np.max(np.abs(A - A.T)):.1e}")
print(f"RBP against the dense solve:           {deviation(rbp, truth):.1e}")
print(f"nudges on a circle against the solve:  {deviation(circle, truth):.1e}")
assert np.max(np.abs(A - A.T)) < 1e-12
assert deviation(rbp, truth) < 1e-8 and deviation(circle, truth) < 1e-6

# %% [markdown]
# The energy falls along the relaxation, and `eq.trace` keeps it.

# %%
trajectory = eqx.filter_jit(eq.trace)(model, x, eq.Picard(damping=0.3), num_steps=40)
assert trajectory.energy is not None
energy = np.asarray(trajectory.energy)
assert np.all(np.diff(energy) < 1e-12)

_, (left, right) = plt.subplots(1, 2, figsize=(8.0, 3.2), layout="constrained")
left.plot(trajectory.times, energy, color=eq.plot.BLUE)
left.set(xlabel="damped step", ylabel="energy E(u)")
right.semilogy(trajectory.times, trajectory.residual, color=eq.plot.ORANGE)
right.set(xlabel="damped step", ylabel="residual max |F(u)|")
plt.show()

# %% [markdown]
# *The free phase of one image under damped synchronous steps: the energy never rises, while the residual may on its
# way.*

# %% [markdown]
# ## A vector field
#
# `eq.VectorField` takes the force itself, $F(u) = f(u, x)$, and the rates are the potentials. Below, the couplings $W$
# are symmetric, but the nonlinearity stands outside the sum,
#
# $$f(u, x) = \tanh(W u + x U) - u ,$$
#
# so that $A = \mathrm{diag}(\tanh')\,W$ is not symmetric. A plain nudge then measures $M^{-1} g$ and not $M^{-\top} g$.
# `eq.AsymmetricNudge` (AsymEP) adds the current that repairs this.


# %%
class Outside(eqx.Module):
    into: jax.Array
    coupling: jax.Array

    def __call__(self, u, x):
        whole = jnp.concatenate([u["hidden"], u["out"]])
        drive = jnp.tanh(whole @ (self.coupling + self.coupling.T) + x.reshape(-1) @ self.into)
        return {"hidden": drive[:32] - u["hidden"], "out": drive[32:] - u["out"]}


first, second = jax.random.split(field_key)
outside = Outside(jax.random.normal(first, (64, 48)) / 4, 0.06 * jax.random.normal(second, (48, 48)))
field = eq.Model(
    eq.VectorField(outside, {"hidden": 32, "out": 16}, holomorphic=True), eq.SoftmaxReadout(16, 10, key=readout_key)
)

u, rbp = error_of(eq.RecurrentBackprop(relaxation=relaxation), field, x, y)
_, plain = error_of(eq.FiniteNudge(stencil=eq.cauchy(0.1, 8), relaxation=relaxation), field, x, y)
_, repaired = error_of(eq.AsymmetricNudge(stencil=eq.cauchy(0.1, 8), relaxation=relaxation), field, x, y)
response, truth, A = dense(field, x, y, u)

print(f"asymmetry of A, relative:                   {np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T):.2f}")
print(f"RBP against the dense M⁻ᵀg:                 {deviation(rbp, truth):.1e}")
print(f"plain nudges against the dense M⁻¹g:        {deviation(plain, response):.1e}")
print(f"plain nudges, cosine to the true error:     {float(eq.metrics.cosine(plain, truth)):.4f}")
print(f"AsymEP, cosine to the true error:           {float(eq.metrics.cosine(repaired, truth)):.10f}")
assert deviation(rbp, truth) < 1e-8 and deviation(plain, response) < 1e-6 and deviation(repaired, truth) < 1e-6
assert float(eq.metrics.cosine(plain, truth)) < 0.99

# %% [markdown]
# ## An estimator
#
# Some devices can push a current into a node and cannot draw one. They have nudges of one sign. The one-sided
# difference from the free phase and one nudged phase has a bias of order $\beta$. A second nudge of twice the strength
# removes it:
#
# $$\delta \approx \frac{-3\, s^*(0) + 4\, s^*(\beta) - s^*(2\beta)}{2\beta}, \qquad \text{error } O(\beta^2).$$
#
# An estimator is one class with the method `error`. The zero node relaxes together with the two others: all three then
# take the same number of steps, and what the free phase left over cancels in the difference. The base class brings the
# response to the scale of the true gradient, bounds its norm and forms the gradient. `on_device` says what a device
# changes: here, its relaxation.


# %%
class ThreePoint(eq.AbstractErrorEstimator):
    relaxation: eq.AbstractRelaxation
    beta: float = 0.1
    norm_bound: float | None = None
    needs_free_phase: ClassVar[bool] = True

    def on_device(self, device: eq.Device) -> "ThreePoint":
        if device.reading is not None:
            raise ValueError("ThreePoint does not model errors of reading. Use eq.FiniteNudge for these.")
        return dataclasses.replace(self, relaxation=device.relaxation or self.relaxation)

    def error(self, example, free, *, key=None):
        del key
        nodes = self.beta * jnp.array([0.0, 1.0, 2.0])
        starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), free.state)
        nudged = self.relaxation.together(lambda beta, u: example.drift(u, beta), nodes, starts, blocks=example.blocks)
        rates = jax.vmap(example.field.rates)(nudged.state)
        weights = jnp.array([-1.5, 2.0, -0.5]) / self.beta
        delta = jax.tree.map(lambda s: jnp.tensordot(weights, s, axes=1), rates)
        return eq.Error(free.state, delta, jnp.sum(nudged.num_steps), eq.worst(nudged.result))


# %% [markdown]
# The order is measured, on the energy network, against the dense solve. β is an array in the compiled function, so that
# one compilation serves all strengths.

# %%
strengths = np.geomspace(0.02, 0.32, 5)
makers = {
    "one-sided": lambda beta: eq.FiniteNudge(stencil=eq.one_sided(beta), relaxation=relaxation),
    "three points, one-sided": lambda beta: ThreePoint(relaxation=relaxation, beta=beta),
    "centred": lambda beta: eq.FiniteNudge(stencil=eq.centred(beta), relaxation=relaxation),
}
u, _ = error_of(eq.RecurrentBackprop(relaxation=relaxation), model, x, y)
_, truth, _ = dense(model, x, y, u)
_, ax = plt.subplots(figsize=(5.6, 4.0), layout="constrained")
orders = {}
for (name, maker), (colour, marker) in zip(makers.items(), eq.plot.MARKED, strict=False):
    measure = eqx.filter_jit(lambda beta, maker=maker: error_of(maker(beta), model, x, y)[1])
    biases = [deviation(measure(jnp.asarray(beta)), truth) for beta in strengths]
    orders[name] = np.polyfit(np.log(strengths[:3]), np.log(biases[:3]), 1)[0]
    ax.loglog(strengths, biases, color=colour, marker=marker, label=f"{name}: order {orders[name]:.2f}")
    print(f"{name:24s} order {orders[name]:.2f}, error at β = {strengths[0]:g}: {biases[0]:.1e}")
ax.set_xticks(strengths, [f"{beta:g}" for beta in strengths])
ax.set_xticks([], minor=True)
ax.set(xlabel="nudge strength β", ylabel="relative error of δ")
ax.legend(frameon=False)
plt.show()
assert abs(orders["one-sided"] - 1) < 0.15
assert abs(orders["three points, one-sided"] - 2) < 0.2 and abs(orders["centred"] - 2) < 0.2

# %% [markdown]
# *Error of three estimators against the dense solve: two nudges of one sign have the order of the centred difference.*

# %% [markdown]
# ## Training by it
#
# The trainer takes the energy and the estimator as they are. The gradient of a batch agrees with finite differences of
# the loss along a random direction. `eq.fit` trains on digits.

# %%
settle = eq.Sweep(tol=1e-6, damping=0.7)
trainer = eq.Trainer(settle, ThreePoint(relaxation=settle, beta=0.1, norm_bound=1.0), optax.adam(5e-3))
exact = dataclasses.replace(trainer, relaxation=relaxation, estimator=ThreePoint(relaxation=relaxation, beta=1e-3))
batch = jnp.asarray(data.train.images[:20]) / 16.0, jnp.asarray(data.train.labels[:20])

gradient, _ = eqx.filter_jit(exact.gradient)(model, batch, key=fit_key)
params, static = eqx.partition(model, eqx.is_inexact_array)
flat, unravel = ravel_pytree(params)
direction = jax.random.normal(fit_key, flat.shape) / flat.size**0.5
loss = eqx.filter_jit(lambda p, batch: exact.evaluate(eqx.combine(unravel(p), static), batch)["loss"])
slope = float((loss(flat + 1e-4 * direction, batch) - loss(flat - 1e-4 * direction, batch)) / 2e-4)
estimated = float(ravel_pytree(gradient)[0] @ direction)
print(f"directional derivative: {estimated:.6f} by nudges, {slope:.6f} by finite differences")
assert abs(estimated - slope) < 1e-3 * abs(slope)

# %%
history = eq.fit(trainer, model, data.train, epochs=20, batch_size=50, validation=data.validation, key=fit_key)
print(history)
assert history["validation_accuracy"][-1] > 0.85 and history["unsettled_fraction"][-1] < 0.02

# %% [markdown]
# The learned energy is a file: `eq.save("energy.npz", model)` writes it. A class of your own is not known to the file,
# so that `eq.load` asks for it.
#
# ## Try
#
# - Richardson's extrapolation: two centred differences at $\beta$ and $\beta/2$ combine to order 4. Change the nodes
#   and the weights of `ThreePoint`.
# - Make the gates of `Triples` ten times stronger, and look at `trajectory.status` and at `unsettled_fraction`.
# - Put the trainer on a device: `trainer.on(eq.Substrate(mismatch=eq.substrate.Mismatch(0.1)))` needs kernels that a
#   device would hold. The message says what the network has to offer.
#
# More: [from a data sheet to an accuracy](device.py), [conventions](../theory.md), [networks](../networks.md).
