"""Which estimator serves which network under which nudge: all of them are run, and docs/supported.md is written.

`PYTHONPATH=tests python -m supported`, at the root of the repository, writes the page.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import eqprop
from eqprop import ConvNetwork, Stencil, circuit, topology
from eqprop.run.tables import DASH, markdown
from helpers import (
    BATCH,
    ROOT,
    SETTLE,
    Oracle,
    Problem,
    chain,
    conv,
    estimate,
    hopfield,
    loop,
    oracle,
    product,
    relative_error,
    surrogate_gradient,
)

PAGE = ROOT / "docs" / "supported.md"

# Rows: networks of some ten neurons, each with a batch.


class Memory(eqx.Module):
    """The energy of a dense associative memory, `log Σ exp(patterns · s)`, with a current."""

    patterns: jax.Array
    into: jax.Array

    def __call__(self, s, x):
        whole = jnp.concatenate([s["hidden"], s["out"]])
        current = (x @ self.into).astype(whole.dtype)
        return jnp.log(jnp.sum(jnp.exp(product(whole, self.patterns)))) + jnp.sum(current * whole)


class Swirl(eqx.Module):
    """`f(u, x) = tanh(u) W + x V − u`, without symmetry."""

    weights: jax.Array
    into: jax.Array

    def __call__(self, u, x):
        whole = jnp.concatenate([u["hidden"], u["out"]])
        turned = product(eqprop.tanh(whole), self.weights) + (x @ self.into).astype(whole.dtype) - whole
        return {"hidden": turned[:4], "out": turned[4:]}


def sparse(key: jax.Array) -> eqprop.SparseNetwork:
    into = topology.inputs(6, range(8), 2, 0)
    return eqprop.SparseNetwork(6, 12, topology.random(12, 3, 0), into, outputs=3, gain=0.5, key=key)


def rectified(key: jax.Array) -> ConvNetwork:
    """Tied kernels, so that the true gradient can be had from real nudges."""
    settings: Any = dict(pooling="max", activation=eqprop.clipped_relu, tied=True, init_scale=0.5)
    network = ConvNetwork.chain((8, 8, 2), (3, 4), key=key, **settings)
    return eqx.tree_at(lambda n: n.biases, network, jax.tree.map(lambda b: b + 0.2, network.biases))


def resistors(key: jax.Array) -> circuit.ResistiveNetwork:
    """Its conductances are small enough for steps of one time constant, as the next one's are."""
    network = circuit.ResistiveNetwork((6, 5, 4, 3), volts=2.0, key=key)
    return eqx.tree_at(lambda n: n.kernels, network, jax.tree.map(lambda k: 0.3 * k, network.kernels))


def lattice(key: jax.Array) -> circuit.ResistorGraph:
    settings: Any = dict(rails={4: 0.5}, leak=0.1, diodes=circuit.Diodes())
    graph = circuit.ResistorGraph(9, topology.lattice((3, 3)), inputs=[0, 8], outputs=[2, 6], key=key, **settings)
    return eqx.tree_at(lambda n: n.conductances, graph, 0.2 * graph.conductances)


def memory(key: jax.Array) -> eqprop.EnergyNetwork:
    first, second = jax.random.split(key)
    energy = Memory(0.5 * jax.random.normal(first, (7, 12)), jax.random.normal(second, (6, 7)))
    return eqprop.EnergyNetwork(energy, {"hidden": 4, "out": 3}, activation=eqprop.tanh, holomorphic=True)


def swirl(key: jax.Array) -> eqprop.VectorField:
    first, second = jax.random.split(key)
    field = Swirl(0.3 * jax.random.normal(first, (7, 7)), jax.random.normal(second, (6, 7)))
    return eqprop.VectorField(field, {"hidden": 4, "out": 3}, holomorphic=True)


NETWORKS: dict[str, Callable[[jax.Array], eqprop.AbstractNetwork]] = {
    "DenseNetwork.chain, symmetric": lambda key: chain(0.0, key=key),
    "DenseNetwork.chain, symmetric, weak feedback": lambda key: chain(0.0, feedback_gain=0.3, key=key),
    "DenseNetwork.chain, independent": lambda key: chain(90.0, key=key),
    "DenseNetwork, with loops": lambda key: loop(key=key),
    "HopfieldNetwork": lambda key: hopfield(key=key),
    "ConvNetwork.chain, tied": lambda key: ConvNetwork.chain((8, 8, 2), (3, 4), tied=True, key=key),
    "ConvNetwork.chain, independent": lambda key: conv(90.0, key=key),
    "ConvNetwork.chain, tied, max pooling, clipped_relu": rectified,
    "ConvNetwork.residual, independent": lambda key: ConvNetwork.residual((4, 4, 2), 2, ((2, 1), (3, 1)), key=key),
    "SparseNetwork": sparse,
    "circuit.ResistiveNetwork, passive": resistors,
    "circuit.ResistorGraph": lattice,
    "EnergyNetwork, said to be analytic": memory,
    "VectorField, said to be analytic": swirl,
}


def made(name: str) -> Problem:
    """The network of a row, under a squared error of its layer `out`."""
    keys = jax.random.split(jax.random.key(0), 3)
    network = NETWORKS[name](keys[0])
    shape = network.image_shape if isinstance(network, ConvNetwork) else (6,)
    shape = (len(network.inputs),) if isinstance(network, circuit.ResistorGraph) else shape
    x = jax.random.uniform(keys[1], (BATCH, *shape), minval=-1.0)
    outputs = network.at(x[0]).initial_state()["out"].size
    return Problem(eqprop.Model(network, eqprop.SquaredError()), x, jax.random.normal(keys[2], (BATCH, outputs)))


problem = functools.cache(made)


@functools.cache
def structure(name: str) -> Problem:
    """A problem without its numbers, which is found without computing any."""
    return eqx.filter_eval_shape(made, name)


# Columns: estimators, and the nudges of those that take a stencil.


STRENGTH = 0.001
"""Of every nudge: no neuron crosses a kink of the network that has some, and biases are far below an asymmetry."""

NUDGES: dict[str, tuple[Callable[[], Stencil], float]] = {
    "one_sided": (lambda: eqprop.one_sided(STRENGTH), 1e-2),
    "centred": (lambda: eqprop.centred(STRENGTH), 1e-4),
    "chebyshev": (lambda: eqprop.chebyshev(STRENGTH, 4), 1e-7),
    "cauchy": (lambda: eqprop.cauchy(STRENGTH, 6), 1e-7),
}
"""With the tolerance of each: some times the bias, which is of its order in the strength, or the rounding over it."""

STENCILS = (eqprop.FiniteNudge, eqprop.AsymmetricNudge, eqprop.CalibratedAsymmetric, eqprop.ContrastiveHebbian)

TIMES: dict[str, Any] = dict(beta=STRENGTH, period=1000.0, warmup=1, steps_per_period=2000, solver=diffrax.Heun())

OTHERS: dict[str, tuple[Callable[[], eqprop.AbstractEstimator], float]] = {
    "TangentResponse": (lambda: eqprop.TangentResponse(relaxation=SETTLE), 1e-9),
    "RecurrentBackprop": (lambda: eqprop.RecurrentBackprop(relaxation=SETTLE), 1e-9),
    "DyadicNudge": (lambda: eqprop.DyadicNudge(relaxation=SETTLE), 1e-9),
    "BackpropThroughTime": (lambda: eqprop.BackpropThroughTime(relaxation=eqprop.FixedSteps(1000)), 1e-9),
    "OscillatingNudge": (lambda: eqprop.OscillatingNudge(**TIMES), 1e-2),
    "LockIn": (lambda: eqprop.LockIn(**TIMES), 1e-2),
}
"""With the tolerance of each: rounding, or the lag of an oscillation."""


class Column(NamedTuple):
    estimator: str
    nudge: str
    """Empty for an estimator that takes no stencil."""
    make: Callable[[], eqprop.AbstractEstimator]
    tolerance: float


def _nudged(kind: Callable[..., eqprop.AbstractEstimator], stencil: Callable[[], Stencil]) -> eqprop.AbstractEstimator:
    return kind(stencil=stencil(), relaxation=SETTLE)


COLUMNS = [
    *(
        Column(kind.__name__, name, functools.partial(_nudged, kind, stencil), tolerance)
        for kind in STENCILS
        for name, (stencil, tolerance) in NUDGES.items()
    ),
    *(Column(name, "", make, tolerance) for name, (make, tolerance) in OTHERS.items()),
]

# Cells.

Key = tuple[str, str, str]
"""A network, an estimator and a nudge."""

TRUE, TANGENT, WRONG = "true", "tangent", "wrong"


def place(row: str, column: Column) -> Key:
    return row, column.estimator, column.nudge


def refusal(row: str, column: Column) -> str | None:
    """The first sentence of the error with which an estimator refuses a network; `None` if it does not."""
    try:
        column.make().check(structure(row).model.network)
    except ValueError as error:
        return str(error).partition(". ")[0] + "."
    return None


@functools.cache
def exact(row: str) -> Oracle:
    return oracle(*problem(row))


def measured(row: str, column: Column) -> str:
    """What the gradient of the network is, over all examples: that of `M⁻ᵀ g`, that of `M⁻¹ g`, or neither.

    **Raises:** `RuntimeError` if an example did not settle.
    """
    p, dense = problem(row), exact(row)
    response, gradient = estimate(column.make(), *p)
    if not np.all(np.asarray(response.result == eqprop.RESULTS.successful)):
        raise RuntimeError(f"{column.estimator} did not settle on {row}.")
    for word, delta in ((TRUE, dense.rbp), (TANGENT, dense.tangent)):
        error = relative_error(gradient.network, surrogate_gradient(*p, dense.u, delta).network)
        print(f"{row} | {column.estimator} | {column.nudge or DASH} | {error:.1e} from {word}")
        if error < column.tolerance:
            return word
    return WRONG


def cell(row: str, column: Column) -> str:
    """A refusal, or what was measured."""
    return refusal(row, column) or measured(row, column)


# The page.

HEAD = """# What works with what

Every estimator is run on every network, under every nudge that it takes. Each gradient is compared with dense linear
algebra, and a test compares the outcome with this page.

| word | meaning |
| --- | --- |
| true | The gradient is the true one, that of `M⁻ᵀ g` ([conventions](theory.md), 3). |
| tangent | The gradient is that of the tangent response `M⁻¹ g`. It is not the true one, as `A` is not symmetric. |
| no | The combination is refused. The number is that of the error, at the end of the page. |

The networks have from 6 to 120 neurons. They relax in double precision until rounding. An error is that of the
gradient of all parameters of the network over a batch, relative in the 2-norm. All nudges have the strength {strength}.
`chebyshev` has 4 points, and `cauchy` has 6.

{tolerances}
`one_sided` and `centred` are biased by the curvature of the response, and `OscillatingNudge` and `LockIn` lag. The
others are limited by rounding.

Maximum pooling and `clipped_relu` have kinks. A nudge that moves a neuron across a kink gives neither gradient, so that
nudges have to be weak there. The circuits have small conductances, because `BackpropThroughTime` goes in steps of one
time constant, and its gradient explodes at larger ones. `Newton` settles those. An `EnergyNetwork` or a `VectorField`
that is not said to be analytic refuses `cauchy` and `OscillatingNudge`.
"""

FOOT = """
`PYTHONPATH=tests python -m supported`, at the root of the repository, writes this page.
"""


def page(cells: Mapping[Key, str]) -> str:
    """The page of all cells; a refusal is its sentence, and ends with a full stop."""
    refusals = list(dict.fromkeys(cells[place(row, c)] for c in COLUMNS for row in NETWORKS))
    refusals = [text for text in refusals if text.endswith(".")]

    def shown(text: str) -> str:
        return f"no ({refusals.index(text) + 1})" if text in refusals else text

    def table(columns: Iterable[tuple[str, str]]) -> str:
        keys = list(columns)
        rows = [[row, *(shown(cells[row, *column]) for column in keys)] for row in NETWORKS]
        return markdown(["network", *(nudge or estimator for estimator, nudge in keys)], rows)

    tolerances = [(f"`{name}`", f"{tolerance:g}") for name, (_, tolerance) in [*NUDGES.items(), *OTHERS.items()]]
    sections = [
        HEAD.format(
            strength=STRENGTH, tolerances=markdown(["nudge, or estimator without one", "tolerance"], tolerances)
        ),
        *(f"\n## {kind.__name__}\n\n" + table((kind.__name__, nudge) for nudge in NUDGES) for kind in STENCILS),
        "\n## Estimators without a stencil\n\n" + table((name, "") for name in OTHERS),
        "\n## Refusals\n\n" + "".join(f"{n}. {text}\n" for n, text in enumerate(refusals, 1)),
        FOOT,
    ]
    return "".join(sections)


def read(text: str) -> dict[Key, str]:
    """The cells of a page: the inverse of `page`."""
    refusals = dict(re.findall(r"^(\d+)\. (.+)$", text, re.MULTILINE))
    cells = {}
    for section in text.split("\n## ")[1:-1]:
        title, *lines = section.splitlines()
        head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|"))
        for row, *words in rows:
            for column, word in zip(head[1:], words, strict=True):
                where = (title, column) if column in NUDGES else (column, "")
                number = word.removeprefix("no (").removesuffix(")")
                cells[row, *where] = refusals.get(number, word)
    return cells


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)  # compilation takes most of the time
    PAGE.write_text(page({place(row, c): cell(row, c) for row in NETWORKS for c in COLUMNS}), encoding="utf-8")


if __name__ == "__main__":
    main()
