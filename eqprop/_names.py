"""Classes and functions by name: what a file may name, and what is looked up for it."""

import functools
import importlib
from collections.abc import Mapping
from typing import Any

PACKAGES = ("eqprop", "jax", "optax", "equinox", "diffrax", "lineax", "optimistix")
"""Where names are looked up; all others are the user's to give."""


def name_of(thing: Any) -> str:
    """`"module:qualified name"` of a class or function; something that `in_module` does not find, of other things."""
    return f"{getattr(thing, '__module__', None)}:{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def in_module(name: str) -> Any:
    """What its own module has under this name, or `None`: a lambda, a closure or a bound method is in no module."""
    module, _, path = name.partition(":")
    try:
        thing = functools.reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError):
        return None
    return thing if name_of(thing) == name else None


def found(name: str, known: Mapping[str, Any]) -> Any:
    """What goes by this name in `PACKAGES`, or else among `known`, there without regard to its module.

    What a module of `PACKAGES` has imported from elsewhere, such as `os.system`, goes by another name and is not found.

    **Raises:** `ValueError` if there is none.
    """
    module, _, path = name.partition(":")
    thing = in_module(name) if module.partition(".")[0] in PACKAGES else None
    if thing is None and path not in known:
        raise ValueError(f"The tree has {name}, which is none of the library's. If you trust it, pass known=[{path}].")
    return known[path] if thing is None else thing
