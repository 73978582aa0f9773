# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a data sheet to an accuracy
#
# This page takes a made-up data sheet of a memristor array, names what each of its numbers does to equilibrium
# propagation, and trains digits on three simulated chips. It compares four cases: the ideal network, the ideal network
# written to the chips without further training, and training on the chips with and without homeostasis.
#
# ## The data sheet
#
# | number | value | part of the substrate |
# |---|---|---|
# | spread of conductance, each direction its own | 12 % | `Mismatch(0.12, structure="per_direction")` |
# | levels of a conductance | 5 bits | `Quantised(bits=5)` |
# | converter | 8 bits over the swing of a rate | `ADC(8)` |
# | pulses that change a conductance | 0.002 of its range | `ConstantStep(dw_min=0.002)` |
#
# [Devices](../substrate.md) has the table of all parts, and says how measured curves of a device become one. At the end
# the page asks what an inference and a training example cost, in joules and seconds.

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import eqprop as eq
from eqprop.data import digits
from eqprop.substrate import ADC, ConstantStep, Mismatch, Quantised, Technology

BLUE, ORANGE, GREEN, PINK, GREY = eq.plot.BLUE, eq.plot.ORANGE, eq.plot.GREEN, eq.plot.PINK, eq.plot.GREY


def device(chip, converter=True):
    """The data sheet as a substrate. Another chip is another draw of all fixed patterns."""
    return eq.Substrate(
        chip=chip,
        mismatch=Mismatch(0.12, structure="per_direction"),
        weights=Quantised(bits=5),
        adc=ADC(8) if converter else None,
        write=ConstantStep(dw_min=0.002),
    )


print(device(0).describe())
assert device(0).reciprocity == "breaks"

# %% [markdown]
# The column `reciprocity` is the class of each defect. Equilibrium propagation relies on the symmetry $A = A^\top$ of
# the Jacobian of the drive. A converter does not touch it, and rounding treats two equal devices alike. Mismatch that
# each direction draws for itself breaks it, and so do writes that differ between the two devices of a pair. Gains
# cannot undo such a defect. Homeostasis can work against it.
#
# ## The network and its training
#
# The feedback weights are devices of their own, and start as copies of the forward weights (0°). The nudge is centred
# and real, as the device has no complex one. The gradient does not know the device (`aware=False`): the local rule is
# applied to what the chip does.

# %%
network_key, readout_key, fit_key, probe_key = jax.random.split(jax.random.key(0), 4)
model = eq.Model(
    eq.DenseNetwork.chain([64, 64, 32], angle=0.0, feedback_gain=0.5, key=network_key),
    eq.SoftmaxReadout(32, 10, key=readout_key),
)
data = digits()
test = jnp.asarray(data.test.images) / 16.0, jnp.asarray(data.test.labels)
few = test[0][:100], test[1][:100]
relaxation, optimiser = eq.Sweep(tol=1e-4, max_steps=200), optax.adam(3e-3)
nudge = eq.FiniteNudge(stencil=eq.centred(0.4), relaxation=relaxation, norm_bound=1.0)


def trainer(chip, coefficient, converter=True):
    # Arrays in place of numbers, so that all chips and both strengths are one compiled program.
    homeostasis = eq.ExactHomeostasis(jnp.asarray(coefficient))
    substrate = None if chip is None else device(jnp.asarray(chip), converter)
    return eq.Trainer(relaxation, nudge, optimiser, homeostasis=homeostasis, substrate=substrate)


@eqx.filter_jit
def measured(trainer, exact_reading, model, batch, few):
    """Accuracy, and the cosine of hidden error vectors to the true ones of the deployed network: as the device reads
    rates, and as they are."""
    alignment = trainer.alignment(model, few, key=probe_key)
    return {
        "accuracy": trainer.evaluate(model, batch)["accuracy"],
        "asymmetry": alignment["functional_asymmetry"],
        "cosine": alignment["cosine_hidden"],
        "cosine without converter": exact_reading.alignment(model, few, key=probe_key)["cosine_hidden"],
    }


def measure(chip, coefficient, model):
    found = measured(trainer(chip, coefficient), trainer(chip, coefficient, False), model, test, few)
    return {name: float(value) for name, value in found.items()}


def train(chip, coefficient):
    return eq.fit(trainer(chip, coefficient), model, data.train, epochs=10, batch_size=50, key=fit_key).model


# %%
chips, strength = (0, 1, 2), 10.0
ideal = train(None, strength)
found = {
    "ideal": [measure(None, strength, ideal)],
    "ideal, written to chips": [measure(chip, strength, ideal) for chip in chips],
    "on chips, no homeostasis": [measure(chip, 0.0, train(chip, 0.0)) for chip in chips],
    "on chips, homeostasis": [measure(chip, strength, train(chip, strength)) for chip in chips],
}
columns = list(found["ideal"][0])
print(" " * 25 + "".join(f"{column:>26s}" for column in columns))
mean = {}
for name, runs in found.items():
    values = {column: [run[column] for run in runs] for column in columns}
    mean[name] = {column: float(np.mean(v)) for column, v in values.items()}
    print(f"{name:25s}" + "".join(f"{np.mean(v):>18.3f} ± {np.std(v):.3f}" for v in values.values()))

# %% [markdown]
# Four statements can be read from the table.
#
# - The network survives the device: the accuracies of all cases lie within four points.
# - The asymmetry of the chips comes with their mismatch, and grows as they are trained. Homeostasis removes most of it.
# - With exact readings, homeostasis brings the error vectors of a chip to those of recurrent backpropagation.
# - With the converter of the data sheet it does not: the rounding of small responses limits
#   the cosine. Of this data sheet, the number to negotiate is that of the converter, and not the mismatch.

# %%
accuracies = [row["accuracy"] for row in mean.values()]
assert min(accuracies) > 0.9 and max(accuracies) - min(accuracies) < 0.04
written = mean["ideal, written to chips"]
none, homeostasis = mean["on chips, no homeostasis"], mean["on chips, homeostasis"]
assert (
    homeostasis["asymmetry"] < 0.3 * none["asymmetry"]
    and none["asymmetry"] > written["asymmetry"] > mean["ideal"]["asymmetry"]
)
assert homeostasis["cosine without converter"] > 0.95 > none["cosine without converter"]
assert homeostasis["cosine"] < 0.7

_, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained", sharey=True)
for row, (name, (colour, marker)) in enumerate(zip(found, eq.plot.MARKED, strict=False)):
    accuracy = [100 * run["accuracy"] for run in found[name]]
    left.plot(accuracy, [row] * len(accuracy), marker, color=colour, linewidth=0, alpha=0.8)
    for column, filled in (("cosine without converter", True), ("cosine", False)):
        values = [run[column] for run in found[name]]
        right.plot(values, [row] * len(values), marker, color=colour, mfc=colour if filled else "none", linewidth=0)
left.set_yticks(range(len(found)), list(found))
left.invert_yaxis()
left.set(xlabel="test accuracy (%)", xlim=(85, 100))
right.plot([], [], "o", color="black", label="exact readings")
right.plot([], [], "o", color="black", mfc="none", label="8-bit converter")
right.set(xlabel="cosine of hidden error vectors to RBP", xlim=(0, 1.05))
right.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
plt.show()

# %% [markdown]
# *Test accuracy on digits and cosine of the error vectors, one mark a chip: the converter and not the mismatch limits
# the error vectors where homeostasis is on.*
#
# ## Energy and time
#
# `Technology` has the physical constants of a device: volts, siemens, farads, joules a conversion step and a pulse. The
# ones it comes with are engineering guesses, and say so. `Substrate.cost` then counts what an example takes, by cause.


# %%
def cost(bits):
    priced = eq.Substrate(
        technology=Technology(),
        weights=Quantised(bits=5),
        adc=ADC(bits),
        write=ConstantStep(dw_min=0.002),
    )
    return priced.cost(trainer(None, strength), ideal, (test[0][:50], test[1][:50]))


costs = {bits: cost(bits) for bits in (6, 8, 10)}
print(costs[8].describe())

_, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
below = np.zeros(3)
causes = {"conduction": ORANGE, "converters": BLUE, "homeostasis": GREEN, "writes": PINK, "swing": GREY}
for cause, colour in causes.items():
    heights = np.array([1e12 * float(one.training.joules[cause]) for one in costs.values()])
    axis.bar([f"{bits} bits" for bits in costs], heights, bottom=below, color=colour, label=cause)
    below += heights
axis.set(ylabel="energy of a training example (pJ)", xlabel="converter")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# *Energy of a training example by cause, with converters of 6, 8 and 10 bits.*
#
# A bit more of a converter doubles what a reading costs. A training example costs more than an inference: every neuron
# is read in three phases, homeostasis reads the weights, and weights are written.

# %%
readings = [float(one.training.joules["converters"]) for one in costs.values()]
assert 3.0 < (readings[2] - readings[1]) / (readings[1] - readings[0]) < 5.0
assert all(one.training.energy > one.inference.energy and not one.reasons for one in costs.values())

# %% [markdown]
# ## Try
#
# - Give the converter 10 bits, or average it: `ADC(8, dither=0.5, samples=16)`.
# - Nudge harder, `eq.centred(1.0)`: the response has more levels, and the finite nudge more bias.
# - Replace homeostasis by `eq.AsymmetricNudge`, which needs exact readings, and compare the last column.
#
# More: [devices](../substrate.md), [mismatch by reciprocity class](../results/mismatch_digits/cpu/README.md),
# [a circuit learns XOR](circuit.py).
