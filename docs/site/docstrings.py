"""Docstrings, which are Markdown with equations in Unicode, as reStructuredText for Sphinx."""

import itertools
import re
from collections.abc import Callable

from mathematics import is_mathematics, latex

Resolve = Callable[[str], str | None]
"""From a name in a code span to the full name of what it links to, if anything."""


def to_rst(lines: list[str], resolve: Resolve) -> list[str]:
    """A docstring, its indentation removed. Indented blocks are equations or code; lists and paragraphs stay."""
    out: list[str] = []
    for blank, run in itertools.groupby(lines, key=lambda line: not line.strip()):
        block = list(run)
        if blank:
            continue
        if block[0].startswith("    "):
            out += _displayed(block)
        elif block[0].startswith("```"):
            out += [".. code-block:: python", "", *("   " + line for line in block[1:-1])]
        else:
            out += _inline("\n".join(_listed(block)), resolve).split("\n")
        out.append("")
    return out


def _listed(block: list[str]) -> list[str]:
    """A paragraph, or one that ends in a list, which reStructuredText wants apart. What goes on from the line above is
    indented in a list and nowhere else."""
    out: list[str] = []
    in_list = False
    for line in block:
        if line.startswith("- "):
            if out and not in_list:
                out.append("")
            in_list = True
            out.append(line)
        else:
            out.append("  " * in_list + line.lstrip())
    return out


def _displayed(block: list[str]) -> list[str]:
    text = [line.strip() for line in block]
    if not any(is_mathematics(line) for line in text):
        return ["::", "", *block]
    rows = [latex(line.replace("`", "")) for line in text]
    body = rows[0] if len(rows) == 1 else r"\begin{gathered} " + r" \\ ".join(rows) + r" \end{gathered}"
    return [".. math::", "", "   " + body]


def _inline(text: str, resolve: Resolve) -> str:
    """Code spans, which may be formulas or names, and links."""

    def span(match: re.Match[str]) -> str:
        content = " ".join(match[1].split())
        if is_mathematics(content):
            return rf":math:`{latex(content)}`\ "
        if (target := resolve(content)) is not None:
            return rf":py:obj:`{content} <{target}>`\ "
        return rf"``{content}``\ "

    text = re.sub(r"`([^`]+)`", span, text)
    return re.sub(r"\[([^\]]+)\]\((https?://[^)]+)\)", r"`\1 <\2>`__", text)
