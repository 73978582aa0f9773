"""What a training keeps in a folder, and whether it is the same training that goes on."""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from eqprop.save import load, read_header, save


@dataclass(frozen=True)
class Checkpoint:
    """State and records of a run in one file, which also says of which run."""

    path: Path
    run: dict[str, Any]

    @classmethod
    def of(cls, folder: str | os.PathLike[str], settings: dict[str, Any], trees: dict[str, PyTree]) -> "Checkpoint":
        """Of the run with these settings that starts from these trees, in a folder that is made if need be."""
        structures = {name: _structure(tree) for name, tree in trees.items()}
        numbers = {f"numbers of {name}": _digest(tree) for name, tree in trees.items()}
        path = Path(folder) / "fit.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path, {**settings, **structures, **numbers})

    def keep(self, state: PyTree, records: list[dict[str, Any]]) -> None:
        """Write the arrays of a state: whatever else there is in it, the same call has again."""
        save(self.path, {"arrays": jax.tree.leaves(eqx.filter(state, eqx.is_array)), "records": records}, self.run)

    def kept(self, start: PyTree) -> tuple[PyTree, list[dict[str, Any]]]:
        """State and records as they were kept; those of the start if nothing was.

        **Raises:** `ValueError` if what was kept is of another run, with what differs.
        """
        if not self.path.exists():
            return start, []
        there, here = read_header(self.path), self.run
        names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        if names:
            different = "; ".join(f"{name}: {_contrast(there.get(name), here.get(name))}" for name in names)
            raise ValueError(f"{self.path} is of another run, with other {different}. Give another folder.")
        kept, (arrays, rest) = load(self.path), eqx.partition(start, eqx.is_array)
        return eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), kept["arrays"]), rest), kept["records"]


def _structure(tree: PyTree) -> str:
    """Shapes, types and settings in one line, the same in every process."""
    return re.sub(" at 0x[0-9a-f]+", "", eqx.tree_pformat(tree, width=10**9))


def _digest(tree: PyTree) -> str:
    """Equal for equal numbers."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        digest.update(np.asarray(jax.random.key_data(leaf) if is_key else leaf).tobytes())
    return digest.hexdigest()[:16]


def _contrast(there: Any, here: Any) -> str:
    """Two values from a little before where they part."""
    there, here = str(there), str(here)
    start = max(len(os.path.commonprefix([there, here])) - 24, 0)
    return f"{there[start:][:60]!r} there, {here[start:][:60]!r} here"
