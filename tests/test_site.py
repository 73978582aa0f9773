"""The site: equations of docstrings, names of the API, Python and commands of pages. `make docs` builds it."""

import contextlib
import importlib
import inspect
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

import eqprop
import eqprop.circuit
import eqprop.companion
import eqprop.data
import eqprop.substrate
from eqprop.run.cli import COMMANDS
from eqprop.run.compose import compose
from eqprop.run.study.options import parse
from eqprop.run.study.spec import names
from helpers import ROOT, unchecked
from runs import as_users_run, finish, run_python, start

DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "site"))

from docstrings import to_rst  # noqa: E402  # pyright: ignore[reportMissingImports]
from mathematics import is_mathematics, latex  # noqa: E402  # pyright: ignore[reportMissingImports]

FORMULAS = {
    "δ = M⁻¹ g": r"\delta = M^{-1} g",
    "m^½ A m^−½": r"m^{\tfrac12 } A m^{-\tfrac12 }",
    "‖Â − Âᵀ‖_F²": r"\|\hat{A} - \hat{A}^{\mathsf{T}}\|_{F}^{2}",
    "u* = Σ_{n even ≤ K} cₙ": r"u^{*} = \sum _{n \text{ even} \le K} c_{n}",
    "g_ij (vⱼ − vᵢ) − leak vᵢ": r"g_{ij} (v_{j} - v_{i}) - \text{leak } v_{i}",
    "√(p(g)² + 1)/25": r"\sqrt{p(g)^{2} + 1}/25",
    "A = ∂drive/∂s at s*": r"A = \partial \text{drive}/\partial s \text{ at } s^{*}",
    "max |F|,   ε ≥ 0": r"\max |F|, \qquad \varepsilon \ge 0",
}


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_latex(text):
    assert re.sub(r" +", " ", latex(text)) == FORMULAS[text]


def test_what_is_a_formula():
    assert all(map(is_mathematics, ["δ = ds*/dβ", "A", "s*", "γ^level"]))
    assert not any(map(is_mathematics, ["norm_bound", "None", "stencil=eqprop.centred(…)", "u.shape", "'out'"]))


def test_a_docstring_becomes_restructured_text():
    text = [
        "One claim of `A` and `fit`:",
        "",
        "    ℋ = ½ ‖A‖",
        "",
        "Goes",
        "- on",
        "  here.",
        "",
        "    x = 1",
        "",
        "[p](https://q)",
    ]
    expected = r"""
One claim of :math:`A`\  and :py:obj:`fit <eqprop.fit>`\ :

.. math::

   \mathcal{H} = \tfrac12  \|A\|

Goes

- on
  here.

::

    x = 1

`p <https://q>`__
"""
    resolve = lambda name: f"eqprop.{name}" if name == "fit" else None
    assert "\n".join(to_rst(text, resolve)) == expected.lstrip("\n")


def docstrings(module: ModuleType) -> Iterator[str]:
    for value in vars(module).values():
        if getattr(value, "__module__", "").startswith("eqprop"):
            yield inspect.getdoc(value) or ""
            if inspect.isclass(value):
                yield from (inspect.getdoc(member) or "" for member in vars(value).values() if callable(member))


def test_every_equation_of_a_docstring_is_balanced():
    count = 0
    for module in (eqprop, eqprop.substrate, eqprop.metrics, eqprop.companion):
        for text in docstrings(module):
            for line in "\n".join(to_rst(text.split("\n"), lambda name: None)).split("\n"):
                for formula in re.findall(r":math:`([^`]+)`", line):
                    assert formula.count("{") - formula.count(r"\{") == formula.count("}") - formula.count(r"\}"), (
                        formula
                    )
                    assert not re.search(r"[⁰-₿ᵀᵢⱼₖ]", formula), formula
                    count += 1
    assert count > 200


def listed() -> dict[str, set[str]]:
    """The names on the pages of the API, by module."""
    found: dict[str, set[str]] = {}
    for page in (DOCS / "api").glob("*.md"):
        module = "eqprop"
        for directive, name in re.findall(r"^\.\. (\w+):: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            if directive == "currentmodule":
                module = name
            elif directive == "automodule":
                found.setdefault(name, set()).update(vars(importlib.import_module(name)))
            else:
                found.setdefault(module, set()).add(name)
    return found


@pytest.mark.parametrize(
    "module", [eqprop, eqprop.circuit, eqprop.substrate, eqprop.data, eqprop.companion], ids=lambda m: m.__name__
)
def test_every_public_name_is_in_the_reference(module):
    public = {name for name, value in vars(module).items() if name[0] != "_" and not inspect.ismodule(value)}
    told_elsewhere = {"NUMERICS", "PackageNotFoundError", "version", "SOURCES", "CIFAR_MEAN", "CIFAR_STD", "Source"}
    shown = set().union(*listed().values())
    assert not public - shown - told_elsewhere
    assert all(hasattr(importlib.import_module(name), each) for name, every in listed().items() for each in every)


PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.glob("*.md") if path.name != "configuration.md")]
# Others have tests of what their code does.
TESTED = ("README", "networks", "own")
RUN_HERE = [path for path in PAGES if "\n```python\n" in path.read_text(encoding="utf-8") and path.stem not in TESTED]


def write_data(folder: Path) -> None:
    """The files that the page of data sets reads: a small CIFAR-10, and arrays, a table and pictures of one's own."""
    draw = np.random.default_rng(0)
    cifar = folder / "cifar10"
    cifar.mkdir()
    for name in (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"):
        rows = draw.integers(0, 256, (600, 1 + 3072), dtype=np.uint8)
        rows[:, 0] = np.arange(600) % 10
        rows.tofile(cifar / name)
    images, labels = draw.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40) % 4
    np.savez(folder / "mine.npz", images=images, labels=labels)
    for prefix in ("", "test_"):
        np.save(folder / f"{prefix}images.npy", images)
        np.save(folder / f"{prefix}labels.npy", labels)
    np.savetxt(folder / "mine.csv", np.column_stack([labels, images.reshape(40, -1)]), "%d", delimiter=",")
    for split in ("train", "test"):
        for k, image in enumerate(images[:8]):
            place = folder / "pictures" / split / f"class{k % 2}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{k}.png")


@pytest.mark.bounded
@pytest.mark.parametrize("path", RUN_HERE, ids=lambda path: path.stem)
def test_the_python_of_a_page_runs(path, tmp_path, monkeypatch):
    (tmp_path / "docs").symlink_to(DOCS)
    write_data(tmp_path)
    monkeypatch.setenv("EQPROP_DATA", str(tmp_path))
    names: dict = {"__name__": path.stem}
    with as_users_run(), unchecked(), contextlib.chdir(tmp_path):
        jax.config.update("jax_enable_x64", False)
        run_python(path, names)


def typed(path) -> list[str]:
    """The commands of `eqprop` in code blocks of a page, without comments and continued lines as one."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```(?:bash|sh)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(eqprop .*)$", text, re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()] + indented
    spans = re.findall(r"`(eqprop [a-z]+ [^`]+)`", text.replace("\n", " "))
    return [line.split("  #")[0].strip() for line in [*lines, *spans] if line.startswith("eqprop ")]


EVERY = sorted({(path.stem, line) for path in PAGES for line in typed(path)})


OWN = ("network=mine", "substrate=mine", "relaxation=growing")
"""Choices that a page tells its reader to write."""


@pytest.mark.parametrize(("page", "line"), EVERY, ids=[f"{page}: {line}"[:80] for page, line in EVERY])
def test_a_command_of_a_page_is_one(page, line):
    """Its settings compose: those of a sweep or a search with the first of their values."""
    command, *words = shlex.split(line)[1:]
    assert command in COMMANDS
    settings = [word for word in words if "=" in word and word[0] != "-"]
    if "..." in words or any(word.split("=")[0].isupper() for word in settings):
        return  # a pattern of commands, as KEY=VALUE
    if command in ("train", "audit"):
        compose([first(word) for word in settings if word not in OWN], command)
    elif command == "study":
        parse(settings)
        assert {word for word in words if "=" not in word and word[0] != "-"} <= {*names(None), "NAME"}


def first(word: str) -> str:
    override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():
        return word
    if "interval(" in word:
        return f"{override.key_or_group}={re.findall(r'interval[(]([^,]+),', word)[0]}"
    return f"{override.key_or_group}={next(override.sweep_string_iterator())}"


TRAININGS = [line for _, line in EVERY if re.match(r"eqprop train\b(?!.*(--help|=mine|launcher|--search$))", line)]


@pytest.mark.slow
@pytest.mark.parametrize("line", sorted({*TRAININGS}), ids=lambda line: line[:80])
def test_a_training_of_a_page_runs(line, tmp_path):
    """For one epoch, of few images where there are many, and with one trial of a search in place of many."""
    words = shlex.split(re.sub(r"--search\b( [0-9]+)?", "--search 1", line))[1:]
    settings = [first(word) for word in words[1:] if "=" in word]
    words += ["--journal", str(tmp_path / "search.log")] if "--search" in words else []
    few = ["data.train_examples=2000"] if compose(settings, "train").data.name == "fashion_mnist" else []
    process = start(
        [sys.executable, "-m", "eqprop", *words, "epochs=1", *few, f"run.root={tmp_path}"], tmp_path / "cache"
    )
    code, output = finish(process, 900)
    if "eqprop data fashion_mnist" in output:
        pytest.skip("the files of Fashion-MNIST are not at hand")
    assert code == 0, output
    assert list(tmp_path.rglob("summary.json"))


def test_commands_are_found():
    assert len(EVERY) > 30 and ("README", "eqprop train data=fashion_mnist homeostasis=none") in EVERY
