"""Measured curves of devices: what is read and refused, the fit of known devices, writes along a table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from eqprop.data import PulseCurves, pulse_curves
from eqprop.run import cli
from eqprop.run.compose import compose
from eqprop.substrate import SoftBounds, TableStep, fit_step
from eqprop.substrate.table_step import isotonic

KEYS = {"chip": jax.random.key(1), "run": jax.random.key(2)}
COUNT, UP, DOWN = 400, 0.012, 0.008
LOW, HIGH = 10e-6, 90e-6


def soft(fraction: float, start: float, bound: float) -> np.ndarray:
    return bound + (start - bound) * (1 - fraction) ** np.arange(COUNT + 1)


def device(fraction: float, start: float, bound: float, *, factors=(1.0,), noise=0.0, seed=0) -> PulseCurves:
    """Curves in siemens of devices whose steps are `factors` of the nominal ones, with noise of each step."""
    draw = np.random.default_rng(seed)
    steps = np.diff(soft(fraction, start, bound))
    mean = np.abs(steps).mean()
    rows = [np.concatenate([[0.0], np.cumsum(f * (steps + noise * mean * draw.normal(size=COUNT)))]) for f in factors]
    siemens = LOW + (HIGH - LOW) * (start + np.array(rows) + 1) / 2
    return PulseCurves(np.arange(COUNT + 1.0), siemens)


def test_a_table_of_a_device_with_soft_bounds_writes_as_it_does():
    """Any number of pulses from any level, up and down, against the closed form."""
    up, down = soft(UP, -1.0, 1.0), soft(DOWN, 1.0, -1.0)
    table = TableStep(tuple(up), tuple(down))
    w = jnp.linspace(-0.95, 0.9, 41)
    for pulses, fraction, sign in ((3, UP, 1), (25, DOWN, -1)):
        change = jnp.full_like(w, sign * pulses * table.mean_step)
        # The count is the whole number asked for: nothing is rounded.
        moved = table(change * (1 + 1e-12), w, **KEYS)
        expected = (sign - w) * (1 - (1 - fraction) ** pulses)
        expected = jnp.clip(w + expected, down[-1], up[-1]) - w
        inside = (w + expected < up[-1] - 0.02) & (w + expected > down[-1] + 0.02)
        np.testing.assert_allclose(moved[inside], expected[inside], atol=2e-4)
    assert not np.any(np.asarray(table(jnp.zeros_like(w), w, **KEYS)))


def test_nothing_leaves_the_range_and_nothing_jumps_into_it():
    table = TableStep((-1.0, 0.0, 0.5), (0.5, 0.0, -1.0))
    w = jnp.array([0.45, -0.9, 2.0, -3.0])
    np.testing.assert_allclose(table(jnp.full(4, 9.0), w, **KEYS), [0.05, 1.4, 0.0, 1.5], atol=1e-12)
    np.testing.assert_allclose(table(jnp.full(4, -9.0), w, **KEYS), [-1.45, -0.1, -1.5, 0.0], atol=1e-12)


def test_spreads_of_writes():
    """Devices keep their factors from write to write; cycles do not."""
    levels = tuple(np.linspace(-1, 1, 2001))
    w, change = jnp.zeros(4000), jnp.full(4000, 0.1)
    apart = TableStep(levels, levels[::-1], device_spread=0.2)(change, w, **KEYS)
    assert abs(float(jnp.std(apart)) / 0.1 - 0.2) < 0.02
    again = TableStep(levels, levels[::-1], device_spread=0.2)(change, w, chip=KEYS["chip"], run=jax.random.key(9))
    assert np.corrcoef(apart, again)[0, 1] > 0.99
    noisy = TableStep(levels, levels[::-1], cycle_spread=0.5)(change, w, **KEYS)
    assert abs(float(jnp.std(noisy)) / (0.5 * 10 * 1e-3) - 1) < 0.1  # √100 pulses of 0.001


def test_the_fit_of_known_devices():
    """Levels, range, spreads and the parameters of soft bounds are those that the curves were made with."""
    factors = (0.8, 0.9, 1.0, 1.1, 1.2)
    made = [
        device(f, s, b, factors=factors, noise=0.3, seed=k) for k, (f, s, b) in enumerate(((UP, -1, 1), (DOWN, 1, -1)))
    ]
    found = fit_step(*made)
    assert abs(found.step.device_spread - np.std(factors, ddof=1)) < 0.02
    assert abs(found.step.cycle_spread - 0.3) < 0.05
    assert max(found.residual) < 0.01 and abs(found.siemens[0] - LOW) < 2e-6 and abs(found.siemens[1] - HIGH) < 3e-6
    wide = fit_step(*(device(*of, factors=(0.3, 1.0, 1.7)) for of in ((UP, -1, 1), (DOWN, 1, -1))))
    assert abs(wide.device_spread - 0.7) < 1e-9 and wide.step.device_spread == 0.39
    exact = fit_step(device(UP, -1, 1), device(DOWN, 1, -1))
    assert max(exact.residual) < 1e-12 and exact.step.device_spread == 0 and exact.step.cycle_spread < 1e-9
    soft_bounds = exact.soft_bounds
    np.testing.assert_allclose(soft_bounds["dw_min"], (UP + DOWN) / 2, rtol=0.03)
    np.testing.assert_allclose(soft_bounds["up_down"], (UP - DOWN) / (UP + DOWN), atol=0.03)
    assert soft_bounds["residual"] < 0.01
    near = SoftBounds(dw_min=soft_bounds["dw_min"], up_down=soft_bounds["up_down"], device_spread=0.0, cycle_spread=0.0)
    w, change = jnp.linspace(-0.5, 0.5, 11), jnp.full(11, 0.05)
    ratio = exact.step(change, w, **KEYS) / near(change, w, **KEYS)
    # Pulses are counted by the mean step here and by the step in the middle there.
    np.testing.assert_allclose(ratio / ratio[5], jnp.ones(11), atol=0.35)


def test_isotonic_regression():
    np.testing.assert_allclose(isotonic(np.array([1.0, 3.0, 2.0, 2.0, 5.0])), [1, 7 / 3, 7 / 3, 7 / 3, 5])
    rising = np.array([0.0, 1.0, 1.5])
    np.testing.assert_array_equal(isotonic(rising), rising)
    values = np.random.default_rng(0).normal(size=40)
    best = isotonic(values)
    assert np.all(np.diff(best) >= 0) and abs(best.mean() - values.mean()) < 1e-12
    for other in (np.sort(values), np.full(40, values.mean())):  # no other rising sequence is nearer
        assert np.sum((best - values) ** 2) <= np.sum((other - values) ** 2)


@pytest.mark.parametrize(
    "text",
    [
        "pulse,G (µS)\n0,10\n1,20\n2,25\n",
        "\ufeffpulse;G [uS];\n".replace(";\n", "\n") + "0;10,0\n1;20,0\n2;25,0\n",
        "# made\n\nn\tconductance_nS\n5\t10000\n6\t20000\n7\t25000\n",
        "k,g (μS)\r\n0,1.0e1\r\n1,20\r\n2,25\r\n",
    ],
    ids=["commas", "semicolons and a mark", "tabs", "windows"],
)
def test_what_is_read(tmp_path, text):
    path = tmp_path / "a curve.csv"
    path.write_bytes(text.encode())
    curves = pulse_curves(path)
    np.testing.assert_array_equal(curves.pulses, [0, 1, 2])
    np.testing.assert_allclose(curves.siemens, [[10e-6, 20e-6, 25e-6]], rtol=1e-12)


WRONG = {
    "": "is empty",
    "pulse\n0\n": "line 1: one column",
    "pulse,G\n0,1\n": "line 1: 'G' has no unit",
    "pulse,G (µS)\n0,1\n1,x\n2,3\n": "line 3: 'x' is no number",
    "pulse,G (µS)\n0,1\n1,2,3\n2,3\n": "line 3: 3 columns; expected 2",
    "pulse,G (µS)\n0,1\n# note\n1,-2\n2,3\n": "line 4: -2 is no pulse number and no conductance",
    "pulse,G (µS)\n0,1\n1,nan\n2,3\n": "line 3: nan is no pulse number",
    "pulse,G (µS)\n0,1\n2,2\n1,3\n": "line 4: 1 pulses after 2",
    "pulse,G (µS)\n0,1\n1,2\n": "has 2 lines of numbers",
}


@pytest.mark.parametrize("text", WRONG, ids=[message[:20] for message in WRONG.values()])
def test_what_is_refused(tmp_path, text):
    path = tmp_path / "curve.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=WRONG[text]):
        pulse_curves(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no UTF-8 text"):
        pulse_curves(path)


def test_curves_that_go_the_wrong_way():
    rising, falling = device(UP, -1, 1), device(DOWN, 1, -1)
    with pytest.raises(ValueError, match="The curve `up` goes from .* expected one that rises"):
        fit_step(falling, rising)
    with pytest.raises(ValueError, match="expected two levels or more that fall"):
        TableStep((0.0, 1.0), (0.0, 1.0))


def write(path, curves):
    table = np.column_stack([curves.pulses, 1e6 * curves.siemens.T])
    names = ",".join(["pulse", *(f"device {k} (µS)" for k in range(len(curves.siemens)))])
    path.write_text(names + "\n" + "\n".join(",".join(f"{v:.6f}" for v in row) for row in table) + "\n", "utf-8")


def test_from_the_command_line_to_a_preset(tmp_path, monkeypatch, capsys):
    """The preset composes as a choice of the group, and its part writes as the fit does. Nothing is overwritten."""
    monkeypatch.chdir(tmp_path)
    made = device(UP, -1, 1, factors=(0.9, 1.0, 1.1)), device(DOWN, 1, -1, factors=(0.9, 1.0, 1.1))
    for name, curves in zip(("set.csv", "reset.csv"), made, strict=True):
        write(tmp_path / name, curves)
    words = ["device", "fit", "set.csv", "reset.csv", "-o", "configs/substrate/mine.yaml"]
    cli.main(words)
    said = capsys.readouterr().out
    assert "3 up, 3 down" in said and "400 up, 400 down" in said and (tmp_path / "configs/substrate/mine.png").exists()
    cfg = compose(["substrate=mine"], "train", tmp_path / "configs")
    preset = yaml.safe_load((tmp_path / "configs/substrate/mine.yaml").read_text("utf-8"))
    assert cfg.substrate.write["_target_"] == "eqprop.substrate.TableStep"
    expected = fit_step(*made).step
    np.testing.assert_allclose(preset["write"]["up"], expected.up, atol=1e-5)
    assert abs(preset["write"]["device_spread"] - 0.1) < 1e-3
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "is there already" in capsys.readouterr().err
    for wrong in (["device", "fit", "set.csv"], ["device", "fit", "set.csv", "reset.csv", "-o", "a.yaml", "limit=0"]):
        with pytest.raises(SystemExit) as end:
            cli.main(wrong)
        assert end.value.code == 2
    cli.main(["device", "--help"])
    assert "usage: eqprop device fit" in capsys.readouterr().out
