"""Files of trees: what is read equals what was written, in type and to the last bit; nothing else is trusted."""

import json
import os
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import eqprop as eq
from eqprop import substrate
from helpers import SETTLE, problem


class Point(NamedTuple):
    x: Any
    y: Any = None


@dataclass(frozen=True)
class Setting:
    value: Any


class Own(eqx.Module):
    """A module whose `__init__` must not run again."""

    weights: Any
    rule: Any = eqx.field(static=True)

    def __init__(self, weights, rule, allowed=False):
        if not allowed:
            raise RuntimeError("initialised")
        self.weights, self.rule = weights, rule


def halved(x):
    return x / 2


KNOWN = (Point, Setting, Own, halved)


def same(a, b) -> bool:
    """Equal in types, order of names, dtypes, shapes and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        return a.dtype == b.dtype and same(jax.random.key_data(a), jax.random.key_data(b))
    if isinstance(a, (jax.Array, np.ndarray, np.generic)):
        return a.dtype == b.dtype and a.shape == b.shape and np.asarray(a).tobytes() == np.asarray(b).tobytes()
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (Own, Setting)):
        return same(list(vars(a).items()), list(vars(b).items()))
    return repr(a) == repr(b)


def copy(path, tree, known=()):
    eq.save(path, tree)
    return eq.load(path, known)


# Trees.


def state():
    rule = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    trainer = eq.Trainer(SETTLE, eq.RecurrentBackprop(relaxation=SETTLE), rule)
    with jax.numpy_dtype_promotion("standard"):
        return trainer.init(problem("asymmetric").model, key=jax.random.key(3))


def cast(model, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, model)


DEVICE = substrate.Substrate(chip=3, mismatch=substrate.Mismatch(0.1), adc=substrate.ADC(8))

TREES = {
    **{name: lambda name=name: problem(name).model for name in ("asymmetric", "conv", "hopfield")},
    "float32": lambda: cast(problem("asymmetric").model, jnp.float32),
    "bfloat16": lambda: cast(problem("asymmetric").model, jnp.bfloat16),
    "state": state,
    "substrate": lambda: DEVICE,
    "deployed": lambda: eqx.filter_jit(DEVICE.deploy)(problem("asymmetric").model),
    "estimator": lambda: eq.FiniteNudge(stencil=eq.cauchy(0.4, 4), relaxation=eq.Sweep(tol=1e-4)),
    "result": lambda: eq.RESULTS.diverged,
    "activations": lambda: [jax.nn.relu, jnp.tanh, eq.tanh, jnp.float32, eq.DenseNetwork.drive],
}


@pytest.mark.parametrize("name", TREES)
def test_what_is_loaded_equals_what_was_saved(name, tmp_path):
    tree = TREES[name]()
    assert eqx.tree_equal(copy(tmp_path / "tree.npz", tree), tree, typematch=True)


def test_a_loaded_model_meets_the_same_compiled_program(tmp_path):
    """Its static parts are equal, not only alike."""
    model, traces = problem("asymmetric").model, []

    @eqx.filter_jit
    def read(model, x):
        traces.append(model)
        return model.network.embed(x)

    x = problem("asymmetric").x[0]
    assert same(read(model, x), read(copy(tmp_path / "model.npz", model), x)) and len(traces) == 1


DTYPES = ["bool", "int8", "uint16", "int64", "float16", "float32", "float64", "complex128", "bfloat16", "float8_e4m3fn"]
SHAPES = [(), (0,), (3,), (2, 0, 1), (2, 3)]


def array(dtype, shape, seed):
    numbers = np.random.default_rng(seed).normal(size=(*shape, 1))[..., 0]
    return np.asarray(4 * numbers).astype(jnp.dtype(dtype))


arrays = st.builds(array, st.sampled_from(DTYPES), st.sampled_from(SHAPES), st.integers(0, 3))
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text(max_size=4)
leaves = (
    plain
    | arrays
    | st.builds(jnp.asarray, arrays)
    | st.builds(lambda a: a.ravel()[0] if a.size else np.float32(1), arrays)
    | st.builds(jax.random.key, st.integers(0, 9), impl=st.sampled_from(["threefry2x32", "rbg"]))
    | st.sampled_from([halved, Own, Point, eq.tanh, eq.Model])
)
keys = (
    st.text(max_size=4)
    | st.integers()
    | st.tuples(st.text(max_size=2), st.integers())
    | st.builds(Point, st.text(), st.none())
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.builds(tuple, st.lists(inner, max_size=3))
        | st.dictionaries(keys, inner, max_size=3)
        | st.builds(OrderedDict, st.dictionaries(keys, inner, max_size=3))
        | st.builds(Point, inner, inner)
        | st.builds(Setting, inner)
        | st.builds(lambda weights: Own(weights, halved, allowed=True), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None)
@given(tree=trees)
def test_any_tree(tree, tmp_path_factory):
    """Nested as may be, with names of any kind; numbers that are none, and types NumPy has no format for."""
    assert same(copy(tmp_path_factory.getbasetemp() / "any.npz", tree, KNOWN), tree)


def test_arrays_as_numpy_reads_them(tmp_path):
    """Every array is an entry under its place; layouts and byte orders are kept."""
    tree = {"a": [jnp.arange(3.0)], ("b", 1): np.asfortranarray(np.ones((2, 3), ">i4"))}
    loaded = copy(tmp_path / "tree.npz", tree)
    assert same(loaded, tree) and loaded["b", 1].flags.f_contiguous
    with np.load(tmp_path / "tree.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["tree['a'][0]"], [0.0, 1.0, 2.0])
        np.testing.assert_array_equal(file["tree[('b', 1)]"], np.ones((2, 3)))


def test_the_same_tree_is_the_same_file(tmp_path):
    for name in ("a.npz", "b.npz"):
        eq.save(tmp_path / name, problem("conv").model, {"lr": 0.1})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


# What is refused.


def closure():
    return lambda x: x


class Local:
    Inside = type("Hidden", (eqx.Module,), {})


@pytest.mark.parametrize(
    ("tree", "place"),
    [
        ({"a": [1, lambda x: x]}, r"tree\['a'\]\[1\] is <function <lambda>"),
        (Setting(closure()), r"tree.value is <function closure"),
        (optax.adam(1e-3), r"tree.init is <function .*chain.<locals>.init_fn"),
        ([{1, 2}], r"tree\[0\] is \{1, 2\}"),
        (np.array([None]), "tree is array"),
        (np.zeros(2, [("x", "f4")]), "tree is array"),
        (np.ma.masked_array([1.0]), "tree is masked_array"),
        ((Local.Inside(),), r"tree\[0\] is Hidden"),
        (object(), "tree is <object"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_what_cannot_be_saved_is_named(tree, place, tmp_path):
    with pytest.raises(ValueError, match=f"(?s){place}.*which cannot be saved: .* no module has"):
        eq.save(tmp_path / "tree.npz", tree)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("header", [{"a": (1, 2)}, {1: 2}, {"a": jnp.ones(2)}, {"a": np.float32(1)}, {"a": {1}}])
def test_a_header_that_json_changes_is_refused(header, tmp_path):
    with pytest.raises(ValueError, match="The header is .* expected what JSON holds unchanged"):
        eq.save(tmp_path / "tree.npz", 1, header)


def test_a_header_is_read_alone(tmp_path):
    header = {"lr": 0.1, "sizes": [64, 32], "notes": {"done": True, "best": None}, "µ": "δ"}
    eq.save(tmp_path / "tree.npz", jnp.ones(3), header)
    assert eq.read_header(tmp_path / "tree.npz") == header
    eq.save(tmp_path / "tree.npz", jnp.ones(3))
    assert eq.read_header(str(tmp_path / "tree.npz")) == {}


def rewritten(path, tree):
    """A file that somebody else wrote."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tree.json", json.dumps({"format": "eqprop tree 1", "header": {}, "tree": tree, "arrays": []}))
    return path


def test_only_known_classes_and_functions(tmp_path):
    path = tmp_path / "tree.npz"
    for tree, name in [(Own(1.0, halved, allowed=True), "Own"), ([halved], "halved"), (Point(1), "Point")]:
        eq.save(path, tree)
        with pytest.raises(ValueError, match=rf"The tree has {__name__}:{name}, which .* pass known=\[{name}\]"):
            eq.load(path)
        assert same(eq.load(path, KNOWN), tree)
    moved = rewritten(path, {"class": "elsewhere:Setting", "fields": {"value": 2}})
    assert eq.load(moved, [Setting]) == Setting(2)


@pytest.mark.parametrize(
    "name", ["os:system", "eqprop.save:os.system", "jax.numpy:np.load", "eqprop.missing:f", "jaxx:f", ":f", "eqprop:f"]
)
def test_nothing_else_is_found(name, tmp_path):
    """Neither through a module of the library that has it, nor by a name that begins like one."""
    with pytest.raises(ValueError, match="The tree has .* none of the library's"):
        eq.load(rewritten(tmp_path / "tree.npz", {"name": name}))
    assert os.path.exists(tmp_path)


def test_changed_fields_are_told(tmp_path):
    path = rewritten(tmp_path / "tree.npz", {"class": f"{__name__}:Setting", "fields": {"values": 2}})
    with pytest.raises(ValueError, match=r"saved with the fields \['values'\], but here it has \['value'\]"):
        eq.load(path, [Setting])


def test_arrays_of_64_bits_are_not_shortened(tmp_path):
    eq.save(tmp_path / "tree.npz", [jnp.arange(3.0)])
    with jax.enable_x64(False), pytest.raises(ValueError, match=r'tree\[0\] is float64. Call .*jax_enable_x64", True'):
        eq.load(tmp_path / "tree.npz")


# Files.


def test_every_damaged_byte_is_noticed_or_means_nothing(tmp_path):
    path, tree = tmp_path / "tree.npz", {"a": np.arange(2.0), "b": "c"}
    eq.save(path, tree)
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            assert same(eq.load(path), tree), place
        except ValueError as error:
            assert "is damaged, or was not written by" in str(error)
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="is damaged, or was not written by"):
            eq.read_header(path)


def test_foreign_files(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    np.save(tmp_path / "other.npy", np.ones(2))
    for name in ("other.npz", "other.npy"):
        with pytest.raises(ValueError, match=f"{name} is damaged, or was not written by"):
            eq.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        eq.load(tmp_path / "none.npz")


def test_a_file_is_whole_at_any_moment(tmp_path, monkeypatch):
    """A disk that is full while a tree is written leaves the one from before, and nothing beside it."""
    path = tmp_path / "tree.npz"
    eq.save(path, {"a": jnp.ones(2)})

    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="no space left"):
        eq.save(path, {"a": jnp.zeros(2)})
    monkeypatch.undo()
    assert same(eq.load(path), {"a": jnp.ones(2)}) and list(tmp_path.iterdir()) == [path]
