# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Finite nudges
#
# The error vector is a derivative at zero nudge, $\delta = ds^*/d\beta$. A device nudges by a finite $\beta$. This
# page measures what that costs, and how several nudges on a circle in the complex plane remove the cost.
#
# You will see
#
# - the fixed point $s^*(\beta)$ over the complex plane, with the points at which it ceases to be analytic;
# - the error of one-sided and centred nudges and of $N$ points on a circle, with the measured orders;
# - the radius of convergence, beyond which more points do not help;
# - the floor of float32, below which smaller nudges make the error larger.
#
# [One neuron](one_neuron.py) explains the words.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import eqprop as eq

jax.config.update("jax_enable_x64", True)
BLUE, ORANGE, GREEN, PINK, GREY = eq.plot.BLUE, eq.plot.ORANGE, eq.plot.GREEN, eq.plot.PINK, eq.plot.GREY

# %% [markdown]
# ## One neuron over the complex plane
#
# The neuron of the first notebook settles to $w \tanh u + c - u + \beta\,(\tanh u - y) = 0$. Its activation is
# analytic, and so the equation has a meaning for complex $\beta$: two real equations, for the real and the imaginary
# part of the potential.

# %%
w, c, y = 0.6, 0.3, 0.2


def settled_rates(beta, steps=600, dt=0.2):
    """Rates after relaxation from the free fixed point, for an array of real or complex nudges."""
    u = np.zeros(np.shape(beta), complex)
    for nudge in (0.0, beta):
        for _ in range(steps):
            s = np.tanh(u)
            u = u + dt * (w * s + c - u + nudge * (s - y))
    return np.tanh(u)


# %% [markdown]
# Solving the equation for the nudge gives $\beta$ as a function of $u$. Where its derivative vanishes, two fixed
# points meet, and $s^*(\beta)$ has a branch point. Newton's method finds them from many starts. The distance of the
# nearest one from zero is the **radius of convergence** $R$.


# %%
def nudge_of(u):
    return (u - c - w * np.tanh(u)) / (np.tanh(u) - y)


def branch_points(starts=200, h=1e-4):
    rng, found = np.random.default_rng(0), []
    for real, imaginary in rng.uniform(-2, 2, (starts, 2)):
        u = complex(real, imaginary)
        for _ in range(50):
            before, here, after = (nudge_of(u + k * h) for k in (-1, 0, 1))
            u = u - h * (after - before) / 2 / (after - 2 * here + before)
        if abs(u) < 4 and abs(nudge_of(u + h) - nudge_of(u - h)) < 1e-9:
            found.append(nudge_of(u))
    return np.unique(np.round(found, 6))


with np.errstate(all="ignore"):  # of starts that lead nowhere
    singular = branch_points()
R = float(np.abs(singular).min())
print(f"radius of convergence {R:.4f}, from branch points at {singular[np.abs(singular) < 1]}")

side = np.linspace(-1, 1, 161)
plane = settled_rates(side[None, :] + 1j * side[:, None])

_, panel = plt.subplots(figsize=(5.4, 4.4), layout="constrained")
limit = 0.6
shown = panel.imshow(
    plane.imag, origin="lower", extent=(-1, 1, -1, 1), cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
)
circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
panel.plot((0.3 * circle).real, (0.3 * circle).imag, color="black", linewidth=1.2, label="circle of nudges, r = 0.3")
panel.plot((R * circle).real, (R * circle).imag, "--", color=GREY, linewidth=1.2, label="radius of convergence R")
nodes = np.asarray(eq.cauchy(0.3, 8).nodes)
panel.plot(nodes.real, nodes.imag, "o", color="black", label="nodes of eq.cauchy(0.3, 8)")
near = singular[np.abs(singular) < R + 1e-4]
panel.plot(near.real, near.imag, "x", color=GREEN, markersize=10, markeredgewidth=2.5, label="branch points")
panel.set(
    xlabel="Re β", ylabel="Im β", xlim=(-1, 1), ylim=(-1, 1), xticks=(-1, -0.5, 0, 0.5, 1), yticks=(-1, -0.5, 0, 0.5, 1)
)
plt.colorbar(shown, ax=panel, label="Im s*")
_ = panel.legend(fontsize="x-small", loc="lower left", framealpha=1.0)

# %% [markdown]
# *The imaginary part of the settled rate over the complex plane of nudges, with a circle of nudges, the radius of
# convergence, and the branch points on it.*
#
# The rate jumps along lines that begin at the branch points: the relaxation ends in one fixed point on one side and
# in another on the other side. Inside the radius of convergence it is smooth.
#
# ## Points on a circle
#
# Cauchy's integral gives the derivative from values on a circle of radius $r < R$. With $N$ points,
#
# $$\delta \approx \frac1N \sum_k \frac{s^*(\beta_k)}{\beta_k}, \qquad \beta_k = r\,e^{i\pi(2k+1)/N},
# \qquad \text{error} = O\big((r/R)^N\big) .$$
#
# Since $s^*(\bar\beta)$ is the conjugate of $s^*(\beta)$, the upper half of the circle suffices. `eq.cauchy` keeps
# $N/2$ complex nodes, each of which costs two real relaxations: $N$ points cost $N$ real relaxations.
#
# Near a branch point $s^*$ goes as a square root. Its Taylor coefficients then fall as $R^{-n} n^{-3/2}$, a little
# faster than the law says, and so does the error.

# %%
s_free = settled_rates(np.array(0.0)).real
exact = (s_free - y) / (1 / (1 - s_free**2) - w)  # the tangent response of one neuron
assert eq.cauchy(0.3, 8).nodes.size == 4


def error_of(radius, num_points):
    stencil = eq.cauchy(radius, num_points)
    values = jnp.asarray(settled_rates(np.asarray(stencil.nodes)))
    return abs(float(stencil.derivative({"out": values}, {"out": jnp.asarray(s_free)})["out"]) / exact - 1)


counts = np.arange(2, 25, 2)
_, panel = plt.subplots(figsize=(6.0, 3.8), layout="constrained")
for radius, colour, marker in ((0.15, BLUE, "o"), (0.3, ORANGE, "s"), (0.45, GREEN, "D"), (0.7, PINK, "^")):
    errors = np.array([error_of(radius, int(N)) for N in counts])
    panel.semilogy(counts, errors, marker, color=colour, label=f"r = {radius}")
    if radius < R:
        clear = errors > 1e-12
        panel.semilogy(
            counts[clear], (radius / R) ** counts[clear] / counts[clear] ** 1.5, "--", color=colour, linewidth=1
        )
        slope = np.polyfit(counts[clear], np.log(errors[clear] * counts[clear] ** 1.5), 1)[0]
        print(f"r = {radius}: a point more multiplies error · N^(3/2) by {np.exp(slope):.3f}; r / R = {radius / R:.3f}")
        assert abs(np.exp(slope) / (radius / R) - 1) < 0.1
    else:
        print(f"r = {radius}, beyond R: error {errors[0]:.2f} of {counts[0]} points, {errors[-1]:.2f} of {counts[-1]}")
        assert errors[-1] > 0.3 * errors[0], "beyond R more points do not help"
panel.set(xlabel="points N on the circle", ylabel="relative error of δ")
panel.plot([], [], "--", color=GREY, linewidth=1, label="$(r/R)^N N^{-3/2}$")
_ = panel.legend(frameon=False, fontsize="small", loc="lower left")

# %% [markdown]
# *Relative error of the response of one neuron by the number of points on the circle, with the law $(r/R)^N
# N^{-3/2}$; beyond the radius of convergence the error stays.*
#
# ## A network: orders in the radius
#
# A chain with independent feedback weights, relaxed until nothing but rounding is left, in float64. The error is the
# distance from the tangent response, relative to its norm. It contains the finite nudge and nothing else; asymmetry
# is [a matter of its own](asymmetry.py).

# %%
network_key, input_key = jax.random.split(jax.random.key(0))
model = eq.Model(eq.DenseNetwork.chain([6, 16, 4], angle=90.0, key=network_key), eq.SquaredError())
inputs, targets = jax.random.uniform(input_key, (8, 6)), jnp.eye(4)[jnp.arange(8) % 4]
relaxation = eq.Picard(tol=0.0, damping=0.5, max_steps=2000)  # a tolerance of zero: until rounding


def length(delta):
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in delta.values()))


@eqx.filter_jit
def nudge_errors(model, x, y, radii, reference, stencil, relaxation):
    """Relative errors at many radii, and whether the nudged phases settled; `stencil` makes one of a radius."""
    example = model.at(x, y)
    free = relaxation(example.field.drift, example.field.initial_state())

    def one(radius):
        error = eq.FiniteNudge(stencil=stencil(radius), relaxation=relaxation).estimate(example, free)
        difference = jax.tree.map(lambda a, b: a - b, error.delta, reference)
        return length(difference) / length(reference), error.result == eq.RESULTS.successful

    return jax.vmap(one)(radii)


@eqx.filter_jit
def tangent_response(model, x, y):
    example = model.at(x, y)
    free = relaxation(example.field.drift, example.field.initial_state())
    return eq.TangentResponse(relaxation=relaxation).estimate(example, free).delta


x, target = inputs[0], targets[0]
reference = tangent_response(model, x, target)
stencils = {
    "one-sided": (eq.one_sided, 1, BLUE, "o"),
    "centred": (eq.centred, 2, ORANGE, "s"),
    "N = 4": (lambda beta: eq.cauchy(beta, 4), 4, GREEN, "D"),
    "N = 8": (lambda beta: eq.cauchy(beta, 8), 8, PINK, "^"),
}
radii = jnp.geomspace(0.005, 0.8, 13)
curves = {}
_, panel = plt.subplots(figsize=(6.0, 4.0), layout="constrained")
for name, (stencil, order, colour, marker) in stencils.items():
    errors, settled = nudge_errors(model, x, target, radii, reference, stencil, relaxation)
    assert settled[radii < 0.5].all()
    curves[name] = np.asarray(errors)
    fit = (curves[name] > 1e-11) & (np.asarray(radii) < 0.15)
    slope = np.polyfit(np.log(radii[fit]), np.log(curves[name][fit]), 1)[0]
    print(f"{name}: measured order {slope:.2f}, expected {order}")
    assert abs(slope - order) < 0.15
    panel.loglog(
        radii, errors, marker + "-", color=colour, markersize=4, linewidth=1, label=f"{name}, order {slope:.2f}"
    )
panel.set(xlabel="strength of the nudge, |β|", ylabel="relative error of δ")
_ = panel.legend(frameon=False, fontsize="small")

# %% [markdown]
# *Relative error of the error vector against the strength of the nudge in float64, with the measured order of each
# stencil; the curves end at the floor of rounding on the left and meet at the radius of convergence on the right.*
#
# ## The radius of convergence of a network
#
# `eq.plot.circle` follows one rate as the nudge goes round. A weak nudge answers on a circle. The Taylor coefficients
# of the rate, times $r^n$, fall as $(r/R)^n$.

# %%
_ = eq.plot.circle(model, x, target, radius=0.2, relaxation=relaxation)

# %% [markdown]
# *One rate on a circle of radius 0.2, well inside the radius of convergence: an orbit not far from the tangent
# circle, and Taylor coefficients that fall quickly.*

# %%
_ = eq.plot.circle(model, x, target, radius=0.6, relaxation=relaxation)

# %% [markdown]
# *The same rate on a circle of radius 0.6, near the radius of convergence: the orbit is no circle, and the
# coefficients fall slowly.*
#
# `eq.audit` estimates $R$ of every example from this decay, and its report warns where a nudge, here of 0.4, reaches
# it. The errors above give nearly the same number: from $N = 4$ to $N = 8$ the error falls by $(r/R)^4$.

# %%
estimator = eq.FiniteNudge(stencil=eq.cauchy(0.4, 4), relaxation=relaxation)
report = eqx.filter_jit(eq.audit)(model, inputs, targets, estimator=estimator, relaxation=relaxation)
print(report)
for message in report.warnings():
    print("\nThe audit warns:", message)
assert report.settled.all() and len(report.warnings()) == 1
assert report.asymmetry.mean() > report.finite_nudge.mean()
at = int(np.argmin(np.abs(radii - 0.2)))
from_errors = float(radii[at]) / (curves["N = 8"][at] / curves["N = 4"][at]) ** 0.25
print(
    f"\nR of the first example: {float(report.convergence_radius[0]):.3f} by the audit, {from_errors:.3f} by the errors"
)
assert abs(from_errors / float(report.convergence_radius[0]) - 1) < 0.2

# %% [markdown]
# `finite_nudge` is the part of the error that this page is about. `finite_relaxation` vanishes here. `asymmetry` is
# large, as the feedback weights are independent; no circle removes it.
#
# ## The floor of float32
#
# A contrast divides a small difference of rates by $\beta$. In float32 the rounding of the rates, about $10^{-7}$, is
# divided by $\beta$ as well. What is left to relax acts alike: phases that stop at a tolerance of $10^{-5}$ leave
# more.

# %%
single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_array(leaf) else leaf, (model, x, target))
reference32 = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), reference)
narrow = radii.astype(jnp.float32)
loose = eq.Picard(tol=1e-5, rtol=1e-2, damping=0.5)
floors = {
    "float64, N = 8": (curves["N = 8"], PINK, "^"),
    "float32, centred": (nudge_errors(*single, narrow, reference32, eq.centred, relaxation)[0], ORANGE, "s"),
    "float32, N = 8": (nudge_errors(*single, narrow, reference32, stencils["N = 8"][0], relaxation)[0], BLUE, "o"),
    "float32, N = 8, tol = 1e-5": (
        nudge_errors(*single, narrow, reference32, stencils["N = 8"][0], loose)[0],
        GREEN,
        "D",
    ),
}
_, panel = plt.subplots(figsize=(6.0, 4.0), layout="constrained")
for name, (errors, colour, marker) in floors.items():
    panel.loglog(radii, errors, marker + "-", color=colour, markersize=4, linewidth=1, label=name)
    best = int(np.argmin(errors))
    print(f"{name:26s} least error {float(errors[best]):.1e} at |β| = {float(radii[best]):.3f}")
panel.set(xlabel="strength of the nudge, |β|", ylabel="relative error of δ")
_ = panel.legend(frameon=False, fontsize="small")

# %% [markdown]
# *Relative error against the strength of the nudge in float64 and in float32: in float32 the error rises again as the
# nudge becomes weaker.*

# %%
least = {name: float(np.min(errors)) for name, (errors, _, _) in floors.items()}
where = {name: float(radii[int(np.argmin(errors))]) for name, (errors, _, _) in floors.items()}
assert least["float32, N = 8"] < 0.2 * least["float32, centred"]
assert least["float32, N = 8"] < 0.2 * least["float32, N = 8, tol = 1e-5"]
assert where["float32, N = 8"] > where["float32, centred"]
rounding = np.asarray(floors["float32, N = 8"][0])[np.asarray(radii) < 0.05]
slope = np.polyfit(np.log(radii[radii < 0.05]), np.log(rounding), 1)[0]
print(f"at weak nudges the float32 error goes as |β|^{slope:.1f}")
assert -1.3 < slope < -0.7

# %% [markdown]
# More points at a larger radius have a smaller least error than two points at a small one. This is why the examples
# of `eqprop` nudge by 0.4 with four points.
#
# ## Try
#
# - Set `feedback_gain=0.2` in the network. What happens to the radius of convergence in the audit?
# - Replace `eq.cauchy` by `eq.chebyshev`, nudges on the real axis for devices without complex ones. What is its
#   order?
# - Measure the bias with `on_axis=True`, the published nodes, at a radius beyond $R$.
#
# Next: [asymmetric weights](asymmetry.py). The formulas are on [the theory page](../theory.md).
