"""Readings that shift conductances: one after the other against the closed form, classes, gains."""

# Attributes of the network that a model happens to have, and settings by name:
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqprop import Substrate
from eqprop.substrate import MirrorGain, ReadDisturb
from eqprop.substrate.base import lognormal
from helpers import gap, oracle, problem

KEY = jax.random.key(8)


def one_by_one(w, rates, reads, towards, limit, low, high):
    """Two conductances a weight, in siemens, moved at each of the readings."""
    G = [low + (high - low) * np.maximum(side * np.asarray(w) / limit, 0) for side in (1, -1)]
    bound = low + towards * (high - low)
    for _ in range(reads):
        G = [g + rate * (bound - g) for g, rate in zip(G, rates, strict=True)]
    return limit * (G[0] - G[1]) / (high - low)


@pytest.mark.parametrize("towards", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_readings_one_after_the_other(towards, spread):
    """`G ← G + r (G_to − G)`, 120 times, for both devices of each pair."""
    w = jnp.linspace(-2.0, 2.0, 301)
    part = ReadDisturb(0.004, examples=40, phases=3, towards=towards, spread=spread, limit=2.0)
    rates = [0.004 * np.asarray(lognormal(key, w, spread)) for key in jax.random.split(KEY)]
    expected = one_by_one(w, rates, 120, towards, 2.0, 3e-6, 5e-5)
    assert gap(part.read(w, KEY), expected) < 1e-13
    if spread == 0:
        assert gap(part.read(w, KEY), np.asarray(w) * (1 - 0.004) ** 120) < 1e-13


def test_readings_add_up():
    """`n` readings and then `m` are `n + m`, none is none, and a rate of 1 leaves nothing but the bound."""
    w = jnp.linspace(-1.0, 1.0, 51)
    once, twice = ReadDisturb(1e-3, examples=300, spread=0.0), ReadDisturb(1e-3, examples=600, spread=0.0)
    assert gap(once.read(once.read(w, KEY), KEY), twice.read(w, KEY)) < 1e-15
    assert gap(ReadDisturb(0.3, examples=0).read(w, KEY), w) < 1e-15
    assert gap(ReadDisturb(1.0, examples=1, spread=0.0).read(w, KEY), jnp.zeros_like(w)) < 1e-15


def test_small_rates_in_single_precision():
    """`(1 − 10⁻⁸)ⁿ` is not 1: a million readings of 32 bits against those of 64."""
    w = jnp.linspace(-1.0, 1.0, 51)
    part = ReadDisturb(1e-8, examples=1e6, phases=10.0, spread=0.0)
    expected = np.asarray(w) * math.exp(1e7 * math.log1p(-1e-8))
    assert gap(part.read(w.astype(jnp.float32), KEY), expected) < 1e-6 and gap(w, expected) > 0.09


def test_offsets_of_pairs_that_were_at_zero():
    """The offset `limit · towards · ((1 − r⁻)ⁿ − (1 − r⁺)ⁿ)` has the standard deviation `√2 n rate spread` to first
    order, and mean 0, within four standard errors."""
    n, w = 50_000, jnp.zeros(50_000)
    found = np.asarray(ReadDisturb(1e-6, examples=100, spread=0.1).read(w, KEY))
    cut = 0.98631  # the standard deviation of a normal number that is cut off at 2.5
    expected = math.sqrt(2) * 1e-4 * 0.1 * cut
    assert abs(found.std() / expected - 1) < 4 / math.sqrt(2 * n) + 0.01
    assert abs(found.mean()) < 4 * expected / math.sqrt(n)
    assert gap(ReadDisturb(1e-6, examples=100, spread=0.1, towards=0.0).read(w, KEY), w) == 0


STRONG = {"rate": 1e-3, "examples": 300, "limit": 2.0}


@pytest.mark.parametrize("name", ["symmetric", "conv_symmetric", "hopfield"])
def test_one_device_for_both_directions_keeps_reciprocity(name):
    part = ReadDisturb(**STRONG)
    assert part.reciprocity == "keeps"
    p = problem(name)
    model = eqx.filter_jit(Substrate(chip=3, part=part).deploy)(p.model)
    before, after = (np.asarray(oracle(m, p.x, p.y).A) for m in (p.model, model))
    assert gap(after, np.swapaxes(after, 1, 2)) < 1e-14 and gap(before, after) > 1e-2


def test_directions_that_age_apart_break_it():
    part = ReadDisturb(**STRONG, shared=False)
    assert part.reciprocity == "breaks"
    model = eqx.filter_jit(Substrate(chip=3, part=part).deploy)(problem("symmetric").model)
    assert all(gap(forward, back) > 1e-2 for forward, back in model.network.reciprocal_pairs())
    # With equal rates they do not age apart, whatever devices there are.
    equal = ReadDisturb(**STRONG, shared=False, spread=0.0)
    assert equal.reciprocity == "keeps"
    model = eqx.filter_jit(Substrate(chip=3, part=equal).deploy)(problem("symmetric").model)
    assert all(gap(forward, back) == 0 for forward, back in model.network.reciprocal_pairs())
    with pytest.raises(ValueError, match="one kernel for both"):
        Substrate(part=part).deploy(problem("hopfield").model)


def test_gains_before_readings():
    """Readings that only multiply a weight, by a factor that depends on its sign at most, leave gains a gauge."""
    for settings, commutes in (({"spread": 0.0}, True), ({"towards": 0.0}, True), ({}, False)):
        part = ReadDisturb(**STRONG, **settings)
        assert part.commutes_with_gains == commutes
        device = Substrate(gains=MirrorGain(0.2, 0.2), part=part)
        assert device.reciprocity == ("gauge" if commutes else "breaks")
        model = eqx.filter_jit(device.deploy)(problem("symmetric").model)
        ratio = np.asarray(model.network.kernels["l1", "l2"] / model.network.kernels["l2", "l1"].T)
        singular = np.linalg.svd(ratio, compute_uv=False)
        assert (singular[1] < 1e-12 * singular[0]) == commutes


def test_numbers_out_of_range():
    for settings in ({"rate": 2.0}, {"rate": -0.1}, {"examples": -1}, {"towards": 1.5}, {"spread": -0.1}):
        with pytest.raises(ValueError, match=f"ReadDisturb got {next(iter(settings))}="):
            ReadDisturb(**settings)
