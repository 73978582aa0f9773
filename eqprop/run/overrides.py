"""Overrides checked before anything runs: a key that is not there is named with the nearest one that is."""

import difflib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf

from eqprop.run.compose import compose, groups, quoted
from eqprop.run.errors import UsageError


def repaired(words: Sequence[str]) -> list[str]:
    """The words with quotes around every value that Hydra's grammar does not take, such as `~/runs` or `a=b`."""
    return [_repaired(word) for word in words]


def _repaired(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals or _parses(word):
        return word
    other = f"{key}={quoted(value)}"
    return other if _parses(other) else word


def _parses(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except (HydraException, OverrideParseException):
        return False
    return True


def parsed(words: Sequence[str]) -> list[Override]:
    """**Raises:** `UsageError` for a word that is no override."""
    try:
        return OverridesParser.create().parse_overrides(list(words))
    except (HydraException, OverrideParseException) as error:
        raise UsageError(f"{str(error).splitlines()[0]}; expected key=value") from error


def check_overrides(words: Sequence[str], name: str = "train", own: Path | None = None) -> None:
    """Refuse a key that is not in the configuration, or a choice that is in no group, and name the nearest.

    Of a sweep over choices, a key passes that exists under one of them: each run is checked again by itself.

    **Raises:** `UsageError`.
    """
    overrides, choices_of = parsed(words), groups(own)
    choices = [o for o in overrides if _group(o) in choices_of and not o.is_delete()]
    for override in choices:
        _check_choice(override, choices_of[_group(override)])
    # The keys that exist depend on the choices.
    values = [[f"{o.get_key_element()}={value}" for value in _values(o, choices_of[_group(o)])] for o in choices]
    configurations = [_composed(chosen, name, own) for chosen in itertools.islice(itertools.product(*values), 64)]
    for override in overrides:
        if override in choices or override.is_add() or override.key_or_group.startswith("hydra"):
            continue
        problems = [_problem(override, cfg) for cfg in configurations]
        if all(problems):
            named = " ".join(f"{o.key_or_group}={o.value()}" for o in choices if not o.is_sweep_override())
            raise UsageError(f"With {named}: {problems[0]}" if named else str(problems[0]))


def tolerant(words: Sequence[str], own: Path | None = None) -> list[str]:
    """The words of a sweep so that every run composes, whichever choices lack one of the keys."""
    known = groups(own)

    def lenient(word: str, override: Override) -> str:
        plain = _group(override) not in known and not override.key_or_group.startswith("hydra")
        return f"++{word}" if plain and not override.is_add() and not override.is_delete() and word[0] != "+" else word

    return [lenient(word, override) for word, override in zip(words, parsed(words), strict=True)]


def _composed(words: Sequence[str], name: str, own: Path | None) -> DictConfig:
    try:
        return compose(words, name, own)
    except HydraException as error:
        raise UsageError(str(error)) from error


def _group(override: Override) -> str:
    return override.key_or_group.partition("@")[0]


def _values(override: Override, options: list[str]) -> list[str]:
    value = override.value()
    if isinstance(value, Glob):
        return value.filter(options)
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return [str(value)]


def _check_choice(override: Override, options: list[str]) -> None:
    group, values = _group(override), _values(override, options)
    for value in values or [(override.input_line or "").partition("=")[2]]:
        if value not in [*options, "None", "null"]:
            raise UsageError(
                f"{group}={value}: there is no such {group}; there are {', '.join(options)}.{_near(value, options)}"
            )


def _problem(override: Override, cfg: DictConfig) -> UsageError | None:
    """What is wrong with an override of this configuration."""
    try:
        default = _present(override.key_or_group, cfg)
        if not override.is_delete():
            _check_kind(override, default)
    except UsageError as error:
        return error
    return None


def _present(key: str, cfg: DictConfig) -> Any:
    """What the key has now. **Raises:** `UsageError` if there is none."""
    node: Any = cfg
    parts = key.split(".")
    for depth, part in enumerate(parts):
        where = ".".join(parts[:depth])
        if OmegaConf.is_list(node):
            raise UsageError(f"{key}: {where} is a list; give it whole, as in {where}=[…].")
        if not isinstance(node, DictConfig) or node.get("_target_") == NOTHING:
            raise UsageError(f"{key}: {where} has no settings of its own (there is none). Choose another {parts[0]}.")
        if not node:
            raise UsageError(f"{key}: {where} is empty; add to it with +{key}=…")
        if part not in node:
            near = _near(part, [str(name) for name in node]) or _elsewhere(part, cfg)
            raise UsageError(
                f"{key}: {where or 'the configuration'} has no {part!r}; "
                f"there are {', '.join(str(name) for name in node)}.{near}"
            )
        node = node._get_node(part)  # pyright: ignore[reportAttributeAccessIssue]
        if node is not None and not OmegaConf.is_config(node):
            node = node._value()
        if isinstance(node, str) and node.startswith("${"):
            node = OmegaConf.select(cfg, ".".join(parts[: depth + 1]))
    return node


NOTHING = "eqprop.run.build.nothing"
"""The target of a choice that is none: what is set of it has no meaning."""
_KINDS = ((bool, "true or false"), ((int, float), "a number"), (ListConfig, "a list, as in [1,2]"))


def _check_kind(override: Override, default: Any) -> None:
    """Words in the place of numbers, and the like."""
    value = override.value()
    expected = next((words for kinds, words in _KINDS if isinstance(default, kinds)), None)
    for given in value.list if isinstance(value, ChoiceSweep) else [value]:
        given = getattr(given, "text", given)  # of a quoted string
        if isinstance(given, str) and expected is not None and not given.startswith("${"):
            raise UsageError(f"{override.key_or_group}={given}: expected {expected}; it is {default} by default.")


def _near(word: str, options: list[str]) -> str:
    match = difflib.get_close_matches(word, options, n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


def _elsewhere(word: str, cfg: DictConfig) -> str:
    nested = [f"{group}.{name}" for group, node in cfg.items() if OmegaConf.is_dict(node) for name in node]
    matches = itertools.chain(
        (n for n in nested if n.split(".")[1] == word), difflib.get_close_matches(word, nested, n=1)
    )
    match = next(matches, None)
    return f" Did you mean {match!r}?" if match else ""
