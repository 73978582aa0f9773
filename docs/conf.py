"""The documentation site: `make docs`. Pages and notebooks are text; API and configuration are read from the code."""

import re
import socket
import sys
import tomllib
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS / "site"), str(ROOT)]

import configuration  # noqa: E402
import notebook  # noqa: E402
from docstrings import to_rst  # noqa: E402

import eqprop  # noqa: E402

project = "eqprop"
author = copyright = "The eqprop developers"
release = version = eqprop.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
]
root_doc = "index"
exclude_patterns = ["_build", "site", "conf.py", "Thumbs.db", ".ipynb_checkpoints"]
templates_path: list[str] = []

# Pages are Markdown that GitHub shows as well; notebooks are percent scripts, executed once for each change.
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
# Only what is there gets a badge: `project.urls.Repository` in pyproject.toml, once it is public.
_urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
nb_custom_formats = {".py": ["notebook.read", {"root": str(DOCS), "repository": _urls.get("Repository", "")}]}
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS / "_build" / ".jupyter_cache")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
suppress_warnings = ["config.cache"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False  # what a base class says is said there
autodoc_default_options = {"show-inheritance": True, "members": True}
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"


def _online(host: str) -> bool:
    try:
        socket.create_connection((host, 443), timeout=2).close()
    except OSError:
        return False
    return True


# Without a network names of other packages are not links, and the site is built all the same.
intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "equinox": ("https://docs.kidger.site/equinox", None),
        "diffrax": ("https://docs.kidger.site/diffrax", None),
        "optax": ("https://optax.readthedocs.io/en/latest", None),
    }
    if _online("docs.jax.dev")
    else {}
)

html_theme = "pydata_sphinx_theme"
html_title = "eqprop"
html_static_path = ["site/static"]
html_css_files = ["eqprop.css"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "show_toc_level": 1,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 6,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def _resolve(name: str) -> str | None:
    """The documented object that a code span of a docstring names."""
    head = name.removeprefix("eqprop.").removeprefix("eq.").partition("(")[0]
    return f"eqprop.{head}" if head.isidentifier() and head in vars(eqprop) else None


def _docstring(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    own = getattr(value, "__module__", None) or "eqprop"  # the default of a field brings its own docstring along
    lines[:] = to_rst(lines, _resolve) if own.startswith("eqprop") or what in ("module", "property") else []


def _signature(app: Any, what: str, name: str, value: Any, options: Any, given: str | None, returns: str | None) -> Any:
    """Names of types as the code has them, where jaxtyping has put its own in their place."""
    key = r"~?Key\[[^]]*\] \| ~?UInt32\[[^]]*\] \| ~?UInt32\[[^]]*\]"

    def plain(text: str | None) -> str | None:
        return text and re.sub(r"~?(?:\w+\.)+(?=[A-Z])", "", re.sub(key, "PRNGKeyArray", text))

    return plain(given), plain(returns)


def _skip(app: Any, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """The default of a field, where it is a function of another package, is no method."""
    return True if not (getattr(value, "__module__", None) or "eqprop").startswith("eqprop") else None


def _results(app: Any, document: str, source: list[str]) -> None:
    """The page of results, written for GitHub too, gets the pages of all studies below it."""
    if document == "results/README":
        pages = sorted(path.relative_to(DOCS / "results") for path in (DOCS / "results").glob("*/*/README.md"))
        listed = "\n".join(page.with_suffix("").as_posix() for page in [*pages, Path("bench/table.md")])
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n:maxdepth: 1\n\n{listed}\n```\n"


def setup(app: Any) -> None:
    app.connect("builder-inited", lambda app: configuration.write(DOCS / "configuration.md"))
    app.connect("builder-inited", lambda app: notebook.write_all(DOCS))
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-skip-member", _skip)
    app.connect("autodoc-process-signature", _signature)
    app.connect("source-read", _results)
