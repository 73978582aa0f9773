"""What each lever gives, one at a time: python -m experiments.bench.levers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

import eqprop as eq
from eqprop.activation import shifted_sigmoid
from eqprop.network.conv import convolve_transposed
from eqprop.train import Metrics
from experiments.bench import report
from experiments.bench.problems import Images, images, trained
from experiments.bench.timing import compile_timed, interleaved

BATCHES = 20
"""Batches of 50 over which a step is timed, so that no single slow image decides."""
STEPS = 300


class Variant(NamedTuple):
    """A training step with one thing changed."""

    name: str
    relaxation: eq.AbstractRelaxation
    coarse: eq.CoarsePhase | None = None
    donate: bool = False


def variants(tol: float) -> list[Variant]:
    """Synchronous steps first, then one change after the other."""
    sweep, anderson = eq.Sweep(tol=tol, max_steps=STEPS), eq.Anderson(tol=tol, max_steps=STEPS)
    half = eq.CoarsePhase(eq.Sweep(tol=1e-2, max_steps=30))
    return [
        Variant("synchronous steps, damped by half", eq.Picard(tol=tol, max_steps=STEPS, damping=0.5)),
        Variant("synchronous steps", eq.Picard(tol=tol, max_steps=STEPS)),
        Variant("block sweeps", sweep),
        Variant("block sweeps, a look at the residual after each", eq.Sweep(tol=tol, max_steps=STEPS, every=1)),
        Variant("Anderson over sweeps", anderson),
        Variant("block sweeps, free phase begun in float16", sweep, coarse=half),
        Variant("block sweeps, donated buffers", sweep, donate=True),
    ]


def measure(variant: Variant, model: eq.Model, data: Images) -> dict[str, Any]:
    """Milliseconds a step over several batches, seconds to compile, mean steps and unsettled examples."""
    estimator = eq.FiniteNudge(stencil=eq.centred(0.5), relaxation=variant.relaxation, norm_bound=1.0)
    trainer = eq.Trainer(variant.relaxation, estimator, optax.adam(1e-3), coarse=variant.coarse)
    state = trainer.init(model, key=jax.random.key(0))
    batches = [data.batch(50, 1000 + index) for index in range(BATCHES)]
    arrays, static = eqx.partition(state, eqx.is_array)

    def step(arrays: Any, x: Array, y: Array) -> tuple[Any, Metrics]:
        new, metrics = trainer.step(eqx.combine(arrays, static), (x, y))
        return eqx.filter(new, eqx.is_array), metrics

    donated = (0,) if variant.donate else ()
    program = compile_timed(step, arrays, *batches[0])
    call = jax.jit(step, donate_argnums=donated).lower(arrays, *batches[0]).compile() if donated else program.call

    def epoch() -> list[Metrics]:
        now, measured = jax.tree.map(jnp.copy, arrays), []
        for x, y in batches:
            moved, metrics = call(now, x, y)
            # The model stands still, unless its buffers are given away.
            now = moved if donated else now
            measured.append(metrics)
        return measured

    timing = interleaved({"epoch": epoch}, repeats=3, budget=5.0)["epoch"]
    measured = epoch()
    mean = {name: float(np.mean([m[name] for m in measured])) for name in measured[0]}
    return {
        "lever": variant.name,
        "milliseconds": 1e3 * timing.median / BATCHES,
        "compile": program.seconds,
        **{name: mean[name] for name in ("free_steps", "nudged_steps", "unsettled_fraction")},
    }


def kernels() -> list[dict[str, Any]]:
    """Pieces that were rewritten, against what they replace, in microseconds a call inside a loop."""
    z = jax.random.normal(jax.random.key(0), (50, 522)) * (0.7 + 0.7j)
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 16, 32))
    w = jax.random.normal(jax.random.key(2), (8, 16, 16, 32))
    shape = jax.ShapeDtypeStruct((8, 16, 16, 16), w.dtype)

    def forward(s: Array) -> Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(s, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    def plain_sigmoid(z: Array) -> Array:
        return 1.0 / (1.0 + jnp.exp(2.0 - 4.0 * z))

    cases: list[tuple[str, Callable[[Array], Array], Callable[[Array], Array], Array]] = [
        ("complex sigmoid, 26,100 numbers: polynomial sine against XLA's exp", shifted_sigmoid, plain_sigmoid, z),
        (
            "transposed convolution, 8 x 16 x 16 x 32: flipped kernel against XLA's transpose",
            lambda w: w + 1e-6 * jnp.sum(jax.vmap(lambda v: convolve_transposed(v, kernel, False))(w)),
            lambda w: w + 1e-6 * jnp.sum(jax.linear_transpose(forward, shape)(w)[0]),
            w,
        ),
    ]
    rows = []
    for name, ours, other, start in cases:
        loops = {
            label: jax.jit(lambda v, f=f: jax.lax.fori_loop(0, 50, lambda _, v: f(v), v))
            for label, f in (("ours", ours), ("other", other))
        }
        times = interleaved({label: lambda g=g, v=start: g(v) for label, g in loops.items()}, repeats=5)
        rows.append({"lever": name, **{label: 1e6 * t.median / 50 for label, t in times.items()}})
    return rows


def main() -> None:
    """Measure, print, and write docs/results/bench/levers.json and levers.md."""
    data = images("dense")
    record: dict[str, Any] = {"environment": report.provenance(data.checksums), "data": data.source, "steps": []}
    for homeostatic in (False, True):
        model = trained("dense", data, homeostatic=homeostatic, batches=600)
        for tol in (1e-4,):
            for variant in variants(tol):
                row = {"homeostasis": homeostatic, "tolerance": tol, **measure(variant, model, data)}
                print(row, flush=True)
                record["steps"].append(row)
    record["kernels"] = kernels()
    text = table(record)
    print(text)
    report.write(report.RESULTS, "levers", record, text)


def table(record: dict[str, Any]) -> str:
    """Both parts as Markdown."""
    lines = [
        "# What each lever gives",
        "",
        "| homeostasis | tolerance | lever | ms a step | free sweeps | nudged sweeps | unsettled | compile, s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in record["steps"]:
        lines.append(
            f"| {'yes' if row['homeostasis'] else 'no'} | {row['tolerance']:g} | {row['lever']} "
            f"| {row['milliseconds']:.1f} | {row['free_steps']:.1f} | {row['nudged_steps']:.1f} "
            f"| {100 * row['unsettled_fraction']:.1f} % | {row['compile']:.1f} |"
        )
    lines += ["", "| piece | ours, µs | replaced, µs |", "|---|---|---|"]
    lines += [f"| {row['lever']} | {row['ours']:.0f} | {row['other']:.0f} |" for row in record["kernels"]]
    note = (
        f"Dense 784-256-256-10, batch 50, N = 2, β = 0.5, {BATCHES} batches of {record['data']}, networks trained "
        f"with and without homeostasis; at most {STEPS} steps a phase. Steps are means over examples, nudged ones "
        "summed over two nodes. Made by `python -m experiments.bench.levers`."
    )
    return "\n".join([*lines, "", note])


if __name__ == "__main__":
    main()
