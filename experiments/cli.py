"""The command line: overrides checked before anything runs, errors in one line."""

import difflib
import itertools
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf

CONFIGS = Path(__file__).parent.parent / "configs"


class UsageError(Exception):
    """A command line that cannot run; the message says why and what to do."""


def check_command_line(config_name: str) -> None:
    """End the process with the reason, code 2, if its overrides cannot run."""
    try:
        check_overrides(sys.argv[1:], config_name)
    except UsageError as error:
        fail(error, code=2)


def check_overrides(arguments: list[str], config_name: str) -> None:
    """Refuse a key that is not in the configuration, or a choice that is in no group, and name the nearest.

    **Raises:** `UsageError`.
    """
    parsed = get_args_parser().parse_args(arguments)
    if parsed.config_dir is not None:
        return  # a folder of the user's own has groups that are not known here; Hydra checks them
    try:
        overrides = OverridesParser.create().parse_overrides(parsed.overrides)
    except (HydraException, OverrideParseException) as error:
        raise UsageError(f"{str(error).splitlines()[0]}; expected key=value") from error
    choices = [override for override in overrides if _is_group(override)]
    for override in choices:
        _check_choice(override)
    # The keys that exist depend on the choices: compose with the first value of every swept choice.
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = compose(config_name, [f"{o.get_key_element()}={_values(o)[0]}" for o in choices])
    except HydraException as error:
        raise UsageError(str(error)) from error
    for override in overrides:
        if override not in choices and not override.is_add() and not override.key_or_group.startswith("hydra"):
            default = _check_key(override.key_or_group, cfg)
            if not override.is_delete():
                _check_kind(override, default)


def _is_group(override: Override) -> bool:
    return (CONFIGS / override.key_or_group).is_dir() and not override.is_delete()


def _values(override: Override) -> list[str]:
    value = override.value()
    if isinstance(value, Glob):
        return value.filter(_options(override.key_or_group))
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return [str(value)]


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def _check_choice(override: Override) -> None:
    group = override.key_or_group
    options, values = _options(group), _values(override)
    for value in values or [(override.input_line or "").partition("=")[2]]:
        if value not in [*options, "None", "null"]:
            raise UsageError(
                f"{group}={value}: there is no such {group}; there are {', '.join(options)}.{_near(value, options)}"
            )


def _check_key(key: str, cfg: DictConfig) -> Any:
    """What the key has now."""
    node: Any = cfg
    parts = key.split(".")
    for depth, part in enumerate(parts):
        where = ".".join(parts[:depth])
        if OmegaConf.is_list(node):
            raise UsageError(f"{key}: {where} is a list; give it whole, as in {where}=[…].")
        if not OmegaConf.is_dict(node):
            raise UsageError(
                f"{key}: {where} has no settings of its own (it is {node!r}). Choose another {parts[0]} first."
            )
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


def fail(error: Exception | str, code: int = 1) -> None:
    """Say what is wrong, in one line, and leave."""
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    sys.exit(code)
