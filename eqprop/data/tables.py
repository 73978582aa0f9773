"""Tables of text: a line an image, its label in one column and its pixels in the others."""

import csv
import io

import numpy as np

from eqprop.data.faults import unfit
from eqprop.data.own import Part

_LABELS = ("label", "class")


def read_table(data: bytes, source: str) -> Part:
    """Images as rows of pixels, and labels, from a table with commas, semicolons or tabs.

    A first line that is not all numbers names the columns. The label is in the column called `label` or `class`, in
    capitals or not, or else in the first.

    **Raises:** `ValueError` naming `source`, and the line if one is wrong.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise unfit(source, f"neither a known format nor text ({error.reason} at byte {error.start})") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise unfit(source, "a table without a line")
    delimiter = max(",;\t", key=lines[0][1].count)
    names = _fields(lines[0][1], delimiter)
    label = 0
    if any(_number(name) is None for name in names):
        plain = [name.strip().lower() for name in names]
        label = next((plain.index(name) for name in _LABELS if name in plain), 0)
        lines = lines[1:]
    if len(names) < 2 or not lines:
        raise unfit(source, f"a table of {len(names)} columns and {len(lines)} lines of numbers; expected images")
    values = _values(lines, delimiter, len(names), source)
    wrong = (values != np.floor(values)) | ~np.isfinite(values)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise unfit(
            source,
            f"line {lines[row][0]}, column {column + 1}: {values[row, column]:g} is not a whole number; expected "
            "pixels that are not scaled, and class numbers",
        )
    return Part(np.delete(values, label, axis=1).astype(np.int64), values[:, label].astype(np.int64), source)


def _values(lines: list[tuple[int, str]], delimiter: str, width: int, source: str) -> np.ndarray:
    try:
        read = io.StringIO("\n".join(line for _, line in lines))
        values = np.loadtxt(read, np.float64, comments=None, delimiter=delimiter, quotechar='"', ndmin=2)
        if values.shape == (len(lines), width):
            return values
    except ValueError:
        pass  # it does not say in which line of the file: look for it
    for number, line in lines:
        fields = _fields(line, delimiter)
        if len(fields) != width:
            raise unfit(source, f"line {number} has {len(fields)} columns, the first {width}")
        for column, field in enumerate(fields, 1):
            if _number(field) is None:
                raise unfit(source, f"line {number}, column {column}: {field[:40]!r} is not a number")
    raise unfit(source, "a table with line ends inside of quotes")


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _number(field: str) -> float | None:
    try:
        return float(field)
    except ValueError:
        return None
