"""From measured curves to a preset: `eqprop device fit`."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from eqprop.run.errors import UsageError

USAGE = """
usage: eqprop device fit UP.csv DOWN.csv -o FILE.yaml [limit=1.0] [weights=true]

  eqprop device fit set.csv reset.csv -o configs/substrate/mine.yaml
  eqprop train data=fashion_mnist substrate=mine

UP and DOWN are tables of the conductance after each pulse, in the direction that raises it and in the one that lowers
it: a line of names, `pulse,device 1 (µS),device 2 (µS),…`, and lines of numbers. The fit is written as a choice of the
group substrate, its pulses by `TableStep`, and drawn beside the data. What is read of the curves is printed: their
range, the mean step, what the fit leaves, the spreads, and the `SoftBounds` that come nearest. With `weights=true` the
preset has the measured levels besides, to which weights are rounded when the network is deployed (`TableConductance`).
An existing file is not overwritten.
"""

PRESET = """# {title}
# Fitted to {up} and {down}: {low:.4g} to {high:.4g} µS are the weights -{limit:g} to {limit:g}. The fit leaves
# {left_up:.2%} (up) and {left_down:.2%} (down) of the range; SoftBounds with dw_min {dw_min:.4g} and up_down
# {up_down:.3g} would leave {soft:.2%}.
"""


def main(arguments: Sequence[str]) -> None:
    """The command line of `eqprop device`.

    **Raises:** `UsageError` for words that are none of it; `FileExistsError` for a preset that is there; `ValueError`
    for curves that cannot be read.
    """
    words = [word for word in arguments if word not in ("-h", "--help")]
    if not words or len(words) < len(arguments):
        print(USAGE.strip())
        return
    given = dict(word.split("=", 1) for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    if (
        len(plain) != 5
        or plain[0] != "fit"
        or plain[3] not in ("-o", "--output")
        or not set(given) <= {"limit", "weights"}
    ):
        raise UsageError(
            f"eqprop device {' '.join(words)}: expected fit UP.csv DOWN.csv -o FILE.yaml [limit=1.0] [weights=true]."
        )
    try:
        limit = float(given.get("limit", "1.0"))
    except ValueError:
        limit = float("nan")
    if not 0 < limit < float("inf"):
        raise UsageError(f"limit={given['limit']}: expected a number above 0.")
    weights = given.get("weights", "false")
    if weights not in ("true", "false"):
        raise UsageError(f"weights={weights}: expected true or false.")
    print(fit(Path(plain[1]), Path(plain[2]), Path(plain[4]).expanduser(), limit, weights == "true"))


def fit(up: Path, down: Path, output: Path, limit: float = 1.0, weights: bool = False) -> str:
    """Write the preset and its figure; what was found, as a text."""
    # Imported here: help is printed at once.
    from eqprop.data import pulse_curves
    from eqprop.run.checkpoint import write_atomically
    from eqprop.run.study import style
    from eqprop.substrate import TableConductance, fit_step

    if output.suffix != ".yaml":
        raise UsageError(f"{output}: expected a file that ends in .yaml, such as configs/substrate/mine.yaml.")
    if output.exists():
        raise FileExistsError(17, f"{output} is there already; name another file, or delete it")
    curves = pulse_curves(up), pulse_curves(down)
    found = fit_step(*curves, limit=limit)
    step, (low, high) = found.step, (1e6 * g for g in found.siemens)
    head = PRESET.format(
        title=f"A device with measured pulses, {output.stem}.", up=up.name, down=down.name, low=low, high=high,
        limit=limit, left_up=found.residual[0], left_down=found.residual[1], dw_min=found.soft_bounds["dw_min"],
        up_down=found.soft_bounds["up_down"], soft=found.soft_bounds["residual"],
    )  # fmt: skip
    numbers = lambda levels: [float(f"{level:.8g}") for level in levels]
    write = {
        "_target_": "eqprop.substrate.TableStep",
        "up": numbers(step.up),
        "down": numbers(step.down),
        "device_spread": float(f"{float(step.device_spread):.4g}"),
        "cycle_spread": float(f"{float(step.cycle_spread):.4g}"),
    }
    preset: dict[str, object] = {"_target_": "eqprop.Substrate", "chip": 0, "aware": False, "flow": None}
    preset["known_gains"] = False
    if weights:
        table = TableConductance.from_curves(*curves, limit=limit)
        preset["weights"] = {
            "_target_": "eqprop.substrate.TableConductance",
            "up": numbers(table.up),
            "down": numbers(table.down),
            "spread": numbers(table.spread),
            "limit": limit,
        }
    preset["write"] = write
    text = head + yaml.safe_dump(preset, sort_keys=False, default_flow_style=None, width=120)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, lambda file: file.write(text.encode()))
    drawn = output.with_suffix(".png")
    with style.styled():
        figure, axes = style.canvas(2, 1, width=8.0, height=3.2)
        for axis, curve, levels, name in zip(axes, curves, (step.up, step.down), ("up", "down"), strict=True):
            axis.plot(curve.pulses, 1e6 * curve.siemens.T, color="0.7", linewidth=0.8)
            fitted = [low + (high - low) * (level / limit + 1) / 2 for level in levels]
            axis.plot(range(len(levels)), fitted, label="fit")
            axis.set(xlabel="pulses", ylabel="conductance (µS)", title=f"{name} (grey: devices)")
            axis.legend()
        figure.savefig(drawn)
    return "\n".join(
        [
            f"devices            {curves[0].siemens.shape[0]} up, {curves[1].siemens.shape[0]} down",
            f"range              {low:.4g} to {high:.4g} µS, weights -{limit:g} to {limit:g}",
            f"pulses             {len(step.up) - 1} up, {len(step.down) - 1} down; mean step {step.mean_step:.4g}",
            f"the fit leaves     {found.residual[0]:.2%} up, {found.residual[1]:.2%} down, of the range",
            f"device to device   {found.device_spread:.3g} of a step"
            + (
                f"; the preset has {step.device_spread}, the most it can"
                if found.device_spread > step.device_spread
                else ""
            ),
            f"cycle to cycle     {float(step.cycle_spread):.3g} mean steps, with the noise of the readings",
            f"nearest SoftBounds dw_min {found.soft_bounds['dw_min']:.4g}, up_down {found.soft_bounds['up_down']:.3g}, "
            f"which leave {found.soft_bounds['residual']:.2%}",
            f"{output}, {drawn}",
        ]
    )
