"""Training steps on a GPU: python -m experiments.bench.gpu [--estimate]."""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

import eqprop as eq
from eqprop.run.checkpoint import write_atomically
from experiments.bench import floor, report
from experiments.bench.estimate import CHANNELS, SETS, conv_model, estimate
from experiments.bench.flops import Product
from experiments.bench.timing import compile_timed

DENSE_SIZES = (784, 256, 256, 10)


def main() -> None:
    """Measure, print and write; refuse without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench.gpu", description=__doc__)
    parser.add_argument("--estimate", action="store_true", help="no measurement: counted FLOPs over published ceilings")
    parser.add_argument("--free-sweeps", type=float, default=50, help="assumed by --estimate")
    parser.add_argument("--nudged-sweeps", type=float, default=30, help="assumed by --estimate, for each node")
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--width", type=float, default=1.0, help="factor of the channels and hidden layers")
    parser.add_argument("--batch", type=int, default=256, help="images of a convolutional step")
    parser.add_argument("--steps", type=int, default=20, help="timed steps, from which an epoch is extrapolated")
    parser.add_argument("--precision", choices=("float32", "tensorfloat32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    if options.estimate:
        print(estimate(options.free_sweeps, options.nudged_sweeps))
        return
    if options.device == "gpu" and jax.default_backend() != "gpu":
        parser.exit(1, "error: JAX sees no GPU here; take --estimate, or --device cpu for a smoke test.\n")
    with jax.default_matmul_precision(options.precision):
        record = measure(options.width, options.batch, options.steps, size=4096 if options.device == "gpu" else 512)
    record["matmul_precision"] = options.precision
    text = table(record)
    print(text)
    name = "bench_gpu" if options.device == "gpu" else "bench_gpu_smoke"
    options.out.mkdir(parents=True, exist_ok=True)
    for ending, content in (("json", json.dumps(record, indent=2) + "\n"), ("md", text)):
        write_atomically(options.out / f"{name}.{ending}", lambda file, c=content: file.write(c.encode()))


def measure(width: float, batch: int, steps: int, *, size: int) -> dict[str, Any]:
    """All rows; `size` of the square matrices that measure the ceiling."""
    square = Product("matmul", (size, size), (size, size))
    ceiling = square.flops / floor.seconds_of([square])[square]
    channels = tuple(int(width * c) for c in CHANNELS)
    sizes = (DENSE_SIZES[0], *(int(width * s) for s in DENSE_SIZES[1:-1]), DENSE_SIZES[-1])
    dense = [_dense_model(sizes, seed) for seed in range(5)]
    rows = [_row("Fashion-MNIST shaped, dense, 5 seeds", "dense", dense, 60_000, 50, steps, ceiling)]
    for name, (count, classes) in SETS.items():
        title = f"{name} shaped, channels {channels}"
        rows.append(_row(title, "conv", [conv_model(channels, classes)], count, batch, steps, ceiling))
    return {"environment": report.provenance({}), "ceiling_flops": ceiling, "timed_steps": steps, "rows": rows}


def _dense_model(sizes: tuple[int, ...], seed: int) -> eq.Model:
    network_key, readout_key = jax.random.split(jax.random.key(seed))
    network = eq.DenseNetwork.chain(sizes, key=network_key)
    return eq.Model(network, eq.SoftmaxReadout(sizes[-1], 10, key=readout_key))


def _trainer(kind: str) -> eq.Trainer:
    """N = 2 with homeostasis, relaxed as tightly as the published networks need."""
    tight, tighter, beta = (1e-3, 1e-4, 0.5) if kind == "dense" else (1e-5, 1e-5, 1.0)
    nudge = eq.FiniteNudge(stencil=eq.centred(beta), relaxation=eq.Sweep(tol=tighter, max_steps=200), norm_bound=1.0)
    homeostasis = eq.ExactHomeostasis(10.0) if kind == "dense" else eq.SkewHomeostasis(15.0)
    return eq.Trainer(eq.Sweep(tol=tight, max_steps=300), nudge, optax.adam(1e-3), homeostasis)


def _row(
    name: str, kind: str, models: list[eq.Model], images: int, batch: int, steps: int, ceiling: float
) -> dict[str, Any]:
    """One population's training on random pixels, N = 2 with homeostasis."""
    trainer = _trainer(kind)
    states = [trainer.init(model, key=jax.random.key(seed)) for seed, model in enumerate(models)]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    step = eqx.filter_vmap(trainer.step, in_axes=(eqx.if_array(0), None))
    rng, shape = np.random.default_rng(0), (28, 28) if kind == "dense" else (32, 32, 3)
    classes = models[0].readout.bias.size  # pyright: ignore[reportAttributeAccessIssue]
    x = jnp.asarray(rng.normal(size=(batch, *shape)), jnp.float32)
    data = x, jnp.asarray(rng.integers(0, classes, batch), jnp.int32)
    program = compile_timed(step, state, data)
    state, metrics = jax.block_until_ready(program.call(state, data))
    seconds, work = [], 0.0
    counted = floor.count_of(models[0].network, batch)
    for _ in range(steps):
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(program.call(state, data))
        seconds.append(time.perf_counter() - start)
        means = {key: float(jnp.mean(value)) for key, value in metrics.items()}
        evaluations = floor.evaluations(means, trainer.estimator)
        work += len(models) * (evaluations * counted.drift + counted.embed + counted.gradient)
    memory = jax.devices()[0].memory_stats() or {}
    return {
        "name": name,
        "batch": batch,
        "step_seconds": median(seconds),
        "compile_seconds": program.seconds,
        "epoch_seconds": sum(seconds) / steps * images / batch,
        "images_per_second": len(models) * batch * steps / sum(seconds),
        "flops_per_second": work / sum(seconds),
        "share_of_ceiling": work / sum(seconds) / ceiling,
        "peak_bytes_so_far": memory.get("peak_bytes_in_use"),
        "metrics": {key: float(jnp.mean(value)) for key, value in metrics.items()},
    }


def table(record: dict[str, Any]) -> str:
    """The record as Markdown."""
    lines = [
        "| training | batch | s a step | s an epoch | images/s | TFLOP/s | of the matrix ceiling | peak GiB so far "
        "| unsettled | compile, s |",
        "|" + "---|" * 10,
    ]
    for row in record["rows"]:
        peak = row["peak_bytes_so_far"]
        cells = [row["name"], row["batch"], f"{row['step_seconds']:.4f}", f"{row['epoch_seconds']:.1f}"]
        cells += [f"{row['images_per_second']:.0f}", f"{row['flops_per_second'] / 1e12:.3f}"]
        cells += [f"{100 * row['share_of_ceiling']:.0f} %", f"{peak / 2**30:.2f}" if peak else "unknown"]
        cells += [f"{100 * row['metrics']['unsettled_fraction']:.0f} %", f"{row['compile_seconds']:.1f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    where = record["environment"]
    note = (
        f"Epochs extrapolated from {record['timed_steps']} timed steps on random pixels at the start of training; "
        f"ceiling {record['ceiling_flops'] / 1e12:.2f} TFLOP/s, measured with matrix products in "
        f"{record['matmul_precision']}. {where['devices'][0]}, JAX {where['versions']['jax']}, commit "
        f"{where['commit']}. FLOPs are those of the products our steps needed, without homeostasis."
    )
    return "\n".join([*lines, "", note]) + "\n"


if __name__ == "__main__":
    main()
