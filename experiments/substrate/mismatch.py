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
    "max_unsettled=1.0",
    "+substrate.mismatch._target_=eqprop.substrate.Mismatch",
)
PLAIN = ("homeostasis=none",)
METHODS: dict[str, tuple[str, ...]] = {
    "EP": PLAIN,
    "EP + homeostasis": ("homeostasis=exact", "homeostasis.coefficient=1.0"),
    "AsymEP": ("estimator=asymmetric", *PLAIN),
    "true gradient": ("estimator=rbp", *PLAIN),
}
CLASSES = {
    "shared (keeps)": ("+substrate.mismatch.structure=shared",),
    "row (gauge)": ("+substrate.mismatch.structure=row",),
    "row, gains known": ("+substrate.mismatch.structure=row", "substrate.known_gains=true"),
    "per direction (breaks)": ("+substrate.mismatch.structure=per_direction",),
    "tied, two paths (breaks)": ("+substrate.mismatch.structure=per_direction_tied",),
}
BROKEN = "per direction (breaks)"
BY_CLASS = {f"EP: {name}": (*METHODS["EP"], *overrides) for name, overrides in CLASSES.items()}
OTHERS = {name: overrides for name, overrides in METHODS.items() if name != "EP"}
BY_METHOD = {
    f"EP: {BROKEN}": BY_CLASS[f"EP: {BROKEN}"],
    **{f"{name}: per direction": (*overrides, *CLASSES[BROKEN]) for name, overrides in OTHERS.items()},
}
CASES = BY_CLASS | BY_METHOD
"""Plain EP on every class, and every method where reciprocity is broken."""
METRICS = ("test_accuracy", "cosine_hidden", "functional_asymmetry", "unsettled_fraction")


def jobs(data: str) -> list[Job]:
    """Every case at every spread; the seed is that of the chip as well."""
    return [
        Job(
            _name(label, sigma),
            (
                "substrate=ideal",
                *SCALE[data],
                *COMMON,
                *overrides,
                f"+substrate.mismatch.sigma={sigma}",
                "substrate.chip=${seed}",
            ),
            SEEDS[data],
        )
        for label, overrides in CASES.items()
        for sigma in SIGMAS[data]
    ]


def compute(data: str, workers: int | None) -> dict[str, Any]:
    """Accuracy, cosine, asymmetry and unsettled share at the end, one list a case and `σ`."""
    records = present(run_study(f"substrate_mismatch_{data}", "cpu", jobs(data), workers=workers))
    curves = {
        label: {
            metric: [[_at(run, metric) for run in records[_name(label, s)]] for s in SIGMAS[data]] for metric in METRICS
        }
        for label in CASES
    }
    return {"data": data, "sigmas": SIGMAS[data], "curves": curves, "provenance": provenance(records)}


def draw(data: dict[str, Any]) -> Any:
    """Cosine by class; cosine and accuracy by method; and stability apart from all of them."""
    figure, axes = canvas(4, width=15.0, height=3.7)
    panels = (
        (BY_CLASS, "cosine_hidden", 1, "hidden cosine to the true error", "What a class does to errors"),
        (BY_METHOD, "cosine_hidden", 1, "hidden cosine to the true error", "What a method makes of class B"),
        (BY_METHOD, "test_accuracy", 100, "test accuracy (%)", "What the network learns"),
        (BY_METHOD, "unsettled_fraction", 100, "unsettled in training (%)", "Whether it settles"),
    )
    for axis, (labels, metric, factor, ylabel, title) in zip(axes, panels, strict=True):
        for index, label in enumerate(labels):
            runs = [[factor * v for v in run] for run in zip(*data["curves"][label][metric], strict=True)]
            text = label.removeprefix("EP: ") if labels is BY_CLASS else label.split(":")[0]
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
