"""ImageNet 32x32 from end to end on made images of the right number, in the layout of the published files.

    python -m experiments.bench.imagenet32 --folder FOLDER --out docs/results/imagenet32/cpu.json [TRAIN OVERRIDES]

The images of a class are one coarse pattern with noise, so that a network can learn them. What is measured: the time
and the peak memory of the conversion to a memory-mapped file, images a second in training, its peak memory, and whether
a run that was stopped half-way ends with the numbers of one that was not.
"""

import argparse
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

CLASSES, SIDE = 1000, 32
CHANGED = ["epochs=1", "data.train_examples=null", "evaluation.alignment_examples=50"]


def pixels(labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows of 3,072 bytes, a channel after the other: the pattern of the class, 4 x 4 in size, and noise."""
    patterns = np.random.default_rng(0).integers(40, 216, (CLASSES, 3, 4, 4), np.uint8)
    coarse = patterns[labels].repeat(SIDE // 4, axis=2).repeat(SIDE // 4, axis=3).reshape(len(labels), -1)
    noise = np.random.default_rng(seed).integers(-40, 40, coarse.shape, np.int8)
    return (coarse.astype(np.int16) + noise).astype(np.uint8)


def write(folder: Path, train: int, validation: int) -> None:
    """The files as they are published: ten pickled batches and one of validation, labels from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = [len(part) for part in np.array_split(np.arange(train), 10)]
    files = [(f"train_data_batch_{k}", size, k) for k, size in enumerate(sizes, 1)] + [("val_data", validation, 11)]
    for name, size, seed in files:
        labels = np.random.default_rng(100 + seed).integers(0, CLASSES, size)
        labels[: min(size, CLASSES)] = np.arange(min(size, CLASSES))
        content = {"data": pixels(labels, seed), "labels": (labels + 1).tolist()}
        with open(folder / name, "wb") as file:
            pickle.dump(content, file, protocol=4)


def timed(words: Sequence[str], folder: Path, **options: Any) -> tuple[float, float, str]:
    """Seconds and gigabytes at the peak of a process of ours, and what it wrote."""
    program = "import resource,runpy,sys; sys.argv=sys.argv[1:]\ntry: runpy.run_module('eqprop', run_name='__main__')\n"
    program += "finally: print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, "eqprop", *words],
        env={**os.environ, "EQPROP_DATA": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:])
    peak = int(re.findall(r"^peak (\d+)", done.stdout, re.MULTILINE)[-1])
    return time.perf_counter() - start, peak * 1024 / 1e9, done.stdout


def stopped_and_resumed(words: Sequence[str], folder: Path, whole: dict[str, Any], run: Path) -> bool:
    """Stop the same training by SIGTERM half-way, go on, and compare what it ends with."""
    command = [sys.executable, "-m", "eqprop", "train", *words, f"run.dir={run}"]
    process = subprocess.Popen(command, env={**os.environ, "EQPROP_DATA": str(folder)}, stdout=subprocess.DEVNULL)
    time.sleep(0.5 * whole["seconds"])
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143, "the run ended before it was stopped"
    timed(["train", *words, f"run.dir={run}"], folder)
    again = json.loads((run / "summary.json").read_text())
    return all(again[name] == value for name, value in whole.items() if name != "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=1_281_167)
    parser.add_argument("--validation", type=int, default=50_000)
    parser.add_argument("--examples", type=int, default=20_000, help="training images of the timed run")
    options, overrides = parser.parse_known_args()
    data, runs = options.folder / "data", options.folder / "runs"
    if not any(data.rglob("manifest.json")):
        write(data, options.train, options.validation)
    seconds, peak, said = timed(["data", "imagenet32", "--root", str(data)], data)
    words = ["experiment=imagenet32", *CHANGED, f"data.train_examples={options.examples}", *overrides]
    _, train_peak, output = timed(["train", *words, f"run.dir={runs / 'whole'}"], data)
    whole = json.loads((runs / "whole" / "summary.json").read_text())
    rates = [float(rate.replace(",", "")) for rate in re.findall(r"([\d,]+) images/s", output)]
    result = {
        "images": {"train": options.train, "validation": options.validation},
        "conversion": {"seconds": seconds, "peak_gigabytes": peak, "said": said.splitlines()[0]},
        "training": {"images_a_second": rates[-1], "peak_gigabytes": train_peak, "overrides": words, "summary": whole},
        "resumed_equals_whole": stopped_and_resumed(words, data, whole, runs / "stopped"),
        "environment": json.loads((runs / "whole" / "environment.json").read_text()),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "environment"}, indent=1))


if __name__ == "__main__":
    main()
