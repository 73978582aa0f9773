"""The page of all groups, choices and keys, written from the configuration files and their comments."""

import itertools
from pathlib import Path

from eqprop.run.compose import CONFIGS, groups
from eqprop.run.helptext import about

HEAD = """# Configuration

Every setting of `eqprop train` is a key. `eqprop train KEY=VALUE` sets a key, `eqprop train GROUP=CHOICE` takes a
choice of a group, and `eqprop train GROUP.KEY=VALUE` sets a key of the choice. `--cfg job` prints all that a command
composes to.
[Your own choices](sweeps.md#your-own-configurations) are files in `./configs`. This page is made from the files.

## Keys outside of groups

```yaml
{train}
```
"""

TOLD_ELSEWHERE = {"study": "[Studies](studies.md) have a page of their own."}


def write(path: Path) -> None:
    text = HEAD.format(train=_body(CONFIGS / "train.yaml").split("\nhydra:")[0].strip())
    for group, choices in groups().items():
        text += f"\n## {group}\n\n"
        if group in TOLD_ELSEWHERE:
            text += TOLD_ELSEWHERE[group] + "\n"
            continue
        text += "| choice | |\n| --- | --- |\n"
        text += "".join(f"| `{group}={choice}` | {_cell(about(group, choice))} |\n" for choice in choices)
        for choice in choices:
            text += f"\n### {group}={choice}\n\n```yaml\n{_body(CONFIGS / group / f'{choice}.yaml').strip()}\n```\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8", newline="\n")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _body(path: Path) -> str:
    """The file without what Hydra reads in its first line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "\n".join(itertools.dropwhile(lambda line: line.startswith("# @"), lines))
