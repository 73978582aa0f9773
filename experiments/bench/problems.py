"""The networks that are measured, trained for a moment, and the real images they are measured on."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import eqprop as eq
from eqprop.data import cifar10, digits, fashion_mnist
from experiments.bench.settings import SETTINGS, our_trainer

CONV_CHANNELS = (16, 32, 64, 64)
DENSE_SIZES = (784, 256, 256, 10)


class Images(NamedTuple):
    """Training images in the units a network takes, with their labels and where they come from."""

    x: np.ndarray
    y: np.ndarray
    source: str
    checksums: dict[str, str]

    def batch(self, size: int, index: int = 0) -> tuple[Array, Array]:
        """The `index`-th batch, round and round."""
        rows = np.arange(index * size, (index + 1) * size) % len(self.x)
        return jnp.asarray(self.x[rows]), jnp.asarray(self.y[rows])


def images(kind: str) -> Images:
    """Fashion-MNIST, or the shipped digits enlarged; CIFAR-10, or random smooth images."""
    return _dense_images() if kind == "dense" else _conv_images()


def _dense_images() -> Images:
    try:
        data = fashion_mnist()
        x = data.train.images.astype(np.float32) / data.maximum
        return Images(x, data.train.labels, "Fashion-MNIST", data.checksums)
    except FileNotFoundError:
        data = digits()
        x = np.repeat(np.repeat(data.train.images.astype(np.float32) / data.maximum, 3, axis=1), 3, axis=2)
        x = np.pad(x, ((0, 0), (2, 2), (2, 2)))
        return Images(x, data.train.labels, "digits, enlarged to 28x28 pixels", data.checksums)


def _conv_images() -> Images:
    try:
        data = cifar10()
        x = (data.train.images[:10_000].astype(np.float32) / data.maximum - 0.5) / 0.25
        return Images(x, data.train.labels[:10_000], "CIFAR-10", data.checksums)
    except FileNotFoundError:
        rng = np.random.default_rng(0)
        y = rng.integers(0, 10, 2000).astype(np.int32)
        # A coarse random pattern for each class, another for each image, enlarged.
        coarse = rng.normal(size=(10, 8, 8, 3))[y] + rng.normal(size=(len(y), 8, 8, 3))
        x = np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2).astype(np.float32)
        return Images(x, y, "random smooth images (CIFAR-10 was not found)", {})


def dense_model(sizes: tuple[int, ...], angle: float, seed: int = 0) -> eq.Model:
    """A chain with the published neuron and readout."""
    network_key, readout_key = jax.random.split(jax.random.key(seed))
    network = eq.DenseNetwork.chain(sizes, angle=angle, key=network_key)
    return eq.Model(network, eq.SoftmaxReadout(sizes[-1], 10, key=readout_key))


def conv_model(
    channels: tuple[int, ...],
    angle: float,
    classes: int = 10,
    image_shape: tuple[int, ...] = (32, 32, 3),
    seed: int = 0,
) -> eq.Model:
    """The published convolutional network."""
    network_key, readout_key = jax.random.split(jax.random.key(seed))
    network = eq.ConvNetwork(image_shape, channels, angle=angle, key=network_key)
    out = jax.eval_shape(network.embed, jax.ShapeDtypeStruct(tuple(image_shape), np.float32))["out"]
    return eq.Model(network, eq.SoftmaxReadout(int(np.prod(out.shape)), classes, key=readout_key))


def train(kind: str, model: eq.Model, data: Images, *, homeostatic: bool, batches: int) -> eq.Model:
    """The model after some batches: with homeostasis by Adam, without by SGD with momentum, N = 2, bounded errors."""
    optimiser = optax.adam(1e-3) if homeostatic else optax.sgd(0.01, momentum=0.9)
    trainer = our_trainer(kind, "N=2", optimiser, homeostatic=homeostatic, norm_bound=1.0)
    state, step = trainer.init(model, key=jax.random.key(1)), eqx.filter_jit(trainer.step)
    for index in range(batches):
        state, _ = step(state, data.batch(SETTINGS[kind].batch, index))
    return state.model


def trained(kind: str, data: Images, *, homeostatic: bool, batches: int, sizes: tuple[int, ...] = ()) -> eq.Model:
    """The benchmark's network of that kind: feedback of its own with homeostasis, tied at the start without."""
    angle = 90.0 if homeostatic else 0.0
    if kind == "dense":
        model = dense_model(sizes or DENSE_SIZES, angle)
    else:
        model = conv_model(sizes or CONV_CHANNELS, angle)
    return train(kind, model, data, homeostatic=homeostatic, batches=batches)
