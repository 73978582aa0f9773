"""Weights as tabulated conductances: lookups by hand, spreads, sharing, gradients, tables from files."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from eqprop.data import pulse_curves
from eqprop.run import cli
from eqprop.run.compose import compose
from eqprop.substrate import Quantised, Substrate, TableConductance, TableStep, fit_step
from eqprop.substrate.table_step import isotonic
from helpers import problem

UP = (2e-6, 3e-6, 6e-6, 10e-6)
DOWN = (10e-6, 8e-6, 2.4e-6)


def test_a_table_by_hand():
    """`w = limit (G⁺ − G⁻)/(10 − 2 µS)`: states and weights of every region, both signs, and beyond the range."""
    part = TableConductance(UP, DOWN, limit=2.0)
    w = jnp.asarray([0.0, 0.2, 0.4, -0.8, 1.2, -1.6, 5.0])  # asks for 2, 2.8, 3.6, 5.2, 6.8, 8.4 and 10 µS
    plus, minus = part.states(w)
    np.testing.assert_array_equal(plus, [0, 1, 1, 0, 2, 0, 3])
    np.testing.assert_array_equal(minus, [0, 0, 0, 2, 0, 5, 0])
    got = 2e6 * np.asarray([0, 1e-6, 1e-6, -4e-6, 4e-6, -6e-6, 8e-6]) / 8
    np.testing.assert_allclose(part.round(w), got, rtol=1e-12)
    np.testing.assert_allclose(part.conductance(minus, w), [2e-6] * 3 + [6e-6, 2e-6, 8e-6, 2e-6], rtol=1e-15)
    np.testing.assert_allclose(part.total(part.round(w)), np.abs(got) + 2 * 2.0 * 2 / 8, rtol=1e-12)


def test_evenly_spaced_levels_are_quantised_weights():
    levels = np.linspace(1e-6, 1e-4, 16)
    w = jnp.linspace(-1.1, 1.1, 450)  # none of them midway between two levels, where rounding decides
    table, rounded = TableConductance(levels), Quantised(bits=4, on_off_ratio=100.0)
    np.testing.assert_allclose(table.round(w), rounded.round(w), atol=1e-12)
    np.testing.assert_allclose(table.total(table.round(w)), rounded.total(rounded.round(w)), rtol=1e-12)


def test_a_table_that_falls_is_looked_up():
    """Measured levels in any order: the nearest one, whichever pulse it comes after."""
    part = TableConductance((1e-6, 5e-6, 4e-6, 9e-6))
    w = (jnp.asarray([4.2, 4.8, 1.1]) - 1) / 8
    np.testing.assert_array_equal(part.states(w)[0], [2, 1, 0])


def test_spreads_are_of_devices():
    """Each level has its own spread, one number a device along all of them; the same at every use of a chip."""
    part = TableConductance((1e-6, 2e-6, 4e-6), spread=(0.0, 0.1, 0.2))
    one, two = jnp.full(40_000, 1 / 3), jnp.full(40_000, 1.0)
    key = jax.random.key(4)
    first, second = part.round(one, key), part.round(two, key)
    # Cut off at 2.5, a standard normal number has a standard deviation of 0.9863.
    np.testing.assert_allclose(jnp.std(first) * 3, 0.1 * 2 * 0.9863, rtol=0.02)
    np.testing.assert_allclose(jnp.std(second) * 3, 0.2 * 4 * 0.9863, rtol=0.02)
    np.testing.assert_allclose(3 * first - 1, (3 * second - 3) / 4, atol=1e-12)  # ΔG is 0.2 E and 0.8 E µS
    np.testing.assert_array_equal(first, part.round(one, key))
    assert jnp.all(part.conductance(jnp.full(100, 2), jnp.zeros(100), key) >= 0)


def test_both_directions_share_devices_or_not():
    model = problem("symmetric").model
    for shared, expected in ((True, "keeps"), (False, "breaks")):
        part = TableConductance(UP, DOWN, spread=(0.2,), limit=1.0, shared=shared)
        device = Substrate(chip=1, weights=part)
        assert device.reciprocity == expected
        kernels = device.deploy(model).network.device_kernels()
        same = np.array_equal(kernels["l1", "l2"], kernels["l2", "l1"].T)
        assert same is shared
    exact = TableConductance(UP, DOWN, shared=False)
    assert exact.reciprocity == "keeps"


@pytest.mark.parametrize("aware", [False, True])
def test_gradients_pass_straight_through(aware):
    model = problem("asymmetric").model
    device = Substrate(chip=2, aware=aware, weights=TableConductance(UP, spread=(0.1,)))

    def weighted(model):
        kernels = device.deploy(model).network.device_kernels()
        return sum(jnp.sum(jnp.cos(jnp.arange(k.size, dtype=k.dtype)) * k.ravel()) for k in kernels.values())

    for k in eqx.filter_grad(weighted)(model).network.device_kernels().values():
        np.testing.assert_allclose(k.ravel(), jnp.cos(jnp.arange(k.size, dtype=k.dtype)), atol=1e-12)


def test_what_is_refused():
    for wrong in ((1e-6,), (1e-6, 1e-6), (1e-6, -1e-6), (1e-6, float("inf"))):
        with pytest.raises(ValueError, match="expected two conductances or more"):
            TableConductance(wrong)
    for wrong in ((0.1, 0.2), (-0.1,)):
        with pytest.raises(ValueError, match="expected one for all or 4"):
            TableConductance(UP, spread=wrong)
    with pytest.raises(ValueError, match="limit"):
        TableConductance(UP, limit=0.0)


def written(folder, name, text):
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_tables_from_files(tmp_path):
    """Units, a byte-order mark, decimal commas, pulses that were left out; mean and spread over devices."""
    up = written(tmp_path, "up.csv", "\ufeffpulse;a [nS];b (µS)\n0;1000,0;3\n2;5000,0;7,0\n3;9000,0;9,0\n")
    down = written(tmp_path, "down.csv", "n\ta_uS\n0\t9\n1\t4\n2\t1.5\n")
    part = TableConductance.from_csv(up, down, limit=0.5, shared=False)
    np.testing.assert_allclose(part.up, [2e-6, 4e-6, 6e-6, 9e-6], rtol=1e-12)
    np.testing.assert_allclose(part.down, [9e-6, 4e-6, 1.5e-6], rtol=1e-12)
    ends = np.sqrt(2.0) / np.asarray([2.0, 6.0])
    np.testing.assert_allclose(part.spread, [ends[0], ends.mean(), ends[1], 0, 0, 0, 0], rtol=1e-12)
    assert part.limit == 0.5 and not part.shared and part.span == (1.5e-6, 9e-6)
    assert TableConductance.from_csv(up).down == ()
    with pytest.raises(ValueError, match="line 1: 'G' has no unit"):
        TableConductance.from_csv(written(tmp_path, "wrong.csv", "pulse,G\n0,1\n1,2\n2,3\n"))


def test_writes_from_files(tmp_path):
    """`TableStep.from_csv` is the fit of what is read."""
    up = written(tmp_path, "up.csv", "pulse,G (µS)\n" + "".join(f"{k},{10 + 2 * k}\n" for k in range(11)))
    down = written(tmp_path, "down.csv", "pulse,G (µS)\n" + "".join(f"{k},{30 - 4 * k}\n" for k in range(6)))
    step = TableStep.from_csv(up, down, limit=2.0)
    np.testing.assert_allclose(step.up, np.linspace(-2, 2, 11), atol=1e-3)
    np.testing.assert_allclose(step.down, np.linspace(2, -2, 6), atol=1e-3)
    assert step == fit_step(pulse_curves(up), pulse_curves(down), limit=2.0).step
    assert isotonic(np.asarray(step.up)).tolist() == list(step.up)


def test_from_the_command_line_to_a_preset(tmp_path, monkeypatch, capsys):
    """`weights=true` adds the measured levels, and the preset composes."""
    monkeypatch.chdir(tmp_path)
    up = written(tmp_path, "set.csv", "pulse,a (µS),b (µS)\n0,10,12\n1,20,20\n2,26,30\n")
    down = written(tmp_path, "reset.csv", "pulse,a (µS),b (µS)\n0,26,30\n1,18,18\n2,10,12\n")
    words = ["device", "fit", "set.csv", "reset.csv", "-o", "configs/substrate/mine.yaml", "limit=0.5"]
    with pytest.raises(SystemExit):
        cli.main([*words, "weights=perhaps"])
    assert "expected true or false" in capsys.readouterr().err
    cli.main([*words, "weights=true"])
    cfg = compose(["substrate=mine"], "train", tmp_path / "configs")
    preset = yaml.safe_load((tmp_path / "configs/substrate/mine.yaml").read_text("utf-8"))
    assert cfg.substrate.weights["_target_"] == "eqprop.substrate.TableConductance"
    settings = {name: value for name, value in preset["weights"].items() if name != "_target_"}
    made, expected = TableConductance(**settings), TableConductance.from_csv(up, down, limit=0.5)
    np.testing.assert_allclose(made.levels, expected.levels, rtol=1e-6)
    np.testing.assert_allclose(made.spread, expected.spread, atol=1e-6)
