"""The networks that are shipped: small, with cards, and as good as their cards say."""

import hydra
import jax
import jax.numpy as jnp
import optax
import pytest

import eqprop as eq
from eqprop.data import digits
from eqprop.save import ZOO
from experiments.zoo import ENTRIES, page
from helpers import ROOT, unchecked

CARDS = {name: eq.read_header(ZOO / f"{name}.npz") for name in ENTRIES}


def test_all_of_them_are_there_and_small():
    assert {path.stem for path in ZOO.glob("*.npz")} == set(ENTRIES)
    assert sum(path.stat().st_size for path in ZOO.glob("*.npz")) < 2e6


def test_the_page_is_made_from_the_cards():
    assert (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("name", ENTRIES)
def test_a_card_says_how_it_was_trained(name):
    card = CARDS[name]
    assert card["about"] == ENTRIES[name][0] and card["command"] == " ".join(["eqprop", "train", *ENTRIES[name][1]])
    assert card["environment"]["commit"] and "+" not in card["environment"]["commit"]
    assert 0.8 < card["results"]["test_accuracy"] < 1 and card["results"]["test_unsettled_fraction"] < 0.05


@pytest.mark.parametrize("name", [name for name in ENTRIES if name.startswith("digits")])
def test_a_network_reaches_what_its_card_says(name):
    """On the images of the test, in single precision as it was trained."""
    card, test = CARDS[name], digits().test
    with unchecked():
        jax.config.update("jax_enable_x64", False)
        try:
            model = eq.load(f"zoo:{name}")
            preprocess = hydra.utils.instantiate(card["config"]["data"]["preprocess"], _convert_="all")
            relaxation = hydra.utils.instantiate(card["config"]["relaxation"], _convert_="all")
            trainer = eq.Trainer(relaxation, eq.RecurrentBackprop(relaxation=relaxation), optax.sgd(0.1))
            found = trainer.evaluate(model, (preprocess(test.images), jnp.asarray(test.labels)))
        finally:
            jax.config.update("jax_enable_x64", True)
    assert abs(found["accuracy"] - card["results"]["test_accuracy"]) < 1.5 / len(test)


def test_a_name_that_is_not_there():
    with pytest.raises(ValueError, match="The zoo has no 'cats'; it has digits, digits_resistive, fashion"):
        eq.load("zoo:cats")
