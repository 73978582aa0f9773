"""How well a device measures error vectors: noise of readings, converters, offsets between phases, short settling.

The best strength of a nudge is chosen with the error known, which a device cannot do: it bounds what it can reach.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Array

from eqprop import AbstractRelaxation, FiniteNudge, Stencil, Substrate, centred, one_sided
from eqprop.run.study.measured import Measured
from eqprop.run.study.trained import precision
from eqprop.substrate import ADC, AbstractProbe, DeviceFlow, DriftBetweenPhases, PhaseOffset, ReadoutNoise
from experiments.substrate.bench import SETTLE, Bench, Make
from experiments.substrate.reading_report import DRIFTING, IN_TURN, answer, captions, draw
from experiments.substrate.schemes import FEWEST, MOST, SCHEMES

__all__ = ["answer", "captions", "draw", "measure"]


STRENGTHS = {"quick": 10, "cpu": 22, "full": 44}
NOISES = np.geomspace(1e-6, 1e-3, 7)
SHOWN = 3
"""The noise whose curves are kept."""
DRAWS = 3
BITS = {"quick": (8,), "cpu": (4, 6, 8, 10), "full": (4, 6, 8, 10, 12)}
RANGE = {"low": -0.25, "high": 1.25}
"""Of the converter, with room for nudged rates."""
OFFSET = 1e-3
TIMES = {"quick": (4.0, 16.0), "cpu": (2.0, 4.0, 8.0, 16.0, 32.0), "full": (2.0, 4.0, 8.0, 16.0, 32.0)}
WEAK = 0.02
"""The strength at which short settling is looked at."""


def measure(scale: str) -> Measured:
    """All four, on the same networks and images."""
    with precision("float64"):
        bench = Bench(scale)
        betas = np.geomspace(5e-3, 10.0, STRENGTHS[scale])
        data = {
            "noise": noise(bench, betas),
            "converters": converters(bench, betas, BITS[scale]),
            "offsets": offsets(bench, betas),
            "settling": settling(bench, TIMES[scale]),
        }
        return Measured({**bench.size, **data}, bench.records)


def nudge(
    scheme: Callable[[Any], Stencil], beta: Array, probe: AbstractProbe | None = None, chip: Array | int = 1
) -> FiniteNudge:
    """An estimator with a defect of its measurement."""
    plain = FiniteNudge(stencil=scheme(beta), relaxation=SETTLE)
    return plain if probe is None else Substrate(chip=chip, part=probe).equip(plain)


def noise(bench: Bench, betas: np.ndarray) -> dict[str, Any]:
    """Errors against the strength at one noise, and at the best strength of each noise: at equal noise of a reading,
    and in equal time, in which a scheme of more readings has less time, and thus more noise, for each."""
    curves, best = {}, {"reading": {}, "time": {}}
    for label, scheme in SCHEMES.items():
        make = lambda beta, sigma, stencil=scheme.stencil: nudge(stencil, beta, ReadoutNoise(sigma))
        longer = np.sqrt(scheme.readings / FEWEST)
        errors = bench.errors(make, betas, np.concatenate([NOISES, longer * NOISES]), draws=DRAWS)
        curves[label] = errors[:, SHOWN]
        best["reading"][label], best["time"][label] = np.split(at_best(errors), 2)
    return {"betas": betas, "noises": NOISES, "shown": NOISES[SHOWN], "curves": curves, "best": best}


def converters(bench: Bench, betas: np.ndarray, bits: tuple[int, ...]) -> dict[str, Any]:
    """Errors at the best strength through converters: of one conversion a reading, and of eight in all, dithered by
    half a level."""
    found: dict[str, dict[str, list]] = {"one": {}, "eight": {}}
    for label, scheme in SCHEMES.items():
        samples = MOST // scheme.readings
        for name, settings in {"one": {}, "eight": {"dither": 0.5, "samples": samples}}.items():
            found[name][label] = []
            for number in bits:
                probe = ADC(number, **RANGE, **settings)
                make = lambda beta, _, stencil=scheme.stencil, probe=probe: nudge(stencil, beta, probe)
                draws = DRAWS if settings else 1
                found[name][label].append(at_best(bench.errors(make, betas[len(betas) // 4 :], draws=draws))[0])
    return {"bits": bits, "best": found}


def offsets(bench: Bench, betas: np.ndarray) -> dict[str, Any]:
    """Errors against the strength with an offset between phases, over as many chips as there are networks."""
    cases: dict[str, tuple[Callable[[Any], Stencil], AbstractProbe]] = {
        "one-sided, a second array": (one_sided, PhaseOffset(OFFSET)),
        IN_TURN: (centred, PhaseOffset(OFFSET, alternate=True)),
        DRIFTING: (centred, DriftBetweenPhases(OFFSET)),
        "circle of 4, drift between phases": (SCHEMES["circle, N = 4"].stencil, DriftBetweenPhases(OFFSET)),
        "two points, one array": (centred, PhaseOffset(OFFSET)),
    }
    curves = {}
    for name, (stencil, probe) in cases.items():
        make: Make = lambda beta, chip, stencil=stencil, probe=probe: nudge(stencil, beta, probe, chip)
        found = bench.errors(make, betas, np.arange(1, bench.networks + 1))
        curves[name] = found.reshape(len(betas), -1)
    return {"betas": betas, "offset": OFFSET, "curves": curves}


def settling(bench: Bench, times: tuple[float, ...]) -> dict[str, Any]:
    """Errors of a weak nudge after a finite time, which the free phase and every nudged one have alike."""
    found: dict[str, list] = {"one-sided": [], "two points": [], "circle, N = 8": []}
    for time in times:
        flow = DeviceFlow(settle=time, dt=0.1, tol=1e9)
        for label, errors in found.items():
            make: Make = partial(_settling, SCHEMES[label].stencil, flow)
            errors.append(bench.errors(make, [WEAK], free=flow)[0, 0])
    return {"times": times, "beta": WEAK, "errors": found}


def _settling(stencil: Callable[[Any], Stencil], flow: AbstractRelaxation, beta: Array, level: Array) -> FiniteNudge:
    del level
    return FiniteNudge(stencil=stencil(beta), relaxation=flow)


def at_best(errors: np.ndarray) -> np.ndarray:
    """From errors by strength, level and image, those by level and image at the strength of the least median."""
    choice = np.median(np.where(np.isfinite(errors), errors, np.inf), axis=-1).argmin(axis=0)
    return errors[choice, np.arange(errors.shape[1])]
