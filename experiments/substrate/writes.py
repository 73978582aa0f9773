"""Write noise: the asymmetry it builds up, its closed form, and what homeostasis holds against it.

python -m experiments.substrate.writes                  # or: make substrate
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eqprop import Substrate
from eqprop.substrate import WriteNoise
from experiments.paper.drawing import band, canvas, frame, legend, line, present, provenance
from experiments.paper.study import Job, run_study
from experiments.substrate.page import write

SIGMA = 2e-3
EPOCHS = 12
DECAYS = (0.0, 0.01, 0.1)
PAIRS = 20_000
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
    metrics = ("functional_asymmetry", "cosine_hidden", "test_accuracy")
    curves = {
        name: {m: [[entry[m] for entry in run.metrics] for run in kept] for m in metrics} for name, kept in runs.items()
    }
    data = {"sigma": SIGMA, "epochs": epochs, "curves": curves, "walk": walk(), "provenance": provenance(records)}
    write("writes", data, draw(data))


def walk() -> dict[str, Any]:
    """Of device pairs that are written without learning: the spread of their differences, and its closed form."""
    steps = np.asarray([1, 3, 10, 30, 100, 300, 1000])
    found = {}
    for decay in DECAYS:
        rule = Substrate(noise=WriteNoise(SIGMA, decay)).writes()
        assert rule is not None

        def step(w: Any, key: Any, rule: Any = rule) -> Any:
            w = w + rule.update(jnp.zeros_like(w), optax.EmptyState(), w, key=key)[0]
            return w, jnp.std(w[0] - w[1])

        _, spread = jax.lax.scan(step, jnp.zeros((2, PAIRS)), jax.random.split(jax.random.key(0), int(steps[-1])))
        kept = (1 - decay) ** 2
        variance = steps if decay == 0 else (1 - kept**steps) / (1 - kept)
        found[f"{decay:g}"] = {"measured": spread[steps - 1], "closed form": SIGMA * np.sqrt(2 * variance)}
    return {"steps": steps, "pairs": PAIRS, "by decay": found}


def draw(data: dict[str, Any]) -> Any:
    """Spread without learning; asymmetry, cosine and accuracy by epoch."""
    figure, (first, *axes) = canvas(4, width=15.0, height=3.7)
    for index, (decay, found) in enumerate(data["walk"]["by decay"].items()):
        line(first, data["walk"]["steps"], found["measured"], index, f"decay {decay}")
        first.plot(data["walk"]["steps"], found["closed form"], color="black", lw=0.9)
    first.set_xscale("log")
    first.set_yscale("log")
    frame(first, "updates", "std of the difference of two devices", "Without learning (lines: closed form)")
    legend(first, loc="upper left")
    panels = (
        ("functional_asymmetry", 1, "functional asymmetry", "Writes part the two directions"),
        ("cosine_hidden", 1, "hidden cosine to the true error", "Alignment follows"),
        ("test_accuracy", 100, "test accuracy (%)", "What the network learns"),
    )
    for axis, (metric, factor, ylabel, title) in zip(axes, panels, strict=True):
        for index, (name, found) in enumerate(data["curves"].items()):
            band(axis, data["epochs"], [[factor * v for v in run] for run in found[metric]], index, name)
        frame(axis, "epoch", ylabel, title)
    legend(axes[2], loc="lower right")
    figure.suptitle(f"Digits, write noise of standard deviation {data['sigma']:g} at every update", fontsize=11)
    return figure


if __name__ == "__main__":
    main()
