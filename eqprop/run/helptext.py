"""What `--help` prints, read from the configuration files and their comments, so that it cannot be out of date."""

import itertools
import re
from pathlib import Path

from eqprop.run.compose import CONFIGS, file_of, groups

_KEY = re.compile(r"^( *)([a-z_0-9]+): *([^#]*?) *(?:# *(.*))?$")


def of_train(name: str, usage: str, own: Path | None = None) -> str:
    """Usage, every group with a line for each choice, and the keys outside of groups."""
    lines = [usage.strip(), "", "Groups, chosen by GROUP=CHOICE (an asterisk marks the default):"]
    defaults = _defaults()
    for group, choices in groups(own).items():
        lines.append(f"\n{group}" + ("   also as relaxation@nudged, of the nudged phases" * (group == "relaxation")))
        width = max(map(len, choices))
        for choice in choices:
            mark = "*" if choice in defaults.get(group, ()) else " "
            lines.append(f" {mark} {choice.ljust(width)}  {about(group, choice, own)}")
    lines += ["\nKeys, set by KEY=VALUE, with their defaults:", *_keys(CONFIGS / "train.yaml")]
    if name != "train":
        lines += _keys(CONFIGS / f"{name}.yaml")
    lines += [
        "\nA key of a group's choice is GROUP.KEY, as in network.angle=45; --cfg job prints all of them.",
        "Group files of your own in ./configs or --config-dir FOLDER add choices.",
    ]
    return "\n".join(lines)


def about(group: str, choice: str, own: Path | None = None) -> str:
    """The first sentence of the comment that a choice's file begins with."""
    path = file_of(group, choice, own)
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    comment = itertools.takewhile(lambda line: line.startswith("#"), (x for x in lines if not x.startswith("# @")))
    text = " ".join(line.removeprefix("#").strip() for line in comment)
    return text.split(". ")[0].rstrip(".")


def _defaults() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for group, choice in re.findall(r"^ +- (?:optional )?([a-z]+)(?:@[a-z]+)?: (\w+)", _text(), re.MULTILINE):
        found.setdefault(group, set()).add(choice)
    return found


def _text() -> str:
    return (CONFIGS / "train.yaml").read_text(encoding="utf-8")


def _keys(path: Path) -> list[str]:
    """One line a key outside of `defaults` and of Hydra's own block, with the comment beside it."""
    body = path.read_text(encoding="utf-8").split("\nhydra:")[0]
    section, lines = "", []
    for line in body.splitlines():
        match = _KEY.match(line)
        if match is None or match[2] == "defaults":
            continue
        indent, key, value, comment = match.groups()
        section = key if not indent and not value else section if indent else ""
        if value:
            name = f"{section}.{key}" if indent and section else key
            lines.append(f"  {name}={value}".ljust(38) + f"  {comment or ''}".rstrip())
    return lines
