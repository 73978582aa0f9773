"""Measure training steps on this machine: python -m experiments.bench [--quick]."""

import argparse
from pathlib import Path
from typing import Any

from experiments.bench import report
from experiments.bench.compare import compare
from experiments.bench.floor import floor_of
from experiments.bench.growth import grow
from experiments.bench.problems import images, trained
from experiments.bench.settings import ERROR_BATCHES, ESTIMATORS, SETTINGS


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="dense only, N = 2, no growth: under a minute")
    parser.add_argument("--conv-batch", type=int, default=8, help="images of the convolutional network's step")
    parser.add_argument(
        "--conv-label", help="what the convolutional network's images are, if not the original CIFAR-10"
    )
    parser.add_argument("--out", type=Path, default=report.RESULTS, help="folder for the record, table and figure")
    options = parser.parse_args()
    record = measure(quick=options.quick, conv_batch=options.conv_batch, conv_label=options.conv_label)
    text = report.table(record)
    print(text)
    report.write(options.out, "bench_quick" if options.quick else "bench_cpu", record, text)
    if not options.quick:
        report.figure(record, options.out / "time_over_floor.png")


def measure(*, quick: bool, conv_batch: int, conv_label: str | None = None) -> dict[str, Any]:
    """The record of all measurements, with its provenance."""
    kinds = ("dense",) if quick else ("dense", "conv")
    data = {kind: images(kind) for kind in kinds}
    if conv_label and "conv" in data:
        data["conv"] = data["conv"]._replace(source=conv_label)
    rows, growth = [], []
    for kind in kinds:
        batches = {"dense": 200 if quick else 600, "conv": 40}[kind]
        size = SETTINGS[kind].batch if kind == "dense" else conv_batch
        for homeostatic in (False, True):
            model = trained(kind, data[kind], homeostatic=homeostatic, batches=batches)
            tested = [data[kind].batch(size, 1000 + index) for index in range(ERROR_BATCHES[kind])]
            floor = floor_of(model.network, size)
            for estimator in ("N=2",) if quick else ESTIMATORS[kind]:
                print(f"{kind}, {estimator}, {'with' if homeostatic else 'without'} homeostasis", flush=True)
                repeats = 10 if kind == "dense" else 3
                row = compare(kind, estimator, model, tested, floor, homeostatic=homeostatic, repeats=repeats)
                rows.append({**row, "floor": floor._asdict()})
            if kind == "dense" and homeostatic and not quick:
                growth = grow(model, data[kind], batches=batches // 3)
    return {
        "environment": report.provenance({k: v for d in data.values() for k, v in d.checksums.items()}),
        "data": {kind: found.source for kind, found in data.items()},
        "settings": {kind: {k: str(v) for k, v in vars(SETTINGS[kind]).items()} for kind in kinds},
        "seeds": {"model": 0, "training": 1, "step": 0},
        "rows": rows,
        "growth": growth,
    }


if __name__ == "__main__":
    main()
