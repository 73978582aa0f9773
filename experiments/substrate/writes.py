"""Write noise: the asymmetry it builds up, its closed form, and what homeostasis holds against it.

python -m experiments.substrate.writes                  # or: make substrate
"""

import math
from typing import Any

import numpy as np

from experiments.paper.drawing import band, canvas, frame, legend, present, provenance
from experiments.paper.study import Job, run_study
from experiments.substrate.page import write

SIGMA = 2e-3
EPOCHS = 12
BASE = (
    "data=digits",
    f"epochs={EPOCHS}",
    "network.angle=0.0",
    "stencil=centred",
    "stencil.beta=0.2",
    "max_unsettled=1.0",
    "substrate=ideal",
    "+substrate.write._target_=eqprop.substrate.WriteNoise",
    f"+substrate.write.sigma={SIGMA}",
)
CASES = {
    "noise": ("homeostasis=none",),
    "noise and decay 0.01": ("homeostasis=none", "+substrate.write.decay=0.01"),
    "noise and homeostasis": ("homeostasis=exact", "homeostasis.coefficient=1.0"),
}


def main() -> None:
    """Run what is missing, then draw."""
    names = {name: "-".join(name.replace(".", "").split()) for name in CASES}
    jobs = [Job(names[name], (*BASE, *overrides), (0, 1)) for name, overrides in CASES.items()]
    records = present(run_study("substrate_writes", "cpu", jobs))
    runs = {name: records[job.label] for name, job in zip(CASES, jobs, strict=True)}
    epochs = [entry["epoch"] for entry in runs["noise"][0].metrics]
    steps = math.ceil(1400 / 50)  # of an epoch of the digits
    metrics = ("functional_asymmetry", "cosine_hidden", "test_accuracy")
    curves = {
        name: {m: [[entry[m] for entry in run.metrics] for run in kept] for m in metrics} for name, kept in runs.items()
    }
    t = np.asarray(epochs) * steps
    spread = {"none": SIGMA * np.sqrt(2 * t), "0.01": SIGMA * np.sqrt((1 - 0.99 ** (2 * t)) / (1 - 0.99**2) * 2)}
    data = {"sigma": SIGMA, "epochs": epochs, "steps_an_epoch": steps, "curves": curves,
            "closed_form_std": spread, "provenance": provenance(records)}  # fmt: skip
    write("writes", data, draw(data))


def draw(data: dict[str, Any]) -> Any:
    """Asymmetry, cosine and accuracy by epoch."""
    figure, axes = canvas(3, width=11.5, height=3.6)
    panels = (
        ("functional_asymmetry", 1, "functional asymmetry", "Writes part the two directions"),
        ("cosine_hidden", 1, "hidden cosine to the true error", "Alignment follows"),
        ("test_accuracy", 100, "test accuracy (%)", "What the network learns"),
    )
    for axis, (metric, factor, ylabel, title) in zip(axes, panels, strict=True):
        for index, (name, found) in enumerate(data["curves"].items()):
            band(axis, data["epochs"], [[factor * v for v in run] for run in found[metric]], index, name)
        frame(axis, "epoch", ylabel, title)
    legend(axes[0], loc="upper left")
    figure.suptitle(f"Digits, write noise of standard deviation {data['sigma']:g} at every update", fontsize=11)
    return figure


if __name__ == "__main__":
    main()
