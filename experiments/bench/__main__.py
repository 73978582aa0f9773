"""Measure training steps on this machine: python -m experiments.bench [--quick] [--only curves,cost,…]."""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eqprop.run.errors import fail
from experiments.bench import accuracy, cost, curves, levers, report, resident, sparse
from experiments.bench.networks import CONV, RECIPES, from_run, sources, trained

CORES = {"curves": 2, "cost": 1, "conv": 2, "levers": 1, "accuracy": 1, "resident": 1, "sparse": 2}
"""The parts of the benchmark, and on how many cores each is measured."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each part in a process of its own, on its cores, and write what it found into the record."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    if len(options.only) == 1:
        confine(CORES[options.only[0]])
        try:
            run(options.only[0], options)
        except (FileNotFoundError, ValueError, report.OtherData) as error:
            fail(error)
        return
    for part in options.only:
        if subprocess.run([sys.executable, "-m", "experiments.bench", *given, "--only", part]).returncode:
            raise SystemExit(1)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run on digits, under a minute, not for reading")
    parser.add_argument("--only", default=",".join(CORES), type=_parts, help=f"of {','.join(CORES)}; by default all")
    parser.add_argument("--conv-run", type=Path, help="folder of a finished run of experiment=cifar10_weak")
    parser.add_argument("--out", type=Path, help="folder for record, table and figure (default: docs/results/bench)")
    parser.add_argument("--force", action="store_true", help="overwrite a record that was made on other data")
    options = parser.parse_args(arguments)
    options.out = options.out or (Path("outputs/bench_quick") if options.quick else report.RESULTS)
    return options


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := [part for part in parts if part not in CORES]:
        raise argparse.ArgumentTypeError(f"no part is called {', '.join(unknown)}; there are {', '.join(CORES)}")
    return parts


def confine(cores: int) -> None:
    """Keep this process to so many of its cores; before JAX starts its threads."""
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def run(part: str, options: argparse.Namespace) -> None:
    """Measure one part and write it.

    **Raises:** `report.OtherData` before anything is measured, if the record was made on other data.
    """
    if part == CONV and options.conv_run is None:
        print("conv: skipped; give --conv-run FOLDER, a run of experiment=cifar10_weak")
        return
    data = sources(part, options.conv_run, quick=options.quick)
    if not options.force:
        report.refuse_other_data(options.out, part, data)
    print(report.write(options.out, part, measure(part, options), data))


def measure(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """What one part of the benchmark finds."""
    quick, conv_run = options.quick, options.conv_run
    if part == "accuracy":
        return accuracy.measure(quick=quick)
    if part == "resident":
        return resident.measure(quick=quick)
    if part == "sparse":
        return sparse.measure(quick=quick)
    if part == "levers":
        return levers.measure(trained("weak feedback", quick=quick), quick=quick)
    if part != "curves":
        return cost.measure(
            trained("weak feedback", quick=quick) if part == "cost" else from_run(conv_run), quick=quick
        )
    nets = [trained(name, quick=quick) for name in (tuple(RECIPES)[2:] if quick else RECIPES)]
    if conv_run is None:
        print("curves: without the convolutional network; give --conv-run FOLDER, a run of experiment=cifar10_weak")
    return curves.measure([*nets, *([from_run(conv_run)] if conv_run else [])], quick=quick)


if __name__ == "__main__":
    main()
