# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Watch a network settle
#
# Everything in `eqprop` rests on a fixed point. This page looks at how networks reach one, and at networks that do
# not.
#
# You will see
#
# - trajectories that settle, cycle, wander and diverge, and what `eq.trace` calls them;
# - the spectrum of the Jacobian, which says beforehand what will happen near a fixed point;
# - a cycle of undamped synchronous steps that damping and even-odd sweeps remove;
# - what weak feedback does to the spectrum and to the number of sweeps;
# - an animation of rates that settle and then answer to a nudge.
#
# [One neuron](one_neuron.py) explains the words.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML
from jax.flatten_util import ravel_pytree
from matplotlib.animation import FuncAnimation

import eqprop as eq

BLUE, ORANGE, GREEN, PINK, GREY = eq.plot.BLUE, eq.plot.ORANGE, eq.plot.GREEN, eq.plot.PINK, eq.plot.GREY
trace = eqx.filter_jit(eq.trace)

# %% [markdown]
# ## Two neurons that excite each other
#
# The smallest network that fails to settle has two neurons with strong excitation in both directions. An undamped
# synchronous step replaces each potential by its drive, $u \leftarrow u + F(u)$. A small difference of the inputs
# sets one neuron high and the other low; at the next step they have changed places.


# %%
def pair(weight):
    network = eq.DenseNetwork(
        2,
        {"left": 1, "right": 1},
        [("in", "left"), ("in", "right"), ("left", "right")],
        feedback=[("right", "left")],
        activation=eq.tanh,
        key=jax.random.key(0),
    )
    kernels = {
        ("in", "left"): jnp.array([[1.0], [0.0]]),
        ("in", "right"): jnp.array([[0.0], [1.0]]),
        ("left", "right"): jnp.array([[weight]]),
        ("right", "left"): jnp.array([[weight]]),
    }
    return eq.Model(eqx.tree_at(lambda n: n.kernels, network, kernels), eq.SquaredError(layer="right"))


two, inputs = pair(3.0), jnp.array([0.10, -0.09])
undamped = eq.Picard(max_steps=60)
cycling = trace(two, inputs, undamped)
print("undamped steps:", cycling)
assert cycling.status == eq.STATUS.cycling and cycling.period == 2.0
_ = eq.plot.trajectory(cycling)

# %% [markdown]
# *Two neurons under undamped synchronous steps: the residual does not fall, and the rates change places at every
# step.*
#
# The network has a fixed point all the same, and two ways lead to it. Damping takes half of the step. A sweep visits
# one half of the layers and then the other, so that the second already sees what the first has answered.

# %%
for name, relaxation in {
    "damped steps": eq.Picard(damping=0.5, max_steps=60),
    "sweeps": eq.Sweep(max_steps=60),
}.items():
    trajectory = trace(two, inputs, relaxation)
    needed = int(np.argmax(trajectory.residual <= 1e-5))
    print(f"{name}: {trajectory.headline()}, residual below 1e-5 after {needed}")
    assert trajectory.status == eq.STATUS.settled

# %% [markdown]
# ## What the spectrum says
#
# Near a fixed point the deviation moves by the Jacobian $J = \partial F/\partial u$. In continuous time the fixed
# point is stable if every eigenvalue $\lambda$ has a negative real part. An undamped synchronous step multiplies a
# mode by $1 + \lambda$, and is stable inside the circle $|1 + \lambda| = 1$. A damped step multiplies it by $1 +
# \lambda/2$.
#
# The symmetric state of the two neurons, at zero input, has the eigenvalues $-1 \pm w$. At $w = 3$ the state is
# unstable in both senses. The state that damped steps found is stable.

# %%
axes = eq.plot.spectrum(two, inputs, eq.Picard(damping=0.5))
_ = axes.set_title("two neurons, at the fixed point of damped steps", fontsize="medium", pad=40)

# %% [markdown]
# *The eigenvalues of the Jacobian of the two neurons at their fixed point, within the circle of undamped steps.*
#
# Undamped steps are stable here too, and yet the first trajectory cycled: a stable fixed point is not found from
# everywhere. The cycle and the fixed point exist side by side.
#
# ## Gain: from settled to wandering
#
# Random recurrent weights of growing strength take a network through several kinds of motion. `VectorField` makes a
# network of any function. This one has a hundred neurons with independent weights of variance $g^2/n$, and its last
# version has no activation that would bound the rates.


# %%
class Random(eqx.Module):
    weights: jax.Array
    bounded: bool = eqx.field(static=True)

    def __call__(self, u, x):
        s = jnp.tanh(u["out"]) if self.bounded else u["out"]
        return {"out": self.weights @ s + x - u["out"]}


def random_network(gain, bounded=True, size=100):
    weights = gain * np.random.default_rng(1).standard_normal((size, size)) / np.sqrt(size)
    return eq.Model(eq.VectorField(Random(jnp.asarray(weights), bounded), {"out": size}), eq.SquaredError())


source = 0.1 * jax.random.normal(jax.random.key(3), (100,))
flow = eq.Picard(damping=0.1, max_steps=800)  # a step is a tenth of a time constant, close to continuous time
networks = {
    "g = 0.5": (random_network(0.5), eq.STATUS.settled),
    "g = 1.2": (random_network(1.2), eq.STATUS.slow),
    "g = 3": (random_network(3.0), eq.STATUS.wandering),
    "g = 3, linear": (random_network(3.0, bounded=False), eq.STATUS.diverged),
}
_, panels = plt.subplots(2, 4, figsize=(9.6, 4.4), layout="constrained", sharex=True)
for column, (name, (each, expected)) in zip(panels.T, networks.items(), strict=True):
    trajectory = trace(each, source, flow)
    print(f"{name}: {trajectory}")
    assert trajectory.status == expected
    time = np.asarray(trajectory.times) / 10
    column[0].semilogy(time, trajectory.residual, color=BLUE, linewidth=1)
    column[0].set_title(f"{name}: {trajectory.headline().split()[0].strip(',')}", fontsize="medium")
    potentials = trajectory.states["out"]
    if expected == eq.STATUS.diverged:
        column[1].semilogy(time, np.abs(potentials[:, :3]), linewidth=1)
        column[1].set_ylabel("potential |u|")
    else:
        column[1].plot(time, potentials[:, :3], linewidth=1)
    column[1].set_xlabel("time constants")
panels[0, 0].set_ylabel("residual max |F|")
_ = panels[1, 0].set_ylabel("potential u")

# %% [markdown]
# *Residual and three potentials of random networks: one settles, one settles slowly, one wanders, and one without a
# bound on its rates diverges.*
#
# The label `slow` comes with the number of steps that are left, and `wandering` with the advice to lower the gain.
#
# Without input, zero potentials are a fixed point at any gain. The eigenvalues there fill a disc of radius $g$ around
# $-1$. Beyond $g = 1$ some of them are unstable, and the network leaves the fixed point.

# %%
_, panels = plt.subplots(1, 2, figsize=(8.8, 4.6), layout="constrained")
for panel, name, gain in zip(panels, ("g = 0.5", "g = 3"), (0.5, 3.0), strict=True):
    _ = eq.plot.spectrum(networks[name][0], jnp.zeros(100), flow, panel)
    panel.text(0.03, 0.95, name, transform=panel.transAxes)
    drawn = np.concatenate([np.asarray(points.get_offsets()) for points in panel.collections])
    radius = np.linalg.norm(drawn - [-1, 0], axis=1).max()
    print(f"{name}: {np.sum(drawn[:, 0] > 0)} of {len(drawn)} modes are unstable, radius {radius:.2f}")
    assert (drawn[:, 0] > 0).any() == (gain > 1) and abs(radius / gain - 1) < 0.2

# %% [markdown]
# *The eigenvalues of the Jacobian at zero potentials and zero input, at a weak gain and at a strong one.*
#
# ## Weak feedback
#
# In a chain, feedback weights that are $\gamma$ times weaker lower the loop gain of neighbours by $\gamma$. The
# eigenvalues draw together around $-1$, and sweeps settle sooner. The chain here has three hidden layers and tied
# weights.


# %%
def chain(feedback_gain):
    network = eq.DenseNetwork.chain([20, 40, 40, 40, 10], angle=0.0, feedback_gain=feedback_gain, key=jax.random.key(0))
    return eq.Model(network, eq.SquaredError())


@eqx.filter_jit
def sweeps_needed(model, x, relaxation):
    def one(x):
        field = model.network.at(x)
        solution = relaxation(field.drift, field.initial_state(), blocks=field.blocks)
        return solution.num_steps, solution.result == eq.RESULTS.successful

    return jax.vmap(one)(x)


examples = jax.random.uniform(jax.random.key(1), (200, 20))
sweep = eq.Sweep(tol=1e-4, max_steps=300, every=1)
gains, medians = (0.1, 0.2, 0.5, 1.0), []
for gain in gains:
    steps, settled = sweeps_needed(chain(gain), examples, sweep)
    medians.append(float(jnp.median(steps)))
    slowest, share = int(steps.max()), 100 * float(settled.mean())
    print(f"γ = {gain}: median {medians[-1]:.0f} sweeps, slowest {slowest}, {share:.1f} % settled")
assert medians == sorted(medians) and medians[0] < 0.3 * medians[-1]

_, panels = plt.subplots(1, 2, figsize=(9.2, 4.8), layout="constrained", sharex=True, sharey=True)
for panel, gain in zip(panels, (1.0, 0.2), strict=True):
    _ = eq.plot.spectrum(chain(gain), examples[0], eq.Sweep(tol=1e-4, max_steps=300), panel)
    panel.text(0.03, 0.95, f"γ = {gain:g}", transform=panel.transAxes)
    panel.set(xlim=(-2.1, 0.3), ylim=(-1.2, 1.2))

# %% [markdown]
# *The eigenvalues of the Jacobian of a chain at its fixed point for one input, with feedback as strong as forward
# weights and with weak feedback.*
#
# A real eigenvalue close to zero is a slow mode, which many sweeps have to wait for. Weak feedback moves it away from
# zero.


# %%
def slowest_mode(model, x):
    """The eigenvalue with the largest real part."""
    field = model.network.at(x)
    free = eq.Sweep(tol=1e-4, max_steps=300)(field.drift, field.initial_state(), blocks=field.blocks)
    flat, unravel = ravel_pytree(free.state)
    jacobian = jax.jacfwd(lambda u: ravel_pytree(field.drift(unravel(u)))[0])(flat)
    return float(np.linalg.eigvals(np.asarray(jacobian)).real.max())


modes = {gain: slowest_mode(chain(gain), examples[0]) for gain in (1.0, 0.2)}
print(", ".join(f"γ = {gain:g}: {mode:.3f}" for gain, mode in modes.items()))
assert modes[0.2] < modes[1.0] < 0

# %% [markdown]
# ## An animation: settle, then answer to a nudge
#
# A chain receives an input and settles for 18 frames. Then the output is nudged with $\beta = -0.5$, towards a target
# that is one for a single neuron and zero for the others. A frame is half a time constant of the leak. Feedback is
# weak, and the further a layer is from the output, the less it moves.

# %%
model, x, target, beta = chain(0.2), examples[0], jnp.zeros(10).at[3].set(1.0), -0.5
example = model.at(x, target)


@jax.jit
def half_time_constant(u, beta):
    step = lambda _, u: jax.tree.map(lambda v, f: v + 0.1 * f, u, example.drift(u, beta))
    return jax.lax.fori_loop(0, 5, step, u)


u, frames = example.field.initial_state(), []
for frame in range(33):
    frames.append(jax.tree.map(np.asarray, example.field.rates(u)))
    u = half_time_constant(u, beta if frame >= 18 else 0.0)

layers = ["l1", "l2", "l3", "out"]
free = frames[18]
shift = np.array([[np.linalg.norm(rates[name] - free[name]) for name in layers] for rates in frames])
settled_by_then = np.abs(frames[18]["out"] - frames[16]["out"]).max()
print(f"the output still moves by {settled_by_then:.1e} a time constant when the nudge begins")
print(f"rate of neuron 3: {free['out'][3]:.3f} in the free phase, {frames[-1]['out'][3]:.3f} under the nudge")
assert settled_by_then < 0.01 and frames[-1]["out"][3] > free["out"][3] + 0.02
assert list(np.argsort(shift[-1])) == [0, 1, 2, 3], "the further from the output, the less a layer moves"

figure, panels = plt.subplots(1, 3, figsize=(7.6, 3.0), layout="constrained", width_ratios=(1.3, 1, 1.2), dpi=80)
grid = lambda rates: np.stack([rates[name] for name in layers[:3]])
image = panels[0].imshow(grid(frames[0]), vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="nearest")
panels[0].set(xlabel="neuron", yticks=range(3), yticklabels=layers[:3])
panels[0].set_title("rates of hidden layers (0 to 1)", fontsize="small")
bars = panels[1].bar(range(10), frames[0]["out"], color=[ORANGE if index == 3 else BLUE for index in range(10)])
panels[1].set(xlabel="neuron of the output", ylabel="rate s", ylim=(0, 0.4), xticks=(0, 3, 6, 9))
lines = [
    panels[2].plot([], [], dash, color=colour, label=name)[0]
    for name, colour, dash in zip(layers, (BLUE, GREEN, PINK, ORANGE), (":", "-.", "--", "-"), strict=True)
]
panels[2].set(xlabel="time since the nudge", ylabel="distance ‖Δs‖")
panels[2].set(xlim=(0, 7), ylim=(0, 1.1 * shift[18:].max()))
panels[2].legend(frameon=False, fontsize="small", loc="center right")


def draw(frame):
    image.set_data(grid(frames[frame]))
    for bar, height in zip(bars, frames[frame]["out"], strict=True):
        bar.set_height(height)
    for line, values in zip(lines, shift.T, strict=True):
        shown = values[18 : max(frame, 18) + 1] if frame >= 18 else []
        line.set_data(np.arange(len(shown)) / 2, shown)
    phase = "free phase" if frame <= 18 else f"nudged phase, β = {beta:g}"
    figure.suptitle(f"{phase}, time {frame / 2:.1f}", fontsize="medium")
    return [image, *bars, *lines]


script = FuncAnimation(figure, draw, frames=len(frames), interval=150).to_jshtml()
plt.close(figure)
print(f"the animation has {len(frames)} frames and {len(script) / 1e6:.2f} MB")
assert len(script) < 1.5e6
HTML(script.replace("<img id=", '<img alt="Rates of a chain by frame" id='))

# %% [markdown]
# *Rates of a chain as it settles and then answers to a nudge of the output: hidden layers (left), the output
# (middle), and the distance of each layer from its free rates (right).*
#
# ## Try
#
# - Give the two neurons inputs of 0.3 and −0.1. Do undamped steps still cycle?
# - Animate `chain(1.0)`. Which layers move more, and does the free phase end in time?
# - Trace the random network at `g = 1.5` with ten times as many steps. Is `slow` the right word?
#
# The first notebook is [one neuron](one_neuron.py). Networks are on [their page](../networks.md), and [a
# census](../results/phases/cpu/README.md) says which of them settle, cycle or wander.
