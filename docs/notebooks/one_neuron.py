# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Equilibrium propagation in one neuron
#
# This page computes a gradient by equilibrium propagation (EP) by hand. It needs NumPy and one neuron.
#
# You will see
#
# - a neuron settle to a fixed point, the **free phase**;
# - the fixed point move under a small force on the output, the **nudged phase**;
# - that the movement is the gradient of the loss, up to the size of the nudge;
# - the same number from the classes of `eqprop`;
# - two neurons in which the method goes wrong, and by how much.
#
# Every claim is followed by an `assert`, so that the page fails if a claim is untrue.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import eqprop as eq

jax.config.update("jax_enable_x64", True)  # 16 digits, to compare numbers closely
BLUE, ORANGE, GREEN, GREY = eq.plot.BLUE, eq.plot.ORANGE, eq.plot.GREEN, eq.plot.GREY

# %% [markdown]
# ## The free phase
#
# The neuron has a potential $u$ and a rate $s = \sigma(u) = \tanh u$. It receives a constant current $c$ from its
# input, and its own rate through a weight $w$. Its potential leaks:
#
# $$\frac{du}{dt} = F(u) = w\,\sigma(u) + c - u .$$
#
# Left alone, it settles to a fixed point $u^*$ with $F(u^*) = 0$. The rate $s^* = \sigma(u^*)$ is the output of the
# network. Time is in units of the time constant of the leak.

# %%
w, c, y = 0.6, 0.3, 0.2  # the weight, the current from the input, and the rate that we would like to see


def relax(u, w, c, beta=0.0, steps=600, dt=0.1):
    """The potentials on the way to the fixed point, by Euler steps; `beta` is explained below."""
    path = [u]
    for _ in range(steps):
        s = np.tanh(u)
        u = u + dt * (w * s + c - u + beta * (s - y))
        path.append(u)
    return np.array(path)


free = relax(0.0, w, c)
s_free = np.tanh(free[-1])
residual = abs(w * s_free + c - free[-1])
print(f"rate {s_free:.6f}, target {y}, residual |F| {residual:.1e}")
assert residual < 1e-12, "the free phase has settled"

# %% [markdown]
# ## The nudge
#
# The loss is $\ell = \tfrac12 (s - y)^2$. Its slope at the output is the **teaching signal** $g =
# \partial\ell/\partial s = s - y$. The nudged phase adds the teaching signal, times a **nudge strength** $\beta$, to
# the current of the output:
#
# $$\frac{du}{dt} = F(u) + \beta\, g(s) .$$
#
# The sign convention of `eqprop` is that a positive $\beta$ pushes the loss *up*: it repels the output from the
# target. A negative $\beta$ attracts it. The network starts from the free fixed point and settles again, at
# $s^*(\beta)$.

# %%
beta = 0.1
repelled, attracted = relax(free[-1], w, c, beta), relax(free[-1], w, c, -beta)
assert abs(np.tanh(repelled[-1]) - y) > abs(s_free - y) > abs(np.tanh(attracted[-1]) - y)

_, panel = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
t_free, t_nudged = 0.1 * np.arange(150), 15 + 0.1 * np.arange(151)
panel.plot(t_free, np.tanh(free[:150]), color=BLUE, label="free phase")
panel.plot(t_nudged, np.tanh(repelled[:151]), color=ORANGE, label=f"nudged, β = +{beta}")
panel.plot(t_nudged, np.tanh(attracted[:151]), "--", color=GREEN, label=f"nudged, β = −{beta}")
panel.axhline(y, color=GREY, linewidth=1, linestyle=":", label="target y")
panel.set(xlabel="time (time constants of the leak)", ylabel="rate s")
_ = panel.legend(frameon=False, loc="lower right")

# %% [markdown]
# *The rate settles in the free phase; a positive nudge then moves it away from the target and a negative one towards
# it.*
#
# ## The contrast is the gradient
#
# The **contrast** of the two nudged phases is the speed at which the rate answers to a nudge,
#
# $$\delta \approx \frac{s^*(\beta) - s^*(-\beta)}{2\beta} .$$
#
# This number is the **neuronal error vector**; with one neuron it has one entry. The gradient of the loss is this
# error times what each parameter multiplies:
#
# $$\frac{d\ell}{d\theta} = +\Big\langle \delta, \frac{\partial F}{\partial\theta} \Big\rangle, \qquad
# \frac{d\ell}{dw} = \delta\, s^*, \qquad \frac{d\ell}{dc} = \delta .$$
#
# There is no minus sign, because a positive nudge repels. Descent subtracts the gradient.

# %%
delta = (np.tanh(repelled[-1]) - np.tanh(attracted[-1])) / (2 * beta)
by_contrast = np.array([delta * s_free, delta])


def loss_at(w, c):
    return 0.5 * (np.tanh(relax(0.0, w, c)[-1]) - y) ** 2


def brute_force(h=1e-5):
    """Change each parameter a little, settle again, and look at the loss."""
    return np.array(
        [
            (loss_at(w + h, c) - loss_at(w - h, c)) / (2 * h),
            (loss_at(w, c + h) - loss_at(w, c - h)) / (2 * h),
        ]
    )


true = brute_force()
for name, ours, theirs in zip(("dℓ/dw", "dℓ/dc"), by_contrast, true, strict=True):
    print(f"{name}: contrast {ours:.6f}, brute force {theirs:.6f}")
np.testing.assert_allclose(by_contrast, true, rtol=0.03)  # a nudge of finite size has a bias

# %% [markdown]
# Both agree to a few per cent. The rest is the bias of a finite nudge. It falls with the square of $\beta$.
#
# ### Why
#
# Ask what a small extra current $\varepsilon$ does to the neuron at rest. From $u^* = w s^* + c + \varepsilon$ and
# $du = ds / \sigma'$,
#
# $$\frac{ds^*}{d\varepsilon} = \frac{1}{M}, \qquad M = \frac{1}{\sigma'(u^*)} - w .$$
#
# - A change $dw$ of the weight is an extra current $s^*\,dw$. It changes the loss by $g \cdot \frac1M \cdot s^*\,dw$.
# - A nudge is an extra current $\beta g$. It moves the rate by $\frac1M \cdot \beta g$, so that $\delta = g / M$.
#
# Both contain the same answer $1/M$. The network therefore computes the derivative by settling twice, and nobody has
# to know $\sigma'$ or solve for $1/M$.

# %%
slope = 1 - s_free**2  # σ′ of tanh
M = 1 / slope - w
delta_exact = (s_free - y) / M
np.testing.assert_allclose([delta_exact * s_free, delta_exact], true, rtol=1e-8)

nudges = np.linspace(-0.6, 0.6, 41)
answers = np.array([np.tanh(relax(free[-1], w, c, b)[-1]) for b in nudges])


def bias_of(b):
    up, down = np.tanh(relax(free[-1], w, c, b)[-1]), np.tanh(relax(free[-1], w, c, -b)[-1])
    return abs((up - down) / (2 * b) - delta_exact)


order = np.log2(bias_of(0.1) / bias_of(0.05))
print(f"δ by the formula {delta_exact:.6f}, by the contrast {delta:.6f}; order of the bias in β {order:.2f}")
assert abs(order - 2) < 0.1

_, panel = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
panel.plot(nudges, s_free + delta_exact * nudges, "--", color=GREY, label="tangent with slope δ = g / M")
panel.plot(nudges, answers, color=BLUE, label="fixed point s*(β)")
panel.plot([-beta, beta], [np.tanh(attracted[-1]), np.tanh(repelled[-1])], "o", color=ORANGE, label="the two nudges")
panel.set(xlabel="nudge strength β", ylabel="rate s*")
_ = panel.legend(frameon=False)

# %% [markdown]
# *The fixed point as a function of the nudge: the error is its slope at zero, and the contrast is the chord through
# two nudges.*
#
# ### What is local about it
#
# The self-coupling $w$ enters the energy of the neuron as $-\tfrac12 w s^2$. The same gradient is the contrast of
# $\tfrac12 s^2$:
#
# $$\frac{d\ell}{dw} \approx \frac{\tfrac12 s^*(\beta)^2 - \tfrac12 s^*(-\beta)^2}{2\beta} .$$
#
# A weight between two neurons needs the product of their two rates, once in each phase. It needs no other neuron, no
# derivative of the activation, and no second network that carries errors.

# %%
up, down = np.tanh(repelled[-1]), np.tanh(attracted[-1])
local = (0.5 * up**2 - 0.5 * down**2) / (2 * beta)
print(f"dℓ/dw by the local contrast {local:.6f}, by δ s* {by_contrast[0]:.6f}, true {true[0]:.6f}")
np.testing.assert_allclose(local, true[0], rtol=0.05)

# %% [markdown]
# ## Learning
#
# Descent by the contrast takes the output to the target. No gradient is computed anywhere but by settling.

# %%
weight, current, losses = w, c, []
for _ in range(40):
    at_rest = relax(0.0, weight, current)[-1]
    up, down = (np.tanh(relax(at_rest, weight, current, b)[-1]) for b in (beta, -beta))
    error, rate = (up - down) / (2 * beta), np.tanh(at_rest)
    losses.append(0.5 * (rate - y) ** 2)
    weight, current = weight - 0.1 * error * rate, current - 0.1 * error

print(f"loss {losses[0]:.2e} at first, {losses[-1]:.2e} at last")
assert losses[-1] < 1e-4 * losses[0]

_, panel = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
panel.semilogy(losses, color=BLUE)
_ = panel.set(xlabel="step of descent", ylabel="loss ½(s − y)²")

# %% [markdown]
# *The loss during descent by the contrast.*
#
# ## The same with `eqprop`
#
# A `DenseNetwork` has layers and edges. This one has one layer of one neuron, and an edge from the layer to itself. A
# `Model` joins a network and a readout, which has the loss. A relaxation settles it, and an estimator measures the
# error vector. The states are dictionaries with one array a layer.

# %%
network = eq.DenseNetwork(1, {"out": 1}, [("in", "out"), ("out", "out")], activation=eq.tanh, key=jax.random.key(0))
kernels = {("in", "out"): jnp.array([[1.0]]), ("out", "out"): jnp.array([[w]])}
model = eq.Model(eqx.tree_at(lambda n: n.kernels, network, kernels), eq.SquaredError())
relaxation = eq.Picard(tol=1e-12, damping=0.5)

example = model.at(jnp.array([c]), jnp.array([y]))
solution = relaxation(example.field.drift, example.field.initial_state())
print(f"{int(solution.num_steps)} steps, residual {float(solution.residual):.1e}")
np.testing.assert_allclose(float(example.field.rates(solution.state)["out"][0]), s_free, atol=1e-11)

estimators = {
    "contrast, β = 0.1": eq.FiniteNudge(stencil=eq.centred(beta), relaxation=relaxation),
    "infinitesimal nudge": eq.TangentResponse(relaxation=relaxation),
    "RBP, the true error": eq.RecurrentBackprop(relaxation=relaxation),
}
errors = {name: float(each.estimate(example, solution).delta["out"][0]) for name, each in estimators.items()}
for name, error in errors.items():
    print(f"δ by {name:20s} {error:.10f}")
np.testing.assert_allclose(errors["contrast, β = 0.1"], delta, atol=1e-10)
np.testing.assert_allclose(errors["infinitesimal nudge"], delta_exact, atol=1e-10)
np.testing.assert_allclose(errors["RBP, the true error"], delta_exact, atol=1e-10)

# %% [markdown]
# The contrast by hand and that of `FiniteNudge` are the same number. A `Trainer` makes the gradient of all parameters
# from it. The gradient has the structure of the model.

# %%
trainer = eq.Trainer(relaxation, estimators["contrast, β = 0.1"], optax.sgd(0.1))
batch = jnp.array([[c]]), jnp.array([[y]])
gradient, _ = trainer.gradient(model, batch, key=jax.random.key(1))
by_library = gradient.network.kernels["out", "out"][0, 0], gradient.network.biases["out"][0]
np.testing.assert_allclose(by_library, by_contrast, atol=1e-10)
print(f"dℓ/dw {float(by_library[0]):.10f}, dℓ/dc {float(by_library[1]):.10f}, as by hand")

# %% [markdown]
# ## Two neurons: where it goes wrong
#
# A hidden neuron 1 drives an output neuron 2 by a **forward weight** $a$. The output acts back by a **feedback
# weight** $b$. Nudges are applied to the output, and the hidden neuron hears of them through $b$.
#
# $$A = \frac{\partial\,\mathrm{drive}}{\partial s} = \begin{pmatrix} 0 & b \\ a & 0 \end{pmatrix}, \qquad
# M = \mathrm{diag}\Big(\frac1{\sigma'}\Big) - A, \qquad g = \begin{pmatrix} 0 \\ s_2 - y \end{pmatrix} .$$
#
# The contrast measures $\delta_\mathrm{EP} = M^{-1} g$, how a current at the output moves every rate. The gradient
# needs $\delta_\mathrm{RBP} = M^{-\top} g$, how a current at every neuron moves the output. This is the error of
# **recurrent backpropagation** (RBP). The two agree if the network answers alike in both directions, that is if $A$
# is symmetric. For two neurons,
#
# $$\delta_\mathrm{EP} = \frac{g_2}{\det M} \begin{pmatrix} b \\ 1/\sigma_1' \end{pmatrix}, \qquad
# \delta_\mathrm{RBP} = \frac{g_2}{\det M} \begin{pmatrix} a \\ 1/\sigma_1' \end{pmatrix} .$$
#
# The output has the right error. The hidden neuron has an error with $b$ in place of $a$. In any network the
# difference is formula (4) of [the theory page](../theory.md):
#
# $$\delta_\mathrm{EP} - \delta_\mathrm{RBP} = M^{-1} (A - A^\top) M^{-\top} g .$$

# %%
a, currents = 0.8, np.array([0.4, 0.1])
y = -0.3  # another target, further away


def settle_two(b, bias=0.0, beta=0.0, steps=300, dt=0.25):
    """The rates of both neurons, from zero potentials."""
    u = np.zeros(2)
    for _ in range(steps):
        s = np.tanh(u)
        drive = np.array([b * s[1] + currents[0] + bias, a * s[0] + currents[1]])
        u = u + dt * (drive - u + beta * np.array([0.0, s[1] - y]))
    return np.tanh(u)


def contrast_two(b, bias=0.0, beta=0.01):
    return (settle_two(b, bias, beta) - settle_two(b, bias, -beta)) / (2 * beta)


def gradient_two(b, h=1e-5):
    """Of the loss, for a current into either neuron, by brute force: the true error vector."""
    gradient = np.zeros(2)
    for neuron in range(2):
        loss = []
        for step in (h, -h):
            currents[neuron] += step
            loss.append(0.5 * (settle_two(b)[1] - y) ** 2)
            currents[neuron] -= step
        gradient[neuron] = (loss[0] - loss[1]) / (2 * h)
    return gradient


def closed_form(b):
    """δ_EP and δ_RBP by the matrices, and the right side of (4)."""
    s = settle_two(b)
    A = np.array([[0.0, b], [a, 0.0]])
    M, g = np.diag(1 / (1 - s**2)) - A, np.array([0.0, s[1] - y])
    ep, rbp = np.linalg.solve(M, g), np.linalg.solve(M.T, g)
    return ep, rbp, np.linalg.solve(M, (A - A.T) @ rbp)


feedback = np.linspace(-0.8, 1.2, 11)
measured = np.array([contrast_two(b) for b in feedback])
truth = np.array([gradient_two(b) for b in feedback])
formulas = np.array([closed_form(b) for b in feedback])
np.testing.assert_allclose(measured, formulas[:, 0], atol=1e-4)
np.testing.assert_allclose(truth, formulas[:, 1], atol=1e-8)
np.testing.assert_allclose(formulas[:, 0] - formulas[:, 1], formulas[:, 2], atol=1e-12)
np.testing.assert_allclose(measured - truth, formulas[:, 2], atol=1e-4)  # (4), of two measurements
np.testing.assert_allclose(measured[:, 1], truth[:, 1], atol=1e-4)  # the output has the right error

_, panel = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
panel.plot(feedback, measured[:, 0], "o-", color=BLUE, label="contrast, δ_EP")
panel.plot(feedback, truth[:, 0], "s-", color=ORANGE, label="brute force, δ_RBP")
panel.plot(feedback, measured[:, 0] - truth[:, 0], "^", color=GREEN, label="difference")
panel.plot(feedback, formulas[:, 2, 0], color=GREEN, linewidth=1, label="closed form (4)")
panel.axvline(a, color=GREY, linewidth=1, linestyle=":", label="b = a")
panel.axhline(0, color="black", linewidth=0.8)
panel.set(xlabel="feedback weight b", ylabel="error of the hidden neuron δ₁ (loss per rate)")
_ = panel.legend(framealpha=1.0, edgecolor="none", fontsize="small", loc="lower right")

# %% [markdown]
# *The error of the hidden neuron by contrast and by brute force: they cross where the feedback weight equals the
# forward weight, and their difference follows the closed form.*
#
# The curves cross at $b = a$. For $b < 0$ the contrast has the wrong sign, and the hidden neuron learns the opposite
# of what it should. Descent of the hidden bias shows it:

# %%
outcomes = {}
for b in (a, -a):
    bias, losses = 0.0, []
    for _ in range(30):
        losses.append(0.5 * (settle_two(b, bias)[1] - y) ** 2)
        bias -= 0.2 * contrast_two(b, bias)[0]
    outcomes[b] = losses
    print(f"feedback weight {b:+.1f}: loss {losses[0]:.4f} at first, {losses[-1]:.4f} at last")
assert outcomes[a][-1] < 0.5 * outcomes[a][0] and outcomes[-a][-1] > 1.1 * outcomes[-a][0]

# %% [markdown]
# The same two neurons in `eqprop`, with a feedback weight that is not the forward weight:

# %%
b = 0.3
network = eq.DenseNetwork(
    2,
    {"hidden": 1, "out": 1},
    [("in", "hidden"), ("hidden", "out")],
    feedback=[("out", "hidden")],
    activation=eq.tanh,
    key=jax.random.key(0),
)
kernels = {
    ("in", "hidden"): jnp.array([[1.0], [0.0]]),
    ("hidden", "out"): jnp.array([[a]]),
    ("out", "hidden"): jnp.array([[b]]),
}
network = eqx.tree_at(lambda n: (n.kernels, n.biases["out"]), network, (kernels, jnp.array([currents[1]])))
model = eq.Model(network, eq.SquaredError())
example = model.at(jnp.array([currents[0], 0.0]), jnp.array([y]))
solution = relaxation(example.field.drift, example.field.initial_state())

ep, rbp, _ = closed_form(b)
for estimator, expected in (
    (eq.TangentResponse(relaxation=relaxation), ep),
    (eq.RecurrentBackprop(relaxation=relaxation), rbp),
    (eq.FiniteNudge(stencil=eq.centred(0.01), relaxation=relaxation), contrast_two(b)),
    (eq.AsymmetricNudge(stencil=eq.cauchy(0.05, 8), relaxation=relaxation), rbp),
):
    delta = estimator.estimate(example, solution).delta
    values = np.array([float(delta["hidden"][0]), float(delta["out"][0])])
    print(f"{type(estimator).__name__:18s} hidden {values[0]:.6f}, out {values[1]:.6f}")
    np.testing.assert_allclose(values, expected, atol=1e-7)

# %% [markdown]
# `TangentResponse` is the limit of the contrast and carries the bias. `RecurrentBackprop` is the truth.
# `AsymmetricNudge` adds a current to the nudged phase that cancels the asymmetry; it measures the truth by nudges.
#
# ### A repair that costs one factor
#
# In this network the hidden error is wrong by the factor $b/a$ and by nothing else. Weak feedback by design, $b =
# \gamma a$ with a known gain $\gamma$, is such a case. `feedback_gain` tells the network, and estimators divide by
# the gain. This is the *metric* of [the theory page](../theory.md); it is exact at any gain.

# %%
weak = eq.DenseNetwork(
    2,
    {"hidden": 1, "out": 1},
    [("in", "hidden"), ("hidden", "out")],
    feedback=[("out", "hidden")],
    feedback_gain=b / a,
    activation=eq.tanh,
    key=jax.random.key(0),
)
kernels[("out", "hidden")] = jnp.array([[a]])  # the gain multiplies it: b = γ a, as before
weak = eqx.tree_at(lambda n: (n.kernels, n.biases["out"]), weak, (kernels, jnp.array([currents[1]])))
example = eq.Model(weak, eq.SquaredError()).at(jnp.array([currents[0], 0.0]), jnp.array([y]))
again = relaxation(example.field.drift, example.field.initial_state())
delta = eq.TangentResponse(relaxation=relaxation).estimate(example, again).delta
assert float(jnp.abs(again.state["hidden"] - solution.state["hidden"])[0]) < 1e-11, "it is the same network"
np.testing.assert_allclose([float(delta["hidden"][0]), float(delta["out"][0])], rbp, atol=1e-9)
print(f"hidden error in the scale of the true gradient {float(delta['hidden'][0]):.6f}, the truth {rbp[0]:.6f}")

# %% [markdown]
# ## Try
#
# - Set `w = 1.5` and `c = 0.0` in the first part. The neuron then has three fixed points. Which of them does it
#   settle to, and what does a strong nudge do?
# - Raise `beta` to 0.5. By how much does the contrast differ from the true gradient?
# - Exchange `np.tanh` by another activation. Only `slope` has to be changed, and only where the exact answer is
#   computed.
#
# Next: [a network that learns digits](digits.py). Signs, coordinates and symbols are on [the theory
# page](../theory.md).
