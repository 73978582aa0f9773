"""Measured curves of a device: its conductance after each programming pulse, from a table."""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "ps": 1e-12}
_UNIT = re.compile(r"(?:[\[(/_ ])\s*([munpµμ]?s)\s*[\])]?\s*$", re.IGNORECASE)
_EXPECTED = "pulse,conductance (µS)"


class PulseCurves(NamedTuple):
    """Conductances of devices that got the same pulses."""

    pulses: Float[np.ndarray, " n"]
    """How many pulses each column of `siemens` comes after, rising from the first on."""
    siemens: Float[np.ndarray, "devices n"]


def pulse_curves(path: str | Path) -> PulseCurves:
    """Curves from a text file: a line of names, then a line for each number of pulses.

    The first column counts pulses. Every other column is a device, and its name ends in a unit, as `device 1 (µS)`,
    `G [nS]` or `conductance_uS`. Columns are apart by commas, semicolons or tabs; with semicolons or tabs numbers may
    have decimal commas. Lines that begin with `#` and empty lines are left out, and so is a byte-order mark.

    **Raises:** `ValueError` for what cannot be read, with the number of the line.
    """
    path = Path(path).expanduser()
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error.reason}); save it as CSV in UTF-8.") from error
    lines = [(k, line) for k, line in enumerate(text.splitlines(), 1) if line.strip() and not line.startswith("#")]
    if not lines:
        raise ValueError(f"{path} is empty; expected a line of names such as {_EXPECTED!r}, and numbers below it.")
    separator = next((mark for mark in "\t;" if mark in lines[0][1]), ",")
    rows = [(k, next(csv.reader(io.StringIO(line), delimiter=separator))) for k, line in lines]
    (first, names), body = rows[0], rows[1:]
    if len(names) < 2:
        raise ValueError(f"{path}, line {first}: one column; expected pulses and conductances, as {_EXPECTED!r}.")
    scales = [_scale(path, first, name) for name in names[1:]]
    values = np.array([_numbers(path, k, row, len(names), separator != ",") for k, row in body]).reshape(-1, len(names))
    if len(values) < 3:
        raise ValueError(f"{path} has {len(values)} lines of numbers; expected three or more.")
    for k, before, after in zip([k for k, _ in body[1:]], values[:-1, 0], values[1:, 0], strict=True):
        if not before < after:
            raise ValueError(f"{path}, line {k}: {after:g} pulses after {before:g}; expected numbers that rise.")
    return PulseCurves(values[:, 0] - values[0, 0], (values[:, 1:] * scales).T)


def _scale(path: Path, line: int, name: str) -> float:
    match = _UNIT.search(name.strip())
    if match is None:
        raise ValueError(
            f"{path}, line {line}: {name.strip()!r} has no unit; end it as {_EXPECTED.split(',')[1]!r} does."
        )
    return _UNITS[match[1].lower()]


def _numbers(path: Path, line: int, row: list[str], columns: int, decimal_comma: bool) -> list[float]:
    if len(row) != columns:
        raise ValueError(f"{path}, line {line}: {len(row)} columns; expected {columns}, as in the line of names.")
    numbers = []
    for word in row:
        try:
            number = float(word.replace(",", ".") if decimal_comma else word)
        except ValueError:
            raise ValueError(f"{path}, line {line}: {word.strip()!r} is no number.") from None
        if not 0 <= number < float("inf"):
            raise ValueError(f"{path}, line {line}: {word.strip()} is no pulse number and no conductance of 0 or more.")
        numbers.append(number)
    return numbers
