"""Small made tasks: regressions, XOR, and tasks of voltages for resistive graphs; and classes that come in turns."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from eqprop.data.dataset import Dataset, Split


def linear_regression(
    inputs: int = 10,
    outputs: int = 2,
    *,
    examples: int = 1000,
    noise: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Targets that are a linear map of inputs, `y = ½ + (x W) / 4√inputs + noise/4 · ε`, with `x`, `W`, `ε` normal.

    Almost all targets lie between 0 and 1, the range of the rates of most activations. No estimate reaches an R² above
    `1/(1 + noise²)` on average.

    **Arguments:** `examples`: training and test examples together. `noise`: its standard deviation over that of the
    signal. `seed`: of all that is drawn.
    """
    generator = np.random.default_rng(seed)
    x, weights = generator.normal(size=(examples, inputs)), generator.normal(size=(inputs, outputs))
    y = 0.5 + 0.25 * (x @ weights / np.sqrt(inputs) + noise * generator.normal(size=(examples, outputs)))
    return _regression("linear_regression", x, y, test_fraction)


def friedman(*, examples: int = 2000, noise: float = 1.0, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """The first benchmark of Friedman (1991): ten inputs evenly drawn from [0, 1], of which five
    matter,

        y = 10 sin(π x₁ x₂) + 20 (x₃ − ½)² + 10 x₄ + 5 x₅ + noise · ε,

    brought to a mean of about ½ and a deviation of about ¼ as `(y − 14.4)/20 + ½`. Inputs are given as `√12 (x − ½)`,
    with mean 0 and deviation 1.
    """
    generator = np.random.default_rng(seed)
    x = generator.random((examples, 10))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y = (y + noise * generator.normal(size=examples) - 14.4) / 20 + 0.5
    return _regression("friedman", np.sqrt(12) * (x - 0.5), y[:, None], test_fraction)


def xor(*, low: float = 0.0, high: float = 1.0, repeats: int = 1) -> Dataset:
    """The four examples of XOR as a regression: inputs and target are `low` or `high`. The test examples are the same
    four, each given `repeats` times in training."""
    bits = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    x, y = (np.where(values, high, low).astype(np.float32) for values in (bits, bits[:, :1] ^ bits[:, 1:]))
    train = Split(np.tile(x, (repeats, 1))[:, None], np.tile(y, (repeats, 1)), "xor")
    return Dataset("xor", train, Split(x[:, None], y, "xor"), num_classes=None, maximum=1)


def allostery(
    sources: Sequence[Sequence[float]] = ((1.0, 0.0),),
    targets: Sequence[Sequence[float]] = ((0.2, 0.8),),
    *,
    repeats: int = 1,
) -> Dataset:
    """What a network is to do at a distance: where the source nodes are held at some voltages, the target nodes shall
    take others. A few examples, which are training and test alike.

    Rocks et al. (2017).

    **Arguments:** `sources`, `targets`: voltages of every example. `repeats`: how often each is given in training.
    """
    x, y = np.asarray(sources, np.float32), np.asarray(targets, np.float32)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"sources is {x.shape} and targets {y.shape}; expected a row of voltages of each an example.")
    train = Split(np.tile(x, (repeats, 1))[:, None], np.tile(y, (repeats, 1)), "allostery")
    return Dataset("allostery", train, Split(x[:, None], y, "allostery"), num_classes=None, maximum=1)


def in_turns(dataset: Dataset, tasks: Sequence[Sequence[int]]) -> list[Dataset]:
    """A data set split into tasks that come one after the other: the examples of some classes each, with their labels
    as they are.

    **Arguments:** `tasks`: the classes of every task, such as `[[0, 1], [2, 3]]`.

    **Raises:** `ValueError` for classes that do not exist or that come twice.
    """
    given = [label for task in tasks for label in task]
    known = range(dataset.num_classes or 0)
    if len({*given}) < len(given) or not {*given} <= {*known} or not all(tasks):
        raise ValueError(
            f"{dataset.name}: tasks are {[list(task) for task in tasks]}; expected different classes from 0 to "
            f"{len(known) - 1}, at least one a task."
        )

    def part(split: Split, task: Sequence[int]) -> Split:
        return split.take(np.flatnonzero(np.isin(split.labels, task)))

    def of(task: Sequence[int]) -> Dataset:
        held = None if dataset.validation is None else part(dataset.validation, task)
        train, test = part(dataset.train, task), part(dataset.test, task)
        return dataclasses.replace(dataset, train=train, test=test, validation=held)

    return [of(task) for task in tasks]


def _regression(name: str, x: np.ndarray, y: np.ndarray, test_fraction: float) -> Dataset:
    count = round(len(x) * test_fraction)
    if not 0 < count < len(x):
        raise ValueError(f"test_fraction={test_fraction} makes {count} of {len(x)} examples; give another part.")
    whole = Split(x.astype(np.float32)[:, None], y.astype(np.float32), name)
    return Dataset(name, whole[count:], whole[:count], num_classes=None, maximum=1)
