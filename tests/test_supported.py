"""docs/supported.md is what the library does: refusals at once, and gradients against dense solves in a slow test."""

import re

import equinox as eqx
import pytest

import eqprop
from helpers import estimate
from supported import COLUMNS, NETWORKS, PAGE, WRONG, cell, page, place, read, refusal, structure


@pytest.fixture(scope="module")
def committed() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_has_every_combination_and_todays_refusals(committed):
    """It is what is written of the words that it has, and of the refusals that there are."""
    words = read(committed)
    for row in NETWORKS:
        for column in COLUMNS:
            sentence = refusal(row, column)
            word = words[place(row, column)]
            assert word != WRONG and word.endswith(".") == (sentence is not None), (row, column)
            words[place(row, column)] = sentence or word
    assert page(words) == committed


@pytest.mark.parametrize("row", NETWORKS)
def test_what_is_refused_is_refused_before_anything_is_compiled(row):
    for column in COLUMNS:
        if sentence := refusal(row, column):
            with pytest.raises(ValueError, match=re.escape(sentence)):
                eqx.filter_eval_shape(estimate, column.make(), *structure(row))


@pytest.mark.parametrize("row", NETWORKS)
def test_every_combination_is_what_the_page_says(row, committed):
    """Run, and compared with dense solves."""
    cells = {place(row, column): cell(row, column) for column in COLUMNS}
    assert cells == {where: word for where, word in read(committed).items() if where[0] == row}


@pytest.mark.parametrize("make", [eqprop.EnergyNetwork, eqprop.VectorField])
def test_what_is_not_said_to_be_analytic_refuses_circles(make):
    network = make(lambda s, x: s, {"out": 1})
    for column in COLUMNS:
        if column.nudge == "cauchy" or column.estimator == "OscillatingNudge":
            with pytest.raises(ValueError, match="not holomorphic|has none"):
                column.make().check(network)
