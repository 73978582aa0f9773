"""The idea of the project in one figure: a network, its nudge, and what homeostasis does on digits."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

from eqprop.run.study import style
from eqprop.run.study.figures import TITLES, epochs
from eqprop.run.study.records import Record

KINDS = {"with": "with homeostasis", "without": "without"}


def captions(records: Sequence[Record]) -> dict[str, str]:
    """What the figure shows."""
    seeds = style.counted([len(_of(records, kind)) for kind in KINDS])
    return {
        "idea": (
            "A network relaxes, a nudge circles in the complex plane, and the change of its fixed point is the error. "
            "On digits, homeostasis aligns the error vectors of independent feedback weights with the true ones. Thick "
            f"lines are means, thin lines the runs; {seeds}."
        )
    }


def draw(records: Sequence[Record]) -> dict[str, Figure]:
    """The sketch, the cosine of hidden errors and the validation accuracy by epoch."""
    figure = Figure(figsize=(10.5, 3.1), layout="constrained")
    sketch, *axes = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    _network(sketch)
    seeds = style.counted([len(_of(records, kind)) for kind in KINDS])
    titles = (f"Homeostasis aligns errors (digits, {seeds})", "What the network learns of digits")
    for axis, metric, title in zip(axes, ("cosine_hidden", "accuracy"), titles, strict=True):
        ylabel, factor = TITLES[metric]
        for index, (kind, name) in enumerate(KINDS.items()):
            runs = [epochs(record, metric, factor) for record in _of(records, kind)]
            if runs:
                style.band(axis, [*runs[0]], [[*run.values()] for run in runs], index, name)
        style.frame(axis, "epoch", ylabel, title)
        axis.legend(loc="lower right")
    return {"idea": figure}


def _of(records: Sequence[Record], kind: str) -> list[Record]:
    return [record for record in records if record.label == kind and record.missing is None]


def _network(axis: Axes) -> None:
    """Layers with forward and feedback weights of their own, and the nudge that circles in the complex plane."""

    def arrow(start: tuple[float, float], end: tuple[float, float], colour: str, bend: float = 0.0) -> None:
        style = f"arc3,rad={bend}"
        patch = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=colour, lw=1.6)
        patch.set_connectionstyle(style)
        axis.add_patch(patch)

    for x, name in ((0.0, "$x$"), (1.0, "$s_1$"), (2.0, "$s_{out}$")):
        axis.add_patch(Circle((x, 0), 0.24, facecolor="white", edgecolor="black", lw=1.4))
        axis.text(x, 0, name, ha="center", va="center", fontsize=12)
    arrow((0.25, 0), (0.75, 0), style.BLUE)
    arrow((1.22, 0.1), (1.78, 0.1), style.BLUE, -0.3)
    arrow((1.78, -0.1), (1.22, -0.1), style.ORANGE, -0.3)
    axis.text(1.5, 0.36, "$W$", ha="center", color=style.BLUE, fontsize=11)
    axis.text(1.5, -0.5, r"$W^{fb}\neq W^{\top}$", ha="center", color=style.ORANGE, fontsize=11)
    centre, radius = (3.05, 0.0), 0.42
    axis.add_patch(Circle(centre, radius, fill=False, ls=":", color="grey"))
    for dx, dy in ((0.7071, 0.7071), (-0.7071, 0.7071), (-0.7071, -0.7071), (0.7071, -0.7071)):
        axis.plot(centre[0] + radius * dx, centre[1] + radius * dy, "o", color="black", ms=5)
    axis.plot(*centre, "+", color="grey")
    axis.text(centre[0], 0.58, r"$\beta_k = r\,e^{i\pi(2k+1)/N}$", ha="center", fontsize=11)
    arrow((centre[0] - radius - 0.02, 0), (2.25, 0), "black")
    axis.text(
        1.5, -1.02, r"$\delta=\frac{1}{N}\sum_k s^*(\beta_k)/\beta_k,\qquad \Delta W\propto -\delta\, s^{\top}$",
        ha="center", fontsize=12,
    )  # fmt: skip
    axis.set(xlim=(-0.35, 3.6), ylim=(-1.25, 0.95), title="Relax, nudge on a circle, read the error", aspect="equal")
    axis.axis("off")
