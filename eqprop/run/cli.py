"""The program: `eqprop COMMAND ...`, or `python -m eqprop COMMAND ...`."""

import importlib
import io
import sys
from collections.abc import Sequence
from importlib.metadata import version

COMMANDS = {
    "train": "train a network, or a sweep of them with -m, or a search with --search",
    "study": "run the studies of the project, or your own: tables and figures from records",
    "collect": "gather run folders into one table",
    "data": "fetch, verify and describe a data set",
    "audit": "split the error of a gradient estimate by its causes",
    "show": "write the report of a run, and open it",
    "deploy": "put a trained network on many chips and measure it there",
    "device": "fit a device to measured curves, and write a preset of it",
}

HELP = """eqprop: learning by relaxation

usage: eqprop COMMAND [KEY=VALUE ...]

{commands}

  eqprop train                                 the default: digits, nudges on a circle, homeostasis
  eqprop train homeostasis=none seed=1         settings are given as KEY=VALUE
  eqprop train -m estimator=finite_nudge,rbp seed=0,1,2
  eqprop COMMAND --help                        what a command takes: every group, every choice, the main keys
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; the process ends with 0, or with what `errors.fail` says."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # where output goes to a file, Windows would take no δ
            stream.reconfigure(encoding="utf-8", errors="replace")
    if not words or words[0] in ("-h", "--help", "help"):
        listed = "\n".join(f"  {name.ljust(9)}{what}" for name, what in COMMANDS.items())
        print(HELP.format(commands=listed))
        return
    if words[0] == "--version":
        print(f"eqprop {version('eqprop')}")
        return
    command, rest = words[0], words[1:]
    # Imported here: help is printed at once, and no command waits for what another one needs.
    from eqprop.run.errors import EXPECTED, Interrupted, UsageError, fail, near

    try:
        if command not in COMMANDS:
            known = ", ".join(COMMANDS)
            raise UsageError(f"There is no command {command!r}; there are {known}.{near(command, COMMANDS)}")
        importlib.import_module(f"eqprop.run.{command}").main(rest)
    except UsageError as error:
        fail(str(error), code=2)
    except Interrupted as stop:
        print(stop)
        sys.exit(stop.code)
    except KeyboardInterrupt:
        print("Stopped before anything was done that could be saved.", file=sys.stderr)
        sys.exit(130)
    except EXPECTED as error:
        fail(error)
