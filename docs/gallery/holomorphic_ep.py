# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Holomorphic EP: finite nudges without bias
#
# After Laborieux & Zenke, *Holomorphic equilibrium propagation computes exact gradients through finite size
# oscillations* (NeurIPS 2022, [arXiv 2209.00530](https://arxiv.org/abs/2209.00530)): their claims that $N$ nudges on a
# circle in the complex plane have a bias that falls with $N$, and that a network which is nudged without pause shows
# its error vector as the first harmonic of its rates. The script repeats the claims in kind, on a small network, and
# not the published numbers.
#
# The network has symmetric weights (an angle of 0). Cauchy's integral over a circle of radius $r$ is the
# derivative at its centre, $\delta = \frac1N \sum_k s^*(\beta_k)/\beta_k + O(r^N)$
# ([conventions](../theory.md), equation 5).

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree

import eqprop as eq

jax.config.update("jax_enable_x64", True)

network_key, input_key = jax.random.split(jax.random.key(0))
network = eq.DenseNetwork.chain([12, 24, 6], angle=0.0, init_scale=0.5, key=network_key)
example = eq.Model(network, eq.SquaredError()).at(jax.random.normal(input_key, (12,)), jnp.asarray(2))
relaxation = eq.Sweep(tol=1e-14, rtol=1e-13)


@eqx.filter_jit
def error_vector(estimator):
    free = relaxation(example.field.drift, example.field.initial_state())
    return ravel_pytree(estimator.estimate(example, free).delta)[0]


truth = error_vector(eq.RecurrentBackprop(relaxation=relaxation))


def bias(estimator) -> float:
    return float(jnp.linalg.norm(error_vector(estimator) - truth) / jnp.linalg.norm(truth))


# %% [markdown]
# The bias by radius for $N = 1, 2, 4, 6, 8$ points. On a logarithmic scale the slope is the order $N$.

# %%
radii = np.geomspace(0.025, 0.4, 5)
points = {
    n: [bias(eq.FiniteNudge(stencil=eq.cauchy(jnp.asarray(r), n), relaxation=relaxation)) for r in radii]
    for n in (1, 2, 4, 6, 8)
}
for n, values in points.items():
    order = np.polyfit(np.log(radii[:3]), np.log(values[:3]), 1)[0]
    print(f"N = {n}: bias {values[0]:.1e} at r = {radii[0]:g}, order {order:.2f}")
    assert abs(order - n) < 0.25 * n
assert all(points[n + 2][0] < 0.1 * points[n][0] for n in (2, 4, 6))

# %% [markdown]
# The nudge that never pauses is $\beta(t) = r e^{i\omega t}$. The first harmonic of the rates is the small-signal
# response at the frequency $\omega$ for any radius that converges. What is left is the lag of the network: the real
# part differs from the error vector by $O(\omega^2)$, whatever the radius.

# %%
periods = [40.0, 80.0, 160.0]
turning = {r: [bias(eq.OscillatingNudge(beta=jnp.asarray(r), period=p)) for p in periods] for r in (0.05, 0.2)}
for r, values in turning.items():
    order = np.polyfit(np.log(periods), np.log(values), 1)[0]
    print(f"r = {r}: bias {values[-1]:.1e} at a period of {periods[-1]:g}, order {-order:.2f} in the frequency")
    assert abs(order + 2) < 0.2
assert np.allclose(turning[0.05], turning[0.2], rtol=0.05)

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained")
for (n, values), (colour, marker) in zip(points.items(), eq.plot.MARKED, strict=False):
    left.loglog(radii, values, color=colour, marker=marker, label=f"N = {n}")
left.set_xticks(radii, [f"{r:g}" for r in radii])
left.set_xticks([], minor=True)
left.set(xlabel="radius r of the nudge", ylabel="relative error of δ")
left.legend(frameon=False)
for (r, values), (colour, marker), dash in zip(turning.items(), eq.plot.MARKED, ("-", "--"), strict=False):
    right.loglog(periods, values, dash, color=colour, marker=marker, label=f"r = {r}")
right.set_xticks(periods, [f"{p:g}" for p in periods])
right.set_xticks([], minor=True)
right.set(xlabel="period of the nudge (time constants of the leak)", ylabel="relative error of the first harmonic")
right.legend(frameon=False)
plt.show()

# %% [markdown]
# *Left: bias of the N-point estimate by radius. Right: the first harmonic under an oscillating nudge, whose lag falls
# with the square of the period and does not depend on the radius.*
