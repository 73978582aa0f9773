"""Downloads, each checked against its published checksum; nothing else in the package does I/O
over a network."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from eqprop.data.files import Root
from eqprop.data.source import Download, Source, destination, missing

_T = TypeVar("_T")


def download(source: Source, root: Root = None) -> Path:
    """Fetch a data set's files, and return the folder they are in.

    Files that are already there with the right checksum are kept; a file is given its name only
    after its checksum has been verified.

    **Arguments:**

    - `source`: one of `SOURCES`.
    - `root`: as for the loaders; by default EQPROP_DATA or the cache folder.

    **Raises:** `ImportError` without pooch, `FileNotFoundError` with what to do by hand where a
    file cannot be had, be it offline or because the data set needs a login.
    """
    if not source.downloads:
        raise missing(source, root)
    folder = destination(source, root)
    for item in source.downloads:
        if reason := _fetch(item, folder):
            raise missing(source, root, f"Download failed: {reason}.")
    return folder


def fetched(source: Source, root: Root, load: Callable[[], _T], wanted: bool) -> _T:
    """What `load` makes of the files; if they are absent and a download is `wanted`, they are fetched first.

    **Raises:** the `FileNotFoundError` of `load` if no download is wanted; what `download` and `load` raise.
    """
    try:
        return load()
    except FileNotFoundError:
        if not wanted:
            raise
    download(source, root)
    return load()


def _fetch(item: Download, folder: Path) -> str:
    """Try each address; return an empty string, or why none of them served."""
    try:
        pooch = importlib.import_module("pooch")
    except ImportError as error:
        raise ImportError("downloads need pooch: `pip install pooch`") from error
    reasons = []
    for url in item.urls:
        try:
            pooch.retrieve(url, f"md5:{item.md5}", fname=item.file, path=folder)
            return ""
        # Network trouble is an OSError, a wrong checksum a ValueError: try the next address.
        except (OSError, ValueError) as error:
            first_line = str(error).partition("\n")[0]
            reasons.append(f"{url} ({type(error).__name__}: {first_line:.80})")
    return ", ".join(reasons)
