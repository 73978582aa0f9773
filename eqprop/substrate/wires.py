"""Wires of crossbars: the voltage that they take from the devices, and the weights that this leaves."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from eqprop._tree import is_concrete
from eqprop.circuit import ResistiveNetwork
from eqprop.circuit.crossbar import Wires, effective_conductances
from eqprop.model import Model
from eqprop.network import AbstractEnergyNetwork
from eqprop.substrate.base import Number, Reciprocity, check_range
from eqprop.substrate.deployment import AbstractDeployment
from eqprop.substrate.kernels import READOUT, Name, flip, kernels_of, primary_kernels, with_kernels
from eqprop.substrate.neurons import innermost

AT_ONCE = 128
"""Tiles that are solved together; more of them cost memory."""


class WireResistance(AbstractDeployment):
    """Wires that have a resistance. A kernel lies on crossbars of `tile × tile` devices, those of `G⁺` apart from those
    of `G⁻`, with `w = limit (G⁺ − G⁻)/Gmax` up to the conductance of devices that are off. Its weights become

        w_eff = limit (G⁺_eff − G⁻_eff)/Gmax,       G_eff = `effective_conductances(G, Wires(…))`.

    Resistances are given times `Gmax`: `wire` between neighbouring devices of a row or a column, `driver` at the driven
    end and `sense` at the read end of every line. 1 Ω between devices of at least 10 kΩ is `wire=1e-4` (engineering
    guess). The last tile in a direction has as many lines as are left, and currents of tiles add. Kernels of
    convolutions are unrolled to `(height · width · channels, channels)`.

    - `shared`: one crossbar serves both directions, driven at its rows or at its columns. By the reciprocity of
        circuits the two read transposes where `driver` equals `sense`, which keeps `A = Aᵀ`; otherwise drivers and
        sense amplifiers change places, and it breaks. A layer onto itself has two crossbars of half the weights, one
        read in either direction.
    - not `shared`: a crossbar for each direction, driven at its rows. A pair of devices lies at different places in
        the two, which breaks it.

    A weight beyond `± limit` is a larger conductance here; `Quantised` bounds weights.
    """

    wire: Number = 1e-4
    driver: Number = 0.0
    sense: Number = 0.0
    tile: int = eqx.field(static=True, default=16)
    limit: Number = 1.0
    on_off_ratio: Number = 100.0
    shared: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        for name in ("wire", "driver", "sense"):
            check_range(self, name)
        check_range(self, "tile", 1, 64)
        check_range(self, "limit", 1e-12)
        check_range(self, "on_off_ratio", 1.0 + 1e-6)

    @property
    def reciprocity(self) -> Reciprocity:
        known = is_concrete(self.driver) and is_concrete(self.sense)
        alike = known and np.all(np.asarray(self.driver) == np.asarray(self.sense))
        return "keeps" if self.shared and alike else "breaks"

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        del key
        network, kernels = innermost(model.network), kernels_of(model, self)
        flat = [name for name, w in kernels.items() if w.ndim < 2]
        if flat or isinstance(network, ResistiveNetwork):
            raise ValueError(
                f"{type(self).__name__} puts matrices on crossbars read at virtual ground, which the kernels of "
                f"{type(network).__name__} are not. Use a dense or convolutional network; a netlist with its wires is "
                "a Circuit."
            )
        if self.reciprocity == "breaks" and isinstance(network, AbstractEnergyNetwork):
            raise ValueError(
                f"{type(self).__name__} would give both directions of a device different values, but "
                f"{type(network).__name__} has one kernel for both. Share the crossbar with driver equal to sense, or "
                "use DenseNetwork."
            )
        primary = primary_kernels(kernels, model)
        return with_kernels(model, {name: self._one(name, w, primary[name]) for name, w in kernels.items()})

    def realised(self, w: Float[Array, "..."], *, backwards: bool = False) -> Float[Array, "..."]:
        """The weights that crossbars of `w` realise, driven at their rows; `backwards`: at their columns, in the
        orientation of `w`."""
        matrix = w.reshape(-1, w.shape[-1])
        ends = (self.sense, self.driver) if backwards else (self.driver, self.sense)
        wires = Wires(self.wire, self.wire, *ends)
        least = 1 / self.on_off_ratio

        def one(part: Float[Array, "m n"]) -> Float[Array, "m n"]:
            signed = (1 - least) * part / self.limit
            pair = least + jnp.maximum(jnp.stack([signed, -signed]), 0.0)
            plus, minus = jax.vmap(lambda G: effective_conductances(G, wires))(pair)
            return (plus - minus) * self.limit / (1 - least)

        return tiled(one, matrix, self.tile).reshape(w.shape)

    def _one(self, name: Name, w: Array, source: Name) -> Array:
        if name[0] == name[-1] and name != READOUT and self.shared:
            return self.realised(0.5 * w) + flip(self.realised(0.5 * flip(w), backwards=True))
        if self.shared and source != name:
            return flip(self.realised(flip(w), backwards=True))
        return self.realised(w)


def tiled(function: Callable[[Array], Array], matrix: Float[Array, "m n"], tile: int) -> Float[Array, "m n"]:
    """`function` of every tile of a matrix; the last ones of a row or a column of tiles are smaller."""
    m, n = matrix.shape
    rows = [part for part in (matrix[: m - m % tile], matrix[m - m % tile :]) if part.shape[0]]
    blocks = [[part for part in (row[:, : n - n % tile], row[:, n - n % tile :]) if part.shape[1]] for row in rows]
    return jnp.concatenate([jnp.concatenate([_equal(function, b, tile) for b in row], axis=1) for row in blocks])


def _equal(function: Callable[[Array], Array], matrix: Array, tile: int) -> Array:
    m, n = matrix.shape
    height, width = min(m, tile), min(n, tile)
    tiles = matrix.reshape(m // height, height, n // width, width).swapaxes(1, 2).reshape(-1, height, width)
    # What a gradient needs of a tile is many times as large as the tile: it is computed again.
    each = jax.checkpoint(function)  # pyright: ignore
    done = jax.vmap(each)(tiles) if len(tiles) <= AT_ONCE else jax.lax.map(each, tiles, batch_size=AT_ONCE)
    return done.reshape(m // height, n // width, height, width).swapaxes(1, 2).reshape(m, n)
