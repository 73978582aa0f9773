"""Where a data set's files are looked for, and what is said when they are not there."""

import os
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import platformdirs

from eqprop.data.files import Root, archives, candidates, first_whole, similar

ENVIRONMENT = "EQPROP_DATA"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Layout:
    """One way in which a split may lie on disk: these files, or one archive that holds them."""

    files: tuple[str, ...]
    archive: str = ""


@dataclass(frozen=True)
class Download:
    """A file with its published MD5 and the addresses that offer it, tried in order."""

    file: str
    md5: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """All that is known about a data set before any of its files is opened.

    **Arguments:**

    - `name`: of its loader; `title`: for people.
    - `folders`: conventional sub-folders; downloads go to the first.
    - `train`, `test`: the layouts accepted for either split, best first.
    - `downloads`: what `download` fetches; empty if a person has to, as `advice` then says.
    - `system`: folders in which a package of the operating system installs the files.
    - `published`: SHA-256 of unpacked contents, by file name, where it is known for certain.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    _: KW_ONLY
    train: tuple[Layout, ...]
    test: tuple[Layout, ...]
    downloads: tuple[Download, ...] = ()
    system: tuple[str, ...] = ()
    advice: str = ""
    published: Mapping[str, str] = field(default_factory=dict)


class Found(NamedTuple):
    """Where a split lies: `files` inside `place`, a folder or an archive."""

    place: Path
    files: tuple[str, ...]

    def sizes(self) -> dict[str, int]:
        """Size in bytes of each file on disk that holds the split."""
        on_disk = [path for name in self.files for path in candidates(self.place, name)[:1]] or [self.place]
        return {path.name: path.stat().st_size for path in on_disk}


def cache_folder() -> Path:
    """Where the operating system keeps caches: on Linux `$XDG_CACHE_HOME/eqprop`, by default `~/.cache/eqprop`."""
    return Path(platformdirs.user_cache_dir("eqprop", appauthor=False))


def bases(source: Source, root: Root = None) -> list[Path]:
    """Folders to look in: `root` alone if given, else EQPROP_DATA, the system's, the cache."""
    if root is not None:
        return [Path(root).expanduser()]
    environment = os.environ.get(ENVIRONMENT)
    chosen = [Path(environment).expanduser()] if environment else []
    return [*chosen, *map(Path, source.system), cache_folder()]


def destination(source: Source, root: Root = None) -> Path:
    """The folder for new files: the first that is not the system's."""
    base = next(base for base in bases(source, root) if str(base) not in source.system)
    return base if base.name in source.folders else base / source.folders[0]


def search(source: Source, layouts: tuple[Layout, ...], base: Path) -> tuple[list[Found], str]:
    """The complete layouts under one base folder, best first, and what an incomplete one lacks."""
    complete, partial = [], ""
    # Named sub-folders come first: MNIST and Fashion-MNIST use the same file names.
    for folder in [*(base / name for name in source.folders), base]:
        for layout in layouts:
            absent = [name for name in layout.files if not candidates(folder, name)]
            # Where another data set has the same names, a second folder must not stand in for a damaged first.
            if not absent and (layout.archive or not complete):
                complete.append(Found(folder, layout.files))
            complete += [Found(path, layout.files) for path in archives(folder, layout.archive)]
            if 0 < len(absent) < len(layout.files):
                partial = partial or f"{folder} lacks {', '.join(absent)}."
    return complete, partial


def find(source: Source, layouts: tuple[Layout, ...], root: Root, read: Callable[[Found], _T]) -> _T:
    """What `read` makes of the first base folder with a complete layout, by `first_whole` if it has several.

    **Raises:** the `FileNotFoundError` of `missing`; the `ValueError` of `read` if all are damaged.
    """
    reasons = []
    for base in bases(source, root):
        complete, partial = search(source, layouts, base)
        if complete:
            return first_whole(complete, read)
        reasons.append(partial)
    raise missing(source, root, " ".join(filter(None, reasons)))


def missing(source: Source, root: Root = None, reason: str = "") -> FileNotFoundError:
    """The error for absent files: which, where to put them, how to point elsewhere or download."""
    pairs = list(zip(source.train, source.test, strict=True))
    archives = [dict.fromkeys((a.archive, b.archive)) for a, b in pairs if a.archive]
    ways = [_shorten(a.files) + _shorten(b.files) for a, b in pairs] + list(map(list, archives))
    fetch = (
        f"or download them: `eqprop data {source.name}`, or the loader with download=True"
        if source.downloads
        else f"there is no download: {source.advice}"
    )
    lines = [
        " ".join(filter(None, [f"{source.title}: files not found.", reason, _near(source, root)])),
        f"  looked in: {', '.join(map(str, bases(source, root)))}",
        f"  put one of these sets into {destination(source, root)} (files may be .gz):",
        *(f"    {' '.join(way)}" for way in ways),
        f"  or name their folder by root=DIR, data.root=DIR or {ENVIRONMENT}=DIR;",
        f"  {fetch}",
    ]
    return FileNotFoundError("\n".join(lines))


def _near(source: Source, root: Root) -> str:
    """What the folders looked in have under a name that is almost one of those expected."""
    layouts = (*source.train, *source.test)
    names = [name for layout in layouts for name in (*layout.files, *filter(None, [layout.archive]))]
    folders = [folder for base in bases(source, root) for folder in (*(base / name for name in source.folders), base)]
    found = [f"{folder} has {entry}." for folder in folders for entry in similar(folder, names)]
    return " ".join(found[:3])


def _shorten(names: tuple[str, ...]) -> list[str]:
    return list(names) if len(names) < 4 else [names[0], "...", names[-1]]
