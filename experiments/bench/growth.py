"""How a step's time grows with batch, width, depth, points of the stencil and population."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import eqprop as eq
from experiments.bench.compare import over_floor
from experiments.bench.floor import floor_of
from experiments.bench.problems import Images, trained
from experiments.bench.settings import SETTINGS, our_trainer
from experiments.bench.timing import compile_timed, interleaved

Row = dict[str, Any]
BATCHES, WIDTHS, DEPTHS, POINTS, MEMBERS = (10, 50, 200), (128, 256, 512), (1, 2, 3), (1, 2, 4, 6, 8), (1, 2, 4)


def grow(model: eq.Model, data: Images, *, batches: int) -> list[Row]:
    """All rows, from the dense network trained with homeostasis; others of their own size are trained alike."""
    size = SETTINGS["dense"].batch
    batch = data.batch(size, 1000)
    rows = [_row("batch", n, model, data.batch(n, 20)) for n in BATCHES]
    for axis, values, widths in (
        ("width", WIDTHS, lambda n: (784, n, n, 10)),
        ("depth", DEPTHS, lambda n: (784, *[256] * n, 10)),
    ):
        for value in values:
            other = trained("dense", data, homeostatic=True, batches=batches, sizes=widths(value))
            rows.append(_row(axis, value, other, batch))
    rows += [_row("N", n, model, batch, estimator=f"N={n}") for n in POINTS]
    return rows + [_row("population", n, model, batch, members=n) for n in MEMBERS]


def _row(axis: str, value: int, model: eq.Model, batch: tuple, *, estimator: str = "N=2", members: int = 1) -> Row:
    trainer = our_trainer("dense", estimator, optax.adam(1e-3), homeostatic=True)
    state, step = trainer.init(model, key=jax.random.key(0)), trainer.step
    if axis == "population":
        state = jax.tree.map(lambda leaf: jnp.stack([leaf] * members), state)
        step = eqx.filter_vmap(trainer.step, in_axes=(eqx.if_array(0), None))
    program = compile_timed(step, state, batch)
    timing = interleaved({"ours": lambda: program.call(state, batch)}, repeats=10, budget=3.0)["ours"]
    metrics = {name: float(jnp.mean(value)) for name, value in program.call(state, batch)[1].items()}
    floor = floor_of(model.network, int(batch[0].shape[0]))
    return {
        "axis": axis,
        "value": value,
        "time": {"ours": timing._replace(compile=program.seconds)._asdict()},
        **over_floor(floor, trainer, metrics, timing.median / members),
    }
