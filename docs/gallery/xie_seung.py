# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Weak feedback: contrastive Hebbian learning becomes backpropagation
#
# After Xie & Seung, *Equivalence of backpropagation and contrastive Hebbian learning in a layered network* (Neural
# Computation 15, 2003, [doi 10.1162/089976603762552988](https://doi.org/10.1162/089976603762552988)): their claim that
# contrastive Hebbian learning in a layered network whose feedback connections have a small gain $\gamma$ makes the
# weight changes of backpropagation, once each layer is rescaled by a power of $\gamma$. The script repeats the claim in
# kind, on a small network, and not their experiments.
#
# The chain has tied kernels, forward with gain 1 and feedback with gain $\gamma$. Two things are measured as
# $\gamma \to 0$: the hidden response falls as $\gamma^{L-l}$, where $l$ is the layer and $L$ the output, and the
# gradient turns into that of the feedforward network of the same kernels. The library applies the factor
# $\gamma^{-(L-l)}$ by itself ([conventions](../theory.md), "Metric").

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree

import eqprop as eq

jax.config.update("jax_enable_x64", True)

network_key, input_key, readout_key = jax.random.split(jax.random.key(0), 3)
sizes, layers = [12, 24, 24, 16], ["l1", "l2", "out"]
x, y = jax.random.normal(input_key, (12,)), jnp.asarray(3)
readout = eq.SoftmaxReadout(16, 5, key=readout_key)
relaxation = eq.Sweep(tol=1e-14, rtol=1e-10, max_steps=1000)
contrast = eq.FiniteNudge(stencil=eq.centred(0.05), relaxation=relaxation)


def chain(gain: float, reciprocal: bool = True) -> eq.DenseNetwork:
    return eq.DenseNetwork.chain(
        sizes, angle=0.0, feedback_gain=gain, reciprocal=reciprocal, activation=eq.tanh, key=network_key
    )


@eqx.filter_jit
def forward_gradient(network, estimator):
    """The gradient of the forward kernels, and the response of every layer as it is measured, without any factor."""
    model = eq.Model(network, readout)
    example = model.at(x, y)
    free = relaxation(example.field.drift, example.field.initial_state(), blocks=example.field.blocks)
    response = estimator.respond(example, free)
    gradient = eqx.filter_grad(lambda m: estimator.surrogate(m.at(x, y), response))(model).network
    forward = [gradient.kernels[edge] for edge in (("in", "l1"), ("l1", "l2"), ("l2", "out"))]
    raw = estimator.error(example, free).delta
    return ravel_pytree(forward)[0], jnp.stack([jnp.linalg.norm(raw[name]) for name in layers])


# %% [markdown]
# The gradient of backpropagation is that of the network without feedback. It agrees with `jax.grad` of three matrix
# products.

# %%
rbp = eq.RecurrentBackprop(relaxation=relaxation)
feedforward = chain(1.0, reciprocal=False)
backprop, _ = forward_gradient(feedforward, rbp)


def plain_loss(kernels):
    s = x
    for kernel in kernels:
        s = jnp.tanh(s @ kernel)
    return readout.loss({"out": s}, y)


kernels = [feedforward.kernels[edge] for edge in (("in", "l1"), ("l1", "l2"), ("l2", "out"))]
assert jnp.allclose(ravel_pytree(jax.grad(plain_loss)(kernels))[0], backprop, atol=1e-12)

# %%
gains = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.4])
angle, response = [], []
for gain in gains:
    gradient, sizes_of = forward_gradient(chain(float(gain)), contrast)
    angle.append(float(jnp.degrees(jnp.arccos(eq.metrics.cosine(gradient, backprop)))))
    response.append(np.asarray(sizes_of))

slopes = [np.polyfit(np.log(gains[:3]), np.log([r[i] for r in response[:3]]), 1)[0] for i in range(3)]
order = np.polyfit(np.log(gains[:3]), np.log(angle[:3]), 1)[0]
print(f"angle to backpropagation: {angle[-1]:.1f}° at γ = {gains[-1]:g}, {angle[0]:.2f}° at γ = {gains[0]:g}")
print("the angle falls as γ to the power", f"{order:.2f}")
for name, slope, power in zip(layers, slopes, (2, 1, 0), strict=True):
    print(f"response of {name:3s} falls as γ to the power {slope:.2f}; expected {power}")
    assert abs(slope - power) < 0.1
assert abs(order - 1) < 0.15 and angle[0] < 2

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained")
left.loglog(gains, angle, color=eq.plot.BLUE, marker="o", label="measured")
left.loglog(gains, angle[0] * gains / gains[0], "--", color=eq.plot.GREY, label="proportional to γ")
left.set(xlabel="feedback gain γ", ylabel="angle to backpropagation (degrees)")
left.legend(frameon=False)
for i, (name, (colour, marker)) in enumerate(zip(layers, eq.plot.MARKED, strict=False)):
    values = [r[i] for r in response]
    right.loglog(gains, values, color=colour, marker=marker, label=f"{name}: power {slopes[i]:.2f}")
right.set(xlabel="feedback gain γ", ylabel="response ‖ds/dβ‖ of the layer, unscaled")
right.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# *Left: the angle between the contrastive gradient and that of backpropagation vanishes with the feedback gain. Right:
# the measured response of each layer falls as γ to the power of its distance from the output.*
