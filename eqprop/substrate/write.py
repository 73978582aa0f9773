"""Errors of the update: what a device's weight does when it is asked to change.

Kernels are devices, of any shape; biases are written exactly. Use as the last of a chain of optax transformations.
"""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from eqprop.substrate.base import (
    AbstractImperfection,
    Chip,
    Number,
    Reciprocity,
    Stage,
    check_range,
    chip_key,
    clipped_normal,
    named,
)

WriteRule = optax.GradientTransformationExtraArgs

DEVICES = {"kernel", "kernels", "transconductances", "weights", "input_weights", "conductances"}
"""The fields of networks and readouts whose arrays are devices."""


class AbstractWrite(AbstractImperfection):
    """A defect of the update. Two devices of one nominal value are written apart."""

    stage: ClassVar[Stage] = "update"
    holomorphic: ClassVar[bool] = True
    moves_fixed_point: ClassVar[bool] = True

    @property
    def reciprocity(self) -> Reciprocity:
        return "breaks"

    @abc.abstractmethod
    def __call__(self, change: Array, w: Array, *, chip: PRNGKeyArray, run: PRNGKeyArray) -> Array:
        """The change that weights `w` make when `change` is asked of them."""

    def num_pulses(self, change: Array) -> Array | None:
        """How many pulses each weight gets on average when `change` is asked; `None` where writes are no pulses."""
        del change
        return None


class ConstantStep(AbstractWrite):
    """Pulses of one size between hard bounds: `n` pulses, `|Δw|/dw_min` rounded at random without bias, at most
    `max_pulses`, move a weight by

        ± dw_min (1 + device_spread · E) (n + cycle_spread · √n ξ),      |w| ≤ limit.

    aihwkit's `ConstantStep`: `dw_min` 0.001, both spreads 0.3.
    """

    dw_min: Number = 1e-3
    device_spread: Number = 0.3
    cycle_spread: Number = 0.3
    limit: Number = 1.0
    max_pulses: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        _check_pulses(self)

    def num_pulses(self, change: Array) -> Array:
        return expected_pulses(change, self.dw_min, self.max_pulses)

    def __call__(self, change: Array, w: Array, *, chip: PRNGKeyArray, run: PRNGKeyArray) -> Array:
        step = self.dw_min * (1 + self.device_spread * clipped_normal(chip, w))
        n, noise = pulses(change, self.dw_min, self.max_pulses, self.cycle_spread, run)
        return jnp.clip(w + jnp.sign(change) * step * (n + noise), -self.limit, self.limit) - w


class SoftBounds(AbstractWrite):
    """Pulses that shrink towards the bounds `b± = ± limit`:

        Δw± = ± dw_min (1 ± up_down) (1 ∓ w/limit) (1 + cycle_spread ξ),

    each device with steps `1 + device_spread · E` of its own in either direction. Up and down cancel at the symmetric
    point, `w = limit · up_down` for equal devices. `n` pulses are taken at once in closed form, their noise to first
    order. aihwkit's `SoftBounds`: `dw_min` 0.001, both spreads 0.3; ReRAM (ES) `up_down` 0.26.
    """

    dw_min: Number = 1e-3
    up_down: Number = 0.0
    device_spread: Number = 0.3
    cycle_spread: Number = 0.3
    limit: Number = 1.0
    max_pulses: int | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        _check_pulses(self)
        check_range(self, "up_down", -0.99, 0.99)

    def num_pulses(self, change: Array) -> Array:
        return expected_pulses(change, self.dw_min, self.max_pulses)

    def __call__(self, change: Array, w: Array, *, chip: PRNGKeyArray, run: PRNGKeyArray) -> Array:
        rising, falling = jax.random.split(chip)
        up = (1 + self.up_down) * (1 + self.device_spread * clipped_normal(rising, w))
        down = (1 - self.up_down) * (1 + self.device_spread * clipped_normal(falling, w))
        side = jnp.sign(change)
        fraction = jnp.minimum(self.dw_min * jnp.where(side > 0, up, down) / self.limit, 1.0)
        n, noise = pulses(change, self.dw_min, self.max_pulses, self.cycle_spread, run)
        # One pulse takes this fraction of what is left to the bound: n pulses leave the n-th power of the rest.
        left = side * self.limit - w
        moved = left * (1 - (1 - fraction) ** n + fraction * noise)
        return jnp.where(side == 0, 0.0, jnp.clip(w + moved, -self.limit, self.limit) - w)


class WriteNoise(AbstractWrite):
    """`Δw + σ ξ − decay · w`, of every device at every update: two devices of one nominal value part by `√2 σ √steps`
    without decay, and by `√2 σ/√(2 decay)` in the end with it. Homeostasis has to work against that all the time.

    `sigma` 0.1 to 10 pulses of `dw_min`; `decay` is the leak of a capacitor, 10⁻⁶ an update (aihwkit).
    """

    sigma: Number = 1e-3
    decay: Number = 0.0

    def __check_init__(self):
        check_range(self, "sigma")
        check_range(self, "decay", 0.0, 1.0)

    def __call__(self, change: Array, w: Array, *, chip: PRNGKeyArray, run: PRNGKeyArray) -> Array:
        del chip
        return change + self.sigma * jax.random.normal(run, w.shape, w.dtype) - self.decay * w


def write(parts: Mapping[str, AbstractWrite], chip: Chip = 0) -> WriteRule:
    """The update as these devices make it, the last of an `optax.chain`. Its `update` takes `key=`, which draws the
    noise of one step; `Trainer` gives it. Devices are the arrays under the names `DEVICES`, and an array on its own.

    **Raises:** `ValueError`, in `update`, without parameters or key, or without any device.
    """

    def update(updates: PyTree, state: Any, params: PyTree = None, **extra: Any) -> tuple[Any, Any]:
        key = extra.get("key")
        if params is None or key is None:
            raise ValueError("Devices are written at random around what they hold: pass update(..., params, key=key).")

        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(updates)]
        if not any(map(is_device, paths)):
            names = ", ".join(map(jax.tree_util.keystr, paths))
            raise ValueError(f"There is no device among {names}. Name their field {' or '.join(sorted(DEVICES))}.")

        def one(path: tuple, change: Array, w: Array) -> Array:
            if not is_device(path):
                return change
            where = jax.tree_util.keystr(path)
            for name, part in parts.items():
                chip_, run = named(chip_key(chip, name), where), named(named(key, name), where)
                change = part(change, w, chip=chip_, run=run)
            return change

        return jax.tree.map_with_path(one, updates, params), state

    return WriteRule(lambda params: optax.EmptyState(), update)


def is_device(path: tuple) -> bool:
    """Whether an array at that place of a tree of parameters is one of devices."""
    return not path or any(jax.tree_util.keystr((entry,), simple=True) in DEVICES for entry in path)


def _check_pulses(part: AbstractWrite) -> None:
    check_range(part, "dw_min", 1e-12)
    check_spreads(part)
    check_range(part, "limit", 1e-12)


WIDEST = 0.39
"""The largest spread of devices whose steps all go forwards, as deviations end at two and a half of it."""


def check_spreads(part: AbstractWrite) -> None:
    """**Raises:** `ValueError` for a spread from device to device or from cycle to cycle that is out of range."""
    check_range(part, "device_spread", 0.0, WIDEST)
    check_range(part, "cycle_spread")


def pulses(change: Array, size: Number, most: int | None, spread: Number, key: PRNGKeyArray) -> tuple[Array, Array]:
    """How many pulses are sent, and the sum of their deviations from one step."""
    rounding, deviation = jax.random.split(key)
    n = jnp.floor(jnp.abs(change) / size + jax.random.uniform(rounding, change.shape, change.dtype))
    n = n if most is None else jnp.minimum(n, most)
    return n, spread * jnp.sqrt(n) * jax.random.normal(deviation, change.shape, change.dtype)


def expected_pulses(change: Array, size: Number, most: int | None) -> Array:
    """`|Δw|/size`, the mean of the whole numbers to which it is rounded, at most `most`."""
    n = jnp.abs(change) / size
    return n if most is None else jnp.minimum(n, most)


def asked(
    optimiser: optax.GradientTransformation, state: Any, gradient: PyTree, params: PyTree, loss: Array, key: Any
) -> PyTree:
    """The changes that an optimiser asks for, before any device makes them."""
    rule = optax.with_extra_args_support(optimiser)
    return rule.update(gradient, state, params, value=loss, grad=gradient, key=key)[0]


def count_pulses(parts: Sequence[AbstractWrite], updates: PyTree) -> Float[Array, ""]:
    """The mean number of pulses of an update, summed over all weights: by the first part that writes in pulses, or one
    a weight without any."""
    total = jnp.zeros(())
    for path, change in jax.tree_util.tree_leaves_with_path(updates):
        if is_device(path):
            counts = [n for n in (part.num_pulses(change) for part in parts) if n is not None]
            total = total + (jnp.sum(counts[0]) if counts else jnp.asarray(change.size, total.dtype))
    return total
