"""Weights in slices of few bits: digits by integers, variances in closed form, classes by dense algebra."""

# Attributes of the network that a model happens to have:
# pyright: reportAttributeAccessIssue=false

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hydra.utils import instantiate

import eqprop
from eqprop import Substrate
from eqprop.substrate import (
    ADC,
    BitSliced,
    Drift,
    Faults,
    Mismatch,
    NeuronSpread,
    ProgrammingNoise,
    Quantised,
    WireResistance,
)
from eqprop.substrate.conduction import conductances
from helpers import gap, oracle, problem

SHAPES = [(1, 1), (1, 8), (2, 4), (4, 2), (3, 5), (8, 3), (8, 1)]


def square_sum(bits, slices):
    """`Σ cₖ²` in closed form."""
    one, all_ = 2**bits, 2 ** (bits * slices)
    return (one - 1) * (all_ + 1) / ((one + 1) * (all_ - 1))


@pytest.mark.parametrize(("bits", "slices"), SHAPES)
def test_slices_hold_the_digits(bits, slices):
    """Every level, by integer arithmetic; put together, the level itself."""
    part, levels = BitSliced(bits, slices, limit=0.7), 2 ** (bits * slices)
    step = max(1, levels // 5000)
    level = np.concatenate([-np.arange(0, levels, step)[::-1], np.arange(0, levels, step)])
    x = np.asarray(part.sliced(jnp.asarray(0.7 * level / (levels - 1))))
    for k in range(slices):
        digits = np.sign(level) * (np.abs(level) // 2 ** (bits * k) % 2**bits)
        assert np.abs(x[k] * (2**bits - 1) - digits).max() < 1e-11
    assert math.fsum(part.significance) == pytest.approx(1, abs=1e-15)
    assert math.fsum(c**2 for c in part.significance) == pytest.approx(square_sum(bits, slices), rel=1e-14)
    assert gap(part.joined(jnp.asarray(x)), 0.7 * level / (levels - 1)) < 1e-15


@pytest.mark.parametrize(("bits", "slices"), SHAPES)
def test_without_noise_it_is_one_device_of_all_bits(bits, slices):
    w = jnp.linspace(-1.5, 1.5, 4001)
    part, one = BitSliced(bits, slices, limit=0.9), Quantised(bits * slices, limit=0.9)
    assert gap(part.round(w), one.round(w)) < 1e-15
    assert gap(jax.grad(lambda w: jnp.sum(part.round(w)))(w), jnp.ones_like(w)) < 1e-15
    if slices == 1:
        assert gap(part.total(part.round(w)), one.total(one.round(w))) < 1e-13
    for name in ("symmetric", "conv_symmetric", "hopfield"):
        p = problem(name)
        found, expected = (eqx.filter_jit(Substrate(part=q).deploy)(p.model) for q in (part, one))
        assert gap(found, expected) < 1e-14
    tied = eqx.filter_jit(Substrate(part=part).deploy)(problem("symmetric").model)
    for forward, back in tied.network.reciprocal_pairs():
        assert gap(forward, back) == 0


def deployed(part, w):
    """Weights of a wide kernel on a chip, as a row of neurons."""
    network = eqprop.DenseNetwork(w.size, {"out": 1}, [("in", "out")], key=jax.random.key(0))
    network = eqx.tree_at(lambda n: n.kernels["in", "out"], network, w[:, None])
    model = eqprop.Model(network, eqprop.SquaredError())
    return np.asarray(eqx.filter_jit(Substrate(chip=4, part=part).deploy)(model).network.kernels["in", "out"])[:, 0]


@pytest.mark.parametrize(("bits", "slices"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_variance_of_programming(bits, slices):
    """`limit² sigma² Σ cₖ²` within four standard errors, for weights of any size; one device of all bits: `limit²
    sigma²`. The most significant slice has its share of it."""
    n, sigma, limit = 100_000, 0.03, 2.0
    w = jnp.linspace(-2.0, 2.0, n)
    error = deployed(BitSliced(bits, slices, limit, parts={"p": ProgrammingNoise(sigma=sigma)}), w) - np.asarray(
        Quantised(8, limit=limit).round(w)
    )
    expected = limit**2 * sigma**2 * square_sum(bits, slices)
    assert abs(np.var(error) / expected - 1) < 4 * math.sqrt(2 / n)
    assert abs(np.mean(error)) < 4 * math.sqrt(expected / n)
    alone = deployed(ProgrammingNoise(sigma=sigma, limit=limit), w) - np.asarray(w)
    assert abs(np.var(alone) / (limit * sigma) ** 2 - 1) < 4 * math.sqrt(2 / n)
    first = BitSliced(bits, slices).significance[-1] ** 2 / square_sum(bits, slices)
    assert first == pytest.approx((1 - 4.0**-bits) / (1 - 4.0 ** -(bits * slices)), rel=1e-13)


@pytest.mark.parametrize("level", [0x1B, 0xFF, 0x40, 0x03])
def test_variance_of_mismatch(level):
    """`limit² Σ cₖ² xₖ² var f` of slices of two bits, with `var f = exp(σ²) − 1` of a lognormal law without a clip: a
    digit of 0 has none."""
    n, sigma, part = 100_000, 0.1, BitSliced(2, 4)
    digits = [level // 4**k % 4 for k in range(4)]
    cut = Mismatch(sigma, clip=20.0)
    error = deployed(BitSliced(2, 4, parts={"m": cut}), jnp.full(n, level / 255)) - level / 255
    squares = math.fsum((c * d / 3) ** 2 for c, d in zip(part.significance, digits, strict=True))
    expected = squares * math.expm1(sigma**2)
    assert abs(np.var(error) / expected - 1) < 0.03  # a lognormal sum has a heavier tail than a normal one
    assert abs(np.mean(error)) < 4 * math.sqrt(expected / n)


def test_every_slice_has_a_pattern_of_its_own():
    """Errors of two slices do not correlate; those of a part beside the slices are one factor of the whole weight."""
    n = 40_000
    only = [deployed(BitSliced(4, 2, parts={"m": Mismatch(0.1)}), jnp.full(n, level / 255)) for level in (0x0F, 0xF0)]
    errors = [e / e.mean() - 1 for e in only]
    assert abs(np.corrcoef(*errors)[0, 1]) < 4 / math.sqrt(n)
    both = deployed(BitSliced(4, 2, parts={"m": Mismatch(0.1)}), jnp.full(n, 1.0))
    assert gap(both, only[0] + only[1]) < 1e-14
    assert gap(deployed(Drift(age=180.0, nu=0.05), jnp.full(9, 0.2)), np.full(9, 0.2 * 10**-0.05)) < 1e-15
    aged = deployed(BitSliced(2, 4, parts={"d": Drift(age=180.0, nu=0.05)}), jnp.full(9, 0.2))
    assert gap(aged, np.full(9, 0.2 * 10**-0.05)) < 1e-15


SHARED = {
    "noise": ProgrammingNoise(sigma=0.1),
    "pcm": ProgrammingNoise(sigma=None),
    "mismatch": Mismatch(0.5),
    "faults": Faults(stuck_zero=0.1, stuck_max=0.1),
    "wires": WireResistance(1e-3, tile=4),
}
APART = {
    "noise": ProgrammingNoise(sigma=0.1, shared=False),
    "mismatch": Mismatch(0.5, structure="per_direction"),
    "rows": Mismatch(0.5, structure="row"),
}


@pytest.mark.parametrize("part", SHARED)
def test_shared_slices_keep_reciprocity(part):
    sliced = BitSliced(2, 2, limit=2.0, parts={"a": SHARED[part], "b": Drift(age=1e5)})
    assert sliced.reciprocity == "keeps" and not sliced.commutes_with_gains
    p = problem("symmetric")
    model = eqx.filter_jit(Substrate(chip=3, part=sliced).deploy)(p.model)
    A = np.asarray(oracle(model, p.x, p.y).A)
    assert gap(A, np.swapaxes(A, 1, 2)) < 1e-14
    assert gap(model, eqx.filter_jit(Substrate(part=Quantised(4, limit=2.0)).deploy)(p.model)) > 1e-3


@pytest.mark.parametrize("part", APART)
def test_slices_apart_break_it(part):
    """Gains by row of each slice as well: no diagonal matrix undoes a sum of them, as ratios are not of rank one."""
    sliced = BitSliced(2, 2, limit=2.0, parts={"a": APART[part]})
    assert sliced.reciprocity == "breaks"
    model = eqx.filter_jit(Substrate(chip=3, part=sliced).deploy)(problem("symmetric").model)
    forward, back = model.network.kernels["l1", "l2"], model.network.kernels["l2", "l1"].T
    both = np.asarray(forward * back)
    ratio = np.where(both > 0, np.asarray(forward), 1) / np.where(both > 0, np.asarray(back), 1)
    singular = np.linalg.svd(ratio, compute_uv=False)
    assert singular[1] > 0.05 * singular[0]


def test_what_slices_conduct():
    """`Σₖ (Gₖ⁺ + Gₖ⁻)` by hand: `limit Gmax/(Gmax − Gmin)` is the weight of a device fully on."""
    part = BitSliced(2, 3, limit=2.0, on_off_ratio=11.0)
    w = part.round(jnp.asarray([0.0, 2.0 * 0b011011 / 63, -2.0]))
    on, off = 2.0 * 1.1, 2.0 * 0.1
    digits = [(0, 0, 0), (1, 2, 3), (3, 3, 3)]
    expected = [sum(off + (off + (on - off) * d / 3) for d in each) for each in digits]
    np.testing.assert_allclose(part.total(w), expected, rtol=1e-13)
    p = problem("hopfield")
    made = conductances(p.model, {"weights": part, "adc": ADC(8)})
    for name, kernel in p.model.network.kernels.items():
        np.testing.assert_allclose(made.network.kernels[name], part.total(kernel), rtol=1e-15)


def test_it_is_configured_by_names():
    """A stack as a file writes it."""
    part = instantiate(
        {
            "_target_": "eqprop.substrate.BitSliced",
            "bits": 2,
            "slices": 3,
            "parts": {"noise": {"_target_": "eqprop.substrate.ProgrammingNoise", "sigma": 0.02}},
        },
        _convert_="all",
    )
    assert eqx.tree_equal(part, BitSliced(2, 3, parts={"noise": ProgrammingNoise(sigma=0.02)}))
    gaussian = BitSliced(parts={"m": Mismatch(0.6, law="gaussian")})
    assert "m: gaussian" in Substrate(weights=gaussian).describe()


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"bits=5 and slices=5, 25 bits.*24 at most"):
        BitSliced(5, 5)
    with pytest.raises(ValueError, match="bits=0"):
        BitSliced(0)
    with pytest.raises(ValueError, match="adc=ADC among its parts"):
        BitSliced(parts={"adc": ADC(8)})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="NeuronSpread among the parts of BitSliced changes neurons"):
        Substrate(w=BitSliced(parts={"n": NeuronSpread()})).deploy(problem("symmetric").model)
    with pytest.raises(ValueError, match="one kernel for both"):
        Substrate(w=BitSliced(parts={"n": Mismatch(structure="per_direction")})).deploy(problem("hopfield").model)
