"""Which network, estimator and nudge runs on which device: the tables of docs/supported_devices.md.

PYTHONPATH=tests python -m supported_devices    # writes the page
"""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import optax

import eqprop
from eqprop.run.build import instantiate
from eqprop.run.compose import compose, groups
from eqprop.run.tables import markdown
from helpers import ROOT, SETTLE
from supported import COLUMNS, NETWORKS, Column, structure

PAGE = ROOT / "docs" / "supported_devices.md"

PRESETS = sorted({*groups(None)["substrate"]} - {"none"})

CENTRED = next(column for column in COLUMNS if (column.estimator, column.nudge) == ("FiniteNudge", "centred"))
DENSE = "DenseNetwork.chain, independent"


class Cell(NamedTuple):
    network: str
    column: Column
    preset: str


CELLS = [
    *(Cell(row, CENTRED, preset) for row in NETWORKS for preset in PRESETS),
    *(Cell(DENSE, column, preset) for column in COLUMNS for preset in PRESETS),
]


@functools.cache
def device(preset: str) -> eqprop.Substrate:
    return instantiate(compose([f"substrate={preset}"], "train").substrate)


@functools.cache
def refusal(cell: Cell) -> str:
    """The first sentence of the error with which a training step is refused, before any number is computed; empty
    where there is none."""

    def one_step(model: eqprop.Model, x: jax.Array, y: jax.Array):
        trainer = eqprop.Trainer(SETTLE, cell.column.make(), optax.sgd(0.1)).on(device(cell.preset))
        return trainer.step(trainer.init(model, key=jax.random.key(0)), (x, y))

    try:
        eqx.filter_eval_shape(one_step, *structure(cell.network))
    except ValueError as error:
        return str(error).partition(". ")[0].rstrip(".") + "."
    return ""


HEAD = """# What runs on which device

A training step of every network, and one of every estimator and nudge, is built on every preset of a device. A test
builds them again and compares with this page. `no` is a combination that is refused, before anything runs; its number
is that of the error, at the end of the page.

The class of a preset is what it does to `A = Aᵀ` ([which class is the defect in](substrate.md)). What each preset does
to accuracy is [measured](results/README.md) by `eqprop study presets`.

{classes}"""

FOOT = """
`PYTHONPATH=tests python -m supported_devices`, at the root of the repository, writes this page.
"""


def page(refusals: Mapping[Cell, str]) -> str:
    sentences = list(dict.fromkeys(text for cell in CELLS if (text := refusals[cell])))

    def shown(cell: Cell) -> str:
        text = refusals[cell]
        return f"no ({sentences.index(text) + 1})" if text else "yes"

    def table(head: str, rows: Iterable[tuple[str, list[Cell]]]) -> str:
        return markdown([head, *PRESETS], [[title, *map(shown, cells)] for title, cells in rows])

    networks = [(row, [Cell(row, CENTRED, preset) for preset in PRESETS]) for row in NETWORKS]
    columns = [
        (f"{c.estimator}, {c.nudge}" if c.nudge else c.estimator, [Cell(DENSE, c, p) for p in PRESETS]) for c in COLUMNS
    ]
    classes = markdown(["preset", "class"], [[f"`{preset}`", device(preset).reciprocity] for preset in PRESETS])
    return "".join(
        [
            HEAD.format(classes=classes),
            "\n## Networks, with centred nudges\n\n" + table("network", networks),
            "\n## Estimators and nudges, with a dense network\n\n" + table("estimator", columns),
            "\n## Refusals\n\n" + "".join(f"{n}. {text}\n" for n, text in enumerate(sentences, 1)),
            FOOT,
        ]
    )


def read(text: str, preset: str) -> dict[Cell, str]:
    """The cells of a preset on a page, as `refusal` gives them."""
    sentences = dict(re.findall(r"^(\d+)\. (.+)$", text, re.MULTILINE))
    words = {}
    for line in text.splitlines():
        if line.startswith("| "):
            title, *row = (cell.strip() for cell in line.split("|")[1:-1])
            if len(row) == len(PRESETS):
                words[title] = row[PRESETS.index(preset)]
    cells = {}
    for cell in (cell for cell in CELLS if cell.preset == preset):
        c = cell.column
        estimator = f"{c.estimator}, {c.nudge}" if c.nudge else c.estimator
        word = words[cell.network if c is CENTRED and cell.network != DENSE else estimator]
        cells[cell] = sentences.get(word.removeprefix("no (").removesuffix(")"), "")
    return cells


def main() -> None:
    PAGE.write_text(page({cell: refusal(cell) for cell in CELLS}), encoding="utf-8")


if __name__ == "__main__":
    main()
