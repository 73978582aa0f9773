"""Trees in files that are read without a skeleton, and run no code when they are.

A file is an uncompressed `.npz`. Every array is an entry under its place in the tree, and `tree.json` says what the
tree is: a module is the name of its class with its fields, a function is its name.
"""

import dataclasses
import io
import json
import os
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from eqprop._names import found, in_module, name_of

_TEXT, _FORMAT = "tree.json", "eqprop tree 1"
ZOO = Path(__file__).with_name("zoo")
"""Where the trained networks of the package lie: `zoo:NAME` is `NAME.npz` in it."""


def save(path: str | Path, tree: Any, header: dict[Any, Any] | None = None) -> None:
    """Write a tree to one file, from which `load` makes an equal one:

        eq.save("model.npz", model, {"lr": 0.1})
        model = eq.load("model.npz")

    **Arguments:**

    - `path`: the file, under exactly this name. At any moment it holds what was there before or the whole tree.
    - `tree`: modules, dataclasses and named tuples with all their fields; lists, tuples, dictionaries; arrays of JAX
        and NumPy, keys of random numbers, numbers, strings, `None`; classes and functions with a name in a module.
    - `header`: a dictionary that JSON holds unchanged, for `read_header`.

    **Raises:** `ValueError` for what cannot be written, such as a lambda, with its place in the tree, and for a header
    that JSON would change.
    """
    try:
        unchanged = isinstance(header, dict | None) and json.loads(json.dumps(header)) == header
    except (TypeError, ValueError):
        unchanged = False
    if not unchanged:
        expected = "a dictionary by strings of strings, numbers that are none of NumPy's, lists and dictionaries"
        raise ValueError(f"The header is {header!r}; expected what JSON holds unchanged: {expected}.")
    arrays: dict[str, np.ndarray] = {}
    described = _described(tree, "tree", arrays)
    text = json.dumps({"format": _FORMAT, "header": header or {}, "tree": described, "arrays": [*arrays]})
    partial = Path(path).with_name(f".{Path(path).name}.partial")
    try:
        with open(partial, "wb") as raw:
            with zipfile.ZipFile(raw, "w") as file:
                file.writestr(zipfile.ZipInfo(_TEXT), text)
                for name, array in arrays.items():
                    with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | Path, known: Iterable[Any] = ()) -> Any:
    """The tree that `save` wrote, its arrays with their types, its modules made without their `__init__`.

    **Arguments:**

    - `path`: a file, or `zoo:NAME` for a trained network of the package.
    - `known`: the user's own classes and functions in the tree. They are recognised by name, also after a move to
        another module. No module of another package is imported.

    **Raises:** `ValueError` for a file that is damaged or not one of `save`, a class or function that is neither the
    library's nor known, a class whose fields have changed, and arrays of 64 bits where JAX has none.
    """
    text, arrays = _read(path)
    return _rebuilt(text["tree"], arrays, {thing.__qualname__: thing for thing in known})


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a file that `save` wrote; no array is read. **Raises:** `ValueError` for a file of another kind."""
    return _read(path, with_arrays=False)[0]["header"]


def _place(path: str | Path) -> Path:
    """The file, also of a network of the zoo. **Raises:** `ValueError` for a name that is not in it."""
    if not str(path).startswith("zoo:"):
        return Path(path)
    name, there = str(path).removeprefix("zoo:"), sorted(file.stem for file in ZOO.glob("*.npz"))
    if name not in there:
        raise ValueError(f"The zoo has no {name!r}; it has {', '.join(there)}.")
    return ZOO / f"{name}.npz"


def _read(path: str | Path, with_arrays: bool = True) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with open(_place(path), "rb") as raw:
        try:
            file = zipfile.ZipFile(raw)
            text = json.loads(file.read(_TEXT))
            if text["format"] != _FORMAT:
                raise ValueError(f"its format is {text['format']!r}, expected {_FORMAT!r}")
            # Entries are read whole, as their checksums are looked at no earlier.
            read = lambda name: np.lib.format.read_array(io.BytesIO(file.read(f"{name}.npy")), allow_pickle=False)
            return text, {name: read(name) for name in text["arrays"] if with_arrays}
        except Exception as error:  # readers of foreign bytes raise whatever the first wrong one leads to
            raise ValueError(f"{path} is damaged, or was not written by this eqprop.save: {error!r}.") from error


def _described(value: Any, where: str, arrays: dict[str, np.ndarray]) -> Any:
    """What JSON says of a value; its arrays are added to `arrays`."""
    kind, inside = type(value), lambda part, place: _described(part, where + place, arrays)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    is_jax = issubclass(kind, jax.Array)
    if is_jax and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return {"key": inside(jax.random.key_data(value), ""), "impl": str(jax.random.key_impl(value))}
    if (is_jax or kind is np.ndarray or issubclass(kind, np.generic)) and not (
        value.dtype.hasobject or value.dtype.names
    ):
        array, name = np.asarray(value), where if where not in arrays else f"{where}#{len(arrays)}"
        plain = np.dtype(array.dtype.str) == array.dtype  # of others, such as bfloat16, files keep the size only
        arrays[name] = array if plain else array.view(f"u{array.dtype.itemsize}")
        family = "jax" if is_jax else "numpy" if kind is np.ndarray else "scalar"
        return {"array": name, "dtype": array.dtype.name, "family": family}
    if kind in (list, tuple):
        return {kind.__name__: [inside(part, f"[{i}]") for i, part in enumerate(value)]}
    if kind in (dict, OrderedDict):
        return {kind.__name__: [[inside(k, f"[{k!r}]"), inside(v, f"[{k!r}]")] for k, v in value.items()]}
    fields = _fields(kind)
    named = value if fields is None else kind
    if in_module(name_of(named)) is not named:
        reason = f"it is no array and no plain value, and no module has {name_of(named)} for others to find"
        raise ValueError(f"{where} is {value!r}, which cannot be saved: {reason}.")
    if fields is None:
        return {"name": name_of(value)}
    return {"class": name_of(kind), "fields": {field: inside(getattr(value, field), f".{field}") for field in fields}}


def _rebuilt(node: Any, arrays: Mapping[str, np.ndarray], known: Mapping[str, Any]) -> Any:
    again = lambda part: _rebuilt(part, arrays, known)
    match node:
        case {"complex": [real, imag]}:
            return complex(real, imag)
        case {"key": data, "impl": impl}:
            return jax.random.wrap_key_data(again(data), impl=impl)
        case {"array": name, "dtype": dtype, "family": family}:
            array = arrays[name] if arrays[name].dtype.name == dtype else arrays[name].view(np.dtype(dtype))
            if family == "jax" and jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
                raise ValueError(f'{name} is {dtype}. Call jax.config.update("jax_enable_x64", True) before loading.')
            return jnp.asarray(array) if family == "jax" else array[()] if family == "scalar" else array
        case {"list": parts} | {"tuple": parts}:
            return (list if "list" in node else tuple)(map(again, parts))
        case {"dict": pairs} | {"OrderedDict": pairs}:
            return (dict if "dict" in node else OrderedDict)((again(key), again(value)) for key, value in pairs)
        case {"name": name}:
            return found(name, known)
        case {"class": name, "fields": fields}:
            kind, values = found(name, known), {field: again(part) for field, part in fields.items()}
            if set(expected := _fields(kind) or ()) != set(values):
                raise ValueError(f"{name} was saved with the fields {[*values]}, but here it has {[*expected]}.")
            if issubclass(kind, tuple):
                return tuple.__new__(kind, [values[field] for field in expected])
            made = object.__new__(kind)
            for field, value in values.items():
                object.__setattr__(made, field, value)
            return made
    return node


def _fields(kind: type) -> tuple[str, ...] | None:
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return getattr(kind, "_fields", None) if issubclass(kind, tuple) else None
