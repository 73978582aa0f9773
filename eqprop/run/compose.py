"""Where configurations come from: the package's own folder, and one of the user's."""

import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

PACKAGE = Path(__file__).parents[1]
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else PACKAGE.parent / "configs"
"""Beside the code in an installation, beside the package in a checkout."""
HERE = "configs"
"""The folder of the working directory in which a user's own group files are looked for."""


def own_folder(config_dir: str | None = None) -> Path | None:
    """The folder with the user's own configurations: the one given, else `./configs`, else none.

    **Raises:** `FileNotFoundError` if the one that is given is not there.
    """
    folder = Path(config_dir or HERE).expanduser().absolute()
    if config_dir is not None and not folder.is_dir():
        raise FileNotFoundError(f"--config-dir {config_dir}: there is no such folder.")
    return folder if folder.is_dir() and folder.resolve() != CONFIGS.resolve() else None


def search_path(own: Path | None) -> list[str]:
    """The override that adds the user's folder after the package's."""
    # Not `as_uri`: Hydra takes the path as it is, spaces and all.
    return [] if own is None else [f"hydra.searchpath=[{quoted(f'file://{own.as_posix()}')}]"]


def compose(
    words: Sequence[str], name: str = "train", own: Path | None = None, *, with_hydra: bool = False
) -> DictConfig:
    """The configuration that these overrides make of `configs/<name>.yaml`; with Hydra's own part, if asked.

    **Raises:** Hydra's own errors for what does not compose.
    """
    running = GlobalHydra.instance()
    job, running.hydra = running.hydra, None  # a job of a sweep is inside Hydra's own program
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            return hydra.compose(name, [*search_path(own), *words], return_hydra_config=with_hydra)
    finally:
        running.hydra = job


def groups(own: Path | None = None) -> dict[str, list[str]]:
    """Every group with its choices, the user's own among them."""
    found: dict[str, set[str]] = {}
    for folder in filter(None, (CONFIGS, own)):
        for path in folder.glob("*/*.yaml"):
            found.setdefault(path.parent.name, set()).add(path.stem)
    found.pop("study", None)  # not a part of a run
    return {group: sorted(found[group]) for group in sorted(found)}


def file_of(group: str, choice: str, own: Path | None = None) -> Path | None:
    """The file of a choice; that of the package where both folders have one."""
    paths = (folder / group / f"{choice}.yaml" for folder in filter(None, (CONFIGS, own)))
    return next((path for path in paths if path.is_file()), None)


def say_what_is_hidden(own: Path | None) -> None:
    """Tell of the user's files that are not used, as the package has others of the same name."""
    for path in sorted(own.glob("*/*.yaml")) if own is not None else ():
        shipped = CONFIGS / path.parent.name / path.name
        if shipped.is_file() and shipped.read_bytes() != path.read_bytes():
            print(f"note: {path} is not used: the package has a file of that name; rename yours", file=sys.stderr)


def quoted(text: str) -> str:
    """A value as Hydra's grammar takes it whatever is in it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
