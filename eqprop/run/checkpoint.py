"""Checkpoints that survive a kill at any moment: written aside, synced, verified, then named.

A file is one line of JSON, then the leaves of a tree as Equinox serialises them, then the SHA-256 of all before it. The
name appears only when the file is whole, so a reader meets either the old file or the new one.
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

_DIGEST = hashlib.sha256().digest_size


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be trusted; the message names the file."""


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Make `path` hold what `write` writes, or leave it as it was.

    **Raises:** `OSError` that names the file, for instance when the disk is full; nothing is lost then.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the name itself, not only the bytes
            finally:
                os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise OSError(
            error.errno, f"{path} could not be written ({error.strerror or error}); what was there before is intact"
        ) from error


def save(path: Path, tree: PyTree, header: dict) -> None:
    """Write a tree of arrays and a JSON header as one verified file."""
    body = io.BytesIO()
    body.write(json.dumps(header).encode() + b"\n")
    eqx.tree_serialise_leaves(body, _without_keys(tree))
    content = body.getbuffer()
    digest = hashlib.sha256(content).digest()

    def write(file: BinaryIO) -> None:
        file.write(content)
        file.write(digest)

    write_atomically(path, write)


def load(path: Path, like: PyTree) -> tuple[PyTree, dict]:
    """The tree, with the structure, shapes and dtypes of `like`, and the header.

    **Raises:** `DamagedCheckpoint` if the file is cut short, altered, or of another structure.
    """
    content = path.read_bytes()
    body, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise DamagedCheckpoint(f"{path} is damaged: its SHA-256 is not the one it was written with")
    line, _, leaves = body.partition(b"\n")
    stream = io.BytesIO(leaves)
    try:
        tree = eqx.tree_deserialise_leaves(stream, _without_keys(like))
    except (RuntimeError, ValueError, EOFError) as error:
        raise DamagedCheckpoint(f"{path} holds another model: {error}") from error
    if stream.read(1):
        raise DamagedCheckpoint(f"{path} holds another model: it has more arrays than this one")
    return _with_keys(tree, like), json.loads(line)


def _is_key(leaf: Any) -> bool:
    return eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _without_keys(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _with_keys(tree: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(
        lambda leaf, old: jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(old)) if _is_key(old) else leaf,
        tree,
        like,
    )
