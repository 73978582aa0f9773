"""Tasks in turns under an offset between two copies: orbits of the conductances, their error, what is forgotten."""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from eqprop.run import tables
from eqprop.run.study import style
from eqprop.run.study.measured import Measured
from experiments.tasks.cycles import SCHEMES, SYSTEMS, Setting, orbit
from experiments.tasks.learning_bias import ALL, BIASED

STRENGTH = 0.2
"""Of the nudge `β`, or of the clamp `η`."""
OFFSETS = (0.0, 1e-6, 1e-5)
"""Standard deviations, in volts."""
SIZES: dict[str, tuple[int, tuple[int, ...], dict[str, int], tuple[str, ...]]] = {
    "quick": (2, (1, 8, 32), {"pair": 2048}, ("coupled", "slow_lock_in")),
    "cpu": (5, (1, 4, 16, 64, 256), {"pair": 16384, "lattice": 8192}, SCHEMES),
    "full": (30, (1, 4, 16, 64, 256), {"pair": 16384, "lattice": 16384}, SCHEMES),
}
"""Seeds of networks and chips, updates on one task before the next, updates by system, and schemes. A scheme takes ten
seconds to compile, whatever the size."""
QUANTITIES = ("span", "closure", "combined", "shown", "waiting")


def measure(scale: str) -> Measured:
    """The orbits at full rate by offset and dwell, at half the rate by dwell, and a path."""
    seeds, dwells, sizes, schemes = SIZES[scale]
    found, paths = {}, {}
    with jax.enable_x64(True):
        for name, updates in sizes.items():
            runs = {scheme: _runs(name, scheme, seeds, dwells, updates) for scheme in schemes}
            found[name] = {scheme: by for scheme, (by, _) in runs.items()}
            paths[name] = {scheme: path for scheme, (_, path) in runs.items()}
    same = {"seeds": seeds, "dwells": dwells, "updates": sizes, "offsets": OFFSETS, "strength": STRENGTH}
    drawn = {scheme: paths["pair"][scheme][:, :2] for scheme in ("coupled", "slow_lock_in")}
    return Measured({**same, "orbits": found, "paths": drawn})


def _runs(name: str, scheme: str, seeds: int, dwells: tuple[int, ...], updates: int) -> tuple[dict[str, Any], Any]:
    """By quantity, with axes seed, row and dwell: a row for each offset at full rate, and the last at half of it. The
    path is of the first seed, at the largest offset and the longest dwell."""
    rows = [(offset, 1.0) for offset in OFFSETS] + [(OFFSETS[-1], 0.5)]
    grid = [(seed, offset, dwell, rate) for seed in range(seeds) for offset, rate in rows for dwell in dwells]
    one = functools.partial(orbit, SYSTEMS[name], scheme, STRENGTH, updates, max(dwells))
    setting = Setting(*(jnp.asarray(column) for column in zip(*grid, strict=True)))
    made = eqx.filter_jit(eqx.filter_vmap(SYSTEMS[name].make))(jax.vmap(jax.random.key)(setting.seed))
    found = eqx.filter_jit(eqx.filter_vmap(one))(made, setting)
    shape = (seeds, len(rows), len(dwells))
    by = {quantity: np.asarray(getattr(found, quantity)).reshape(shape) for quantity in QUANTITIES}
    return by, np.asarray(found.path[len(OFFSETS) * len(dwells) - 1])


FULL, HALF = len(OFFSETS) - 1, len(OFFSETS)
"""Rows of the largest offset, at full and at half the rate."""


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """The orbit in the plane of two conductances, and span and error by dwell, for each system."""
    figures = {"orbit": _orbit(data)}
    for name, by_scheme in data["orbits"].items():
        figure, axes = style.canvas(2)
        for index, (scheme, runs) in enumerate(by_scheme.items()):
            for axis, quantity in zip(axes, ("span", "waiting"), strict=True):
                values = np.asarray(runs[quantity], float)[:, FULL]
                values = np.where(values > 0, values, math.nan).T.tolist()  # where nothing moves at all
                style.quartiles(axis, data["dwells"], values, index, ALL[scheme].title)
        for axis, label in zip(axes, ("span of the orbit (units)", "error of the task that waits (V)"), strict=True):
            style.log(axis, "xy")
            style.frame(axis, "updates on one task", label, SYSTEMS[name].title)
        axes[0].legend()
        figures[name] = figure
    return figures


def _orbit(data: dict[str, Any]) -> Figure:
    figure, (axis,) = style.canvas(1)
    paths = {scheme: np.asarray(path, float) for scheme, path in data["paths"].items()}
    origin = paths["slow_lock_in"][-1]
    for index, (scheme, path) in enumerate(paths.items()):
        x, y = 1e3 * (path - origin).T
        axis.plot(x, y, label=ALL[scheme].title, **{**style.STYLES[index], "marker": "." if index == 0 else "o"})
    style.frame(axis, "first conductance (10⁻³ units)", "second conductance (10⁻³ units)", "The last period")
    axis.legend()
    return figure


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figures show."""
    dwell = max(data["dwells"])
    said = {
        "orbit": (
            f"Two trained conductances in the last period with {dwell} updates on each of two tasks, from those that "
            f"solve both; an offset of {max(data['offsets']):g} V, one network and chip, float64."
        )
    }
    for name in data["orbits"]:
        said[name] = (
            "Left: the distance of the conductances at the two switches of the task, in the unit of conductances of "
            "the network. Right: the root mean square error of the task that comes next, just before it is shown "
            f"again. An offset of {max(data['offsets']):g} V; median and quartiles of n = {data['seeds']} networks and "
            "chips, float64."
        )
    return said


def answer(data: dict[str, Any]) -> str:
    """Exponents of the orbits, and errors with the offset and without."""
    spans, floors, rows, errors = [], [], [], []
    dwells = data["dwells"]
    for name, by_scheme in data["orbits"].items():
        for scheme, runs in by_scheme.items():
            by = {quantity: np.asarray(values, float) for quantity, values in runs.items()}
            found = _exponents(data, by) if scheme in BIASED else {}
            spans += found.get("dwell", [])
            floors += found.get("floor", [])
            cells = [tables.spread(found.get(key, []), 2) for key in ("dwell", "offset", "rate", "floor")]
            closure = f"{np.median(by['closure'][:, FULL, -1]):.0e}" if scheme in BIASED else tables.DASH
            rows.append([SYSTEMS[name].title, ALL[scheme].title, *cells, closure])
            at = lambda quantity, row, place, by=by: f"{np.median(by[quantity][:, row, place]):.1e}"
            ends = [at("combined", FULL, 0), at("shown", FULL, -1), at("waiting", FULL, -1), at("waiting", 0, -1)]
            errors.append([SYSTEMS[name].title, ALL[scheme].title, at("span", FULL, -1), *ends])
    head = ["system", "scheme", "span by dwell", "by offset", "by rate", "error by offset", "not closed"]
    last = dwells[-1]
    titles = ["system", "scheme", f"span at {last}", f"error at {dwells[0]} (V)", f"shown at {last} (V)"]
    titles += [f"waiting at {last} (V)", "the same without offset (V)"]
    return (
        "Where the offset does not cancel, conductances do not settle but go round with the period of the tasks"
        f"{_moving(data)}. The span of the orbit goes as the updates on one task to the power "
        f"{tables.spread(spans, 2)}, and the error where tasks change at every update as the offset to the power "
        f"{tables.spread(floors, 2)}, over systems, schemes and seeds. The longer a task waits, the more of it is "
        "forgotten, although the same conductances solve both. "
        f"What does not see the offset settles: {_blind(data)}.\n\n"
        f"{tables.markdown(head, rows)}\n\n"
        f"Exponents by the updates on one task (dwell), by the offset at {last} of them and by the rate over a factor "
        f"of two, and of the error by the offset at {dwells[0]}; mean ± standard deviation over n = {data['seeds']} "
        "seeds. Not closed: the median distance of the conductances after one period over the span; near 1, "
        "an orbit moves on along the solutions of all tasks.\n\n"
        f"{tables.markdown(titles, errors)}\n\n"
        f"Medians over seeds at an offset of {max(data['offsets']):g} V; spans in units of the conductances. The error "
        "where tasks change at every update is over all tasks; that at the longest dwell is of the task just shown, "
        "and of the one that waits."
    )


def _moving(data: dict[str, Any]) -> str:
    """Which orbits are not closed: of systems with more conductances than tasks fix."""
    last = {
        name: np.median([np.asarray(by[s]["closure"], float)[:, FULL, -1] for s in BIASED if s in by])
        for name, by in data["orbits"].items()
    }
    open_ones = [SYSTEMS[name].title for name, distance in last.items() if distance > 0.1]
    return f"; they also move on along the solutions of all tasks ({', '.join(open_ones)})" if open_ones else ""


def _blind(data: dict[str, Any]) -> str:
    """The schemes that do not see the offset."""
    (first, *_) = data["orbits"].values()
    return " and ".join(ALL[scheme].title for scheme in first if scheme not in BIASED)


def _exponents(data: dict[str, Any], by: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """By seed."""
    span, error = np.log(by["span"][:, 1:]), np.log(by["combined"][:, 1:])  # without the row of no offset
    dwells, offsets = np.log(data["dwells"]), np.log(data["offsets"][1:])
    slopes = lambda x, lines: [float(np.polyfit(x, line, 1)[0]) for line in lines]
    return {
        "dwell": slopes(dwells, span[:, FULL - 1]),
        "offset": slopes(offsets, span[:, :FULL, -1]),
        "rate": slopes(np.log([0.5, 1.0]), span[:, [HALF - 1, FULL - 1], -1]),
        "floor": slopes(offsets, error[:, :FULL, 0]),
    }
