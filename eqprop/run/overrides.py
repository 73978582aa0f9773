"""Overrides checked before anything runs: a key that is not there is named with the nearest one that is."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf

from eqprop.run.compose import compose, groups, quoted
from eqprop.run.errors import UsageError, near


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
    overrides = parsed(words)
    configurations = _configurations(overrides, name, own)
    for override in _keys(overrides, own):
        problems = [_problem(override, cfg) for cfg in configurations.values()]
        if all(problems):
            chosen = next(iter(configurations))
            raise UsageError(f"With {chosen}: {problems[0]}" if chosen else str(problems[0]))


def tolerant(words: Sequence[str], own: Path | None = None) -> tuple[list[str], list[str]]:
    """The words of a sweep so that every run composes, though some choices lack some keys; and those keys."""
    overrides = parsed(words)
    configurations = _configurations(overrides, "train", own)
    lacking = [o for o in _keys(overrides, own) if any(_problem(o, cfg) for cfg in configurations.values())]
    changed = [f"++{word}" if o in lacking else word for word, o in zip(words, overrides, strict=True)]
    return changed, [override.key_or_group for override in lacking]


def count_runs(words: Sequence[str], own: Path | None = None) -> int:
    """How many runs a sweep of these words has.

    **Raises:** Hydra's own error for an interval, which has no number of values.
    """
    options = groups(own)
    last = {override.get_key_element(): override for override in parsed(words)}  # the last word for a key counts
    return math.prod(len(_values(override, options.get(_group(override), []))) for override in last.values())


def _keys(overrides: Sequence[Override], own: Path | None) -> list[Override]:
    """Those of keys that must be there: not of choices, nor what is added, nor of Hydra itself."""
    known = groups(own)
    return [
        o
        for o in overrides
        if (_group(o) not in known or o.is_delete()) and not o.is_add() and not o.key_or_group.startswith("hydra")
    ]


def _configurations(overrides: Sequence[Override], name: str, own: Path | None) -> dict[str, DictConfig]:
    """What the choices make, by their words: one configuration for each combination of those that are swept.

    **Raises:** `UsageError` for a choice that is in no group.
    """
    options = groups(own)
    choices = [o for o in overrides if _group(o) in options and not o.is_delete()]
    for override in choices:
        _check_choice(override, options[_group(override)])
    values = [[f"{o.get_key_element()}={value}" for value in _values(o, options[_group(o)])] for o in choices]
    combinations = itertools.islice(itertools.product(*values), LARGEST)
    return {" ".join(chosen): _composed(chosen, name, own) for chosen in combinations}


LARGEST = 64
"""Combinations of choices that are looked at before a sweep; its runs are checked one by one."""


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
                f"{group}={value}: there is no such {group}; there are {', '.join(options)}.{near(value, options)}"
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
            hint = _nested(part, cfg) or near(part, [str(name) for name in node]) or near(part, _second_level(cfg))
            raise UsageError(
                f"{key}: {where or 'the configuration'} has no {part!r}; "
                f"there are {', '.join(str(name) for name in node)}.{hint}"
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

_WORDS = {"substrate.chip": ("member",)}
"""Words that a key takes beside values of its own kind."""


def _check_kind(override: Override, default: Any) -> None:
    """Words in the place of numbers, and the like."""
    value = override.value()
    expected = next((words for kinds, words in _KINDS if isinstance(default, kinds)), None)
    for given in value.list if isinstance(value, ChoiceSweep) else [value]:
        given = getattr(given, "text", given)  # of a quoted string
        if isinstance(given, str) and isinstance(default, DictConfig) and "_target_" in default and given[:2] != "${":
            key, group = override.key_or_group, "relaxation@nudged" if override.key_or_group == "nudged" else None
            how = f"choose it by {group}={given}, or " if group else ""
            raise UsageError(f"{key}={given}: {key} is a part with settings; {how}set one, as {key}.KEY=VALUE.")
        if given in _WORDS.get(override.key_or_group, ()):
            continue
        if isinstance(given, str) and expected is not None and not given.startswith("${"):
            raise UsageError(f"{override.key_or_group}={given}: expected {expected}; it is {default} by default.")


def _nested(word: str, cfg: DictConfig) -> str:
    """Where a key of just that name is one level down."""
    found = next((name for name in _second_level(cfg) if name.split(".")[1] == word), None)
    return f" Did you mean {found!r}?" if found else ""


def _second_level(cfg: DictConfig) -> list[str]:
    return [f"{group}.{name}" for group, node in cfg.items() if OmegaConf.is_dict(node) for name in node]
