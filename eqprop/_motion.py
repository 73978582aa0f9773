"""What the motion of a trajectory is: settled, slow, cycling, wandering or diverged."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from eqprop import _tree
from eqprop._tree import AnyState

LEAST_STEPS = 16
"""A quarter of a trajectory is compared with the one before: with fewer steps there is nothing to compare."""

RETURN, LEAVE, SMOOTH = 0.02, 0.2, 0.5
"""An orbit returns if it comes this near to where it was, having been that far off. It is smooth, and may return
between two samples, if no step is longer than the last. All three are in units of its amplitude."""


class STATUS(eqx.Enumeration):
    """What the last half of a trajectory shows; the message is what a person should know and do."""

    settled = "The state settled: its residual is at or below the tolerance."
    slow = (
        "The state approaches a fixed point, but slowly: its residual falls by the same factor at every step. Allow "
        "more steps, or relax by Anderson or Newton."
    )
    cycling = (
        "The state goes round a periodic orbit, and more steps will not settle it. Damp the relaxation, sweep layer by "
        "layer, or lower the gain of the network."
    )
    wandering = (
        "The state stays bounded, but neither settles nor repeats: it is chaotic or noisy, or the trajectory is too "
        "short to tell. Lower the gain of the network, damp the relaxation, or trace more steps."
    )
    diverged = (
        "The state became infinite or NaN, or was still growing at the end. Lower the gain of the network, or trace "
        "more steps to see where the growth ends."
    )


NAMES = ("settled", "slow", "cycling", "wandering", "diverged")


def judge(states: AnyState, times: Array, residual: Array, excess: Array) -> tuple[STATUS, Array, Array, Array, Array]:
    """Status, period, amplitude, rate and time that remains, as in `Trajectory`.

    **Arguments:** `excess`: the largest ratio of a layer's residual to its tolerance at the end. The others: with a
    leading axis of time.
    """
    flat = jnp.concatenate([leaf.reshape(times.size, -1) for leaf in jax.tree.leaves(states)], axis=1)
    quarter, unit = (times.size - 1) // 4, times[1]
    amplitude = jnp.max(jnp.max(flat[-quarter:], axis=0) - jnp.min(flat[-quarter:], axis=0))
    period, returned = _first_return(flat[-2 * quarter - 2 :], quarter, amplitude)

    # The trend of the residual over the last quarter and over the one before, each against a period before, or a
    # quarter before where there is none: an oscillation of the residual itself then plays no part.
    floor = 16 * jnp.finfo(residual.dtype).eps * jnp.max(jnp.abs(flat[-1]))
    logs = jnp.log(jnp.maximum(residual, jnp.maximum(floor, jnp.finfo(residual.dtype).tiny)))
    lag = jnp.where(returned, jnp.round(period).astype(int), quarter)
    back = lambda end: jax.lax.dynamic_slice(logs, (times.size - end - quarter - lag,), (quarter,))
    last = logs[-quarter:] - back(0)
    trend, before = jnp.mean(last), jnp.mean(logs[-2 * quarter : -quarter] - back(quarter))
    least = 0.5 * jnp.std(last) + floor * jnp.exp(-logs[-1])
    # How far a trend will go that fades from quarter to quarter as it has done: Aitken's extrapolation. A transient
    # towards a cycle ends within a factor e. Without a cycle the trend has to be there in both quarters.
    same = before * trend > 0
    fades = same & (jnp.abs(trend) < jnp.abs(before))
    ahead = trend * quarter / lag.astype(trend.dtype) * trend / jnp.where(fades, before - trend, 1.0)
    persists = jnp.where(returned, ~fades | (jnp.abs(ahead) > 1), same & (jnp.abs(before) > least))
    lasting = (jnp.abs(trend) > least) & persists

    rate = _rate(times, logs, residual > floor)
    finite = jnp.all(jnp.isfinite(flat[-1])) & jnp.isfinite(residual[-1])
    motion = STATUS.where(returned, STATUS.cycling, STATUS.wandering)
    motion = STATUS.where(lasting & (trend < 0), STATUS.slow, motion)
    motion = STATUS.where((excess <= 1) | (residual[-1] <= floor), STATUS.settled, motion)
    status = STATUS.where(~finite | (lasting & (trend > 0)), STATUS.diverged, motion)
    period = jnp.where(status == STATUS.cycling, period * unit, jnp.nan)
    return status, period, amplitude, rate, jnp.where(status == STATUS.slow, -jnp.log(excess) / jnp.log(rate), jnp.nan)


def _first_return(tail: Array, quarter: int, amplitude: Array) -> tuple[Array, Bool[Array, ""]]:
    """The lag `p` of the first return, and whether there is one. The distance is the largest of a neuron over the last
    quarter, of `u(t)` to `u(t − p)` or, of a smooth orbit, to a parabola through it and its neighbours."""
    now = tail[quarter + 2 :]
    smooth = _tree.largest(now - tail[quarter + 1 : -1]) <= SMOOTH * amplitude

    def distance(lag: Array) -> tuple[Array, Array]:
        older, there, newer = (jax.lax.dynamic_slice(tail, (quarter + 2 - lag + i, 0), now.shape) for i in (-1, 0, 1))
        missed, slope, bend = now - there, 0.5 * (older - newer), older - 2 * there + newer
        square = jnp.sum(slope**2)
        shift = jnp.clip(jnp.sum(missed * slope) / jnp.where(square > 0, square, 1.0), -0.5, 0.5)
        plain, between = _tree.largest(missed), _tree.largest(missed - shift * slope - 0.5 * shift**2 * bend)
        nearer, whole = smooth & (between < plain), lag.astype(plain.dtype)
        return jnp.where(nearer, between, plain), whole + jnp.where(nearer, shift, 0.0)

    distances, lags = jax.lax.map(distance, jnp.arange(1, quarter + 1))
    left = jax.lax.cummax(distances) > LEAVE * amplitude
    returns = left & (distances <= RETURN * amplitude)
    return lags[jnp.argmax(returns)], jnp.any(returns)


def _rate(times: Array, logs: Array, clear: Bool[Array, " times"]) -> Float[Array, ""]:
    """`exp` of the least-squares slope of `logs` over the later half of what is clear of rounding."""
    last = jnp.max(jnp.where(clear, times, -1.0))
    weight = (clear & (2 * times >= last) & (times <= last) & jnp.isfinite(logs)).astype(times.dtype)
    total = jnp.sum(weight)
    centred = weight * (times - jnp.sum(weight * times) / total)
    slope = jnp.sum(centred * jnp.where(weight > 0, logs, 0.0)) / jnp.sum(centred * times)
    return jnp.exp(slope)
