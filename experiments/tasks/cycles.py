"""Networks that are shown tasks in turns while a nudged copy is read with an offset: the closed orbit they go round."""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqprop.circuit import ResistorGraph
from experiments.tasks.learning_bias import TASKS, outputs_of, updating

SCHEMES = ("coupled", "one_sided", "turns", "centred", "slow_lock_in")
"""Of `learning_bias`. The lock-in is the slow one for every system."""


class System(NamedTuple):
    title: str
    make: Callable[[Array], tuple[ResistorGraph, Array, Array]]
    """Network, inputs and targets of a seed. Each example is a task, and all can be solved at once."""
    trained: int | None
    """So many conductances are trained, the first ones; `None`: all."""
    rates: dict[str, float]
    """Learning rate by scheme."""


def pair(key: Array) -> tuple[ResistorGraph, Array, Array]:
    """Two trained resistors, one at a hidden node and one at the output, three fixed ones, and two tasks that another
    pair solves. The solutions of one task are a curve in the plane of the two, and the two curves cross in a point."""
    own, other = jax.random.split(key)
    edges = [(0, 3), (2, 4), (3, 4), (1, 3), (1, 4)]

    def drawn(key: Array) -> ResistorGraph:
        network = ResistorGraph(5, edges, inputs=[0], outputs=[4], rails={1: 0.0, 2: 1.0}, key=key)
        return eqx.tree_at(lambda n: n.conductances, network, network.conductances.at[2:].set(1.0))

    x = jnp.array([[1.0], [-1.0]])
    return drawn(own), x, outputs_of(drawn(other), x)


def _lattice(key: Array) -> tuple[ResistorGraph, Array, Array]:
    network, x, y = TASKS["regression"].make(key)
    return network, x[:2], y[:2]


SYSTEMS = {
    "pair": System("two resistors, two tasks", pair, 2, dict.fromkeys(SCHEMES, 10.0) | {"coupled": 5.0}),
    "lattice": System("lattice, two tasks", _lattice, None, dict.fromkeys(SCHEMES, 10.0) | {"coupled": 5.0}),
}


class Orbit(NamedTuple):
    """Of the last period."""

    span: Float[Array, ""]
    """The largest distance between conductances at two switches of the task."""
    closure: Float[Array, ""]
    """The distance between the conductances at the end of the last two periods, over `span`."""
    combined: Float[Array, ""]
    """The root mean square error in volts over all tasks and updates."""
    shown: Float[Array, ""]
    """That at the switches, of the task that has just been shown."""
    waiting: Float[Array, ""]
    """That at the switches, of the task that comes next and was shown the longest ago."""
    path: Float[Array, "updates+1 edges"]
    """The conductances in the window, from its beginning on."""


class Setting(NamedTuple):
    """Of one run."""

    seed: Array
    offset: Array
    """Its standard deviation, in volts."""
    dwell: Array
    """Updates on one task before the next; a period is as many for each of the tasks."""
    rate: Array
    """Multiplies the learning rate of the system."""


def update(
    system: System, scheme: str, strength: float, network: ResistorGraph, setting: Setting
) -> Callable[[Array, Array, Array], Array]:
    """The conductances after an update on one example `x` with target `y`."""
    edges = len(network.ends)
    trained = jnp.asarray(np.arange(edges) < (edges if system.trained is None else system.trained), float)
    rate = setting.rate * system.rates[scheme] * trained
    batched = updating(scheme, jnp.asarray(strength), network, setting.seed, setting.offset, rate)
    return lambda g, x, y: batched(g, x[None], y[None])[0]


def orbit(
    system: System,
    scheme: str,
    strength: float,
    updates: int,
    longest: int,
    made: tuple[ResistorGraph, Array, Array],
    setting: Setting,
) -> Orbit:
    """What is left after `updates`, in a window that lasts as long as a period with `longest` updates a task.
    `longest` is a multiple of the dwell, and `updates` of the window, so that every run ends with its last task.

    **Arguments:** `made`: by the system, for the seed of the setting.
    """
    network, x, y = made
    tasks = len(x)
    window = tasks * longest
    step = update(system, scheme, strength, network, setting)

    def one(g: Array, n: Array) -> tuple[Array, Array]:
        task = (n // setting.dwell) % tasks
        g = step(g, x[task], y[task])
        return g, g

    def through(_: int, path: Array) -> Array:
        """The next window after the one that ends where `path` does."""
        found = jax.lax.scan(one, path[-1], jnp.arange(window))[1]
        return jnp.concatenate([path[-1:], found])

    path = jax.lax.fori_loop(0, updates // window, through, jnp.tile(network.conductances, (window + 1, 1)))

    def squares(g: Array) -> Array:
        """The squared error of each task."""
        return jnp.mean((outputs_of(eqx.tree_at(lambda n: n.conductances, network, g), x) - y) ** 2, axis=1)

    errors = jax.lax.map(squares, path)
    places = window - setting.dwell * jnp.arange(tasks)  # task `tasks − 1 − k` ends at the k-th of them
    ends, ended = path[places], tasks - 1 - jnp.arange(tasks)
    span = jnp.max(jnp.linalg.norm(ends[:, None] - ends[None], axis=-1))
    last = jnp.arange(window + 1) > window - tasks * setting.dwell
    return Orbit(
        span,
        jnp.linalg.norm(path[window] - path[window - tasks * setting.dwell]) / span,
        jnp.sqrt(jnp.mean(errors, where=last[:, None])),
        jnp.sqrt(jnp.mean(errors[places, ended])),
        jnp.sqrt(jnp.mean(errors[places, (ended + 1) % tasks])),
        path,
    )
