"""A checkpoint is whole or not there, whatever happens while it is written."""

import errno
import json
import os
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eqprop.run import checkpoint
from eqprop.run.checkpoint import DamagedCheckpoint, load, save, write_atomically


def tree(key=0):
    return {"weights": jax.random.normal(jax.random.key(key), (3, 4)), "key": jax.random.key(7), "step": jnp.zeros(())}


def same(a, b):
    data = [jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, t)
            for t in (a, b)]  # fmt: skip
    return eqx.tree_equal(*data)


def test_round_trip_is_exact_with_keys_and_header(tmp_path):
    header = {"position": 3, "seconds": 0.1, "start": None, "records": [{"loss": float("nan")}]}
    save(tmp_path / "a.eqx", tree(), header)
    loaded, found = load(tmp_path / "a.eqx", jax.tree.map(jnp.zeros_like, tree() | {"key": jax.random.key(0)}))
    assert same(loaded, tree())
    assert json.dumps(found) == json.dumps(header)
    assert [path.name for path in tmp_path.iterdir()] == ["a.eqx"]


@pytest.mark.parametrize("keep", [0, 1, 20, 100, -33, -1])
def test_a_file_cut_short_is_refused(tmp_path, keep):
    path = tmp_path / "a.eqx"
    save(path, tree(), {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedCheckpoint, match=r"a\.eqx is damaged"):
        load(path, tree())


@pytest.mark.parametrize("where", [0, 5, 200, -40, -1])
def test_one_altered_byte_is_noticed(tmp_path, where):
    path = tmp_path / "a.eqx"
    save(path, tree(), {"position": 1})
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpoint):
        load(path, tree())


@pytest.mark.parametrize(
    "like",
    [
        tree() | {"weights": np.zeros((4, 4))},
        tree() | {"weights": jnp.zeros((3, 4), jnp.float32)},
        {name: leaf for name, leaf in tree().items() if name != "weights"},
        {name: leaf for name, leaf in tree().items() if name == "key"},
        tree() | {"z": jnp.zeros(2)},
    ],
    ids=["shape", "dtype", "another", "fewer", "more"],
)
def test_another_model_is_refused(tmp_path, like):
    save(tmp_path / "a.eqx", tree(), {})
    with pytest.raises(DamagedCheckpoint, match="another model"):
        load(tmp_path / "a.eqx", like)


class Killed(BaseException):
    """As a kill: nothing catches it."""


class Full:
    """A file on a disk that fills up after `room` bytes."""

    def __init__(self, path, mode, room=100):
        self._file: Any = open(path, mode)
        self._room = room

    def write(self, content):
        self._file.write(bytes(content)[: self._room])
        self._room -= len(content)
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


def refuse(number, *ignored):
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_between_writing_and_naming_leaves_the_old(tmp_path, monkeypatch, moment):
    path = tmp_path / "a.eqx"
    save(path, tree(), {"position": 1})

    def kill(*ignored):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, moment, kill)
        with pytest.raises(Killed):
            save(path, tree(1), {"position": 2})
    loaded, header = load(path, tree())
    assert header == {"position": 1} and same(loaded, tree())
    save(path, tree(1), {"position": 2})
    assert load(path, tree())[1] == {"position": 2}
    assert [found.name for found in tmp_path.iterdir()] == ["a.eqx"]


@pytest.mark.parametrize("failure", ["full while writing", "full while syncing", "read-only", "renaming"])
def test_a_disk_that_fails_says_so_and_leaves_the_old(tmp_path, monkeypatch, failure):
    path = tmp_path / "a.eqx"
    save(path, tree(), {"position": 1})
    with monkeypatch.context() as patch:
        match failure:
            case "full while writing":
                patch.setattr(checkpoint, "open", Full, raising=False)
            case "full while syncing":
                patch.setattr(checkpoint.os, "fsync", lambda *ignored: refuse(errno.ENOSPC))
            case "read-only":
                patch.setattr(checkpoint, "open", lambda *ignored: refuse(errno.EROFS), raising=False)
            case "renaming":
                patch.setattr(checkpoint.os, "replace", lambda *ignored: refuse(errno.EIO))
        with pytest.raises(OSError, match=r"a\.eqx could not be written .*; what was there before is intact") as error:
            save(path, tree(1), {"position": 2})
    assert error.value.errno in (errno.ENOSPC, errno.EROFS, errno.EIO)
    assert same(load(path, tree())[0], tree())
    assert [found.name for found in tmp_path.iterdir()] == ["a.eqx"]


def test_a_device_that_is_always_full(tmp_path):
    """The real thing: the kernel's full device in the place of the file aside."""
    (tmp_path / ".a.txt.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(tmp_path / "a.txt", lambda file: file.write(b"text"))
    assert not list(tmp_path.iterdir())
