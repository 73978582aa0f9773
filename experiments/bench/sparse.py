"""A training step of a large sparse network: seconds, and the memory of its process at the peak."""

import resource
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import eqprop as eq
from eqprop import topology
from experiments.bench.timing import spread

INPUTS, OUTPUTS, BATCH = 784, 1000, 8
NEURONS = 100_000
"""Each with ten edges from others, on a small world whose edges lead both ways, and eight from the input."""


def measure(*, quick: bool) -> dict[str, Any]:
    """Of a step with centred nudges, on one batch, again and again from the same state."""
    count = NEURONS // 100 if quick else NEURONS
    graph = topology.both_ways(topology.small_world(count, neighbours=5, rewired=0.1, seed=0))
    into = topology.inputs(INPUTS, count, degree=8, seed=0)
    network_key, readout_key, x_key, state_key = jax.random.split(jax.random.key(0), 4)
    outputs = OUTPUTS // 100 if quick else OUTPUTS
    network = eq.SparseNetwork(INPUTS, count, graph, into, outputs=outputs, gain=0.5, key=network_key)
    model = eq.Model(network, eq.SoftmaxReadout(outputs, 10, key=readout_key))
    nudged = eq.Sweep(tol=1.0, rtol=1e-2, max_steps=200)
    trainer = eq.Trainer(
        eq.Sweep(tol=1e-4, max_steps=200), eq.FiniteNudge(stencil=eq.centred(0.4), relaxation=nudged), optax.adam(1e-3)
    )
    batch = jax.random.normal(x_key, (BATCH, INPUTS)), jnp.arange(BATCH) % 10
    state, step = trainer.init(model, key=state_key), eqx.filter_jit(trainer.step)
    seconds, metrics = [], {}
    for _ in range(4 if quick else 12):
        start = time.perf_counter()
        _, metrics = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - start)
    return {
        "neurons": count,
        "recurrent_edges": len(graph),
        "input_edges": len(into),
        "batch": BATCH,
        "first_seconds": seconds[0],
        "seconds": spread(seconds[1:]),
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "steps": {name: float(metrics[name]) for name in ("free_steps", "nudged_steps", "unsettled_fraction")},
    }
