# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # AsymEP: exact gradients without weight symmetry
#
# After Scurria, Vanden Abeele, Mognetti & Massar, *Equilibrium propagation for non-conservative systems* (2026,
# [arXiv 2602.03670](https://arxiv.org/abs/2602.03670)): their claim that nudges give the exact gradient of a network
# without symmetric weights, if the nudged phase has an additional current that is proportional to the antisymmetric
# part of the coupling, $(A^\top - A)(s - s^*)$. The script repeats the claim in kind, on a small network, and not the
# published numbers.
#
# The angle between forward and feedback weights goes from 0° (tied) to 90° (independent). The error of each estimator
# is compared with recurrent backpropagation (RBP). Three are exact at every angle: AsymEP, Dyadic EP of the same paper,
# and RBP itself. Plain nudges are exact at 0° alone, and their gap is known in advance:
# $M^{-1}(A - A^\top)M^{-\top} g$ ([conventions](../theory.md), equation 4).

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree

import eqprop as eq

jax.config.update("jax_enable_x64", True)

network_key, input_key, readout_key = jax.random.split(jax.random.key(1), 3)
x, y = jax.random.normal(input_key, (8, 16)), jnp.arange(8) % 4
readout = eq.SoftmaxReadout(24, 4, key=readout_key)
relaxation = eq.Sweep(tol=1e-13, rtol=1e-11, max_steps=2000)
weak = eq.cauchy(0.05, 6)
estimators = {
    "plain nudges": eq.FiniteNudge(stencil=weak, relaxation=relaxation),
    "AsymEP": eq.AsymmetricNudge(stencil=weak, relaxation=relaxation),
    "Dyadic EP": eq.DyadicNudge(relaxation=relaxation),
    "RBP": eq.RecurrentBackprop(relaxation=relaxation),
}


@eqx.filter_jit
def measure(model, x, y):
    """Error vectors of every estimator, the truth by a dense solve, and the gap of equation 4."""

    def one(x, y):
        example = model.at(x, y)
        free = relaxation(example.field.drift, example.field.initial_state(), blocks=example.field.blocks)
        found = {name: ravel_pytree(e.estimate(example, free).delta)[0] for name, e in estimators.items()}
        s = example.field.rates(free.state)
        flat, unravel = ravel_pytree(s)
        A = jax.jacfwd(lambda v: ravel_pytree(example.field.drive(unravel(v)))[0])(flat)
        ones = jax.tree.map(jnp.ones_like, free.state)
        slope = ravel_pytree(jax.jvp(example.field.rates, (free.state,), (ones,))[1])[0]
        M, g = jnp.diag(1 / slope) - A, ravel_pytree(example.teaching(s))[0]
        truth = jnp.linalg.solve(M.T, g)
        return found, truth, jnp.linalg.solve(M, (A - A.T) @ truth)

    return jax.vmap(one)(x, y)


# %%
angles = np.array([0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0])
errors, expected = {name: [] for name in estimators}, []
for angle in angles:
    network = eq.DenseNetwork.chain([16, 32, 24], angle=float(angle), init_scale=0.7, key=network_key)
    found, truth, gap = measure(eq.Model(network, readout), x, y)
    for name, delta in found.items():
        errors[name].append(float(jnp.linalg.norm(delta - truth) / jnp.linalg.norm(truth)))
    expected.append(float(jnp.linalg.norm(gap) / jnp.linalg.norm(truth)))

for name, values in errors.items():
    print(f"{name:13s} relative error at 0°: {values[0]:.1e}, at 90°: {values[-1]:.1e}")
assert max(errors["RBP"] + errors["Dyadic EP"]) < 1e-9 and max(errors["AsymEP"]) < 1e-5
assert errors["plain nudges"][0] < 1e-5 and errors["plain nudges"][-1] > 0.1
assert np.allclose(errors["plain nudges"][1:], expected[1:], rtol=1e-3)

# %%
_, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
for (name, values), (colour, marker) in zip(errors.items(), eq.plot.MARKED, strict=False):
    ax.semilogy(angles, values, color=colour, marker=marker, label=name)
ax.semilogy(angles[1:], expected[1:], "--", color="black", linewidth=1.0, label="gap of equation 4")
ax.set(xlabel="angle between forward and feedback weights (degrees)", ylabel="relative error of δ to the dense solve")
ax.set_xticks(angles)
ax.legend(frameon=False, loc="center right")
plt.show()

# %% [markdown]
# *Error of four estimators by weight angle: plain nudges follow the gap that theory gives, the other three stay exact.*
