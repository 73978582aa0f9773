"""The figures that the authors, or somebody who quotes them, have published. What no source gives is `None`, a dash."""

import json
from pathlib import Path
from typing import Any, NamedTuple

NUMBERS = Path(__file__).with_name("paper_numbers.json")


class Published(NamedTuple):
    """One figure, in percent."""

    mean: float
    std: float | None
    source: str
    """`primary`: the authors' own; `secondary`: somebody quotes them."""

    def complement(self) -> "Published":
        """An error as an accuracy, or an accuracy as an error."""
        return self._replace(mean=100 - self.mean)

    def __str__(self) -> str:
        deviation = "" if self.std is None else f" ± {self.std:g}"
        return f"{self.mean:g}{deviation} ({self.source.split(';')[0].split(':')[0]})"


def find(table: str, row: str | None, beta: float | None, column: Any) -> Published | None:
    """The figure of a row of `table1` at a strength, or of `table2` on the data set that the column names.

    **Raises:** `KeyError` for a row or a table that there is not; a row of `None` is one that nobody has published.
    """
    if table == "table1":
        return table1_error(row, beta)
    if table == "table2":
        return table2_accuracy(row, column)
    raise KeyError(f"There is no published {table!r}; there are table1 and table2.")


def table1_error(row: str | None, beta: float | None = None) -> Published | None:
    """The validation error of a row of Table 1 on Fashion-MNIST.

    **Raises:** `KeyError` for a row that is not in the table; `row=None` is one that nobody has.
    """
    if row is None:
        return None
    cells = _numbers()["table1_fashion_mnist_validation_error_percent"]["rows"][row]
    cell = cells.get("any beta") or cells.get(f"beta={beta:g}" if beta is not None else "")
    return None if cell is None else Published(cell["mean"], cell["std"], cell["source"])


def table2_accuracy(row: str | None, data: str, top: int = 1) -> Published | None:
    """The validation accuracy of a row of Table 2 on `cifar10`, `cifar100` or `imagenet32`.

    **Raises:** `KeyError` for a row that is not in the table; `row=None` is one that nobody has.
    """
    if row is None:
        return None
    cell = _numbers()["table2_validation_accuracy_percent"]["rows"][row][data]
    given = None if cell is None else cell.get(f"top{top}")
    return None if cell is None or given is None else Published(given[0], given[1], cell["source"])


def _numbers() -> dict[str, Any]:
    return json.loads(NUMBERS.read_text(encoding="utf-8"))
