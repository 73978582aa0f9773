"""Crossbars with wires of finite resistance: the currents that come out, and the conductances that they amount to."""

from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from eqprop._tree import product

Ohms = float | int | Float[Array, ""]


class Wires(eqx.Module):
    """Resistances around the devices of a crossbar, in ohms.

    A row is driven at its first column through `driver`, and a column is read at its last row through `sense`, at
    virtual ground. Between two neighbours in a row lies `row`, between two in a column `column`.
    """

    row: Ohms = 0.0
    column: Ohms = 0.0
    driver: Ohms = 0.0
    sense: Ohms = 0.0


def column_currents(conductances: Float[Array, "m n"], volts: Float[Array, " m"], wires: Wires) -> Float[Array, " n"]:
    """The currents out of the columns, in amperes, for voltages at the drivers of the rows; conductances in siemens."""
    return product(volts[None], effective_conductances(conductances, wires))[0]


def effective_conductances(conductances: Float[Array, "m n"], wires: Wires) -> Float[Array, "m n"]:
    """The matrix that a crossbar realises: its currents are `G_effᵀ v`. Differentiable in all arguments.

    Row `i` alone takes the currents `Sᵢ (vᵢ 1 − u)` from its driver into the columns, whose voltages beside it are `u`:

        Sᵢ = (1 + Gᵢ Zᵢ)⁻¹ Gᵢ,      Z_jl = driver + row min(j, l),      Gᵢ the diagonal matrix of its conductances.

    All rows down to it take `Hᵢ v − Yᵢ u`, without error:

        Yᵢ = (1 + column Yᵢ₋₁)⁻¹ Yᵢ₋₁ + Sᵢ,      Hᵢ = (1 + column Yᵢ₋₁)⁻¹ Hᵢ₋₁ + Sᵢ 1 eᵢᵀ,

    and `G_eff = ((1 + sense Y)⁻¹ H)ᵀ` of the last row. Without resistances that is `G`. About `2 m n³` multiplications.

    The circuit is reciprocal. Driven at its columns and read at its rows, with the same resistances at the ends of
    rows and of columns, the same crossbar realises `G_effᵀ`.
    """
    (m, n), dtype = conductances.shape, conductances.dtype
    row, column, driver, sense = (jnp.asarray(r, dtype) for r in (wires.row, wires.column, wires.driver, wires.sense))
    one = jnp.eye(n, dtype=dtype)
    Z = driver + row * jnp.asarray(np.minimum.outer(np.arange(n), np.arange(n)), dtype)
    alone = jax.vmap(lambda g: jnp.linalg.solve(one + g[:, None] * Z, jnp.diag(g)))(conductances)

    def next_row(above: Array, now: tuple[Array, Array]) -> tuple[Array, None]:
        S, unit = now
        through = jnp.linalg.solve(one + column * above[:, :n], above)
        return through + jnp.concatenate([S, jnp.sum(S, axis=1)[:, None] * unit], axis=1), None

    units = jnp.eye(m, dtype=dtype)[:, None]
    all_rows, _ = jax.lax.scan(next_row, jnp.zeros((n, n + m), dtype), (alone, units))
    return jnp.linalg.solve(one + sense * all_rows[:, :n], all_rows[:, n:]).T


def write_crossbar(
    conductances: Float[Array | np.ndarray, "m n"], volts: Float[Array | np.ndarray, " m"], wires: Wires
) -> list[str]:
    """The elements of a crossbar, a line each, for ngspice and for `read_circuit`.

    The rows are driven by the sources `vrow0`, `vrow1`, …, and the currents of `vsense0`, `vsense1`, … are those out of
    the columns. Where a resistance is 0 its ends are one node, and a device of conductance 0 is left out.
    """
    (m, n), text = conductances.shape, "{:.17g}".format
    row, column, driver, sense = (float(r) for r in (wires.row, wires.column, wires.driver, wires.sense))

    def above(i: int, j: int) -> str:
        first = f"row{i}" if driver == 0 else f"r{i}_0"
        return first if row == 0 or j == 0 else f"r{i}_{j}"

    def below(i: int, j: int) -> str:
        last = f"sense{j}" if sense == 0 else f"c{m - 1}_{j}"
        return last if column == 0 or i == m - 1 else f"c{i}_{j}"

    lines = [f"Vrow{i} row{i} 0 {text(v)}" for i, v in enumerate(np.asarray(volts))]
    lines += [f"Vsense{j} sense{j} 0 0" for j in range(n)]
    if driver:
        lines += [f"Rdriver{i} row{i} {above(i, 0)} {text(driver)}" for i in range(m)]
    if sense:
        lines += [f"Rsense{j} {below(m - 1, j)} sense{j} {text(sense)}" for j in range(n)]
    if row:
        lines += [f"Rrow{i}_{j} {above(i, j)} {above(i, j + 1)} {text(row)}" for i, j in _pairs(m, n - 1)]
    if column:
        lines += [f"Rcolumn{i}_{j} {below(i, j)} {below(i + 1, j)} {text(column)}" for i, j in _pairs(m - 1, n)]
    for (i, j), g in np.ndenumerate(np.asarray(conductances)):
        if g > 0:
            lines.append(f"Rcell{i}_{j} {above(i, j)} {below(i, j)} {text(1 / g)}")
    return lines


def _pairs(m: int, n: int) -> Iterable[tuple[int, int]]:
    return ((i, j) for i in range(m) for j in range(n))
