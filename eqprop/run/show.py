"""Look at a run: `eqprop show`."""

import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqprop.run import report
from eqprop.run.checkpoint import DamagedCheckpoint
from eqprop.run.errors import UsageError
from eqprop.run.record import checkpoint_of, recorded
from eqprop.run.study import style

if TYPE_CHECKING:
    from jaxtyping import Array

    from eqprop import Model, Trainer

USAGE = """
usage: eqprop show RUN [--open]

  eqprop show outputs/digits-0123456789

writes RUN/report.html and prints its path; --open shows it in a browser. RUN is the folder of a run, finished or not.
To what `eqprop train` leaves in the report it adds the trained network: which classes it takes for which, how images
relax, and the spectrum of its Jacobian. They are validation images, or training images where the run held none out.
"""
IMAGES, DRAWN = 500, 3
"""Images on which classes are counted, and of which the relaxation is drawn."""


def main(arguments: Sequence[str]) -> None:
    """The command line of `eqprop show`."""
    words = [word for word in arguments if word not in ("-h", "--help", "--open")]
    if not words or {"-h", "--help"} & {*arguments}:
        print(USAGE.strip())
        return
    if len(words) > 1:
        raise UsageError(f"eqprop show takes the folder of one run; it got {len(words)}: {' '.join(words)}.")
    path = show(Path(words[0]).expanduser())
    print(path)
    if "--open" in arguments:
        webbrowser.open(path.absolute().as_uri())


def show(folder: Path) -> Path:
    """Write the report of a run with its trained network, as far as it is at hand.

    **Raises:** `FileNotFoundError` if the folder holds no run.
    """
    try:
        drawings, notes = of_network(folder), []
    except (ValueError, OSError, DamagedCheckpoint) as error:
        recorded(folder)  # without a run there is no report
        drawings, notes = [], [f"The trained network is not shown: {error}"]
    return report.write(folder, drawings, notes)


def of_network(folder: Path) -> list[report.Drawing]:
    """The network of the last checkpoint.

    **Raises:** `ValueError` without a checkpoint, or for a population; `DamagedCheckpoint`; `FileNotFoundError` without
    the data set or the run.
    """
    # Imported here: help is printed at once.
    import jax
    import jax.numpy as jnp

    import eqprop as eq
    from eqprop.run import runtime
    from eqprop.run.build import build
    from eqprop.run.compose import compose
    from eqprop.run.loop import model_of

    cfg, checkpoint = recorded(folder), checkpoint_of(folder)
    cfg.run = compose((), "train").run
    if cfg.population > 1:
        raise ValueError(f"it is a population of {cfg.population}.")
    runtime.configure(cfg)
    task = build(cfg)
    model = task.trainer.deployed(model_of(cfg, task, checkpoint)[0])
    split = (task.dataset.validation or task.dataset.train)[:IMAGES]
    x = task.preprocess(split.images)
    made = []
    with style.styled():
        if task.dataset.num_classes and jnp.issubdtype(split.labels.dtype, jnp.integer):
            made.append(_confusion(task.trainer, model, x, split.labels, task.dataset.num_classes))
        try:
            trajectories = [eq.trace(model, x[i], task.trainer.relaxation) for i in range(min(DRAWN, len(split)))]
            made.append(_relaxations(trajectories))
        except ValueError as error:
            print(f"note: {error}")
        if sum(leaf.size for leaf in jax.tree.leaves(model.network.at(x[0]).initial_state())) <= eq.plot.MOST_NEURONS:
            figure, (axis,) = style.canvas(width=5.0, height=4.2)
            eq.plot.spectrum(model, x[0], task.trainer.relaxation, axis)
            made.append(
                report.Drawing(
                    "Spectrum",
                    figure,
                    "Eigenvalues of the Jacobian at the fixed point of one image, in units of the leak's rate; left of "
                    "0 it is stable in continuous time, inside the circle around −1 under synchronous steps.",
                )
            )
    return made


def _confusion(trainer: "Trainer", model: "Model", x: "Array", labels: Any, classes: int) -> report.Drawing:
    import numpy as np

    from eqprop.run.study.trained import predicted

    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (np.asarray(labels), np.asarray(predicted(trainer, model, x))), 1)
    figure, (axis,) = style.canvas(width=4.6, height=4.2)
    axis.imshow(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), vmin=0, vmax=1, cmap="Blues")
    for (row, column), count in np.ndenumerate(counts) if classes <= 20 else ():
        if count:
            dark = count > 0.5 * counts[row].sum()
            axis.text(column, row, count, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axis.grid(visible=False)
    style.frame(axis, "predicted class", "true class")
    right = counts.trace() / counts.sum()
    caption = f"Which classes the network takes for which, on {len(labels)} images; {right:.1%} are right."
    return report.Drawing("Confusion", figure, caption)


def _relaxations(trajectories: Sequence[Any]) -> report.Drawing:
    import eqprop as eq

    figure, axes = style.canvas(len(trajectories), 2, height=2.6)
    for index, trajectory in enumerate(trajectories):
        eq.plot.trajectory(trajectory, [axes[index], axes[index + len(trajectories)]])  # pyright: ignore[reportArgumentType]
    said = "; ".join(trajectory.headline() for trajectory in trajectories)
    caption = f"The free phase of {len(trajectories)} images: residual, and the rates that move most. They end {said}."
    return report.Drawing("Relaxation of single images", figure, caption)
