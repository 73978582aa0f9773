"""Notebooks: percent scripts as text, read for the site and written as .ipynb for those who want to run them."""

import itertools
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat


def read(text: str, root: str = "", repository: str = "") -> Any:
    """A percent script as a notebook, with a line below its title on how to have it."""
    notebook = jupytext.reads(text, fmt="py:percent")
    title, _, rest = notebook.cells[0].source.partition("\n")
    path = _path(text, Path(root))
    links = [f"{{download}}`Download this notebook </_build/notebooks/{path.stem}.ipynb>`"]
    if repository:
        place = repository.removeprefix("https://github.com/")
        links.append(
            "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
            f"(https://colab.research.google.com/github/{place}/blob/main/docs/{path.parent.name}/{path.stem}.ipynb)"
        )
    notebook.cells[0].source = f"{title}\n\n{' '.join(links)}\n{rest}"
    for cell, below in itertools.pairwise(notebook.cells):
        if cell.cell_type == "code" and (caption := _caption(below)):
            cell.metadata["mystnb"] = {"image": {"alt": caption}}
    return notebook


def _caption(cell: Any) -> str | None:
    """The sentence in italics with which the text below a figure begins."""
    match = re.match(r"\*(?!\*)(.+?)\*(?:\n\n|\Z)", cell.source, re.DOTALL)
    return " ".join(match[1].split()) if match and cell.cell_type == "markdown" else None


def _path(text: str, root: Path) -> Path:
    """MyST-NB hands over the text and not the file: the file is the one that has it."""
    return next(path for path in scripts(root) if path.read_text(encoding="utf-8") == text)


def scripts(root: Path) -> list[Path]:
    return sorted([*root.glob("notebooks/*.py"), *root.glob("gallery/*.py")])


def write_all(root: Path) -> None:
    """All of them as .ipynb files without output, to download."""
    folder = root / "_build" / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    for path in scripts(root):
        notebook = jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent")
        nbformat.write(notebook, folder / f"{path.stem}.ipynb")
