# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Coupled learning: two copies of a resistor network
#
# After Stern, Hexner, Rocks & Liu, *Supervised learning in physical networks* (Physical Review X 11, 021045, 2021), and
# the circuit of Dillavou, Stern, Liu & Durian, *Demonstration of decentralized physics-driven learning* (Physical
# Review Applied 18, 014040, 2022), in which two identical networks hold the two states side by side. The claim: a
# network of resistors learns the voltages of its outputs from a rule that compares the voltage drop of each resistor in
# a free and in a clamped copy. The script repeats the claim in kind, on a small simulated network, and not the
# published numbers.
#
# In the clamped copy the outputs are held at $v^C = v^F + \eta\,(y - v^F)$. The rule of a conductance is
# $\dot g \propto \frac{1}{2\eta}\left[(\Delta v^F)^2 - (\Delta v^C)^2\right]$. Equilibrium propagation (EP) pushes a
# current $\beta (v - y)$ into the outputs and lets them move. Both rules read the same local quantity. They differ in
# how the target enters: EP sets the current, coupled learning sets the voltage.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import eqprop as eq
from eqprop import topology

jax.config.update("jax_enable_x64", True)


def lattice(outputs):
    """4 × 4 nodes: two are held at the inputs and one at ground, and one or two are read."""
    return eq.circuit.ResistorGraph(
        16, topology.lattice((4, 4)), inputs=[0, 3], outputs=outputs, rails={12: 0.0}, key=jax.random.key(0)
    )


network, single = lattice([13, 10]), lattice([13])
x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.5, 1.0], [1.0, 0.5]])
y = x @ jnp.array([[0.15, 0.3], [0.3, 0.45]])  # a linear task, as the response of resistors is linear
newton = eq.Newton(tol=1e-13)
ends = np.array(network.ends)


def drops(network, x, s):
    """The voltage across every resistor."""
    v = network.voltages(s, network.embed(x))
    return v[ends[:, 0]] - v[ends[:, 1]]


@eqx.filter_jit
def coupled(network, x, y, eta):
    """The update of coupled learning, with the sign of a gradient, averaged over examples."""

    def one(x, y):
        field = network.at(x)
        free = newton(field.drift, field.initial_state()).state
        out = free["out"] + eta * (y - free["out"])
        held = lambda u: {**field.drift({**u, "out": out}), "out": out - u["out"]}  # the clamped copy
        clamped = newton(held, free).state
        return (drops(network, x, clamped) ** 2 - drops(network, x, free) ** 2) / (2 * eta)

    return jnp.mean(jax.vmap(one)(x, y), axis=0)


trainer = eq.Trainer(newton, eq.FiniteNudge(stencil=eq.centred(1e-3), relaxation=newton), optax.sgd(1.0))


@eqx.filter_jit
def propagated(network, x, y):
    """The gradient of equilibrium propagation."""
    model = eq.Model(network, eq.SquaredError(regression=True))
    gradient = trainer.gradient(model, (x, y), key=jax.random.key(0))[0].network
    assert isinstance(gradient, eq.circuit.ResistorGraph)
    return gradient.conductances


@eqx.filter_jit
def loss(network, x, y):
    return trainer.evaluate(eq.Model(network, eq.SquaredError(regression=True)), (x, y))["loss"]


# %% [markdown]
# With one output and one example the two updates are parallel. With two outputs they are not: clamping both needs the
# current $(S_{oo})^{-1} (y - v)$, where $S_{oo}$ is the response of the output voltages to output currents, and EP with
# that teaching current makes the update of coupled learning.

# %%
eta = jnp.asarray(1e-3)
one_output = float(eq.metrics.cosine(coupled(single, x[:1], y[:1, :1], eta), propagated(single, x[:1], y[:1, :1])))
two_outputs = float(eq.metrics.cosine(coupled(network, x[:1], y[:1], eta), propagated(network, x[:1], y[:1])))


@eqx.filter_jit
def responses(network, x):
    """The free output voltages, and how they answer to a current into each output."""
    field = network.at(x)
    free = newton(field.drift, field.initial_state()).state

    def pushed(current):
        drift = lambda u: {**field.drift(u), "out": field.drift(u)["out"] + current}
        return newton(drift, free).state["out"] - free["out"]

    return free["out"], jax.vmap(pushed)(jnp.eye(2)).T


v, S = responses(network, x[0])
aim = v - jnp.linalg.solve(S, v - y[0])
matched = float(eq.metrics.cosine(coupled(network, x[:1], y[:1], eta), propagated(network, x[:1], aim[None])))
print(f"cosine of coupled learning to EP: {one_output:.6f} with one output, {two_outputs:.4f} with two")
print(f"with two outputs, to EP under the teaching current of the clamp: {matched:.6f}")
assert one_output > 0.9999 and matched > 0.9999 and two_outputs < 0.999

# %% [markdown]
# Both rules train the network. The learning rates are chosen so that the first updates are equally long, and no
# conductance falls below a smallest one. Coupled learning is run with a weak clamp and with the full one, $\eta = 1$.

# %%
rules = {
    "EP": propagated,
    "coupled learning, weak clamp": lambda network, x, y: coupled(network, x, y, eta),
    "coupled learning, full clamp": lambda network, x, y: coupled(network, x, y, jnp.asarray(1.0)),
}
_, ax = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
for (name, rule), colour in zip(rules.items(), eq.plot.COLOURS, strict=False):
    learner, losses = network, []
    rate = 0.2 / jnp.linalg.norm(rule(learner, x, y))
    for _ in range(400):
        losses.append(float(loss(learner, x, y)))
        updated = jnp.maximum(learner.conductances - rate * rule(learner, x, y), 0.05)
        learner = eqx.tree_at(lambda n: n.conductances, learner, updated)
    ax.semilogy(losses, color=colour, label=name)
    print(f"{name:29s} loss {losses[0]:.1e} before, {losses[-1]:.1e} after")
    assert losses[-1] < 1e-2 * losses[0]
ax.set(xlabel="update", ylabel="loss ½‖v − y‖² (V²), mean of four examples")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# *Loss of a lattice of resistors under equilibrium propagation and under coupled learning: both learn the task from the
# voltage drops of two states.*
