"""Seconds an epoch on a GPU that is not here, estimated from counted FLOPs and published ceilings."""

import jax
import numpy as np

import eqprop as eq
from experiments.bench import flops

CEILINGS = {"FP32": 67e12, "TF32, dense": 494e12, "BF16, dense": 989e12}
"""FLOP/s of an H200 SXM without sparsity: NVIDIA H200 Tensor Core GPU, data sheet."""
UTILISATIONS = (0.1, 0.3, 0.5)
SETS = {"CIFAR-10": (50_000, 10), "ImageNet 32x32": (1_281_167, 1000)}
CHANNELS = (128, 256, 512, 512)


def conv_model(channels: tuple[int, ...], classes: int, seed: int = 0) -> eq.Model:
    """The published convolutional network with independent feedback."""
    network_key, readout_key = jax.random.split(jax.random.key(seed))
    network = eq.ConvNetwork.chain((32, 32, 3), channels, key=network_key)
    out = jax.eval_shape(network.embed, jax.ShapeDtypeStruct((32, 32, 3), np.float32))["out"]
    return eq.Model(network, eq.SoftmaxReadout(int(np.prod(out.shape)), classes, key=readout_key))


def image_flops(classes: int, free_sweeps: float, nudged_sweeps: float) -> float:
    """FLOPs of one image's part in a training step, with N = 2 and one probe of skew homeostasis."""
    network = jax.eval_shape(lambda: conv_model(CHANNELS, classes)).network
    drift = flops.total(flops.drift_products(network, 1))
    embed = flops.total(flops.embed_products(network, 1))
    # A product and a transposed product of the Jacobian, each with a gradient of about twice its cost.
    homeostasis = 2 * 3 * drift
    return (free_sweeps + 2 * nudged_sweeps) * drift + 2 * embed + drift + homeostasis


def estimate(free_sweeps: float, nudged_sweeps: float) -> str:
    """The table, with its assumptions."""
    shares = " | ".join(f"{100 * share:.0f} % of ceiling" for share in UTILISATIONS)
    lines = [f"| images | precision | {shares} |", "|" + "---|" * (2 + len(UTILISATIONS))]
    for name, (count, classes) in SETS.items():
        work = count * image_flops(classes, free_sweeps, nudged_sweeps)
        for precision, ceiling in CEILINGS.items():
            seconds = " | ".join(f"{work / (ceiling * share):,.0f} s" for share in UTILISATIONS)
            lines.append(f"| {name}, {count:,} | {precision} | {seconds} |")
    assumed = (
        f"Estimated seconds an epoch, not measured. Assumed: channels {CHANNELS}, N = 2, {free_sweeps:g} evaluations "
        f"of the drift in the free phase and {nudged_sweeps:g} at each of two nodes for every image, one skew probe "
        "with its gradient as six evaluations; "
        f"{image_flops(10, free_sweeps, nudged_sweeps) / 1e9:.1f} GFLOP an image. Ceilings: NVIDIA H200 Tensor Core "
        "GPU data sheet, SXM, without sparsity. Pooling and activations, bound by memory, are in the utilisation."
    )
    return "\n".join([*lines, "", assumed])
