"""Figures and sentences on readings of a device, from what was measured."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from eqprop.run import tables
from eqprop.run.study import style
from experiments.substrate.schemes import SCHEMES

IN_TURN, DRIFTING = "two points, two arrays in turn", "two points, drift between phases"
"""Two curves that lie on each other."""
FITTED = slice(0, 5)
"""The noises to which exponents are fitted; larger ones end at the largest nudge."""


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """A picture each."""
    return {
        "noise": _draw_noise(data),
        "converters": _draw_converters(data),
        "offsets": _draw_offsets(data),
        "device_settling": _draw_settling(data),
    }


def _draw_noise(data: dict[str, Any]) -> Figure:
    figure, axes = style.canvas(3)
    found = data["noise"]
    for index, label in enumerate(SCHEMES):
        style.quartiles(axes[0], found["betas"], found["curves"][label], index, label)
        for axis, by in zip(axes[1:], found["best"], strict=True):
            style.quartiles(axis, found["noises"], found["best"][by][label], index)
    for axis in axes:
        style.log(axis)
    strong, weak = _gains(data)
    style.frame(axes[0], "nudge β", "relative error of δ", f"Noise of {found['shown']:.0e} a reading")
    style.frame(
        axes[1], "noise σ of a reading", "error at the best β", f"Equal noise: N = 8 errs {1 / strong:.2g} times N = 2"
    )
    style.frame(
        axes[2], "noise σ with time for two readings", "error at the best β", f"Equal time: {1 / weak:.2g} times"
    )
    figure.legend(loc="outside lower center", ncols=len(SCHEMES))
    figure.suptitle(_counted(data), fontsize=8)
    return figure


def _draw_converters(data: dict[str, Any]) -> Figure:
    figure, axes = style.canvas(2)
    found = data["converters"]
    titles = {"one": "One conversion a reading", "eight": "Eight conversions in all, dithered"}
    for axis, (by, title) in zip(axes, titles.items(), strict=True):
        for index, label in enumerate(SCHEMES):
            style.quartiles(axis, found["bits"], found["best"][by][label], index, label if by == "one" else None)
        axis.set_xticks(found["bits"])
        style.log(axis, "y")
        style.frame(axis, "bits of the converter", "relative error of δ at the best β", title)
    figure.legend(loc="outside lower center", ncols=3)
    figure.suptitle(_counted(data), fontsize=8)
    return figure


def _draw_offsets(data: dict[str, Any]) -> Figure:
    figure, (axis,) = style.canvas(height=4.4)
    found = data["offsets"]
    curves = {**found["curves"]}
    drifting = curves.pop(DRIFTING)  # lies on that of two arrays in turn
    curves = {f"{name}, or drift" if name == IN_TURN else name: errors for name, errors in curves.items()}
    for index, (name, errors) in enumerate(curves.items()):
        style.quartiles(axis, found["betas"], errors, index, name)
    axis.plot(found["betas"], np.median(np.asarray(drifting, float), axis=1), "|", color="black", markersize=9)
    style.log(axis)
    style.frame(axis, "nudge β", "relative error of δ", f"Offset of {found['offset']:g} between phases")
    figure.legend(loc="outside lower center")
    figure.suptitle(_counted(data), fontsize=8)
    return figure


def _draw_settling(data: dict[str, Any]) -> Figure:
    figure, (axis,) = style.canvas(height=3.6)
    found = data["settling"]
    for index, (label, errors) in enumerate(found["errors"].items()):
        style.quartiles(axis, found["times"], errors, index, label)
    axis.axhline(1.0, color="grey", linewidth=1)
    axis.annotate(
        "as large as δ itself", (found["times"][-1], 1), (0, 3), textcoords="offset points", ha="right", color="grey"
    )
    style.log(axis, "y")
    style.frame(
        axis, "time of each phase (time constants)", "relative error of δ", f"A weak nudge, β = {found['beta']:g}"
    )
    axis.legend(loc="best")
    figure.suptitle(_counted(data), fontsize=8)
    return figure


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What each figure shows."""
    end = f"; {_counted(data)}, digits, simulated device, float64, CPU."
    return {
        "noise": (
            "Relative error of δ against the strength β at one reading noise, and at the best β against the noise: "
            f"with equal noise in every reading, and with equal time for all readings together{end}"
        ),
        "converters": (
            "Relative error of δ at the best β through a converter, by its bits: one conversion a reading, and eight "
            f"conversions in all with a dither of half a level{end}"
        ),
        "offsets": (
            "Relative error of δ against the strength β with a fixed offset of every neuron between phases; the ticks "
            f"are two points under drift{end}"
        ),
        "device_settling": (
            f"Relative error of δ at β = {data['settling']['beta']:g} against the time that the free phase and every "
            f"nudged phase have to settle{end}"
        ),
    }


def answer(data: dict[str, Any]) -> str:
    """Exponents beside the predicted ones, and one sentence on each defect."""
    noises = np.asarray(data["noise"]["noises"], float)
    rows = []
    for label, scheme in SCHEMES.items():
        cells = []
        for by in ("reading", "time"):
            errors = data["noise"]["best"][by][label]
            cells += [f"{exponent(noises, errors):.2f}", f"{_median(errors[_shown(data)]):.2g}"]
        power = scheme.order / (scheme.order + 1)
        rows.append([label, str(scheme.readings), f"{power:.2f}", *cells])
    shown = f"{data['noise']['shown']:.0e}"
    head = [
        "scheme",
        "readings",
        "predicted exponent",
        "equal noise: exponent",
        f"error at {shown}",
        "equal time: exponent",
        f"error at {shown}",
    ]
    return "\n\n".join(
        (
            _noise_sentence(data),
            tables.markdown(head, rows),
            _converter_sentence(data),
            _offset_sentence(data),
            _settling_sentence(data),
        )
    )


def _noise_sentence(data: dict[str, Any]) -> str:
    strong, weak = _gains(data)
    return (
        "The error at the best β goes as a power of the noise; theory predicts N/(N + 1). The best β is chosen "
        f"with the error known. At a noise of {data['noise']['shown']:.0e} a reading the circle of 8 has "
        f"{1 / strong:.2g} times the error of two points; in equal time {1 / weak:.2g} times, as it reads "
        "four times as often."
    )


def _converter_sentence(data: dict[str, Any]) -> str:
    found = data["converters"]
    bits = 8 if 8 in found["bits"] else found["bits"][-1]
    k = found["bits"].index(bits)
    words = []
    for by, name in (("one", "one conversion a reading"), ("eight", "eight dithered conversions in all")):
        errors = ", ".join(f"{100 * _median(found['best'][by][s][k]):.2g} % ({s})" for s in SCHEMES)
        words.append(f"with {name} the error at the best β is {errors}")
    return f"Through {bits} bits, " + "; ".join(words) + "."


def _offset_sentence(data: dict[str, Any]) -> str:
    found = data["offsets"]
    k = int(np.argmin(np.abs(np.log(np.asarray(found["betas"], float) / 0.04))))
    errors = ", ".join(f"{_median(errors[k]):.2g} ({name})" for name, errors in found["curves"].items())
    return f"With an offset of {found['offset']:g} the relative error at β = {found['betas'][k]:.2g} is {errors}."


def _settling_sentence(data: dict[str, Any]) -> str:
    found = data["settling"]
    k = min(len(found["times"]) - 1, 2)
    errors = ", ".join(f"{_median(by_time[k]):.2g} ({name})" for name, by_time in found["errors"].items())
    return (
        f"At β = {found['beta']:g}, after {found['times'][k]:g} time constants a phase, the relative error is {errors}."
    )


def _gains(data: dict[str, Any]) -> tuple[float, float]:
    """How many times better the circle of 8 is than two points, at equal noise and in equal time."""
    best = data["noise"]["best"]
    two, eight = (
        (_median(best["reading"][s][_shown(data)]), _median(best["time"][s][_shown(data)]))
        for s in ("two points", "circle, N = 8")
    )
    return two[0] / eight[0], two[1] / eight[1]


def _shown(data: dict[str, Any]) -> int:
    """Where the noise stands whose curves are shown."""
    return data["noise"]["noises"].index(data["noise"]["shown"])


def _median(errors: list[float]) -> float:
    return float(np.median(np.asarray(errors, float)))


def _counted(data: dict[str, Any]) -> str:
    networks = style.counted([data["networks"]], "networks")
    return f"{networks}, {data['images']} images each; medians, quartiles"


def exponent(noises: np.ndarray, errors: Sequence[Sequence[float]] | np.ndarray) -> float:
    """`p` of medians that go as `σ^p`."""
    medians = np.median(np.asarray(errors, float), axis=1)
    return float(np.polyfit(np.log(noises[FITTED]), np.log(medians[FITTED]), 1)[0])
