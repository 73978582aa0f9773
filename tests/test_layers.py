"""The import rules of the package, read from its syntax trees: who may know what."""

import ast

import pytest

from helpers import ROOT

PACKAGE = ROOT / "eqprop"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
NUMERIC = [path for path in FILES if path.relative_to(PACKAGE).parts[0] not in ("data", "substrate")]

RANKS = {
    "_tree": 0,
    "_solution": 1,
    "_blocks": 1,
    "activation": 1,
    "network": 2,
    "substrate.base": 2,
    "jacobian": 3,
    "readout": 3,
    "relaxation": 3,
    "stencil": 3,
    "substrate.neurons": 3,
    "substrate.probe": 3,
    "substrate.resistive": 3,
    "substrate.write": 3,
    "coarse": 4,
    "homeostasis": 4,
    "metrics": 4,
    "state": 4,
    "substrate.dynamics": 4,
    "substrate.kernels": 4,
    "substrate.netlist": 4,
    "substrate.nudge": 4,
    "estimator": 5,
    "substrate.deployment": 5,
    "alignment": 6,
    "audit": 6,
    "substrate.conductance": 6,
    "substrate.stack": 7,
    "train": 8,
}
"""Import only downwards, or within one module of equal rank."""

NARROWER = {"stencil": {"_tree"}, "relaxation": {"_tree", "_solution", "_blocks"}, "data": set()}
"""What knows less than its rank allows."""

ONLY_IN = {
    "diffrax": ("relaxation/flow.py", "estimator/oscillating.py", "substrate/"),
    "optax": ("train.py", "state.py", "substrate/write.py"),
    "pooch": ("data/",),
    "hydra": (),
    "omegaconf": (),
    "matplotlib": (),
    "experiments": (),
}


def module(path) -> str:
    """The name under which a file, or a module's dotted name, is ranked; `substrate`'s files are ranked singly."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts if hasattr(path, "parts") else path.split(".")[1:]
    if parts[0] == "substrate":
        return ".".join(parts[:2])
    return parts[0]


def imports(path) -> set[str]:
    """Dotted names of everything a file imports, at any depth; `from a import b` counts as `a.b`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports(path):
    """Downwards only; third parties where the architecture puts them."""
    here, names = module(path), imports(path)
    inside = {module(name) for name in names if name.startswith("eqprop.")} - {here}
    if path.parent == PACKAGE and path.name == "__init__.py" or here == "substrate.__init__":
        assert not any(name.startswith("eqprop.data") for name in names)
    elif here in NARROWER:
        assert inside <= NARROWER[here], f"{path.name} imports {inside - NARROWER[here]}"
    else:
        wrong = {other for other in inside if RANKS.get(other, 99) >= RANKS[here]}
        assert not wrong, f"{path.name} imports {wrong}"
    relative = path.relative_to(PACKAGE).as_posix()
    for package, homes in ONLY_IN.items():
        if any(name == package or name.startswith(package + ".") for name in names):
            assert relative.startswith(homes) if homes else False, f"{relative} imports {package}"


@pytest.mark.parametrize("path", [path for path in FILES if module(path).startswith("substrate")], ids=lambda p: p.stem)
def test_a_substrate_knows_no_estimator(path):
    """It equips whatever has the methods that it asks for."""
    assert not any(name.startswith("eqprop.estimator") for name in imports(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_words_that_do_not_occur(path):
    """No device, sharding or compilation is chosen in the library, and no NaN is ever made into a zero."""
    banned = {"jit", "filter_jit", "pmap", "sharding", "devices", "device_put", "nan_to_num"}
    tree = ast.parse(path.read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {part for name in imports(path) for part in name.split(".")}
    assert not used & banned
    files = {"open", "read_text", "write_text", "loadtxt", "savez"}
    assert path.relative_to(PACKAGE).parts[0] == "data" or not used & files


def test_sizes():
    """No file over 300 lines, and a numeric core that does not grow: it is to shrink to 3,000."""
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    assert not {path.name: n for path, n in lines.items() if n > 300}
    assert sum(lines[path] for path in NUMERIC) < 4150
