"""Resistor graphs whose nudged copy is read with an offset: where the error of training stops falling, by scheme."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from matplotlib.figure import Figure

import eqprop as eq
from eqprop import topology
from eqprop.circuit import CoupledLearning, Diodes, ResistorGraph
from eqprop.data import allostery, xor
from eqprop.run import tables
from eqprop.run.study import style
from eqprop.run.study.measured import Measured
from eqprop.substrate import PhaseOffset
from eqprop.train import Metrics

OFFSETS = (0.0, 1e-6, 1e-5, 1e-4)
"""Standard deviations, in volts."""
STRENGTHS = (0.05, 0.2)
"""Of the nudge `β`, or of the clamp `η`."""
SIZES = {"quick": (2, 200), "cpu": (7, 2000), "full": (15, 10000)}
"""Seeds of networks and chips, and updates."""
LOWEST, HIGHEST = 0.02, 10.0
"""Of the conductances."""
NEWTON = eq.Newton(tol=1e-11, max_steps=100)


LOCK_IN: dict[str, Any] = dict(harmonics=1, period=20.0, warmup=4, samples=8, steps_per_period=200, tol=1.0)
"""What is left of the beginning after four periods is far below the answer."""


class Scheme(NamedTuple):
    title: str
    make: Callable[[Array], eq.AbstractEstimator]
    in_turns: bool = False
    """Whether the nudged states are read by two copies in turns."""


def _nudged(stencil: Callable[..., eq.Stencil]) -> Callable[[Array], eq.AbstractEstimator]:
    return lambda beta: eq.FiniteNudge(stencil=stencil(beta), relaxation=NEWTON)


SLOW_SAMPLES = 8
"""Readings a cycle of the slow lock-in."""


def slow_lock_in(beta: Array) -> eq.Stencil:
    """The stencil of `LockIn` with one harmonic in the limit of a long period: the network is at rest at each of the
    nudges `βₖ = β cos θₖ`, `θₖ = 2π(k + ½)/M`, and the weights `2 cos θₖ/(M β)` are those of the demodulation.

    The derivative is that of the first harmonic, `g′(0) + β² g‴(0)/8 + O(β⁴)`, three quarters of the error of
    `centred`. Weights sum to zero, also with alternating signs, so that an offset is not seen, constant or in turns.
    """
    turns = jnp.asarray(np.cos(2 * np.pi * (np.arange(SLOW_SAMPLES) + 0.5) / SLOW_SAMPLES))
    return eq.Stencil(beta * turns, 2 * turns / (SLOW_SAMPLES * beta), SLOW_SAMPLES)


SCHEMES = {
    "coupled": Scheme("coupled learning", lambda eta: CoupledLearning(eta=eta, relaxation=NEWTON)),
    "one_sided": Scheme("EP, one-sided", _nudged(eq.one_sided)),
    "turns": Scheme("EP, centred, copies in turns", _nudged(eq.centred), in_turns=True),
    "centred": Scheme("EP, centred", _nudged(eq.centred)),
    "lock_in": Scheme("EP, lock-in", lambda beta: eq.LockIn(beta=beta, **LOCK_IN)),
}
SLOW = {"slow_lock_in": Scheme("EP, slow lock-in", _nudged(slow_lock_in))}
"""With diodes, whose time constants are too far apart for the steps of the solver of `LockIn`."""
ALL = SCHEMES | SLOW


class Task(NamedTuple):
    title: str
    make: Callable[[Array], tuple[ResistorGraph, Array, Array]]
    """Network, inputs and targets of a seed."""
    rates: dict[str, float]
    """Learning rate by scheme; a scheme that is left out is not run."""


def _lattice(key: Array, outputs: Sequence[int]) -> ResistorGraph:
    return ResistorGraph(16, topology.lattice((4, 4)), inputs=[0, 3], outputs=outputs, rails={12: 0.0}, key=key)


def outputs_of(network: ResistorGraph, x: Array) -> Array:
    """The voltages of the outputs for every input."""

    def one(x: Array) -> Array:
        field = network.at(x)
        return NEWTON(field.drift, field.initial_state()).state["out"]

    return jax.vmap(one)(x)


def _regression(key: Array) -> tuple[ResistorGraph, Array, Array]:
    """The linear map of another lattice to one voltage."""
    own, other = jax.random.split(key)
    x = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.5, 1.0], [1.0, 0.5]])
    return _lattice(own, [13]), x, outputs_of(_lattice(other, [13]), x)


def _allostery(key: Array) -> tuple[ResistorGraph, Array, Array]:
    data = allostery(targets=((0.2, 0.5),)).train
    return _lattice(key, [13, 10]), jnp.asarray(data.images[:, 0], float), jnp.asarray(data.labels, float)


def _xor(key: Array) -> tuple[ResistorGraph, Array, Array]:
    """Both inputs and their opposites, two rails and eight nodes with diodes; the target is ± 50 mV."""
    data = xor(low=-1.0, high=1.0).train
    x, hidden = jnp.asarray(data.images[:, 0], float), range(6, 14)
    edges = [(a, h) for h in hidden for a in (*range(6), 14)]
    rails, diodes = {4: 1.0, 5: -1.0}, Diodes(saturation=1e-6)
    network = ResistorGraph(15, edges, inputs=[0, 1, 2, 3], outputs=[14], rails=rails, diodes=diodes, key=key)
    return network, jnp.concatenate([x, -x], axis=1), 0.05 * jnp.asarray(data.labels, float)


TASKS = {
    "regression": Task("linear regression", _regression, dict.fromkeys(SCHEMES, 20.0) | {"coupled": 10.0}),
    "allostery": Task("allostery", _allostery, dict.fromkeys(SCHEMES, 5.0) | {"coupled": 1.0}),
    "xor": Task(
        "XOR with diodes",
        _xor,
        {"coupled": 20.0} | dict.fromkeys(("one_sided", "turns", "centred", "slow_lock_in"), 500.0),
    ),
}


def measure(scale: str) -> Measured:
    """The root mean square error at the end, by task, scheme, strength, seed and offset."""
    seeds, updates = SIZES[scale]
    found = {}
    with jax.enable_x64(True):
        for name, task in TASKS.items():
            found[name] = {scheme: _floors(task, scheme, seeds, updates) for scheme in task.rates}
    return Measured({"offsets": OFFSETS, "strengths": STRENGTHS, "seeds": seeds, "updates": updates, "floors": found})


def _floors(task: Task, scheme: str, seeds: int, updates: int) -> Any:
    """By strength, seed and offset, in volts: of the median loss in the last tenth of the updates."""
    grid = np.meshgrid(STRENGTHS, np.arange(seeds), OFFSETS, indexing="ij")
    one = functools.partial(trained, task, scheme, updates)
    losses = jax.jit(jax.vmap(one))(*(jnp.asarray(axis.ravel()) for axis in grid))
    return np.sqrt(np.median(losses[:, -updates // 10 :], axis=1)).reshape(grid[0].shape)


def updating(
    scheme: str, strength: Array, network: ResistorGraph, seed: Array, offset: Array, rate: Array | float
) -> Callable[[Array, Array, Array], tuple[Array, Metrics]]:
    """The conductances after an update on a batch, and what was measured before it.

    **Arguments:** `rate`: the learning rate, or one for each conductance.
    """
    how, readout = ALL[scheme], eq.SquaredError(regression=True)
    device = eq.Substrate(chip=seed, offset=PhaseOffset(offset, alternate=how.in_turns))
    trainer = eq.Trainer(NEWTON, how.make(strength), optax.sgd(1.0), keep_unsettled=True).on(device)

    def update(g: Array, x: Array, y: Array) -> tuple[Array, Metrics]:
        model = eq.Model(eqx.tree_at(lambda n: n.conductances, network, g), readout)
        gradient: Any
        gradient, measured = trainer.gradient(model, (x, y), key=jax.random.key(0))
        return jnp.clip(g - rate * gradient.network.conductances, LOWEST, HIGHEST), measured

    return update


def trained(task: Task, scheme: str, updates: int, strength: Array, seed: Array, offset: Array) -> Array:
    """The squared error at every update, averaged over outputs and examples."""
    network, x, y = task.make(jax.random.key(seed))
    update = updating(scheme, strength, network, seed, offset, task.rates[scheme])

    def step(g: Array, _: None) -> tuple[Array, Array]:
        g, measured = update(g, x, y)
        return g, 2 * measured["loss"] / y.shape[1]

    return jax.lax.scan(step, network.conductances, None, length=updates)[1]


def draw(data: dict[str, Any]) -> dict[str, Figure]:
    """The error at the end against the offset over the strength, a panel for each task."""
    figure, axes = style.canvas(len(data["floors"]))
    for axis, (task, by_scheme) in zip(axes, data["floors"].items(), strict=True):
        for index, (scheme, runs) in enumerate(by_scheme.items()):
            ratios, errors = _points(data, runs)
            order = np.argsort(ratios)
            style.quartiles(axis, ratios[order].tolist(), errors[:, order].T.tolist(), index, ALL[scheme].title)
        style.log(axis, "xy")
        style.frame(axis, "offset / strength (V)", "error at the end (V)", TASKS[task].title)
    axes[0].legend()
    return {"floors": figure}


def captions(data: dict[str, Any]) -> dict[str, str]:
    """What the figure shows."""
    return {
        "floors": (
            "Root mean square error in the last tenth of training against the standard deviation of the offset of the "
            f"nudged copy over the strength of the nudge or clamp; median and quartiles of n = {data['seeds']} "
            f"networks and chips, {data['updates']} updates by gradient descent, float64."
        )
    }


def answer(data: dict[str, Any]) -> str:
    """The exponents, and the errors with the largest offset and without any."""
    rows, floored = [], []
    for task, by_scheme in data["floors"].items():
        for scheme, runs in by_scheme.items():
            runs = np.asarray(runs, float)
            biased, exponents = scheme in BIASED, _exponent(data, runs)
            floored += exponents if biased else []
            cells = [f"{np.median(runs[0, :, place]):.1e}" for place in (-1, 0)]
            rows.append(
                [TASKS[task].title, ALL[scheme].title, tables.spread(exponents, 2) if biased else "none", *cells]
            )
    head = ["task", "scheme", "exponent", f"error at {OFFSETS[-1]:g} V (V)", "error without offset (V)"]
    return (
        "Where the offset does not cancel, the error at the end goes as the offset over the strength to the power "
        f"{tables.spread(floored, 2)}, over all tasks and schemes; centred nudges and lock-in do not see an "
        f"offset that is in all nudged readings.\n\n{tables.markdown(head, rows)}\n\nErrors are medians over seeds at "
        f"the strength {STRENGTHS[0]:g}; exponents are fits to the medians over n = {data['seeds']} seeds at "
        f"{len(OFFSETS) - 1} offsets and {len(STRENGTHS)} strengths, with the deviation over samples of the seeds."
    )


BIASED = ("coupled", "one_sided", "turns")
"""The schemes in which the offset does not cancel."""


def _points(data: dict[str, Any], runs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Offset over strength, and the errors by seed; offsets above 0 only."""
    offsets, strengths = np.asarray(data["offsets"][1:]), np.asarray(data["strengths"])
    errors = np.asarray(runs, float)[:, :, 1:]
    return (offsets / strengths[:, None]).ravel(), np.moveaxis(errors, 1, 0).reshape(errors.shape[1], -1)


def _exponent(data: dict[str, Any], runs: Any) -> list[float]:
    """The slope of the logarithm of the error, of medians over seeds, in samples of the seeds with replacement: some
    seeds end at a local minimum, whatever the offset."""
    ratios, errors = _points(data, runs)
    samples = np.random.default_rng(0).integers(0, len(errors), (200, len(errors)))
    medians = np.median(errors[samples], axis=1)
    return [float(np.polyfit(np.log(ratios), np.log(row), 1)[0]) for row in medians]
