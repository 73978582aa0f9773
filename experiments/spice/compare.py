"""Random circuits in ngspice and in eqprop: fixed points, error vectors, noise, gradients, an oscillating nudge."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eqprop.run import tables
from eqprop.run.errors import UsageError
from eqprop.run.study import style
from eqprop.run.study.measured import Measured
from eqprop.run.study.trained import precision
from experiments.spice import simulator
from experiments.spice.circuits import random_circuit
from experiments.spice.comparisons import HARMONICS, fixed_points, gradients, noise, oscillation

OSCILLATION = (0.3, 0.6)
"""Peaks of the oscillating nudge; the weaker one has a tolerance."""
CIRCUITS = {"quick": 2, "cpu": 10, "full": 100}
NOISE, GRADIENT, TRANSIENT = (
    "noise density (.noise)",
    "gradient (.op differences)",
    f"oscillating nudge, K = {HARMONICS[-1]} (.tran)",
)
TOLERANCES = {
    "fixed points (.op)": 1e-12,
    "error vector (.ac at 1 mHz)": 1e-12,
    "response to 10 MHz (.ac)": 1e-12,
    NOISE: 1e-10,
    GRADIENT: 1e-8,
    TRANSIENT: 1e-5,
}
LEAST = 1e-17
"""Where a deviation of nothing is drawn."""


def measure(scale: str) -> Measured:
    """Deviations by comparison and circuit, and errors under the oscillating nudge by peak, circuit and harmonics.

    **Raises:** `UsageError` without ngspice.
    """
    if not simulator.available():
        raise UsageError(simulator.ABSENT)
    found: dict[str, list[float]] = {name: [] for name in TOLERANCES}
    turns: dict[str, list[list[float]]] = {f"{beta:g}": [] for beta in OSCILLATION}
    with precision("float64"):
        for seed in range(CIRCUITS[scale]):
            circuit = random_circuit(seed)
            by_peak = [oscillation(circuit, beta) for beta in OSCILLATION]
            for runs, errors in zip(turns.values(), by_peak, strict=True):
                runs.append([errors[highest] for highest in HARMONICS])
            measured = {
                **fixed_points(circuit),
                NOISE: noise(circuit),
                GRADIENT: gradients(circuit),
                TRANSIENT: by_peak[0][HARMONICS[-1]],
            }
            for name, value in measured.items():
                found[name].append(value)
    return Measured(
        {
            "simulator": simulator.version(),
            "circuits": CIRCUITS[scale],
            "tolerances": TOLERANCES,
            "deviations": found,
            "orders": HARMONICS,
            "harmonics": turns,
        }
    )


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """Deviations beside their tolerances, and what each harmonic buys."""
    figure, (left, right) = style.canvas(2, width=8.4, height=3.4)
    names = list(data["tolerances"])
    for row, name in enumerate(names):
        values = np.maximum(np.asarray(data["deviations"][name], float), LEAST)
        left.plot(values, [row] * len(values), "o", color=style.BLUE, markersize=4, markerfacecolor="none")
        left.plot([data["tolerances"][name]] * 2, [row - 0.35, row + 0.35], color="black", linewidth=2)
    left.annotate(
        "tolerance", (data["tolerances"][names[0]], 0), (4, 0), textcoords="offset points", va="center", fontsize=8
    )
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    style.log(left, "x")
    missed = _missed(data)
    title = "All within their tolerances" if not missed else f"{len(missed)} beyond the tolerance"
    style.frame(left, "deviation from ngspice, one mark a circuit", "", title)
    for index, (beta, runs) in enumerate(data["harmonics"].items()):
        style.quartiles(right, data["orders"], list(zip(*runs, strict=True)), index, f"peak β = {beta}")
    right.set_xticks(data["orders"])
    style.log(right, "y")
    first, last = (np.median([run[k] for run in data["harmonics"]["0.3"]]) for k in (0, -1))
    title = f"Peak 0.3: from {first:.0e} to {last:.0e}"
    style.frame(right, "highest odd harmonic K", "relative error of δ in ngspice", title)
    right.legend(loc="upper right")
    figure.suptitle(f"n = {data['circuits']} circuits; right: medians and quartiles", fontsize=9)
    return {"spice": figure}


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figure shows."""
    return {
        "spice": (
            f"Largest deviation of eqprop from {data['simulator']}, relative to the largest value, in six comparisons "
            f"of n = {data['circuits']} random circuits, beside the tolerances; the error of δ under an oscillating "
            "nudge in ngspice against the number of harmonics, median and quartiles over circuits; float64, CPU."
        )
    }


def answer(data: dict[str, Any]) -> str:
    """The deviations with their tolerances, and the error of the oscillating nudge."""
    rows = []
    for name, limit in data["tolerances"].items():
        values = data["deviations"][name]
        rows.append([name, f"{max(values):.1e}", f"{np.median(values):.1e}", f"{limit:.0e}"])
    missed = _missed(data)
    verdict = "Every comparison is within its tolerance." if not missed else f"Beyond tolerance: {', '.join(missed)}."
    peaks = []
    for beta, runs in data["harmonics"].items():
        peaks.append([beta, *(f"{max(run[k] for run in runs):.1e}" for k in range(len(data["orders"])))])
    return (
        f"{verdict} Deviations are relative to the largest value of a circuit; n = {data['circuits']} circuits, "
        f"{data['simulator']}. Those of `.noise` are a few roundings of the printed number.\n\n"
        f"{tables.markdown(['compared', 'worst', 'median', 'tolerance'], rows)}\n\n"
        "The error of δ under an oscillating nudge, from odd harmonics up to K, in the worst circuit. What is left is "
        "the tolerance of the integration and the lag at the frequency of the nudge.\n\n"
        f"{tables.markdown(['peak β', *(f'K = {k}' for k in data['orders'])], peaks)}"
    )


def _missed(data: dict[str, Any]) -> list[str]:
    """The comparisons whose worst deviation is beyond the tolerance."""
    return [name for name, limit in data["tolerances"].items() if not max(data["deviations"][name]) <= limit]
