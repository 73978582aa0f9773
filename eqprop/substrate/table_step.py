"""Pulsed writes of a measured device, and the fit of its curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from eqprop.substrate.base import Number, clipped_normal
from eqprop.substrate.write import WIDEST, AbstractWrite, check_spreads, expected_pulses, pulses


def _floats(levels: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, levels))


class TableStep(AbstractWrite):
    """Pulses that move a weight along a measured curve. With the level `L(k)` of a device after `k` pulses,

        w ← w + L(p + m) − L(p),      L(p) = w,      m = (1 + device_spread · E) (n + cycle_spread · √n ξ),

    `L` linear between pulses and constant beyond its ends, one for either direction. `n` is `|Δw|` over the mean step,
    rounded at random without bias, and at most `max_pulses`: the circuit that writes does not know the curve.
    """

    up: tuple[float, ...] = eqx.field(static=True, converter=_floats)
    """Levels after 0, 1, … pulses that raise the weight, rising."""
    down: tuple[float, ...] = eqx.field(static=True, converter=_floats)
    """Levels after 0, 1, … pulses that lower it, falling."""
    device_spread: Number = 0.0
    cycle_spread: Number = 0.0
    max_pulses: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_spreads(self)
        for name, sign, word in (("up", 1, "rise"), ("down", -1, "fall")):
            levels = np.asarray(getattr(self, name), float)
            if levels.ndim != 1 or levels.size < 2 or not np.all(sign * np.diff(levels) > 0):
                raise ValueError(
                    f"TableStep got {name}={getattr(self, name)!r}; expected two levels or more that {word}."
                )

    @classmethod
    def from_csv(cls, up: str | Path, down: str | Path, *, limit: float = 1.0) -> "TableStep":
        """The fit of measured curves (`fit_step`), files as `eqprop.data.pulse_curves` reads them.

        **Raises:** `ValueError` for what cannot be read, with the number of the line, and as `fit_step`.
        """
        from eqprop.data.curves import pulse_curves  # here alone: a device without measurements reads no files

        return fit_step(pulse_curves(up), pulse_curves(down), limit=limit).step

    @property
    def mean_step(self) -> float:
        """The mean step of both curves."""
        return 0.5 * sum(abs(curve[-1] - curve[0]) / (len(curve) - 1) for curve in (self.up, self.down))

    def num_pulses(self, change: Array) -> Array:
        return expected_pulses(change, self.mean_step, self.max_pulses)

    def __call__(self, change: Array, w: Array, *, chip: PRNGKeyArray, run: PRNGKeyArray) -> Array:
        n, noise = pulses(change, self.mean_step, self.max_pulses, self.cycle_spread, run)
        moved = [
            self._along(curve, w, (1 + self.device_spread * clipped_normal(key, w)) * (n + noise))
            for curve, key in zip((self.up, self.down), jax.random.split(chip), strict=True)
        ]
        return jnp.where(change > 0, moved[0], jnp.where(change < 0, moved[1], 0.0))

    @staticmethod
    def _along(curve: tuple[float, ...], w: Array, count: Array) -> Array:
        levels, numbers = jnp.asarray(curve, w.dtype), jnp.arange(len(curve), dtype=w.dtype)
        rising = slice(None) if curve[0] < curve[-1] else slice(None, None, -1)  # as interpolation wants it
        at = jnp.interp(w, levels[rising], numbers[rising])
        return jnp.interp(at + count, numbers, levels) - jnp.interp(at, numbers, levels)


class Fit(NamedTuple):
    """What curves of a device come to."""

    step: TableStep
    siemens: tuple[float, float]
    """The lowest and the highest mean conductance, which stand for the weights `−limit` and `limit`."""
    residual: tuple[float, float]
    """Root mean square difference of the mean curves, up and down, to their levels, as a part of the range."""
    device_spread: float
    """As measured; the step has at most `WIDEST`."""
    soft_bounds: dict[str, float]
    """`dw_min` and `up_down` of the `SoftBounds` nearest to both curves, and its `residual` as a part of the range."""


def fit_step(up: Any, down: Any, *, limit: float = 1.0) -> Fit:
    """The `TableStep` of measured curves, as `eqprop.data.pulse_curves` reads them.

    Levels are the mean over devices, made monotone by isotonic regression, at every pulse of the measured range. The
    spread from device to device is that of their whole travel. The spread from cycle to cycle is that of single steps
    around the device's own share of the mean curve, in mean steps; it contains the noise of the readings.

    **Raises:** `ValueError` for curves that go the wrong way, or too far apart to share a range.
    """
    means = [np.mean(curves.siemens, axis=0) for curves in (up, down)]
    low, high = min(m.min() for m in means), max(m.max() for m in means)
    for name, mean, sign in (("up", means[0], 1), ("down", means[1], -1)):
        if not sign * (mean[-1] - mean[0]) > 0.05 * (high - low):
            raise ValueError(
                f"The curve `{name}` goes from {mean[0]:.3g} to {mean[-1]:.3g} S, within {low:.3g} to {high:.3g} S of "
                f"both; expected one that {'rises' if sign > 0 else 'falls'} over a part of that range."
            )
    scaled = lambda g: limit * (2 * (g - low) / (high - low) - 1)
    levels, residual, travel, deviations = [], [], [], []
    for curves, mean, sign in ((up, means[0], 1), (down, means[1], -1)):
        smooth = sign * isotonic(sign * mean)
        residual.append(float(np.sqrt(np.mean((smooth - mean) ** 2)) / (high - low)))
        every = np.arange(round(curves.pulses[-1]) + 1)
        # A plateau gets a slope too small to matter, so that a level has one place on the curve.
        at = np.interp(every, curves.pulses, smooth) + sign * 1e-4 * (high - low) * every / every[-1]
        levels.append(tuple(float(v) for v in scaled(at)))
        share = (curves.siemens[:, -1] - curves.siemens[:, 0]) / (mean[-1] - mean[0])
        travel.append(float(np.var(share, ddof=1)) if share.size > 1 else 0.0)
        apart = np.diff(curves.siemens, axis=1) - share[:, None] * np.diff(smooth)
        each = np.abs(smooth[-1] - smooth[0]) / curves.pulses[-1]  # the mean step
        deviations.append(apart / (each * np.sqrt(np.diff(curves.pulses))))
    spread = float(np.sqrt(np.mean(travel)))
    step = TableStep(
        *levels,
        device_spread=min(spread, WIDEST),
        cycle_spread=float(np.sqrt(np.mean(np.concatenate([d.ravel() for d in deviations]) ** 2))),
    )
    return Fit(step, (float(low), float(high)), (residual[0], residual[1]), spread, _soft_bounds(step, limit))


def isotonic(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """The rising sequence nearest to `values` in the sum of squares: neighbours out of order share their mean."""
    blocks: list[list[float]] = []  # mean and size
    for value in values:
        blocks.append([float(value), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, n) = blocks[-2:]
            blocks[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    return np.concatenate([np.full(int(size), mean) for mean, size in blocks])


def _soft_bounds(step: TableStep, limit: float) -> dict[str, float]:
    """By the part of the rest to the bound that a pulse takes, in either direction: the nearest of a fine grid."""
    parts, errors = [], []
    for curve, bound in ((step.up, limit), (step.down, -limit)):
        levels = np.asarray(curve)
        k = np.arange(levels.size)
        grid = np.geomspace(1e-5, 0.9, 4000)
        made = bound + (levels[0] - bound) * (1 - grid[:, None]) ** k
        wrong = np.mean((made - levels) ** 2, axis=1)
        parts.append(grid[np.argmin(wrong)])
        errors.append(wrong.min())
    return {
        "dw_min": float(limit * np.mean(parts)),
        "up_down": float((parts[0] - parts[1]) / (parts[0] + parts[1])),
        "residual": float(np.sqrt(np.mean(errors)) / (2 * limit)),
    }
