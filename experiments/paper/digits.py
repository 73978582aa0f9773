"""The default job with and without homeostasis, three seeds each: a table, and the idea of the project in one figure.

    python -m experiments.paper.digits        # or: make digits

Runs, or reuses, its run folders, copies their records to docs/results/digits, and draws docs/idea.png from them.
"""

import json
import shutil
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.cli import CONFIGS
from experiments.figures import BLUE, ORANGE
from experiments.record import run_path
from experiments.train import run

SEEDS = (0, 1, 2)
DOCS = Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "results" / "digits"
RECORDS = ("config.yaml", "environment.json", "metrics.jsonl", "summary.json")


def main() -> None:
    """Run what is missing, then write the table and the figure."""
    for homeostasis in ("exact", "none"):
        for seed in SEEDS:
            with initialize_config_dir(str(CONFIGS), version_base="1.3"):
                cfg = compose("train", [f"homeostasis={homeostasis}", f"seed={seed}"])
            run(cfg)
            target = RESULTS / f"{homeostasis}-{seed}"
            target.mkdir(parents=True, exist_ok=True)
            for name in RECORDS:
                shutil.copyfile(run_path(cfg) / name, target / name)
    (RESULTS / "README.md").write_text(table())
    figure(DOCS / "idea.png")


def load(homeostasis: str, name: str) -> list[Any]:
    """The parsed record `name` of each seed."""
    texts = [(RESULTS / f"{homeostasis}-{seed}" / name).read_text() for seed in SEEDS]
    return [[json.loads(line) for line in t.splitlines()] if name.endswith("l") else json.loads(t) for t in texts]


def table() -> str:
    """The comparison as Markdown, with its provenance."""
    rows = [
        "| | homeostasis | test accuracy (%) | hidden cosine, start | end | functional asymmetry, start | end "
        "| unsettled (%) | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    strength = OmegaConf.load(RESULTS / f"exact-{SEEDS[0]}" / "config.yaml").homeostasis.coefficient
    for kind, title in (("exact", f"exact, coefficient {strength:g}"), ("none", "none")):
        runs = load(kind, "summary.json")
        cells = [_spread([100 * r["test_accuracy"] for r in runs], 2)]
        for key in ("cosine_hidden", "functional_asymmetry"):
            cells += [_spread([r[key][when] for r in runs], 3) for when in ("start", "end")]
        cells += [_spread([100 * r["unsettled_fraction"] for r in runs], 2), _spread([r["seconds"] for r in runs], 1)]
        rows.append(f"| digits | {title} | " + " | ".join(cells) + " |")
    where = load("exact", "environment.json")[0]
    cores = f"{where['cores_used']} of {where['cores']} cores"
    notes = (
        f"Mean ± standard deviation over seeds {', '.join(map(str, SEEDS))}; 359 test images, so that one image is "
        f"0.28 points; {load('exact', 'summary.json')[0]['epochs']} epochs, the last one counts. {where['precision']}, "
        f"{where['devices'][0]}, {cores}, commit {where['commit'][:10]}; seconds include compilation and evaluation. "
        "Unsettled: share of training examples whose free or nudged phase missed its tolerance. Made by `make digits`; "
        "each run's configuration and records lie beside this file."
    )
    return "# Digits: the default job\n\n" + "\n".join(rows) + "\n\n" + notes + "\n"


def figure(path: Path) -> None:
    """The idea: a network, its nudge, and what homeostasis does to its error vectors and its accuracy."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    canvas, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained", width_ratios=(1.25, 1, 1))
    _draw_network(axes[0])
    for axis, key, factor, label in (
        (axes[1], "cosine_hidden", 1, "cosine of hidden errors to the true ones"),
        (axes[2], "test_accuracy", 100, "test accuracy (%)"),
    ):
        for kind, colour, style, name in (("exact", BLUE, "-", "with"), ("none", ORANGE, "--", "without")):
            curves = [[factor * record[key] for record in run] for run in load(kind, "metrics.jsonl")]
            epochs = range(len(curves[0]))
            means, low, high = zip(*((fmean(v), min(v), max(v)) for v in zip(*curves, strict=True)), strict=True)
            axis.plot(epochs, means, style, color=colour, label=f"{name} homeostasis")
            axis.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
        axis.set(xlabel="epoch", ylabel=label, xticks=range(0, len(curves[0]), 5))
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.legend(frameon=False, loc="lower right")
    axes[1].set(title="Finite nudges tell the true errors", ylim=(-0.1, 1.05))
    axes[2].set(title="and the network learns better", ylim=(80, 100))
    canvas.savefig(path, dpi=150)
    plt.close(canvas)


def _draw_network(axis: Any) -> None:
    """Layers with forward and feedback weights of their own, and the nudge that circles in the complex plane."""
    from matplotlib.patches import Circle, FancyArrowPatch

    def arrow(start: tuple[float, float], end: tuple[float, float], colour: str, bend: float = 0.0) -> None:
        style = f"arc3,rad={bend}"
        patch = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=colour, lw=1.6)
        patch.set_connectionstyle(style)
        axis.add_patch(patch)

    for x, name in ((0.0, "$x$"), (1.0, "$s_1$"), (2.0, "$s_{out}$")):
        axis.add_patch(Circle((x, 0), 0.24, facecolor="white", edgecolor="black", lw=1.4))
        axis.text(x, 0, name, ha="center", va="center", fontsize=12)
    arrow((0.25, 0), (0.75, 0), BLUE)
    arrow((1.22, 0.1), (1.78, 0.1), BLUE, -0.3)
    arrow((1.78, -0.1), (1.22, -0.1), ORANGE, -0.3)
    axis.text(1.5, 0.36, "$W$", ha="center", color=BLUE, fontsize=11)
    axis.text(1.5, -0.5, r"$W^{fb}\neq W^{\top}$", ha="center", color=ORANGE, fontsize=11)
    centre, radius = (3.05, 0.0), 0.42
    axis.add_patch(Circle(centre, radius, fill=False, ls=":", color="grey"))
    for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1)):
        axis.plot(centre[0] + radius * dx, centre[1] + radius * dy, "o", color="black", ms=5)
    axis.plot(*centre, "+", color="grey")
    axis.text(centre[0], 0.58, r"$\beta_k = r\,e^{2\pi i k/N}$", ha="center", fontsize=11)
    arrow((centre[0] - radius - 0.02, 0), (2.25, 0), "black")
    axis.text(
        1.5, -1.02, r"$\delta=\frac{1}{N}\sum_k s^*(\beta_k)/\beta_k,\qquad \Delta W\propto -\delta\, s^{\top}$",
        ha="center", fontsize=12,
    )  # fmt: skip
    axis.set(xlim=(-0.35, 3.6), ylim=(-1.25, 0.95), title="Relax, nudge on a circle, read the error", aspect="equal")
    axis.axis("off")


def _spread(values: list[float], digits: int) -> str:
    return f"{fmean(values):.{digits}f} ± {stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
