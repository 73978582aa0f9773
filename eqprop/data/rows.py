"""Chosen rows of a memory-mapped file, without a copy of them."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int


class Rows:
    """The images at chosen rows of a larger array; they stay in its file until they are asked for.

    It has the shape and type of an array, an index or a slice gives an array of the images asked for, and any function
    of NumPy or JAX reads all of them.

    **Arguments:**

    - `images`: the larger array, as a rule memory-mapped.
    - `rows`: the rows chosen, in order.
    """

    __slots__ = ("_images", "_rows")

    def __init__(self, images: np.ndarray, rows: Int[np.ndarray, " n"]):
        # A plain view: indexing an `np.memmap` costs more and returns one for no purpose.
        self._images, self._rows = np.asarray(images), rows

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._rows), *self._images.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._images.dtype

    @property
    def ndim(self) -> int:
        return self._images.ndim

    @property
    def nbytes(self) -> int:
        """What the images take once they are in memory."""
        return len(self._rows) * self._images[:1].nbytes

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        first, *rest = index if isinstance(index, tuple) else (index,)
        chosen = self._images[self._rows[first]]
        whole = () if isinstance(first, (int, np.integer)) else (slice(None),)
        return chosen[(*whole, *rest)] if rest else chosen

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("The chosen rows of a file are no array yet; ask for a copy.")
        return self[:].astype(dtype or self.dtype, copy=False)

    def take(self, index: slice | np.ndarray) -> "Rows":
        """The images at `index` of these, still in the file."""
        return Rows(self._images, self._rows[index])


# To those who read images, and to type checkers, rows are an array.
if TYPE_CHECKING:
    Images = np.ndarray
else:
    Images = np.ndarray | Rows
