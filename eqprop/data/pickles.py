"""Pickled batches without trusting them.

Unpickling calls whatever a file names. Here a name stands for a small class below: those of the half-dozen functions
with which NumPy pickles an array for one that can do nothing but hold numbers, any other name for an `Unknown`, which
does nothing at all. So an entry that nobody needs may be anything. Every class has `__slots__` and `__setstate__`, so a
file cannot set attributes on it either.
"""

import io
import math
import pickle
import re

import numpy as np

from eqprop.data.faults import damaged, unfit


class _Inert:
    __slots__ = ()

    def __setstate__(self, state) -> object:
        raise pickle.UnpicklingError("a state where none belongs")


class Unknown(_Inert):
    """What no array of numbers needs. Whatever is done to it is ignored, and gives itself where something is due."""

    __slots__ = ("name",)

    def __new__(cls, *ignored, **named):
        # Pickles that make an object call `__new__` of the class they name: here of an `Unknown`.
        return cls if isinstance(cls, Unknown) else super().__new__(cls)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def __call__(self, *ignored, **named) -> "Unknown":
        return self

    __setstate__ = __setitem__ = append = extend = add = read = item = __call__


class _Bytes(_Inert):
    """`_codecs.encode(text, "latin1")`: how bytes are written below protocol 3."""

    __slots__ = ()

    def __new__(cls, text, encoding="latin1"):
        if encoding not in ("latin1", "latin-1"):
            return Unknown(f"text in the encoding {encoding!r}")
        return text.encode("latin1")


class _Dtype(_Inert):
    """`numpy.dtype`; an array of anything but numbers is `Unknown`."""

    __slots__ = ("code", "order")

    def __init__(self, code, align=False, copy=True):
        del align, copy
        self.code = code.decode("ascii") if isinstance(code, bytes) else str(code)
        self.order = "="

    def __setstate__(self, state):
        order = state[1]
        self.order = order.decode("ascii") if isinstance(order, bytes) else order

    def read(self, raw, shape=(), fortran=False) -> "np.ndarray | Unknown":
        if not re.fullmatch("[biuf][1248]", self.code):
            return Unknown(f"an array of type {self.code!r}")
        values = np.frombuffer(raw, np.dtype(self.order + self.code))
        if values.size != math.prod(shape):
            raise pickle.UnpicklingError(f"{values.size} numbers for an array of shape {shape}")
        return values.reshape(shape, order="F" if fortran else "C")


class _Array(_Inert):
    """`numpy.ndarray` and its `_reconstruct`: an empty array, filled by its state."""

    __slots__ = ("value",)

    def __init__(self, *placeholders):
        del placeholders
        self.value = np.empty(0, np.uint8)

    def __setstate__(self, state):
        version, shape, dtype, fortran, raw = state
        del version
        self.value = dtype.read(raw, shape, fortran)


class _Buffer(_Inert):
    """`_frombuffer(buffer, dtype, shape, order)`: an array of protocol 5."""

    __slots__ = ()

    def __new__(cls, raw, dtype, shape, order):
        array = _Array()
        array.value = dtype.read(raw, shape, order == "F")
        return array


class _Scalar(_Inert):
    """`scalar(dtype, raw)`: a number."""

    __slots__ = ()

    def __new__(cls, dtype, raw):
        return dtype.read(raw).item()


_ALLOWED: dict[tuple[str, str], type[_Inert]] = {
    ("_codecs", "encode"): _Bytes,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")  # NumPy 1 and 2
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _Scalar),
            ("numeric", "_frombuffer", _Buffer),
        )
    },
}


class _Unpickler(pickle._Unpickler):
    """Python's own implementation, not the one in C: that one allocates a table as long as the
    largest index in the file, up to 64 GiB for one flipped bit. A batch takes it a few tenths of a second."""

    def find_class(self, module, name):
        return _ALLOWED.get((module, name)) or Unknown(f"{module}.{name}, which was not run: do not trust it")


def read_pickle(data: bytes, source: str) -> dict[str, object]:
    """Unpickle a dictionary of arrays, numbers, strings, lists and `Unknown`; nothing in it is executed.

    **Arguments:**

    - `data`: the file's contents, of Python 2 or 3 and any protocol.
    - `source`: the file's name, for errors.

    **Returns:** The dictionary, keys as `str`, arrays (read-only) as `np.ndarray`.

    **Raises:** `ValueError` naming `source` if the contents are damaged or are no dictionary.
    """
    try:
        # Python 2's str becomes bytes: no text encoding is guessed.
        found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    # Damaged opcodes surface as almost any exception; none of them is a fault of this program.
    except Exception as error:
        raise damaged(source, str(error) or f"cut short: {type(error).__name__}") from error
    if not isinstance(found, dict):
        what = found if isinstance(found, Unknown) else type(found).__name__
        raise unfit(source, f"a pickled {what}, expected a dictionary")
    return {
        key.decode("latin1") if isinstance(key, bytes) else str(key): (
            value.value if isinstance(value, _Array) else value
        )
        for key, value in found.items()
    }
