"""Noise, converters, offsets and short settling: how well a device measures the error vector of one trained network.

python -m experiments.substrate.readings                # or: make substrate
"""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import eqprop
from eqprop import Substrate
from eqprop.substrate import (
    ADC,
    DeviceFlow,
    DriftBetweenPhases,
    PhaseOffset,
    ReadoutNoise,
)
from experiments.paper import trained
from experiments.paper.drawing import canvas, frame, legend, line
from experiments.substrate.page import FOLDER, write

NETWORK = ("data=digits", "epochs=3", "network.angle=0.0", "runtime.x64=true", "homeostasis=none")
IMAGES = 8
SETTLE = eqprop.Picard(tol=1e-12, max_steps=4000, damping=0.5)
STRENGTHS = np.geomspace(2e-3, 1.0, 22)
SCHEMES: dict[str, tuple[Callable[[Any], eqprop.Stencil], int]] = {
    "one-sided": (eqprop.one_sided, 1),
    "two points": (eqprop.centred, 2),
    "Chebyshev, 4 real points": (lambda b: eqprop.chebyshev(b, 4), 4),
    "circle, N = 4": (lambda b: eqprop.cauchy(b, 4), 4),
    "circle, N = 8": (lambda b: eqprop.cauchy(b, 8), 8),
}
NOISES = np.geomspace(1e-6, 1e-3, 7)
BITS = (4, 6, 8, 10, 12)
TIMES = (2.0, 4.0, 8.0, 16.0, 32.0)


class Bench:
    """The trained network with some images, its settled states and the true error vectors of infinitesimal nudges."""

    def __init__(self):
        run = trained.train(NETWORK)
        self.provenance = trained.provenance(run)
        self.model = trained.models(run)[-1][1]
        self.x, self.y = trained.test_images(run, IMAGES)
        self.x = self.x.astype(float)
        fields = self.model.network.at
        relax = eqx.filter_vmap(lambda x: SETTLE(fields(x).drift, fields(x).initial_state()))
        self.free = eqx.filter_jit(relax)(self.x)
        self.true = self.errors(eqprop.TangentResponse(relaxation=SETTLE), self.free, jax.random.key(0))

    def errors(self, estimator: Any, free: eqprop.Solution, key: jax.Array) -> np.ndarray:
        """Error vectors, a row an image."""
        return np.asarray(_errors(estimator, self.model, self.x, self.y, free, key))

    def miss(self, estimator: Any, free: eqprop.Solution | None = None, draws: int = 1) -> float:
        """`‖δ − true‖/‖true‖`, the root mean square over images and over draws of noise."""
        start = self.free if free is None else free
        deltas = [self.errors(estimator, start, jax.random.key(key)) for key in range(draws)]
        return float(np.linalg.norm(deltas - self.true) / np.linalg.norm(self.true) / np.sqrt(draws))


@eqx.filter_jit
def _errors(estimator: Any, model: eqprop.Model, x: Any, y: Any, free: eqprop.Solution, key: Any) -> Any:
    keys = jax.random.split(key, x.shape[0])

    def one(x: Any, y: Any, free: eqprop.Solution, key: Any) -> Any:
        return ravel_pytree(estimator.error(model.at(x, y), free, key=key).delta)[0]

    return eqx.filter_vmap(one)(x, y, free, keys)


def nudge(scheme: Callable[[Any], eqprop.Stencil], beta: float, probe: Any = None, relaxation: Any = SETTLE) -> Any:
    """An estimator with a defect of its measurement; `β` is traced, so that one program serves all."""
    plain = eqprop.FiniteNudge(stencil=scheme(jnp.asarray(beta)), relaxation=relaxation)
    return plain if probe is None else Substrate(chip=1, part=probe).equip(plain)


def noise(bench: Bench) -> dict[str, Any]:
    """Errors against `β` at each reading noise, and the exponents of the best."""
    curves, best, exponents = {}, {}, {}
    for label, (scheme, order) in SCHEMES.items():
        # Bias and noise together, as a device has them.
        noisy = lambda b, s, scheme=scheme: nudge(scheme, b, ReadoutNoise(jnp.asarray(s)))
        table = [[bench.miss(noisy(b, s), draws=3) for b in STRENGTHS] for s in NOISES]
        curves[label] = table[3]
        best[label] = [min(row) for row in table]
        fitted = np.polyfit(np.log(NOISES[:5]), np.log(best[label][:5]), 1)[0]
        exponents[label] = {"measured": float(fitted), "predicted": order / (order + 1)}
        print(label, exponents[label], flush=True)
    axes = {"betas": STRENGTHS, "noises": NOISES, "at": NOISES[3]}
    return {**axes, "curves": curves, "best": best, "exponents": exponents}


def converters(bench: Bench) -> dict[str, Any]:
    """The best error over `β` through a converter."""
    found = {}
    for label, (scheme, _) in SCHEMES.items():
        found[label] = [
            min(bench.miss(nudge(scheme, b, ADC(bits, low=-0.25, high=1.25))) for b in STRENGTHS[6::2]) for bits in BITS
        ]
        print(label, found[label], flush=True)
    return {"bits": BITS, "best": found}


def offsets(bench: Bench) -> dict[str, Any]:
    """Errors against `β` with an offset of 10⁻³ between phases, in three arrangements, and with drift."""
    cases = {
        "one-sided, second array": (eqprop.one_sided, PhaseOffset(1e-3)),
        "two points, arrays in turn": (eqprop.centred, PhaseOffset(1e-3, alternate=True)),
        "two points, drift 1e-3 a phase": (eqprop.centred, DriftBetweenPhases(1e-3)),
        "two points, one array": (eqprop.centred, PhaseOffset(1e-3)),
        "circle N = 4, drift 1e-3 a phase": (lambda b: eqprop.cauchy(b, 4), DriftBetweenPhases(1e-3)),
    }
    curves = {name: [bench.miss(nudge(s, b, probe)) for b in STRENGTHS] for name, (s, probe) in cases.items()}
    return {"betas": STRENGTHS, "curves": curves}


def settling(bench: Bench) -> dict[str, Any]:
    """Errors at `β = 0.02` after a finite time, both phases as long as each other."""
    found: dict[str, list[float]] = {"one-sided": [], "two points": [], "circle, N = 4": []}
    for time in TIMES:
        flow = DeviceFlow(settle=time, dt=0.1, tol=1e9)
        fields = bench.model.network.at
        relax = eqx.filter_vmap(lambda x, f=flow, at=fields: f(at(x).drift, at(x).initial_state()))
        free = eqx.filter_jit(relax)(bench.x)
        for label in found:
            found[label].append(bench.miss(nudge(SCHEMES[label][0], 0.02, relaxation=flow), free))
    return {"times": TIMES, "beta": 0.02, "errors": found}


def draw(data: dict[str, Any]) -> dict[str, Any]:
    """A picture each."""
    figures = {}
    figure, (left, right) = canvas(2, width=10.5, height=3.8)
    found = data["noise"]
    for index, label in enumerate(SCHEMES):
        line(left, found["betas"], found["curves"][label], index, label)
        power = found["exponents"][label]
        text = f"{label}: {power['measured']:.2f} ({power['predicted']:.2f})"
        line(right, found["noises"], found["best"][label], index, text)
    for axis in (left, right):
        axis.set_xscale("log")
        axis.set_yscale("log")
    left.set_ylim(1e-4, 10)
    at = float(found["at"])
    frame(left, "nudge β", "relative error of δ", f"Reading noise {at:.1e}: bias against noise")
    frame(right, "reading noise σ", "error at the best β", "Exponents: measured (predicted)")
    legend(left, loc="upper right")
    legend(right, loc="lower right")
    figures["noise"] = figure
    figure, (axis,) = canvas(1, width=5.5, height=3.8)
    for index, label in enumerate(SCHEMES):
        line(axis, BITS, data["converters"]["best"][label], index, label)
    axis.set_yscale("log")
    axis.set_xticks(BITS)
    frame(axis, "bits of the converter", "relative error of δ at the best β", "A circle is worth bits")
    legend(axis, loc="lower left")
    figures["converters"] = figure
    figure, (axis,) = canvas(1, width=5.5, height=3.8)
    for index, (label, values) in enumerate(data["offsets"]["curves"].items()):
        line(axis, data["offsets"]["betas"], values, index, label)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylim(1e-11, 60)
    frame(axis, "nudge β", "relative error of δ", "Offsets are divided by β, unless they cancel")
    legend(axis, loc="lower left")
    figures["offsets"] = figure
    figure, (axis,) = canvas(1, width=5.5, height=3.8)
    for index, (label, values) in enumerate(data["settling"]["errors"].items()):
        line(axis, TIMES, values, index, label)
    axis.axhline(1.0, color="grey", lw=0.8)
    axis.set_yscale("log")
    frame(axis, "time to settle, each phase (time constants)", "relative error of δ", "The rest is divided by β")
    legend(axis, loc="upper right")
    figures["settling"] = figure
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redraw", action="store_true", help="draw again what was measured")
    if parser.parse_args(argv).redraw:
        data = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in STUDIES}
    else:
        jax.config.update("jax_enable_x64", True)
        bench = Bench()
        origin = {"images": IMAGES, "provenance": bench.provenance}
        data = {name: {**measure(bench), **origin} for name, measure in STUDIES.items()}
    for name, figure in draw(data).items():
        write(name, data[name], figure)


STUDIES = {"noise": noise, "converters": converters, "offsets": offsets, "settling": settling}

if __name__ == "__main__":
    main()
