"""Weights held by pairs of devices whose levels were measured."""

from pathlib import Path
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqprop.model import Model
from eqprop.substrate.base import Number, Reciprocity, check_range, clipped_normal
from eqprop.substrate.deployment import AbstractDeployment
from eqprop.substrate.kernels import elementwise, straight_through


def _floats(numbers: Any) -> tuple[float, ...]:
    return tuple(map(float, np.atleast_1d(np.asarray(numbers, float))))


class TableConductance(AbstractDeployment):
    """Weights as pairs of devices of tabulated conductance, by the number of pulses that each has got:

        w = limit (G(k⁺) − G(k⁻))/(Gmax − Gmin),      G(k) = (1 + spread_k · E) L_k ≥ 0.

    `L` is `up`, the conductance after 0, 1, … set pulses from the lowest state, and then `down`, that after 0, 1, …
    reset pulses from the highest. `Gmax` and `Gmin` are the ends of `L`. The device of the other sign stays at `Gmin`;
    the first gets the state whose `L` is nearest to the conductance asked for. Weights beyond `± limit` stand at it.
    `E` is a standard normal number of each of the two devices, drawn once a chip and cut off at 2.5; the circuit that
    writes does not know it. The gradient passes straight through.
    """

    up: tuple[float, ...] = eqx.field(static=True, converter=_floats)
    """In siemens. It need not rise at every pulse: a table is looked up and not smoothed."""
    down: tuple[float, ...] = eqx.field(static=True, converter=_floats, default=())
    """In siemens; empty: devices are set only."""
    spread: tuple[float, ...] = eqx.field(static=True, converter=_floats, default=(0.0,))
    """Standard deviation from device to device over the mean: one number, or one for each level of `up` and `down`."""
    limit: Number = 1.0
    shared: bool = eqx.field(static=True, default=True)
    """Whether one pair of devices serves both directions of a synapse."""

    def __check_init__(self):
        check_range(self, "limit", 1e-12)
        table = np.asarray(self.levels)
        if len(self.up) < 2 or not np.all((table >= 0) & (table < np.inf)) or table.max() == table.min():
            raise ValueError(
                f"TableConductance got up={self.up!r} and down={self.down!r}; expected two conductances or more after "
                "set pulses, none below 0, in siemens, and not all of them equal."
            )
        if len(self.spread) not in (1, len(table)) or not all(0 <= s < float("inf") for s in self.spread):
            raise ValueError(
                f"TableConductance got {len(self.spread)} spreads, {self.spread!r}; expected one for all or "
                f"{len(table)}, one for each level of up and down, none below 0."
            )

    @classmethod
    def from_csv(
        cls, up: str | Path, down: str | Path | None = None, *, limit: Number = 1.0, shared: bool = True
    ) -> "TableConductance":
        """The table of measured curves, files as `eqprop.data.pulse_curves` reads them: the mean over devices after
        every pulse, linear between those that were measured, and the spread from device to device at each of them.

        **Raises:** `ValueError` for what cannot be read, with the number of the line.
        """
        from eqprop.data.curves import pulse_curves  # here alone: a device without measurements reads no files

        return cls.from_curves(
            pulse_curves(up), None if down is None else pulse_curves(down), limit=limit, shared=shared
        )

    @classmethod
    def from_curves(cls, up: Any, down: Any = None, *, limit: Number = 1.0, shared: bool = True) -> "TableConductance":
        """As `from_csv`, of curves that have been read."""
        tables = [_table(curves) for curves in (up, down) if curves is not None]
        spread = np.concatenate([deviation for _, deviation in tables])
        levels = [mean for mean, _ in tables]
        return cls(levels[0], levels[1] if down is not None else (), spread, limit, shared)  # pyright: ignore

    @property
    def levels(self) -> tuple[float, ...]:
        """`L` in siemens, by the number of the state."""
        return (*self.up, *self.down)

    @property
    def reciprocity(self) -> Reciprocity:
        return "keeps" if self.shared or not any(self.spread) else "breaks"

    @property
    def span(self) -> tuple[float, float]:
        """`Gmin` and `Gmax` in siemens."""
        return min(self.levels), max(self.levels)

    def states(self, w: Float[Array, "..."]) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
        """The states `k⁺` and `k⁻` of the pair that is to hold `w`: below `len(up)` a number of set pulses, above it
        `len(up)` and a number of reset pulses."""
        low, high = self.span
        table = np.asarray(self.levels)
        order = np.argsort(table, kind="stable")
        middles = jnp.asarray(0.5 * (table[order][1:] + table[order][:-1]), w.dtype)
        asked = jnp.clip(jnp.abs(w) / self.limit, 0.0, 1.0) * (high - low) + low
        nearest = jnp.asarray(order, jnp.int32)[jnp.searchsorted(middles, asked)]
        rest = jnp.full_like(nearest, int(order[0]))
        return jnp.where(w > 0, nearest, rest), jnp.where(w < 0, nearest, rest)

    def conductance(
        self, state: Int[Array, "..."], like: Float[Array, "..."], key: PRNGKeyArray | None = None
    ) -> Float[Array, "..."]:
        """`G(k)` in siemens, in the precision of `like`: of the devices that `key` draws, or of the mean one."""
        level = jnp.asarray(self.levels, like.dtype)[state]
        if key is None or not any(self.spread):
            return level
        spread = jnp.asarray(self.spread, like.dtype)[state if len(self.spread) > 1 else jnp.zeros_like(state)]
        return level * jnp.maximum(1 + spread * clipped_normal(key, like), 0.0)

    def round(self, w: Float[Array, "..."], key: PRNGKeyArray | None = None) -> Float[Array, "..."]:
        """The weight that the pair of devices realises, of the devices that `key` draws, or of the mean ones."""
        first, second = (None, None) if key is None else jax.random.split(key)
        plus, minus = self.states(w)
        low, high = self.span
        found = self.conductance(plus, w, first) - self.conductance(minus, w, second)
        return straight_through(w, jax.lax.stop_gradient(self.limit / (high - low) * found))

    def total(self, w: Float[Array, "..."]) -> Float[Array, "..."]:
        """`G⁺ + G⁻` of a realised weight, in units of weights, of mean devices."""
        low, high = self.span
        return jnp.abs(w) + 2 * self.limit * low / (high - low)

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        return elementwise(model, key, self.round, shared=self.shared or not any(self.spread), part=self)


def _table(curves: Any) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Mean and relative standard deviation after every pulse."""
    mean = np.mean(curves.siemens, axis=0)
    several = curves.siemens.shape[0] > 1
    apart = np.std(curves.siemens, axis=0, ddof=1) if several else np.zeros_like(mean)
    every = np.arange(round(float(curves.pulses[-1])) + 1)
    between = lambda values: cast(np.ndarray, np.interp(every, curves.pulses, values))
    return between(mean), between(np.divide(apart, mean, out=np.zeros_like(mean), where=mean > 0))
