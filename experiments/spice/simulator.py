"""ngspice as a plain subprocess."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from eqprop.circuit import ResistiveNetwork, netlist

ABSENT = "ngspice is not installed: `apt-get install ngspice` on Debian, `brew install ngspice` on macOS."


def available() -> bool:
    """Whether the binary is on the path."""
    return shutil.which("ngspice") is not None


def version() -> str:
    """What ngspice calls itself."""
    text = subprocess.run(["ngspice", "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    return next((word for word in text.split() if word.startswith("ngspice-")), "ngspice").strip("* ,:")


def run(text: str, files: Sequence[str], *, timeout: float = 120.0) -> dict[str, str]:
    """The files that the deck `text` writes.

    **Raises:** `FileNotFoundError` without ngspice; `RuntimeError`, with its last words, for a file that is not there
    after `timeout` seconds at most.
    """
    if not available():
        raise FileNotFoundError(ABSENT)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "circuit.cir").write_text(text)
        done = subprocess.run(
            ["ngspice", "-b", "circuit.cir"], cwd=place, capture_output=True, text=True, timeout=timeout, check=False
        )
        absent = [name for name in files if not (place / name).exists()]
        if absent:
            raise RuntimeError(f"ngspice wrote no {', '.join(absent)}:\n{(done.stdout + done.stderr)[-2000:]}")
        return {name: (place / name).read_text() for name in files}


def tables(
    network: ResistiveNetwork, lines: Iterable[str], analyses: Sequence[tuple[str, Sequence[str]]]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scale and voltages of each of `(command, names)`, in one run; names are of nodes, or of spectra."""
    commands, files = [], [f"{k}.txt" for k in range(len(analyses))]
    for (command, names), file in zip(analyses, files, strict=True):
        commands += [*command.split("\n"), netlist.save(file, names)]
    written = run(netlist.deck(network, lines, commands), files)
    return [netlist.read(written[f], names) for f, (_, names) in zip(files, analyses, strict=True)]
