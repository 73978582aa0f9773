"""Numbers and expressions of netlists: engineering suffixes, parameters, linear combinations of voltages."""

import ast
import re
from collections.abc import Mapping

from eqprop.circuit.elements import GROUND

POWERS = {"t": 12, "g": 9, "meg": 6, "k": 3, "m": -3, "u": -6, "n": -9, "p": -12, "f": -15}
"""Of ten, by suffix in lower case; letters behind them are units."""

NUMBER = re.compile(r"(?P<digits>(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?!mil)(?P<suffix>meg|[tgkmunpf])?[a-z]*")
VOLTAGE = re.compile(r"v\(\s*([^\s(),]+)\s*(?:,\s*([^\s(),]+)\s*)?\)")

Linear = dict[str, float]
"""Factors by node, and the constant under the empty name."""


def number(text: str, parameters: Mapping[str, float]) -> float:
    """A number with its suffix, or an expression of parameters in braces or quotes.

    **Raises:** `ValueError` for what is neither.
    """
    if text[:1] + text[-1:] in ("{}", "''"):
        value = linear(text[1:-1], parameters, {})
        if {*value} - {""}:
            raise ValueError(f"{text!r} is no number: it has voltages")
        return value.get("", 0.0)
    sign, body = (-1.0 if text[:1] == "-" else 1.0), text.lstrip("+-")
    match = NUMBER.fullmatch(body)
    if match is None or len(text) - len(body) > 1:
        raise ValueError(f"{text!r} is no number")
    return sign * _scaled(match)


def linear(text: str, parameters: Mapping[str, float], rails: Mapping[str, float]) -> Linear:
    """An expression of numbers, parameters and voltages `v(node)` or `v(node, node)`, which is to be linear in them.
    Nodes that are held at constants are those constants: `rails`.

    **Raises:** `ValueError` for any other expression.
    """
    voltages: dict[str, Linear] = {}

    def voltage(match: re.Match[str]) -> str:
        name, value = f"voltage_{len(voltages)}_", Linear()
        for node, sign in ((match[1], 1.0), (match[2], -1.0)):
            if node not in (None, GROUND, "gnd"):
                held = node in rails
                key = "" if held else node
                value[key] = value.get(key, 0.0) + sign * (rails[node] if held else 1.0)
        voltages[name] = value
        return name

    replaced = VOLTAGE.sub(voltage, text)
    # A digit within a name, or after one, begins no number.
    replaced = re.sub(rf"(?<![\w.]){NUMBER.pattern}", lambda match: repr(_scaled(match)), replaced)
    try:
        tree = ast.parse(replaced.strip(), mode="eval")
    except SyntaxError:
        raise ValueError(f"{text!r} is no expression") from None
    return _value(tree.body, {**{name: {"": value} for name, value in parameters.items()}, **voltages})


def _scaled(match: re.Match[str]) -> float:
    # Of one decimal number, so that 4.7k is 4700 to the last digit.
    mantissa, _, exponent = match["digits"].partition("e")
    return float(f"{mantissa}e{int(exponent or 0) + POWERS.get(match['suffix'] or '', 0)}")


def _value(node: ast.expr, names: Mapping[str, Linear]) -> Linear:
    match node:
        case ast.Constant(value=int() | float() as value):
            return {"": float(value)}
        case ast.Name(id=name):
            if name not in names:
                raise ValueError(f"{name} is no parameter")
            return dict(names[name])
        case ast.UnaryOp(op=ast.UAdd() | ast.USub() as sign, operand=operand):
            return _times(_value(operand, names), -1.0 if isinstance(sign, ast.USub) else 1.0)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left, names), _value(right, names)
            match op:
                case ast.Add() | ast.Sub():
                    b = b if isinstance(op, ast.Add) else _times(b, -1.0)
                    return {key: a.get(key, 0.0) + b.get(key, 0.0) for key in {**a, **b}}
                case ast.Mult() if not {*b} - {""}:
                    return _times(a, b.get("", 0.0))
                case ast.Mult() if not {*a} - {""}:
                    return _times(b, a.get("", 0.0))
                case ast.Div() if not {*b} - {""} and b.get("", 0.0):
                    return {key: value / b[""] for key, value in a.items()}
                case _:
                    pass
        case _:
            pass
    raise ValueError("only sums, differences, multiples and quotients by numbers are read, linear in voltages")


def _times(value: Linear, factor: float) -> Linear:
    return {key: factor * number for key, number in value.items()}
