# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A circuit learns XOR, and ngspice agrees
#
# This page trains a network of resistors, diodes and amplifiers on XOR by equilibrium propagation. The learned circuit
# is then written as a netlist, and the circuit simulator ngspice, which shares no code with this library, finds the
# same node voltages. Without ngspice on the machine the comparison is skipped, and the page says so.
#
# A circuit settles to Kirchhoff's current law, which is its fixed point. A current pushed into the outputs is the
# nudge, and the way the voltages move is the error vector. The circuit is that of Kendall et al. (2020,
# [arXiv 2006.01981](https://arxiv.org/abs/2006.01981)): amplifiers between the layers restore the voltages on the way
# forward, and pass a part of the current on the way back.

# %%
import shutil
import subprocess
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import eqprop as eq
from eqprop.circuit import Diodes, ResistiveNetwork, netlist
from eqprop.data import xor

jax.config.update("jax_enable_x64", True)  # the currents of diodes are exponential in the voltage

# %% [markdown]
# ## The circuit
#
# Two inputs, sixteen hidden nodes and one output. An input node is a voltage source, of up to 2 V. Each input is given
# as $x$ and $-x$ beside two constant sources, so that conductances need no sign. Every hidden node has two antiparallel
# diodes; `law="ngspice"` has the diode equation of that simulator in all its branches. `eq.Newton` finds the fixed
# point.
#
# A resistor serves both directions, and a circuit of resistors and diodes has a symmetric Jacobian whatever their
# values. The amplifiers make the way back weaker by a known factor, the product of their gains. This is a metric
# ([conventions](../theory.md)): the network knows it, and gets exact gradients from plain nudges.

# %%
network = ResistiveNetwork(
    [2, 16, 1], volts=2.0, forward_gain=4.0, backward_gain=4.0, diodes=Diodes(law="ngspice"), key=jax.random.key(0)
)
model = eq.Model(network, eq.SquaredError(regression=True))
data = xor().train
x, y = jnp.asarray(data.images[:, 0], float), jnp.asarray(data.labels, float)
newton = eq.Newton(tol=1e-10)
trainer = eq.Trainer(newton, eq.FiniteNudge(stencil=eq.centred(0.05), relaxation=newton), optax.adam(2e-2))
exact = eq.Trainer(newton, eq.RecurrentBackprop(relaxation=newton), optax.adam(2e-2))

gradients = [eqx.filter_jit(t.gradient)(model, (x, y), key=jax.random.key(0))[0] for t in (trainer, exact)]
cosine = float(eq.metrics.cosine(*gradients))
print(f"cosine of the nudged gradient to the true one: {cosine:.6f}")
assert cosine > 0.999

# %% [markdown]
# ## Training

# %%
history = eq.fit(trainer, model, (x, y), epochs=1000, batch_size=4, key=jax.random.key(1), shuffle=False)
print(history)


@eqx.filter_jit
def voltages(model, x):
    field = model.network.at(x)
    return newton(field.drift, field.initial_state()).state


states = [voltages(history.model, each) for each in x]
for inputs, state, target in zip(x, states, y, strict=True):
    print(f"inputs {inputs[0]:.0f} {inputs[1]:.0f}: output {float(state['out'][0]):+.3f} V, target {target[0]:.0f} V")
    assert abs(float(state["out"][0] - target[0])) < 0.1

# %% [markdown]
# ## The same circuit in ngspice
#
# `netlist.circuit` writes the elements, one a line, and `netlist.deck` adds options and commands: an operating point
# (`op`) and a table of node voltages. The conductances of the netlist are those that were learned.

# %%
learned = history.model.network
assert isinstance(learned, ResistiveNetwork)
names = netlist.nodes(learned)
decks = []
for inputs, target in zip(x, y, strict=True):
    elements = netlist.circuit(learned, inputs, target)
    decks.append(netlist.deck(learned, elements, ["op", netlist.save("volts.txt", names)]))
lines = decks[1].splitlines()
print(f"{len(lines)} lines, among them:")
shown = [
    next(line for line in lines if line.startswith(kind)) for kind in ("Vin1", "Rin0", "El1", "Dup", "Bn0", ".mod")
]
print("\n".join(shown))


# %%
def ngspice(deck):
    """Node voltages that ngspice finds."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "circuit.cir").write_text(deck)
        subprocess.run(["ngspice", "-b", "circuit.cir"], cwd=folder, capture_output=True, timeout=60, check=False)
        return netlist.read((Path(folder) / "volts.txt").read_text(), names)[1][0]


ours = np.array([np.concatenate([state["l1"], state["out"]]) for state in states])
if shutil.which("ngspice"):
    theirs = np.array([ngspice(deck) for deck in decks])
    difference = float(np.max(np.abs(ours - theirs)))
    print("node      eqprop         ngspice        (inputs 0 1)")
    for name, a, b in list(zip(names, ours[1], theirs[1], strict=True))[-6:]:
        print(f"{name:8s}  {a:+.10f}  {b:+.10f}")
    print(f"largest difference of {ours.size} voltages: {difference:.1e} V")
    assert difference < 1e-9
else:
    theirs = None
    print("ngspice is not on the path: the comparison is skipped.")

# %%
_, (left, right) = plt.subplots(1, 2, figsize=(9.0, 3.8), layout="constrained")
left.semilogy(history["loss"], color=eq.plot.BLUE)
left.set(xlabel="epoch of four examples", ylabel="loss ½(v − y)² (V²)")
for row, ((colour, marker), inputs) in enumerate(zip(eq.plot.MARKED, x, strict=False)):
    label = f"inputs {inputs[0]:.0f} {inputs[1]:.0f}"
    right.plot(ours[row], color=colour, marker=marker, markersize=4, linewidth=0.8, label=f"{label}, eqprop")
if theirs is not None:
    right.plot(theirs.T, "o", mfc="none", markersize=9, color="black", linewidth=0)
    right.plot([], [], "o", mfc="none", markersize=9, color="black", label="ngspice")
right.set_xticks(range(len(names)), names, rotation=90, fontsize="small")
right.set(xlabel="node", ylabel="voltage (V)")
right.legend(frameon=False, fontsize="small", loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
plt.show()

# %% [markdown]
# *Left: loss of the circuit during training. Right: voltages of all nodes for the four inputs, by this library and by
# ngspice where it is installed.*
#
# ## Try
#
# - Set both gains to 1, and look at the loss.
# - Nudge in ngspice: add `alter Vbeta dc = 0.05` before `op`. The difference of the voltages, divided by the strength,
#   is the error vector.
# - Write the netlist to a file and open it in another simulator.
#
# More: [from a data sheet to an accuracy](device.py), [devices](../substrate.md),
# [the comparison of random circuits](../results/spice/cpu/README.md).
