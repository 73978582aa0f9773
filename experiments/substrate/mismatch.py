"""Mismatch by reciprocity class: hidden cosine and accuracy of networks trained on mismatched devices.

python -m experiments.substrate.mismatch                # or: make substrate
python -m experiments.substrate.mismatch --data fashion_mnist
"""

import argparse
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from experiments.paper.drawing import band, canvas, frame, legend, present, provenance
from experiments.paper.study import Job, Record, run_study
from experiments.substrate.page import write

SIGMAS = {"digits": (0.0, 0.5, 1.0), "fashion_mnist": (0.0, 0.5)}
SEEDS = {"digits": (0, 1), "fashion_mnist": (0,)}
SCALE = {
    "digits": ("data=digits", "epochs=8"),
    "fashion_mnist": ("data=fashion_mnist", "epochs=2", "data.train_examples=6000", "network.sizes=[784,128,128,10]"),
}
COMMON = (
    "network.angle=0.0",
    "stencil=centred",
    "stencil.beta=0.2",
    "homeostasis=none",
    "max_unsettled=1.0",
    "+substrate.mismatch._target_=eqprop.substrate.Mismatch",
)
METHODS: dict[str, tuple[str, ...]] = {
    "EP": (),
    "EP + homeostasis": ("homeostasis=exact", "homeostasis.coefficient=1.0"),
    "AsymEP": ("estimator=asymmetric",),
    "true gradient": ("estimator=rbp",),
}
CLASSES = {
    "shared (keeps)": ("+substrate.mismatch.structure=shared",),
    "row (gauge)": ("+substrate.mismatch.structure=row",),
    "row, gains known": ("+substrate.mismatch.structure=row", "substrate.known_gains=true"),
    "per direction (breaks)": ("+substrate.mismatch.structure=per_direction",),
    "tied, two paths (breaks)": ("+substrate.mismatch.structure=per_direction_tied",),
}


def jobs(data: str) -> list[Job]:
    """Plain EP on every class, and every method where reciprocity is broken; the seed is that of the chip as well."""
    found = []
    cases = [(f"EP: {name}", overrides) for name, overrides in CLASSES.items()]
    broken = CLASSES["per direction (breaks)"]
    cases += [(f"{name}: per direction", (*m, *broken)) for name, m in METHODS.items() if name != "EP"]
    for label, overrides in cases:
        for sigma in SIGMAS[data]:
            last = [f"+substrate.mismatch.sigma={sigma}", "substrate.chip=${seed}"]
            common = [o for o in COMMON if not (o == "homeostasis=none" and "homeostasis=exact" in overrides)]
            everything = ("substrate=ideal", *SCALE[data], *common, *overrides, *last)
            found.append(Job(_name(label, sigma), everything, SEEDS[data]))
    return found


def compute(data: str, workers: int | None) -> dict[str, Any]:
    """Accuracy, cosine, asymmetry and unsettled share at the end, one list a case and `σ`."""
    records = present(run_study(f"substrate_mismatch_{data}", "cpu", jobs(data), workers=workers))
    labels = [f"EP: {name}" for name in CLASSES] + [f"{m}: per direction" for m in METHODS if m != "EP"]
    curves = {
        label: {
            metric: [[_at(run, metric) for run in records[_name(label, s)]] for s in SIGMAS[data]] for metric in METRICS
        }
        for label in labels
    }
    return {"data": data, "sigmas": SIGMAS[data], "curves": curves, "provenance": provenance(records)}


METRICS = ("test_accuracy", "cosine_hidden", "functional_asymmetry", "unsettled_fraction")


def draw(data: dict[str, Any]) -> Any:
    """Cosine by class; accuracy by class; accuracy by method; and stability apart from all of them."""
    figure, axes = canvas(4, width=15.0, height=3.7)
    by_class = [f"EP: {name}" for name in CLASSES]
    broken = "EP: per direction (breaks)"
    by_method = [broken, *[f"{m}: per direction" for m in METHODS if m != "EP"]]
    panels = (
        (by_class, "cosine_hidden", 1, "hidden cosine to the true error", "What a class does to errors"),
        (by_method, "cosine_hidden", 1, "hidden cosine to the true error", "What a method makes of class B"),
        (by_method, "test_accuracy", 100, "test accuracy (%)", "What the network learns"),
        (by_method, "unsettled_fraction", 100, "unsettled in training (%)", "Whether it settles"),
    )
    for axis, (labels, metric, factor, ylabel, title) in zip(axes, panels, strict=True):
        for index, label in enumerate(labels):
            runs = [[factor * v for v in run] for run in zip(*data["curves"][label][metric], strict=True)]
            text = label.removeprefix("EP: ") if labels is by_class else label.split(":")[0]
            band(axis, data["sigmas"], runs, index, text)
        frame(axis, "mismatch σ (lognormal)", ylabel, title)
    legend(axes[0], loc="lower left")
    legend(axes[1], loc="lower left")
    name = {"digits": "Digits", "fashion_mnist": "Fashion-MNIST"}[data["data"]]
    figure.suptitle(f"{name}, {len(SEEDS[data['data']])} chip(s)", fontsize=11)
    return figure


def _name(label: str, sigma: float) -> str:
    words = "".join(c if c.isalnum() else "-" for c in label.lower())
    return f"{'-'.join(w for w in words.split('-') if w)}-s{sigma:g}"


def _at(run: Record, metric: str) -> float:
    value = run.summary[metric]
    return value["end"] if isinstance(value, dict) else value


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=SIGMAS, default="digits")
    parser.add_argument("--workers", type=int, help="runs at a time")
    chosen = parser.parse_args(argv)
    data = compute(chosen.data, chosen.workers)
    write(f"mismatch_{chosen.data}", data, draw(data))
    for label, found in data["curves"].items():
        line = ", ".join(
            f"σ {s:g}: {100 * fmean(a):.1f} % cos {fmean(c):.3f}"
            for s, a, c in zip(data["sigmas"], found["test_accuracy"], found["cosine_hidden"], strict=True)
        )
        print(f"{label}: {line}")


if __name__ == "__main__":
    main()
