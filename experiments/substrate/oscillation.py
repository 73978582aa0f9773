"""White and 1/f noise in the dynamics: two static phases against an oscillating nudge, in the same time."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array
from matplotlib.figure import Figure

from eqprop import AbstractErrorEstimator, FiniteNudge, LockIn, centred
from eqprop.run import tables
from eqprop.run.study import style
from eqprop.run.study.measured import Measured
from eqprop.run.study.trained import precision
from eqprop.substrate import DeviceFlow, Dynamics, Flicker, WhiteNoise
from experiments.substrate.bench import Bench

SETTLED, STEP = 40.0, 0.4
TIMES = {"quick": 480.0, "cpu": 960.0, "full": 960.0}
"""Of a measurement in all, in time constants."""
STRENGTHS = {"quick": 3, "cpu": 8, "full": 12}
DRAWS = {"quick": 2, "cpu": 5, "full": 20}
PERIODS = 4
"""Of the oscillation: one to warm up, three to measure."""
NOISES = {
    "white noise": Dynamics(white=WhiteNoise(1e-3)),
    "1/f noise": Dynamics(flicker=Flicker(1e-3, 10.0, 1e4)),
}
STATIC = "two static phases"


def measure(scale: str) -> Measured:
    """Errors by noise, scheme, strength and draw, each the root mean square over images of all networks."""
    with precision("float64"):
        bench, time = Bench(scale), TIMES[scale]
        betas = np.geomspace(0.01, 10.0, STRENGTHS[scale])
        curves: dict[str, dict[str, Any]] = {}
        for kind, dynamics in NOISES.items():
            curves[kind] = {}
            for name, make in schemes(time, dynamics).items():
                errors = bench.each_draw(lambda beta, _, make=make: make(beta), betas, draws=DRAWS[scale])
                curves[kind][name] = np.sqrt(np.mean(errors[:, 0] ** 2, axis=-2))
        data = {"betas": betas, "time": time, "draws": DRAWS[scale], "curves": curves}
        return Measured({**bench.size, **data}, bench.records)


def schemes(time: float, dynamics: Dynamics) -> dict[str, Callable[[Array], AbstractErrorEstimator]]:
    """By name, from a strength, a measurement that takes `time` in all."""
    return {
        STATIC: lambda beta: static(beta, time, dynamics),
        "lock-in, K = 1": lambda beta: locked(beta, time, dynamics, 1),
        "lock-in, K = 3": lambda beta: locked(beta, time, dynamics, 3),
    }


def static(beta: Array, time: float, dynamics: Dynamics) -> FiniteNudge:
    """Two phases of half the time each, settled and then averaged. The two begin with draws of their own."""
    half = 0.5 * time
    flow = DeviceFlow(settle=SETTLED, average=half - SETTLED, samples=200, dt=STEP, tol=1e9, dynamics=dynamics)
    return FiniteNudge(stencil=centred(beta), relaxation=flow)


def locked(beta: Array, time: float, dynamics: Dynamics, harmonics: int) -> LockIn:
    """One run of all the time."""
    period = time / PERIODS
    return LockIn(
        beta=beta,  # pyright: ignore[reportArgumentType]
        harmonics=harmonics,
        period=period,
        cycles=PERIODS - 1,
        samples=100,
        steps_per_period=round(period / STEP),
        tol=1e9,
        motion=dynamics,
    )


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """A panel for each noise."""
    figure, axes = style.canvas(2, height=3.6)
    for axis, (kind, found) in zip(axes, data["curves"].items(), strict=True):
        for index, (name, errors) in enumerate(found.items()):
            style.quartiles(axis, data["betas"], errors, index, name)
        style.log(axis)
        title = f"{kind.capitalize()}: lock-in at best {_ratios(found)[1]:.2g} × static"
        style.frame(axis, "nudge β (peak)", "relative error of δ", title)
    axes[0].sharey(axes[1])
    axes[0].autoscale(axis="y")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    networks = style.counted([data["networks"]], "networks")
    figure.suptitle(
        f"{networks}, {data['images']} images each; {data['draws']} draws: medians and quartiles", fontsize=9
    )
    return {"oscillation": figure}


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figure shows."""
    networks = style.counted([data["networks"]], "networks")
    return {
        "oscillation": (
            f"Relative error of δ against the nudge's strength, measured in {data['time']:g} time constants in all "
            "by two static phases and by a lock-in of K harmonics, with white and with 1/f noise in the dynamics; "
            f"median and quartiles over {data['draws']} draws, {networks} of {data['images']} images "
            "each, digits, simulated device, float64, CPU."
        )
    }


def answer(data: dict[str, Any]) -> str:
    """Which is better, where noise rules and at each scheme's best strength."""
    weakest, rows = data["betas"][0], []
    for kind, found in data["curves"].items():
        for name, errors in found.items():
            medians = _medians(errors)
            at = data["betas"][int(medians.argmin())]
            rows.append([kind, name, f"{medians[0]:.2g}", f"{medians.min():.2g}", f"{at:.2g}"])
    head = ["noise", "scheme", f"error at β = {weakest:.2g}", "least error", "at β"]
    sentences = []
    for kind, found in data["curves"].items():
        rule, best = _ratios(found)
        sentences.append(
            f"With {kind} the best lock-in has {rule:.2g} times the error of two static phases at β = {weakest:.2g}, "
            f"where noise rules, and {best:.2g} times at each scheme's best strength."
        )
    return f"{' '.join(sentences)}\n\n{tables.markdown(head, rows)}"


def _ratios(found: dict[str, Any]) -> tuple[float, float]:
    """The error of the best lock-in over that of two static phases: at the weakest nudge, and each at its best one."""
    still = _medians(found[STATIC])
    locked = [_medians(errors) for name, errors in found.items() if name != STATIC]
    return min(each[0] for each in locked) / still[0], min(each.min() for each in locked) / still.min()


def _medians(errors: list[list[float]]) -> np.ndarray:
    """By strength, over draws."""
    return np.median(np.asarray(errors, float), axis=1)
