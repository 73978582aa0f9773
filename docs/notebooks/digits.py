# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A network learns digits by settling
#
# A recurrent network of two layers learns to read handwritten digits. Its error vectors come from nudges of the
# output alone.
#
# You will see the learning curve, one image on its way through the free phase and the nudged phase, the error vectors
# of nudges against the true ones, the confusion matrix of the test images, and a model that is written to a file and
# read again. [One neuron](one_neuron.py) explains the words.

# %%
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import eqprop as eq
from eqprop.data import digits, hold_out

BLUE, ORANGE, GREEN, GREY = eq.plot.BLUE, eq.plot.ORANGE, eq.plot.GREEN, eq.plot.GREY

# %% [markdown]
# ## Data
#
# The digits are 8 × 8 pixels with values from 0 to 16. They are shipped with the package. A tenth of the training
# images is held out to watch the training; the test images are measured once, at the end.

# %%
data = hold_out(digits(), 0.1, seed=0)
print({"train": len(data.train.images), "validation": len(data.validation.images), "test": len(data.test.images)})

_, panels = plt.subplots(1, 10, figsize=(7.0, 1.1), layout="constrained")
for digit, panel in enumerate(panels):
    panel.imshow(data.train.images[np.argmax(data.train.labels == digit)], cmap="gray_r")
    panel.set_title(str(digit), fontsize="small")
    panel.axis("off")

# %% [markdown]
# *One training image of each class, with its label.*
#
# ## Model and trainer
#
# The network is a chain of two layers that excite and inhibit each other in both directions. Forward and feedback
# weights are independent at the start (`angle=90`). Feedback is five times weaker than forward weights
# (`feedback_gain=0.2`), so that the network settles in few sweeps. A linear readout with a softmax turns the last
# layer into ten classes.
#
# - `Sweep` settles one half of the layers and then the other.
# - `FiniteNudge` measures the error vector from four nudges on a circle of radius 0.4 in the complex plane.
# - `ExactHomeostasis` is a penalty on the asymmetry of the weights, which makes the error vectors true ones.

# %%
network_key, readout_key, fit_key = jax.random.split(jax.random.key(0), 3)
model = eq.Model(
    eq.DenseNetwork.chain([64, 128, 32], angle=90.0, feedback_gain=0.2, key=network_key),
    eq.SoftmaxReadout(32, 10, key=readout_key),
)
relaxation = eq.Sweep(tol=1e-4, max_steps=200)
trainer = eq.Trainer(
    relaxation=relaxation,
    estimator=eq.FiniteNudge(stencil=eq.cauchy(beta=0.4, num_points=4), relaxation=relaxation, norm_bound=1.0),
    homeostasis=eq.ExactHomeostasis(coefficient=50.0),
    optimiser=optax.adam(3e-3),
)

# %% [markdown]
# ## Training
#
# `fit` trains and returns a history, which prints as a table. Before and after, `alignment` compares the error
# vectors of the nudges with the true ones on a hundred validation images.

# %%
held_out = data.validation
x, y = jnp.asarray(held_out.images[:100], jnp.float32) / 16, jnp.asarray(held_out.labels[:100])
alignment = eqx.filter_jit(trainer.alignment)
before = alignment(model, (x, y), key=fit_key)
history = eq.fit(trainer, model, data.train, epochs=10, batch_size=50, validation=data.validation, key=fit_key)
after = alignment(history.model, (x, y), key=fit_key)
print(history)
assert history["validation_accuracy"][-1] > 0.9
assert history["unsettled_fraction"].max() < 0.01, "next to all images settle in every phase"

# %%
_, panels = plt.subplots(1, 2, figsize=(7.2, 3.0), layout="constrained")
epochs = history["epoch"]
panels[0].plot(epochs, history["loss"], "o-", color=BLUE, label="training")
panels[0].plot(epochs, history["validation_loss"], "s-", color=ORANGE, label="validation")
panels[0].set(xlabel="epoch", ylabel="loss (nats)", ylim=(0, None))
panels[1].plot(epochs, 100 * history["accuracy"], "o-", color=BLUE, label="training")
panels[1].plot(epochs, 100 * history["validation_accuracy"], "s-", color=ORANGE, label="validation")
panels[1].set(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 100))
_ = panels[1].legend(frameon=False, loc="lower right")

# %% [markdown]
# *Loss and accuracy by epoch on training and validation images.*
#
# The cosine of the hidden layer's error vectors to the true ones grows in the course of training, and the functional
# asymmetry of the weights falls. Homeostasis does this.

# %%
for name in ("cosine_l1", "cosine_out", "functional_asymmetry", "weight_angle"):
    print(f"{name:20s} {float(before[name]):7.3f} before, {float(after[name]):7.3f} after")
assert abs(before["cosine_l1"]) < 0.5 and after["cosine_l1"] > 0.95
assert before["functional_asymmetry"] > 0.4 and after["functional_asymmetry"] < 0.1

# %% [markdown]
# ## One image in the free phase
#
# `trace` keeps every state of the free phase and says how it ended. The residual is the largest $|F|$ of any neuron.
# Sweeps settle this image in a few steps; small damped steps show the way, as a device in continuous time would take
# it.

# %%
trained = history.model
trace = eqx.filter_jit(eq.trace)
in_sweeps = trace(trained, x[0], relaxation, num_steps=32)
trajectory = trace(trained, x[0], eq.Picard(tol=1e-4, damping=0.3), num_steps=120)
print("sweeps:", in_sweeps)
print("steps: ", trajectory)
assert trajectory.status == in_sweeps.status == eq.STATUS.settled
needed = [int(np.argmax(each.residual <= 1e-4)) for each in (in_sweeps, trajectory)]
print(f"the residual is below 1e-4 after {needed[0]} sweeps or {needed[1]} steps")
assert 0 < 3 * needed[0] < needed[1]
_ = eq.plot.trajectory(trajectory)

# %% [markdown]
# *The residual of one image by step, and the three rates of each layer that moved most.*
#
# ## An image under a nudge
#
# The nudged phase starts from the free fixed point. A real nudge of each sign is followed here by small steps, each
# half of the drift $F + \beta\,\partial\ell/\partial s$. A positive $\beta$ repels the output from the target, so
# that the probability of the true class falls; a negative one raises it. The image is the one of the hundred at which
# the network is least decided about the true class.


# %%
@eqx.filter_jit
def free_phase(model, x, y):
    """The bound example, with its potentials at the free fixed point."""
    example = model.at(x, y)
    return example, relaxation(example.field.drift, example.field.initial_state(), blocks=example.blocks)


@eqx.filter_jit
def nudged_phase(example, u, beta, steps=30):
    """Probability of the true class, and the distance of each layer's rates from the free ones, step by step."""
    origin = example.field.rates(u)

    def step(u, _):
        s = example.field.rates(u)
        moved = {name: jnp.linalg.norm(s[name] - origin[name]) for name in s}
        u = jax.tree.map(lambda v, f: v + 0.5 * f, u, example.drift(u, beta))
        return u, (jnp.exp(-example.loss(s)), moved)

    return jax.lax.scan(step, u, length=steps)[1]


def rates_of(model, x):
    """The rates of one image at the free fixed point."""
    example, free = free_phase(model, x, jnp.zeros((), int))
    return example.field.rates(free.state)


@eqx.filter_jit
def probabilities(model, x, y):
    return jax.vmap(lambda x, y: jnp.exp(-model.readout.loss(rates_of(model, x), y)))(x, y)


chosen = int(jnp.argmin(jnp.abs(probabilities(trained, x, y) - 0.5)))
example, free = free_phase(trained, x[chosen], y[chosen])
beta = 0.4
nudged = {sign: nudged_phase(example, free.state, sign * beta) for sign in (1, -1)}
undecided = nudged[1][0][0]
print(f"image {chosen}, a {int(y[chosen])}: the probability of its class is {float(undecided):.3f} in the free phase,")
print(f"{float(nudged[1][0][-1]):.3f} at β = +{beta} and {float(nudged[-1][0][-1]):.3f} at β = −{beta}")
assert nudged[1][0][-1] < undecided < nudged[-1][0][-1]

_, panels = plt.subplots(1, 3, figsize=(8.6, 2.9), layout="constrained", width_ratios=(0.8, 1.5, 1.5))
panels[0].imshow(x[chosen], cmap="gray_r")
panels[0].set_title(f"a {int(y[chosen])}", fontsize="medium")
panels[0].axis("off")
for sign, colour, dash in ((1, ORANGE, "-"), (-1, GREEN, "--")):
    label = f"β = {'+' if sign > 0 else '−'}{beta}"
    panels[1].plot(nudged[sign][0], dash, color=colour, label=label)
panels[1].set(xlabel="step of the nudged phase", ylabel="probability of the true class", ylim=(0, 1))
panels[1].legend(frameon=False)
for name, colour, dash in (("out", ORANGE, "-"), ("l1", BLUE, "--")):
    panels[2].plot(nudged[1][1][name], dash, color=colour, label=name)
panels[2].set(xlabel="step of the nudged phase", ylabel="distance from free rates ‖Δs‖", ylim=(0, None))
_ = panels[2].legend(frameon=False, loc="center right")

# %% [markdown]
# *An image under nudges of either sign: the probability of its class, and how far the rates of each layer move from
# the free fixed point at positive β.*
#
# The output moves first and furthest. The hidden layer hears of the nudge through weak feedback, and moves less. Its
# error vector is brought to the scale of the true gradient by the known feedback gain.

# %%
assert nudged[1][1]["l1"][-1] < 0.5 * nudged[1][1]["out"][-1]

# %% [markdown]
# ## Error vectors against the true ones
#
# `respond` measures the error vector of one example, as it enters the gradient: no longer than the norm bound of the
# estimator. The true one is that of recurrent backpropagation (RBP). Every point is one neuron at one of twenty
# images. After training most images are learned and have short error vectors; the long ones belong to the few that
# are not.


# %%
@eqx.filter_jit
def error_vectors(model, x, y):
    def one(x, y):
        example, free = free_phase(model, x, y)
        estimators = trainer.estimator, eq.RecurrentBackprop(relaxation=relaxation, norm_bound=1.0)
        return [each.respond(example, free).payload for each in estimators]

    return jax.vmap(one)(x, y)


_, panels = plt.subplots(2, 2, figsize=(6.6, 6.6), layout="constrained")
for row, (when, each) in zip(panels, {"untrained": model, "trained": trained}.items(), strict=True):
    estimate, true = error_vectors(each, x[:20], y[:20])
    _ = eq.plot.errors({when: estimate}, true, ax=row)
    cosines = eq.metrics.layer_cosines(estimate, true, each.readout.layers)
    print(f"{when}: cosine {float(cosines['l1']):.3f} in the hidden layer, {float(cosines['out']):.3f} in the output")
    lengths = np.sort(np.linalg.norm(np.concatenate([true["l1"], true["out"]], axis=1), axis=1))
assert cosines["l1"] > 0.95 and cosines["out"] > 0.95
assert np.median(lengths) < 0.1 * lengths[-1]

# %% [markdown]
# *Error vectors of nudges against the true ones, of the hidden layer (left) and the output (right), before training
# (top) and after it (bottom).*
#
# ## Test images
#
# The confusion matrix is of all test images. Nothing was chosen by them.

# %%
test = jnp.asarray(data.test.images, jnp.float32) / 16, jnp.asarray(data.test.labels)
predict = eqx.filter_jit(jax.vmap(lambda model, x: jnp.argmax(model.readout.predict(rates_of(model, x))), (None, 0)))
predicted = np.asarray(predict(trained, test[0]))
confusion = np.zeros((10, 10), int)
np.add.at(confusion, (data.test.labels, predicted), 1)
accuracy = float(np.trace(confusion) / confusion.sum())
print(f"{100 * accuracy:.1f} % of {confusion.sum()} test images are right")
evaluated = eqx.filter_jit(trainer.evaluate)(trained, test)
assert abs(float(evaluated["accuracy"]) - accuracy) < 1e-6 and accuracy > 0.85

_, panel = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
panel.imshow(confusion, cmap="Blues", norm="symlog")
for true_class, other in np.argwhere(confusion):
    shade = "white" if confusion[true_class, other] > 15 else "black"
    panel.text(other, true_class, confusion[true_class, other], ha="center", va="center", color=shade, fontsize="small")
_ = panel.set(xlabel="predicted class", ylabel="true class", xticks=range(10), yticks=range(10))

# %% [markdown]
# *Number of test images by true class and predicted class.*
#
# ## Save and load
#
# One file holds the model, its structure and a header of your own. `load` needs no skeleton and runs no code of the
# file.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "digits.npz"
    eq.save(path, trained, {"test_accuracy": accuracy})
    again, header = eq.load(path), eq.read_header(path)
    print(f"{path.stat().st_size / 1e3:.0f} kB, header {header}")
assert eqx.tree_equal(again, trained)
assert np.array_equal(predict(again, test[0]), predicted)

# %% [markdown]
# ## Try
#
# - Leave homeostasis out (`homeostasis=None`). Where does the cosine of the hidden layer end, and where does
#   accuracy?
# - Put `estimator=eq.RecurrentBackprop(relaxation=relaxation, norm_bound=1.0)`. This is the true gradient: how much
#   does it gain?
# - Give `fit` a folder, stop it in an epoch, and run the cell again. It goes on where it was.
#
# Next: [what a finite nudge costs](finite_nudges.py). All networks and tasks are on [their page](../networks.md),
# data of your own on [the page on data](../data.md).
