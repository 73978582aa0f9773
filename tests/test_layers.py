"""The import rules of the package, read from its syntax trees: who may know what."""

import ast

import pytest

from helpers import ROOT

PACKAGE = ROOT / "eqprop"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
BESIDE = (
    "circuit",
    "companion",
    "data",
    "run",
    "substrate",
    "__main__.py",
    "_checkpoint.py",
    "_examples.py",
    "_motion.py",
    "_names.py",
)
BESIDE += ("fit.py", "plot.py", "save.py", "topology.py", "trace.py")
"""What is not of the numeric core: no training step passes through it."""
NUMERIC = [path for path in FILES if path.relative_to(PACKAGE).parts[0] not in BESIDE]

RANKS = {
    "_examples": 0,
    "_names": 0,
    "_numerics": 0,
    "_tree": 0,
    "topology": 0,
    "_solution": 1,
    "_blocks": 1,
    "_motion": 1,
    "save": 1,
    "_checkpoint": 2,
    "activation": 1,
    "network": 2,
    "relaxation": 2,
    "stencil": 2,
    "readout": 2,
    "model": 3,
    "coarse": 4,
    "estimator": 4,
    "homeostasis": 5,
    "metrics": 4,
    "plasticity": 4,
    "state": 4,
    "alignment": 5,
    "audit": 5,
    "device": 5,
    "equilibrium": 5,
    "trace": 5,
    "train": 6,
    "circuit": 6,
    "companion": 7,
    "fit": 7,
    "plot": 7,
    "substrate": 7,
    "run": 8,
    "__main__": 9,
}
"""Import only downwards, or within one module of equal rank."""

NARROWER = {
    "stencil": {"_tree"},
    "readout": {"_tree"},
    "relaxation": {"_tree", "_solution", "_blocks"},
    "network": {"_tree", "_blocks", "activation"},
    "data": set(),
}
"""What knows less than its rank allows."""

READERS = {"substrate/table_conductance.py", "substrate/table_step.py"}
"""What may read files of measurements besides, through `data`, which itself knows nothing of the package."""

ONLY_IN = {
    "diffrax": ("relaxation/flow.py", "relaxation/motion.py", "estimator/waveform.py", "substrate/", "trace.py"),
    "lineax": ("relaxation/solvers.py", "substrate/"),
    "optimistix": ("relaxation/solvers.py",),
    "optax": ("companion/", "plasticity.py", "train.py", "device.py", "state.py", "substrate/write.py", "run/"),
    "pooch": ("data/",),
    "hydra": ("run/",),
    "submitit": ("run/slurm.py",),
    "omegaconf": ("run/",),
    "pandas": ("run/",),
    "filelock": ("run/",),
    "yaml": ("run/study/", "run/device.py"),
    "matplotlib": ("plot.py", "run/"),
    "experiments": (),
}


def module(path) -> str:
    """The name under which a file, or a module's dotted name, is ranked."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts if hasattr(path, "parts") else path.split(".")[1:]
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
    if path.parent == PACKAGE and path.name == "__init__.py":
        assert not any(name.startswith(("eqprop.data", "eqprop.run")) for name in names)
    elif here in ("run", "__main__"):
        pass  # on top of everything
    elif here in NARROWER:
        assert inside <= NARROWER[here], f"{path.name} imports {inside - NARROWER[here]}"
    else:
        reads = {"data"} if path.relative_to(PACKAGE).as_posix() in READERS else set()
        wrong = {other for other in inside - reads if RANKS.get(other, 99) >= RANKS[here]}
        assert not wrong, f"{path.name} imports {wrong}"
    relative = path.relative_to(PACKAGE).as_posix()
    for package, homes in ONLY_IN.items():
        if any(name == package or name.startswith(package + ".") for name in names):
            assert relative.startswith(homes) if homes else False, f"{relative} imports {package}"


SUBSTRATE = {
    "base": 0,
    "neurons": 1,
    "probe": 1,
    "write": 1,
    "table_step": 2,
    "dynamics": 2,
    "kernels": 2,
    "nudge": 2,
    "deployment": 3,
    "bit_slicing": 4,
    "compander": 4,
    "conductance": 4,
    "read_disturb": 4,
    "table_conductance": 4,
    "wires": 4,
    "low_bit": 5,
    "technology": 1,
    "conduction": 5,
    "phases": 6,
    "cost": 7,
    "stack": 8,
    "calibration": 9,
    "__init__": 10,
}
"""Within the substrate, downwards as well."""


@pytest.mark.parametrize("path", [path for path in FILES if module(path) == "substrate"], ids=lambda p: p.stem)
def test_imports_within_the_substrate(path):
    names = {name.split(".")[2] for name in imports(path) if name.startswith("eqprop.substrate.")} - {path.stem}
    assert not {name for name in names if SUBSTRATE.get(name, 99) >= SUBSTRATE[path.stem]}


LIBRARY = [path for path in FILES if path.relative_to(PACKAGE).parts[0] != "run"]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_words_that_do_not_occur(path):
    """No device, sharding or compilation is chosen in the library, and no NaN is ever made into a zero.

    `fit` compiles what it drives, and `save` writes a file.
    """
    banned = {"jit", "filter_jit", "pmap", "sharding", "devices", "device_put", "nan_to_num"}
    tree = ast.parse(path.read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    used |= {part for name in imports(path) for part in name.split(".")}
    assert not used & banned - ({"filter_jit"} if path.name == "fit.py" else set())
    files = {"open", "read_text", "write_text", "loadtxt", "savez"}
    assert path.relative_to(PACKAGE).parts[0] in ("data", "save.py") or not used & files


def test_sizes():
    """No file over 300 lines, and a numeric core that does not grow: it is to shrink to 3,000."""
    programs = sorted((ROOT / "experiments").rglob("*.py"))
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in [*FILES, *programs]}
    assert not {path.name: n for path, n in lines.items() if n > 300}
    assert sum(lines[path] for path in programs) < 6200
    assert sum(lines[path] for path in NUMERIC) < 5550
