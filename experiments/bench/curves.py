"""Time against error: ours over tolerances, the plain published step over numbers of steps, on trained networks."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

import eqprop as eq
from experiments.bench import oracle, plain
from experiments.bench.networks import CONV, Trained
from experiments.bench.timing import compile_timed, over_batches, spread

TOLERANCES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
"""Of our nudged phases, relative to the response."""
TIE = 1 / 300
"""Our free phase's absolute tolerance over the nudged one's relative one, as in the shipped configuration."""
SCHEDULES = ((6, 2), (12, 4), (25, 5), (50, 10), (100, 20), (150, 20), (300, 60), (600, 120))
"""Free and nudged steps of the plain step; the longer ones are left out once one is accurate to `ENOUGH`."""
ENOUGH = 3e-3
DAMPINGS = (1.0, 0.5)
METHODS = {"Sweep": eq.Sweep}
ERRORS = (0.05, 0.01)
"""At which curves are compared."""
POINTS = (2, 4, 6)
CONV_BATCH = 32
"""Images of the convolutional network's batches: the plain step's convolutions are slow."""
OPTIMISER = optax.adam(1e-3)

Batch = tuple[Array, Array]
Record = dict[str, Any]


class Family(NamedTuple):
    """One way to the gradient, whose settings are arguments of its compiled programs."""

    name: str
    settings: Sequence[Any]
    """From loose to tight."""
    gradient: Callable[[Any, eq.Model, Batch], plain.Params]
    step: Callable[[bool], tuple[Callable[[Any, Any, Batch], Any], Any]]
    """With or without homeostasis, a training step from `(setting, state, batch)`, and a state to start from."""


def ours(net: Trained, num_points: int, name: str, tolerances: Sequence[float]) -> Family:
    """Our step, relaxed by one of `METHODS`."""
    method, stencil = METHODS[name], oracle.stencil_of(net.beta, num_points, turned=True)

    def trainer(rtol: Any, *, homeostatic: bool) -> eq.Trainer:
        free, nudged = method(tol=TIE * rtol, max_steps=300), method(tol=1.0, rtol=rtol, max_steps=300)
        homeostasis = net.homeostasis if homeostatic else None
        return eq.Trainer(free, eq.FiniteNudge(stencil=stencil, relaxation=nudged), OPTIMISER, homeostasis)

    def gradient(rtol: Any, model: eq.Model, batch: Batch) -> plain.Params:
        return oracle.gradient(trainer(rtol, homeostatic=False), model, batch)[0]

    def step(homeostatic: bool) -> tuple[Callable[..., Any], eq.TrainState]:
        start = trainer(tolerances[0], homeostatic=homeostatic).init(net.model, key=jax.random.key(0))
        return lambda rtol, state, batch: trainer(rtol, homeostatic=homeostatic).step(state, batch), start

    return Family(name, tuple(jnp.float32(t) for t in tolerances), gradient, step)


def published(net: Trained, num_points: int, damping: float, schedules: Sequence[tuple[int, int]]) -> Family:
    """The plain step."""

    def estimate(homeostatic: bool) -> plain.Estimate:
        coefficient = net.homeostasis.coefficient if homeostatic else None
        return plain.gradient(net.model, beta=net.beta, num_points=num_points, damping=damping, coefficient=coefficient)

    def gradient(steps: Any, model: eq.Model, batch: Batch) -> plain.Params:
        return estimate(False)(plain.parameters(model), *batch, jax.random.key(0), *steps)

    def step(homeostatic: bool) -> tuple[Callable[..., Any], Any]:
        def advance(steps: Any, state: Any, batch: Batch) -> Any:
            parameters, optimiser, key = state
            found = estimate(homeostatic)(parameters, *batch, key, *steps)
            updates, optimiser = OPTIMISER.update(found, optimiser, parameters)
            return optax.apply_updates(parameters, updates), optimiser, key

        parameters = plain.parameters(net.model)
        return advance, (parameters, OPTIMISER.init(parameters), jax.random.key(0))

    steps = tuple((jnp.int32(free), jnp.int32(nudged)) for free, nudged in schedules)
    return Family("plain" if damping == 1 else f"plain, damping {damping:g}", steps, gradient, step)


def measure(nets: Sequence[Trained], *, quick: bool) -> Record:
    """All curves, and the ratios of plain to ours read from them."""
    count, rounds = (3, 1) if quick else (20, 3)
    curves, oracles, facts = [], [], {net.name: net.facts() for net in nets}
    for net in nets:
        for points in POINTS[:1] if quick else POINTS:
            batches, share = clear_batches(net, points, count, quick=quick)
            facts[net.name] |= {"batch_size": len(batches[0][0])}
            kinds = (False,) if points == 2 else (False, True)
            true = {turned: oracle.reference(net.model, net.beta, points, batches, turned=turned) for turned in kinds}
            lost = max(share for _, share in true.values())
            oracles.append({"network": net.name, "points": points, "one_answer": share, "unsettled": lost})
            found = []
            for family in families(net, points, quick):
                expected = true[points > 2 and family.name in METHODS][0]
                found.append((family, errors(family, net.model, batches, expected)))
            for homeostatic in (True,) if quick or net.name == CONV or points > 2 else (False, True):
                print(f"{net.name}, N = {points}, {'with' if homeostatic else 'without'} homeostasis", flush=True)
                times = seconds(found, batches, homeostatic=homeostatic, rounds=rounds)
                where = {"network": net.name, "points": points, "homeostasis": homeostatic}
                for family, wrong in found:
                    pairs = zip(wrong, times[family.name], strict=True)
                    rows = [{"setting": label, "error": e, "seconds": s} for (label, e), s in pairs]
                    curves.append({**where, "family": family.name, "curve": rows})
    return {"networks": facts, "batches": count, "oracles": oracles, "curves": curves, "ratios": ratios(curves)}


def clear_batches(net: Trained, num_points: int, count: int, *, quick: bool) -> tuple[list[Batch], float]:
    """Batches of examples that have one answer, the others left out, and the share that has one. Nobody's error means
    anything on the others, and one of them decides over that of its batch. A smoke run takes examples as they come."""
    size = CONV_BATCH if net.name == CONV else net.cfg.batch_size
    if quick:
        return net.batches(count), 1.0
    pool = net.batches(count + count // 4, size)
    clear = np.concatenate([oracle.has_one_answer(net.model, net.beta, num_points, batch) for batch in pool])
    x, y = (jnp.concatenate(arrays)[clear][: count * size] for arrays in zip(*pool, strict=True))
    if len(x) < count * size:
        raise ValueError(f"Only {len(x)} examples of {net.name} have one answer; {count * size} are needed.")
    cut = [slice(k * size, (k + 1) * size) for k in range(count)]
    return [(x[rows], y[rows]) for rows in cut], float(np.mean(clear))


def families(net: Trained, num_points: int, quick: bool) -> list[Family]:
    """All ways to the gradient that are compared."""
    tolerances = TOLERANCES[1:4:2] if quick else TOLERANCES
    schedules = SCHEDULES[2:5:2] if quick else SCHEDULES
    mine = [ours(net, num_points, name, tolerances) for name in (tuple(METHODS)[:1] if quick else METHODS)]
    return mine + [published(net, num_points, damping, schedules) for damping in (DAMPINGS[:1] if quick else DAMPINGS)]


def errors(
    family: Family, model: eq.Model, batches: list[Batch], true: list[plain.Params]
) -> list[tuple[str, dict[str, float]]]:
    """The label and the relative error over batches of each setting, up to the first that is accurate enough."""
    program, found = jax.jit(family.gradient), []
    for setting in family.settings:
        gradients = [jax.tree.map(np.asarray, program(setting, model, batch)) for batch in batches]
        found.append(
            (_label(setting), spread([oracle.relative_error(a, b) for a, b in zip(gradients, true, strict=True)]))
        )
        if found[-1][1]["median"] < ENOUGH and isinstance(setting, tuple):
            break
    return found


def _label(setting: Any) -> str:
    return f"{setting[0]}/{setting[1]}" if isinstance(setting, tuple) else f"{float(setting):.0e}"


def seconds(
    found: Sequence[tuple[Family, list]], batches: list[Batch], *, homeostatic: bool, rounds: int
) -> dict[str, list[dict[str, float]]]:
    """Of a training step, for each family and each of its settings that have an error, all interleaved."""
    calls: dict[str, Callable[[int], Any]] = {}
    for family, wrong in found:
        step, start = family.step(homeostatic)
        program = compile_timed(step, family.settings[0], start, batches[0]).call
        for setting, (label, _) in zip(family.settings, wrong, strict=False):
            calls[f"{family.name} {label}"] = lambda k, s=setting, p=program, u=start: p(s, u, batches[k])
    times = over_batches(calls, len(batches), rounds=rounds)
    return {family.name: [times[f"{family.name} {label}"] for label, _ in wrong] for family, wrong in found}


def ratios(curves: list[Record]) -> list[Record]:
    """Plain, the better of damped and undamped, over ours at `ERRORS`."""
    keys = ("network", "points", "homeostasis")
    found = []
    for mine in (curve for curve in curves if curve["family"] in METHODS):
        where = {key: mine[key] for key in keys}
        theirs = [c for c in curves if c["family"] not in METHODS and all(c[key] == where[key] for key in keys)]
        points = [point for curve in theirs for point in _points(curve)]
        at = {f"{error:g}": ratio_at(error, _points(mine), points) for error in ERRORS}
        beyond = {f"{error:g}": bound_at(error, _points(mine), points) for error in ERRORS}
        found.append({**where, "family": mine["family"], "at": at, "beyond": beyond})
    return found


def _points(curve: Record) -> list[tuple[float, float]]:
    return [(row["error"]["median"], row["seconds"]["median"]) for row in curve["curve"]]


def ratio_at(error: float, ours: Sequence[tuple[float, float]], plain: Sequence[tuple[float, float]]) -> float | None:
    """How many times longer plain takes to that error, from `(error, seconds)` of both; `None` where it lies outside
    the measured range of either. Where even our loosest setting is more accurate, that one stands in: the ratio is then
    a lower bound."""
    mine, theirs = _our_time(error, ours), time_at(error, pareto(plain))
    return None if mine is None or theirs is None else theirs / mine


def bound_at(error: float, ours: Sequence[tuple[float, float]], plain: Sequence[tuple[float, float]]) -> float | None:
    """Where plain never gets to that error, how many times longer its longest schedule takes than ours to the error."""
    mine = _our_time(error, ours)
    never = not any(wrong <= error for wrong, _ in plain)
    return max(time for _, time in plain) / mine if plain and never and mine is not None else None


def _our_time(error: float, ours: Sequence[tuple[float, float]]) -> float | None:
    front = pareto(ours)
    return front[-1][1] if front and error > front[-1][0] else time_at(error, front)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other one beats in error and time at once, by rising error and falling time."""
    kept: list[tuple[float, float]] = []
    for error, time in sorted(point for point in points if math.isfinite(point[0])):
        if not kept or time < kept[-1][1]:
            kept.append((error, time))
    return kept


def time_at(error: float, front: Sequence[tuple[float, float]]) -> float | None:
    """Interpolated between neighbours, on logarithms of both; `None` outside."""
    if not front or not front[0][0] <= error <= front[-1][0]:
        return None
    logs = np.log(np.asarray(front))
    return float(np.exp(np.interp(math.log(error), logs[:, 0], logs[:, 1])))
