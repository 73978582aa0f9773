"""Equations as docstrings write them, in Unicode for a terminal, as LaTeX for the site."""

import re
import unicodedata

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ᵀᴴⁿ", ["0", *"123456789+-", r"\mathsf{T}", r"\mathsf{H}", "n"], strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ᵢⱼₖₗₙ", "0123456789+-ijkln", strict=True))
_ACCENTS = {"\u0302": "hat", "\u0304": "bar", "\u0307": "dot", "\u0303": "tilde"}
_FUNCTIONS = set("arg cos det dim exp lim ln log max min sin tan tanh".split())
_VARIABLES = set("dm ds dt du dv dx dI dE Jv Mv".split())
"""Words of two letters that are products or differentials, not names."""
_SYMBOLS = {
    "‖": r"\|", "⟨": r"\langle ", "⟩": r"\rangle ", "·": r"\cdot ", "∘": r"\circ ", "−": "-", "′": "'", "…": r"\ldots ",
    "Σ": r"\sum ", "∑": r"\sum ", "∫": r"\int ", "∂": r"\partial ", "∞": r"\infty ", "±": r"\pm ", "×": r"\times ",
    "≤": r"\le ", "≥": r"\ge ", "≈": r"\approx ", "∝": r"\propto ", "∈": r"\in ", "→": r"\to ", "↦": r"\mapsto ",
    "ℓ": r"\ell ", "ℋ": r"\mathcal{H}", "⊙": r"\odot ", "%": r"\%", "{": r"\{", "}": r"\}", "&": r"\&",
    "#": r"\#", "µ": r"\mu ", "Ω": r"\Omega ", "≠": r"\ne ", "<": r"\lt ", ">": r"\gt ", "$": r"\$",
}  # fmt: skip
_GREEK = dict(
    zip(
        "αβγδεζηθκλμνξπρστφχψωΓΔΘΛΞΠΦΨ",
        "alpha beta gamma delta varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau varphi chi psi omega "
        "Gamma Delta Theta Lambda Xi Pi Phi Psi".split(),
        strict=True,
    )
)


def is_mathematics(text: str) -> bool:
    """Whether a code span is a formula: it is a single letter, or has a symbol that no program has."""
    if re.fullmatch(r"[A-Za-z]\*?", text):
        return True
    program = re.search(r"\w_\w+\(|\w+\.\w+[(_a-z]|=\w+\.|\*\*|__", text)
    return bool(re.search(r"[^\x00-\x7F…–—’“”é]", text)) and not program


def latex(text: str) -> str:
    """A formula in one line of Unicode as LaTeX. Two spaces separate formulas."""
    text = unicodedata.normalize("NFD", text)
    return r" \qquad ".join(_formula(part.strip()).strip() for part in re.split(r" {2,}", text) if part.strip())


def _formula(text: str) -> str:
    out, i = "", 0
    while i < len(text):
        char = text[i]
        if char in _SUPERSCRIPTS:
            run = _run(text, i, _SUPERSCRIPTS)
            out += "^{" + "".join(_SUPERSCRIPTS[c] for c in run) + "}"
            i += len(run)
        elif char in _SUBSCRIPTS:
            run = _run(text, i, _SUBSCRIPTS)
            out += "_{" + "".join(_SUBSCRIPTS[c] for c in run) + "}"
            i += len(run)
        elif char in "^_" and i + 1 < len(text):
            inner, i = _argument(text, i + 1)
            index = re.fullmatch(r"[a-z]{2}", inner)  # i and j, not a word
            out += char + "{" + (inner if index else _formula(inner)) + "}"
        elif char == "√":
            inner, i = _argument(text, i + 1)
            out += r"\sqrt{" + _formula(inner) + "}"
        elif char == "½":
            out, i = out + r"\tfrac12 ", i + 1
        elif char == "*" and i and text[i - 1].isalpha() and not text[i + 1 : i + 2].isalpha():
            out, i = out + "^{*}", i + 1
        elif char == "*":
            out, i = out + r" \cdot ", i + 1
        elif match := re.match(r"[A-Za-z]{2,}", text[i:]):
            end = i + len(match[0])
            out, i = out + _word(match[0], text[:i], text[end:]), end
        elif i + 1 < len(text) and text[i + 1] in _ACCENTS:
            out, i = out + rf"\{_ACCENTS[text[i + 1]]}{{{_letter(char)}}}", i + 2
        else:
            out, i = out + (_SYMBOLS.get(char) or _letter(char)), i + 1
    return out


def _letter(char: str) -> str:
    return rf"\{_GREEK[char]} " if char in _GREEK else char


def _word(word: str, before: str, after: str) -> str:
    """A name of several letters, upright, and apart from a neighbour that it would run into."""
    if word in _FUNCTIONS:
        return rf"\{word} "
    if word in _VARIABLES:
        return word
    left = " " * bool(re.search(r"[\w)*′] $", before))
    right = " " * bool(re.match(r" [\w(√]", after))
    return rf"\text{{{left}{word}{right}}}"


def _run(text: str, start: int, table: dict[str, str]) -> str:
    end = start
    while end < len(text) and text[end] in table:
        end += 1
    return text[start:end]


def _argument(text: str, start: int) -> tuple[str, int]:
    """What a `^`, `_` or `√` governs, and where it ends: a bracketed group, or a sign with letters or digits."""
    if text[start] in "({":
        depth, end = 0, start
        while end < len(text):
            depth += (text[end] in "({") - (text[end] in ")}")
            end += 1
            if depth == 0:
                break
        return text[start + 1 : end - 1], end
    match = re.match(r"[−-]?(?:½|[A-Za-z0-9]+|[α-ωΑ-Ω∞])[′]?", text[start:])
    return (match[0], start + len(match[0])) if match else (text[start], start + 1)
