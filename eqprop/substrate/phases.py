"""What the phases of an estimator do on a device: how long they last, and how far they move its nodes."""

from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from eqprop import _tree
from eqprop._solution import Solution
from eqprop._tree import AnyState
from eqprop.estimator import (
    AbstractErrorEstimator,
    AbstractEstimator,
    AsymmetricNudge,
    ContrastiveHebbian,
    FiniteNudge,
    LockIn,
    OscillatingNudge,
)
from eqprop.model import Example, Model
from eqprop.readout import Target
from eqprop.relaxation import AbstractRelaxation, FixedSteps, Picard, Sweep
from eqprop.substrate.base import AbstractImperfection
from eqprop.substrate.conduction import skew_watts, watts
from eqprop.substrate.dynamics import DeviceFlow
from eqprop.substrate.technology import Technology

Stencilled = FiniteNudge | AsymmetricNudge | ContrastiveHebbian
"""Estimators that nudge at the nodes of a stencil, one after the other."""

Oscillating = LockIn | OscillatingNudge
"""Estimators whose nudge never rests."""


class Schedule(NamedTuple):
    """What an estimator reads and drives, of one quadrature."""

    readings: int
    """Of every neuron in the nudged phases."""
    drives: int
    """Of every output."""
    sampled: bool
    """Whether they are taken while the nudge moves, so that they take no time of their own."""


def schedule(estimator: AbstractEstimator) -> Schedule:
    """Of an estimator that a device can run; nothing of another."""
    if isinstance(estimator, Oscillating):
        turns = estimator.samples * (estimator.warmup + estimator.cycles)
        return Schedule(estimator.samples * estimator.cycles, turns, True)
    nodes = estimator.stencil.nodes.size if isinstance(estimator, Stencilled) else 0
    return Schedule(nodes, nodes, False)


class Phases(eqx.Module):
    """Of one example. Times are in time constants, moves of nodes are squared and summed, in units of rates."""

    free: Float[Array, ""]
    free_moves: Float[Array, ""]
    watts: Float[Array, ""]
    """Of the settled free phase. A nudged phase conducts as much, but for a change of the order of the nudge."""
    nudged: Float[Array, ""]
    """All of them, one after the other."""
    nudged_moves: Float[Array, ""]
    extra_watts: Float[Array, ""]
    """Of currents that only the nudged phases need."""


def phases_of(
    technology: Technology,
    parts: Mapping[str, AbstractImperfection],
    model: Model,
    x: Array,
    y: Target,
    relaxation: AbstractRelaxation,
    estimator: AbstractEstimator,
    key: PRNGKeyArray,
) -> Phases:
    """Run the phases of one example on a deployed model. A node moves out to the state of a phase and back: from rest
    to the free fixed point, and from there by `β δ` to each node of a stencil, or over `2 β δ` in each turn."""
    free_key, nudge_key = jax.random.split(key)
    example = model.at(x, y)
    field = example.field
    start = field.initial_state()
    free = relaxation(field.drift, start, blocks=field.blocks, key=free_key)
    moved = _tree.subtract(field.rates(free.state), field.rates(start))
    nudged, moves, extra = _nudged(technology, parts, model, example, free, estimator, nudge_key)
    return Phases(
        time_constants(relaxation, free.num_steps, 1),
        _squares(moved),
        watts(technology, model, parts, free.state, x),
        nudged,
        moves,
        extra,
    )


def time_constants(relaxation: AbstractRelaxation, num_steps: Array, phases: int) -> Float[Array, ""]:
    """How long phases of a relaxation last, in time constants: what a device is given, or a step `u ← u + d F(u)`
    counted as `d` of them. NaN for a relaxation that is no motion.

    **Arguments:** `num_steps`: of all phases together.
    """
    if isinstance(relaxation, DeviceFlow):
        return jnp.asarray(phases * (relaxation.settle + relaxation.average), float)
    steps = num_steps.astype(float)
    if isinstance(relaxation, Picard | Sweep):
        return relaxation.damping * steps
    return steps if isinstance(relaxation, FixedSteps) else jnp.full_like(steps, jnp.nan)


def unphysical(relaxation: AbstractRelaxation, estimator: AbstractEstimator) -> list[str]:
    """Why times or energies are not known: one reason for each of what no device does."""
    used = [relaxation, estimator.relaxation] if isinstance(estimator, Stencilled) else [relaxation]
    known = DeviceFlow | Picard | Sweep | FixedSteps
    reasons = [
        f"{type(one).__name__} does not say how long a device would take; give the substrate a flow, such as DeviceFlow"
        for one in used
        if not isinstance(one, known)
    ]
    if not isinstance(estimator, Stencilled | Oscillating):
        reasons.append(
            f"no device is known to do {type(estimator).__name__}; train by FiniteNudge, AsymmetricNudge or LockIn"
        )
    return reasons


def _nudged(
    technology: Technology,
    parts: Mapping[str, AbstractImperfection],
    model: Model,
    example: Example,
    free: Solution,
    estimator: AbstractEstimator,
    key: PRNGKeyArray,
) -> tuple[Array, Array, Array]:
    """Time constants and moves of the nudged phases, and watts that they need besides."""
    none, lost = jnp.zeros(()), jnp.asarray(jnp.nan)
    rates = example.field.rates
    if isinstance(estimator, ContrastiveHebbian):
        response = estimator.respond(example, free, key=key)
        s = rates(free.state)
        move = lambda u: jax.tree.map(lambda now, before: now - before.astype(now.dtype), rates(u), s)
        moves = jax.vmap(lambda u: _squares(move(u)))(response.payload)
        time = time_constants(estimator.relaxation, response.num_steps, moves.size)
        return time, jnp.sum(moves), none
    if not isinstance(estimator, AbstractErrorEstimator) or not isinstance(estimator, Stencilled | Oscillating):
        return lost, lost, lost
    error = estimator.estimate(example, free, key=key)
    delta = error.delta if estimator.transposes else example.out_of_scale(error.delta)
    if isinstance(estimator, Oscillating):
        turns = estimator.warmup + estimator.cycles
        peak = (2 * estimator.beta) ** 2 * (2 if estimator.complex_nudges else 1)
        return jnp.asarray(turns * estimator.period, float), turns * peak * _squares(delta), none
    nodes = estimator.stencil.nodes
    strength = jnp.sum(jnp.abs(nodes) ** 2)
    extra = none
    if isinstance(estimator, AsymmetricNudge):
        extra = strength / nodes.size * skew_watts(technology, model, parts, delta)
    time = time_constants(estimator.relaxation, error.num_steps, nodes.size)
    return time, strength * _squares(delta), extra


def _squares(tree: AnyState) -> Float[Array, ""]:
    """Of the absolute values of all leaves, summed."""
    return jnp.square(_tree.norm(tree))
