"""What weak feedback costs a device: readings of error vectors that shrink with every layer, beside the closed form."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array
from matplotlib.figure import Figure

from eqprop import Model, TangentResponse, centred, metrics
from eqprop.estimator.finite_nudge import relax_nodes
from eqprop.run import tables
from eqprop.run.study import style
from eqprop.run.study.measured import Measured
from eqprop.run.study.trained import images, models, precision, train
from eqprop.substrate import ADC, Measurement, ReadoutNoise
from experiments.substrate.bench import SETTLE

NETWORK = ("data=digits", "network.sizes=[64,128,128,64]", "stencil=centred", "epochs=10", "keep_unsettled=true")
GAINS = (0.05, 0.1, 0.2, 0.5, 1.0)
BETA = 0.4
NOISES = tuple(float(f"{sigma:.1e}") for sigma in np.geomspace(1e-6, 1e-2, 9))
BITS = (4, 6, 8, 10, 12, 14, 16)
SIZES = {"quick": 4, "cpu": 100, "full": 200}
"""Images."""
WANTED = 0.9
"""A cosine with which a network learns nearly as with an exact error vector."""


def measure(scale: str) -> Measured:
    """By feedback strength: cosines of what is read to what is there, and those of the closed form."""
    runs, found = [], {}
    with precision("float64"):
        for gain in GAINS:
            words = (*NETWORK, "max_unsettled=1.0", f"network.feedback_gain={gain}", "runtime.x64=true")
            run = train(f"γ = {gain:g}", (*words, f"homeostasis.coefficient={10 / gain:g}"))
            runs.append(run.record)
            x, y = images(run, SIZES[scale])
            cosines = readings(models(run)[-1][1], x.astype(float), y)
            found[f"{gain:g}"] = {**cosines, "free_steps": run.record.summary["free_steps"]}
    return Measured({"noises": NOISES, "bits": BITS, "beta": BETA, "images": SIZES[scale], "gains": found}, runs)


@eqx.filter_jit
def readings(model: Model, x: Array, y: Array) -> dict[str, Any]:
    """Mean cosines over the images, by noise and by bits, and how large the responses are."""
    stencil, tangent = centred(BETA), TangentResponse(relaxation=SETTLE)
    converters = [ADC(bits, low=-0.25, high=1.25) for bits in BITS]
    devices = [Measurement({"part": probe}) for probe in (*map(ReadoutNoise, NOISES), *converters)]
    steps = jnp.asarray([adc.step for adc in converters])[:, None]

    def hidden(delta: dict[str, Array]) -> Array:
        return ravel_pytree({k: v for k, v in delta.items() if k not in model.readout.layers})[0]

    def one(x: Array, y: Array, key: Array) -> tuple[Array, Array, Array]:
        example = model.at(x, y)
        free = SETTLE(example.field.drift, example.field.initial_state(), blocks=example.blocks)
        nudge = example.nudged_in_metric()
        response = tangent.error(nudge, free).delta
        true, weights = (hidden(example.in_scale(d)) for d in (response, jax.tree.map(jnp.ones_like, response)))
        nodes = relax_nodes(stencil, SETTLE, nudge, nudge.drift, free, None)
        rates, phases = jax.vmap(example.field.rates)(nodes.state), 1 + jnp.arange(stencil.nodes.size)

        def read(device: Measurement) -> Array:
            values = jax.vmap(lambda s, phase: device(s, phase=phase, key=key))(rates, phases)
            return hidden(example.in_scale(stencil.derivative(values, example.field.rates(free.state))))

        # 0 where a converter reads nothing, which has no direction.
        cosines = jnp.nan_to_num(jnp.stack([metrics.cosine(read(device), true) for device in devices]))
        moves = hidden(jax.tree.map(lambda s: s[0] - s[1], rates))[None]
        part = jnp.abs(moves) / steps % 1
        # Of a difference of two readings: independent noise, and rounding to one of the two multiples beside it.
        noise = jnp.broadcast_to(2 * jnp.asarray(NOISES)[:, None] ** 2, (len(NOISES), moves.size))
        variance = jnp.concatenate([noise, part * (1 - part) * steps**2])
        expected = variance @ weights**2 / (2 * BETA) ** 2
        return cosines, 1 / jnp.sqrt(1 + expected / jnp.sum(true**2)), jnp.mean(hidden(response) ** 2)

    keys = jax.random.split(jax.random.key(0), x.shape[0])
    cosines, predicted, squares = jax.vmap(one)(x, y, keys)
    noise, bits = slice(len(NOISES)), slice(len(NOISES), None)
    found = {"measured": jnp.mean(cosines, axis=0), "closed form": jnp.mean(predicted, axis=0)}
    by = {name: {k: v[part] for k, v in found.items()} for name, part in (("noise", noise), ("bits", bits))}
    return {**by, "response": jnp.sqrt(jnp.mean(squares))}


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """Cosines by noise and by bits, a line each for every strength."""
    figure, axes = style.canvas(2)
    for axis, by in zip(axes, ("noise", "bits"), strict=True):
        x = data["noises" if by == "noise" else by]
        for index, (gain, found) in enumerate(data["gains"].items()):
            style.line(axis, x, found[by]["measured"], index, f"γ = {gain}" if by == "noise" else None)
        for found in data["gains"].values():
            axis.plot(x, found[by]["closed form"], ":", color="black", linewidth=0.9)
    axes[1].lines[-1].set_label("closed form")
    style.log(axes[0], "x")
    style.frame(axes[0], "noise σ of a reading", "hidden cosine")
    style.frame(axes[1], "bits of the converter", "hidden cosine")
    figure.legend(loc="outside lower center", ncols=len(data["gains"]) + 1)
    return {"readings": figure}


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figure shows."""
    return {
        "readings": (
            "Cosine of the error vectors of two hidden layers, read with noise or through a converter of a range of "
            f"1.5, to those of an exact reading, by feedback strength, beside the closed form; β = {data['beta']:g}, "
            f"means of {data['images']} validation images of the digits, one trained network a strength, float64, CPU."
        )
    }


def answer(data: dict[str, Any]) -> str:
    """What each strength asks of a device."""
    kinds = ("measured", "closed form")
    asked = [f"{what} for {WANTED}, {kind}" for what in ("σ", "bits") for kind in kinds]
    rows = []
    for gain, found in data["gains"].items():
        largest = [_largest(data["noises"], found["noise"][kind]) for kind in kinds]
        fewest = [_fewest(data["bits"], found["bits"][kind]) for kind in kinds]
        rows.append([gain, f"{found['free_steps']:.1f}", f"{found['response']:.1e}", *largest, *fewest])
    table = tables.markdown(["γ", "free sweeps", "response, rms", *asked], rows)
    return (
        "Noise σ of a reading is an error of `σ/(√2 β)` of `δ` at every neuron. A converter of step `Δ` rounds the "
        "difference `d` of two readings to one of the two multiples beside it, with a variance `f(1 − f)Δ²`, where "
        "`f` is the fraction of `d/Δ`. With an error `e` and the weights `w` of layers in the metric of the network "
        f"the cosine is `(1 + ‖w e‖²/‖w δ‖²)^−½`, averaged over images.\n\n{table}"
    )


def _fewest(bits: list[int], cosines: list[float]) -> str:
    """The first converter that reaches the cosine that is wanted."""
    return next((str(b) for b, cosine in zip(bits, cosines, strict=True) if cosine >= WANTED), "–")


def _largest(noises: list[float], cosines: list[float]) -> str:
    """The noise at which the cosine falls below what is wanted, between two that were measured."""
    below = next((i for i, cosine in enumerate(cosines) if cosine < WANTED), None)
    if not below:
        return "–"
    share = (cosines[below - 1] - WANTED) / (cosines[below - 1] - cosines[below])
    return f"{noises[below - 1] * (noises[below] / noises[below - 1]) ** share:.1e}"
