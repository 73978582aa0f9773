"""A subset of SPICE netlists as circuits that train. Text in, a network out: nothing runs here."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

from eqprop.circuit.circuit import Circuit
from eqprop.circuit.diodes import Diodes
from eqprop.circuit.elements import GROUND, Diode, Resistor, Source
from eqprop.circuit.expression import linear, number

SKIPPED = {".op", ".ac", ".dc", ".tran", ".noise", ".tf", ".print", ".plot", ".save", ".probe", ".width", ".end"}
"""Commands that change no element."""

WITHOUT_EFFECT = {"cjo", "cj0", "tt", "vj", "m", "fc", "eg", "xti", "tnom", "kf", "af"}
"""Parameters of a diode's model that leave its law at rest, at the temperature of the model, as it is."""

ENDS = {"r": 2, "v": 2, "i": 2, "d": 2, "b": 2, "f": 2, "e": 4, "g": 4}
"""How many nodes an element names, by its letter."""


class Line(NamedTuple):
    """A statement, continuation lines included, in lower case."""

    number: int
    text: str
    words: list[str]


class _Refused(Exception):
    pass


def read_circuit(
    text: str,
    *,
    inputs: Sequence[str] | Mapping[str, tuple[int, float]],
    outputs: Sequence[str],
    siemens: float = 1e-3,
    law: Literal["shockley", "ngspice"] = "shockley",
) -> Circuit:
    """The circuit of a netlist, at rest: its fixed points are those of `.op`.

    The first line is the title, as everywhere in SPICE. What is read:

    - `R`, whose conductances are the learned parameters; `V` and `I` with a direct value; `E`, `F` and `G`; `D` with a
      `.model` of `IS` and `N`; `B` with `I=` a linear combination of voltages, where a node that a constant `V` source
      holds counts as that constant.
    - `.param`, numbers with suffixes, expressions in braces, comments after `*`, `;` and `$`, and lines that go on
      after `+`. Case does not matter.
    - `temp` and `gmin` of `.options`; other options are not used. `IS` is that at the temperature of the circuit.

    What does not act on a circuit at rest is left out: `C`, the amplitude of `AC`, analyses, and all between `.control`
    and `.endc`. Time constants are therefore those of equal capacitors of one farad per `siemens`.

    **Arguments:**

    - `inputs`, `outputs`, `siemens`: as of `Circuit`. Names are those of the netlist, in any case.
    - `law`: of the diodes. That of ngspice agrees with it to the last digits; that of Shockley is analytic.

    **Raises:** `ValueError` for what is not understood, with the number and the text of the line, and as
        `Circuit` does.
    """
    entries = {name.lower(): at for name, at in inputs.items()} if isinstance(inputs, Mapping) else None
    names = [name.lower() for name in inputs]
    title, lines = _lines(text)
    parameters: dict[str, float] = {}
    options = {"temp": 27.0, "gmin": 1e-12}
    models: dict[str, dict[str, float]] = {}
    elements: dict[int, Resistor | Diode | Source] = {}
    known = {line.number: line for line in lines}

    def each(kind: Callable[[Line], bool], action: Callable[[Line], None]) -> None:
        for line in [line for line in known.values() if kind(line)]:
            del known[line.number]
            _refusing(line, lambda line=line: action(line))

    def element(line: Line) -> None:
        if line.words[0] in {e.name for e in elements.values()}:
            raise _Refused("there is an element of that name already")
        elements[line.number] = _element(line, parameters, rails)

    rails: dict[str, float] = {}
    each(lambda line: line.words[0] in (".param", ".params"), lambda line: _assign(line.words[1:], parameters))
    each(
        lambda line: line.words[0] in (".options", ".option", ".temp"), lambda line: _options(line, parameters, options)
    )
    each(lambda line: line.words[0] == ".model", lambda line: _model(line, parameters, models))
    each(lambda line: line.words[0] in SKIPPED or line.text[0] == "c", lambda line: None)
    each(lambda line: line.text[0] != "b", element)
    rails.update(_rails(elements.values(), names))
    each(lambda line: True, element)
    _check_title(title, parameters, models)
    absent = [e for e in elements.values() if isinstance(e, Diode) and e.model not in models]
    if absent:
        raise ValueError(f"The diode {absent[0].name} is of the model {absent[0].model}, of which there is no .model.")
    law_of = {
        name: Diodes(0.0, values["is"], values["n"], options["temp"] + 273.15, law, options["gmin"])
        for name, values in models.items()
    }
    in_order = [elements[k] for k in sorted(elements)]
    outputs = [name.lower() for name in outputs]
    return Circuit(in_order, inputs=entries or names, outputs=outputs, models=law_of, siemens=siemens)


def _lines(text: str) -> tuple[Line, list[Line]]:
    """The title, and the statements after it without comments, up to `.end`."""
    found: list[Line] = []
    skipping = False
    first, *rest = text.splitlines() or [""]
    for count, raw in enumerate(rest, start=2):
        line = re.split(r";|\$ |\$$", raw.lower(), maxsplit=1)[0].strip()
        if not line or line[0] == "*":
            continue
        if line.split()[0] in (".control", ".endc"):
            skipping = line.split()[0] == ".control"
        elif skipping:
            continue
        elif line.split()[0] == ".end":
            break
        elif line[0] == "+":
            if not found:
                raise ValueError(f"Line {count}, {raw.strip()!r}: there is no line before it that could go on.")
            found[-1] = _line(found[-1].number, f"{found[-1].text} {line[1:].strip()}")
        else:
            found.append(_line(count, line))
    return _line(1, first.lower().strip()), found


def _line(count: int, text: str) -> Line:
    joined = re.sub(r"\s*=\s*", "=", text)
    return Line(count, joined, re.findall(r"(?:\{[^}]*\}|'[^']*'|[^\s{}'])+", joined) or [""])


def _refusing(line: Line, action: Callable[[], None]) -> None:
    """**Raises:** `ValueError` with the number and the text of the line in place of what `action` raises."""
    try:
        action()
    except (_Refused, ValueError, IndexError) as error:
        why = str(error) if not isinstance(error, IndexError) else "it ends too early"
        raise ValueError(f"Line {line.number}, {line.text!r}: {why}.") from None


def _check_title(title: Line, parameters: Mapping[str, float], models: Mapping[str, object]) -> None:
    """**Raises:** `ValueError` for a title that was meant as an element, which would be lost without a word."""
    try:
        element = _element(title, parameters, {})
    except (_Refused, ValueError, IndexError):
        return
    if isinstance(element, Diode) and element.model not in models:
        return
    raise ValueError(f"Line 1, {title.text!r}: the first line of a netlist is its title. Put a title before it.")


def _assign(words: Sequence[str], into: dict[str, float]) -> None:
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise _Refused(f"expected name=value, and not {word!r}")
        braced = value if value[0] in "{'" else f"{{{value}}}"
        into[name] = number(braced, into)


def _options(line: Line, parameters: Mapping[str, float], options: dict[str, float]) -> None:
    for word in line.words[1:]:
        name, equals, value = word.partition("=")
        if line.words[0] == ".temp":
            options["temp"] = number(word, parameters)
        elif equals and name in options:
            options[name] = number(value, parameters)


def _model(line: Line, parameters: Mapping[str, float], models: dict[str, dict[str, float]]) -> None:
    words = re.sub(r"[(),]", " ", line.text).split()
    if words[2] != "d":
        raise _Refused(f"models are of the kind D, and not {words[2].upper()}")
    values = {"is": 1e-14, "n": 1.0}
    for word in words[3:]:
        name, equals, value = word.partition("=")
        if equals and name in values:
            values[name] = number(value, parameters)
        elif not equals or name not in WITHOUT_EFFECT and not (name == "rs" and number(value, parameters) == 0):
            raise _Refused(f"{word.upper()} is not read: only IS, N and RS=0 are. Put a resistor beside the diode")
    models[words[1]] = values


def _element(line: Line, parameters: Mapping[str, float], rails: Mapping[str, float]) -> Resistor | Diode | Source:
    name, letter = line.words[0], line.text[:1]
    if letter not in ENDS:
        kinds = ", ".join(kind.upper() for kind in ENDS)
        raise _Refused(f"{name} is none of the elements {kinds} and C, nor a command that is known")
    nodes = [GROUND if node == "gnd" else node for node in line.words[1 : 1 + ENDS[letter]]]
    rest = line.words[1 + ENDS[letter] :]
    if not rest or len(nodes) < ENDS[letter]:
        raise _Refused(f"expected {ENDS[letter]} nodes and a value")
    ends = nodes[0], nodes[1]
    if letter == "b":
        key, _, expression = " ".join(rest).partition("=")
        if key != "i":
            raise _Refused("only currents, I=..., are read of a B source")
        value = linear(expression.strip("{}' "), parameters, rails)
        constant = value.pop("", 0.0)
        return Source(name, ends, constant, tuple(value.items()))
    if letter == "d":
        _at_most(rest, 2)
        return Diode(name, ends, rest[0], number(rest[1].removeprefix("area="), parameters) if len(rest) == 2 else 1.0)
    if letter in "vi":
        return Source(name, ends, _direct(rest, parameters))
    if letter == "f":
        _at_most(rest, 2)
        return Source(name, ends, 0.0, ((rest[0], number(rest[1], parameters)),))
    _at_most(rest, 1)
    value = number(rest[0].removeprefix("r=") if letter == "r" else rest[0], parameters)
    if letter == "r":
        if not value > 0:
            raise _Refused("a resistance has to be above 0")
        return Resistor(name, ends, value)
    if nodes[2] == nodes[3]:
        raise _Refused("the two nodes that control it are one")
    return Source(name, ends, 0.0, ((nodes[2], value), (nodes[3], -value)))


def _at_most(words: Sequence[str], count: int) -> None:
    if len(words) > count:
        raise _Refused(f"{' '.join(words[count:])} is not read")


def _direct(words: Sequence[str], parameters: Mapping[str, float]) -> float:
    """The value of a source at rest: `5`, `DC 5`, either with `AC magnitude phase` after it."""
    rest = [word for first in words for word in first.split("=")]
    value = 0.0
    if rest and rest[0] != "ac":
        rest = rest[1:] if rest[0] == "dc" else rest
        value, rest = number(rest[0], parameters), rest[1:]
    if rest and rest[0] == "ac":
        for word in rest[1:3]:
            number(word, parameters)
        rest = rest[3:]
    if rest:
        raise _Refused(f"{' '.join(rest)} is not read: expected a direct value, and AC at most")
    return value


def _rails(elements: Iterable[Resistor | Diode | Source], inputs: Sequence[str]) -> dict[str, float]:
    """The nodes that constant sources hold against ground."""
    found: dict[str, float] = {}
    for e in elements:
        if isinstance(e, Source) and e.name[0] == "v" and e.name not in inputs and GROUND in e.ends:
            other = e.ends[0] if e.ends[1] == GROUND else e.ends[1]
            found[other] = e.constant if e.ends[1] == GROUND else -e.constant
    return found
