"""The bias of the gradient in the course of training, split into finite nudge, finite relaxation and asymmetry.

    python -m experiments.paper.bias_split --scale cpu

One training with homeostasis and one without; the checkpoint of every epoch is audited on test images in float64.
"""

import equinox as eqx
import jax.numpy as jnp
from matplotlib.figure import Figure

from eqprop import Audit, FiniteNudge, Model, Sweep, audit
from experiments.paper.drawing import Arguments, Data, Entry, canvas, frame, legend, line, make, parse
from experiments.paper.trained import Trained, cast, models, precision, provenance, test_images, train

PARTS = {"asymmetry": "asymmetry", "finite_nudge": "finite nudge", "finite_relaxation": "finite relaxation"}
RUNS = {"without": "homeostasis=none", "with": "homeostasis.coefficient=10"}
TITLES = {"without": "Without homeostasis", "with": "With homeostasis"}
KEEP = ("run.name=bias_split", "run.keep=1000", "run.checkpoint_minutes=1e9")
"""A folder of its own, with a checkpoint of every epoch."""
SCALE = {
    "quick": (
        "epochs=2",
        "data.train_examples=1000",
        "evaluation.alignment_examples=20",
        "optimiser.learning_rate=1e-3",
    ),
    "cpu": ("epochs=6", "data.train_examples=5000", "optimiser.learning_rate=1e-3"),
    "full": ("epochs=20", "optimiser.learning_rate=1e-3"),
}
IMAGES = {"quick": 10, "cpu": 50, "full": 200}
REFERENCE = Sweep(tol=1e-10, max_steps=1000)
"""What the audit calls settled."""


def overrides(label: str, scale: str) -> tuple[str, ...]:
    """Of one training."""
    return ("experiment=fashion_mnist_homeostasis", RUNS[label], *SCALE[scale], *KEEP)


def compute(arguments: Arguments) -> Data:
    """Medians of the parts by epoch, with and without homeostasis."""
    images = IMAGES[arguments.scale]
    runs, sources = {}, {}
    for label in RUNS:
        trained = train(overrides(label, arguments.scale), arguments.rerun)
        runs[label], sources[label] = _split(trained, images), provenance(trained)
    return {"runs": runs, "images": images, "audit_precision": "float64", "provenance": sources}


def _split(trained: Trained, images: int) -> Data:
    trainer = trained.task.trainer
    estimator, checkpoints = trainer.estimator, models(trained)
    assert isinstance(estimator, FiniteNudge)
    with precision("float64") as dtype:
        x, y = test_images(trained, images)
        x, estimator = x.astype(dtype), cast(estimator, dtype)

        @eqx.filter_jit
        def program(model: Model) -> Audit:
            return audit(model, x, y, estimator=estimator, relaxation=trainer.relaxation, reference=REFERENCE)

        reports = [program(cast(model, dtype)) for _, model in checkpoints]
        return {
            "epochs": [epoch for epoch, _ in checkpoints],
            "parts": {name: [_median(report, name) for report in reports] for name in PARTS},
            "closure": [_median(report, "closure") for report in reports],
            "cosine_hidden": [_median(report, "cosine_hidden") for report in reports],
            "unsettled_fraction": [float(jnp.mean(~report.settled)) for report in reports],
        }


def _median(report: Audit, name: str) -> float:
    return float(jnp.nanmedian(jnp.where(report.settled, getattr(report, name), jnp.nan)))


def draw(data: Data, arguments: Arguments) -> Figure:
    """A panel without, a panel with homeostasis."""
    figure, axes = canvas(2, width=8.5, height=3.5)
    for axis, (label, title) in zip(axes, TITLES.items(), strict=True):
        run = data["runs"][label]
        for index, (part, name) in enumerate(PARTS.items()):
            line(axis, run["epochs"], run["parts"][part], index, name)
        axis.set_yscale("log")
        frame(axis, "epoch", "bias / true error vector\n(norms, median over images)", title)
        axis.locator_params(axis="x", integer=True)
    axes[1].sharey(axes[0])
    axes[1].autoscale(axis="y")
    legend(axes[0], loc="center right")
    figure.suptitle("Homeostasis removes the asymmetry; the nudge and its relaxation remain", fontsize=11)
    return figure


ENTRY = Entry("bias_split", compute, draw)

if __name__ == "__main__":
    make(ENTRY, parse())
