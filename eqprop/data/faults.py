"""What is said of a file that cannot be read: what it is instead, and what to do."""

from pathlib import Path

_LFS = b"version https://git-lfs"
_PAGES = (b"<!doctype html", b"<html", b"<?xml")


class Unfit(ValueError):
    """A file that is whole and holds something else."""


def damaged(source: str | Path, reason: object) -> ValueError:
    """The one error for a file that cannot be what its name says."""
    return ValueError(f"{source}: damaged or not what its name says ({reason}); fetch it again")


def unfit(source: str | Path, reason: object) -> Unfit:
    """The one error for a file that is whole and holds something else: no other copy of it would help."""
    return Unfit(f"{source}: {reason}; the file is whole but not the one expected, check where it is from")


def check_is_data(data: bytes, source: str | Path) -> None:
    """Refuse what commonly lies in the place of a file of data.

    **Arguments:**

    - `data`: the file, or its first 512 bytes at least.
    - `source`: its name, for errors.

    **Raises:** `ValueError` naming `source` if it is empty, a pointer of Git LFS, or a web page.
    """
    if not data:
        raise damaged(source, "the file is empty, 0 bytes: its download or its copying was cut off")
    if data.startswith(_LFS):
        raise ValueError(
            f"{source}: a pointer of Git LFS that stands for the file, which was not fetched; run `git lfs pull` in "
            "its repository"
        )
    if data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGES):
        raise ValueError(
            f"{source}: a web page, such as a login or an error, that a download returned in place of the file; delete "
            "it and fetch it again, with `eqprop data NAME` or in a browser"
        )
