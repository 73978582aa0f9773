"""White and 1/f noise in the dynamics: two static phases against an oscillating nudge, in the same time.

python -m experiments.substrate.oscillation             # or: make substrate
"""

from typing import Any

import jax
import jax.numpy as jnp

import eqprop
from eqprop.substrate import DeviceFlow, Dynamics, Flicker, WhiteNoise
from experiments.paper.drawing import canvas, frame, legend, line
from experiments.substrate.page import write
from experiments.substrate.readings import Bench

TIME, SETTLED, STEP = 960.0, 40.0, 0.4
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 0.6)
DRAWS = 3
NOISES = {
    "white noise": Dynamics(white=WhiteNoise(1e-3)),
    "1/f noise": Dynamics(flicker=Flicker(1e-3, 10.0, 1e4)),
}


def static(beta: float, dynamics: Dynamics) -> Any:
    """Two phases of half the time each, settled and then averaged. The two begin with draws of their own."""
    half = 0.5 * TIME
    flow = DeviceFlow(settle=SETTLED, average=half - SETTLED, samples=200, dt=STEP, tol=1e9, dynamics=dynamics)
    return eqprop.FiniteNudge(stencil=eqprop.centred(jnp.asarray(beta)), relaxation=flow)


def locked(beta: float, dynamics: Dynamics, harmonics: int, period: float = 240.0) -> Any:
    """One run of all the time: a turn to warm up, three to measure."""
    cycles = int(TIME / period) - 1
    steps = int(period / STEP)
    return eqprop.LockIn(
        beta=jnp.asarray(beta),  # pyright: ignore[reportArgumentType]
        harmonics=harmonics,
        period=period,
        cycles=cycles,
        samples=100,
        steps_per_period=steps,
        tol=1e9,
        motion=dynamics,
    )


def main() -> None:
    """Measure and draw."""
    jax.config.update("jax_enable_x64", True)
    bench = Bench()
    schemes = {
        "two static phases": static,
        "lock-in, K = 1": lambda b, d: locked(b, d, 1),
        "lock-in, K = 3": lambda b, d: locked(b, d, 3),
    }
    curves = {
        kind: {
            name: [bench.miss(make(beta, dynamics), draws=DRAWS) for beta in STRENGTHS]
            for name, make in schemes.items()
        }
        for kind, dynamics in NOISES.items()
    }
    data = {"betas": STRENGTHS, "time": TIME, "curves": curves, "provenance": bench.provenance}
    write("oscillation", data, draw(data))
    for kind, found in curves.items():
        print(kind, {name: [f"{v:.2g}" for v in values] for name, values in found.items()})


def draw(data: dict[str, Any]) -> Any:
    """A panel for each noise."""
    figure, axes = canvas(2, width=10.5, height=3.8)
    for axis, (kind, found) in zip(axes, data["curves"].items(), strict=True):
        for index, (name, values) in enumerate(found.items()):
            line(axis, data["betas"], values, index, name)
        axis.set_xscale("log")
        axis.set_yscale("log")
        frame(axis, "nudge β (peak)", "relative error of δ", f"{kind.capitalize()}, {TIME:g} time constants in all")
    legend(axes[0], loc="lower left")
    return figure


if __name__ == "__main__":
    main()
