"""The record of a benchmark as Markdown and as a figure: reading and drawing, no numerics."""

import json
import platform
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.checkpoint import write_atomically
from experiments.figures import BLUE, ORANGE
from experiments.record import environment

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "bench"


def provenance(checksums: dict[str, str]) -> dict[str, Any]:
    """Commit, versions, devices, processor, precision, data."""
    runtime = {"runtime": {"x64": False, "matmul_precision": None}}
    return {**environment(OmegaConf.create(runtime), checksums), "processor": _processor()}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write(folder: Path, name: str, record: dict[str, Any], text: str) -> None:
    """The record as JSON, and its table."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(record, indent=2) + "\n"
    write_atomically(folder / f"{name}.json", lambda file: file.write(content.encode()))
    title = "table.md" if name == "bench_cpu" else f"{name}.md"
    write_atomically(folder / title, lambda file: file.write(text.encode()))


def table(record: dict[str, Any]) -> str:
    """All measurements of a CPU benchmark."""
    lines = ["# Time of a training step over its floor", ""]
    lines += [
        "| network | batch | estimator | homeostasis | ms (lowest to highest) | plain, ms | floor, ms | over floor "
        "| plain over floor | plain over ours | compile, s | plain | gradient error | plain | unsettled |",
        "|" + "---|" * 15,
    ]
    lines += [_comparison(row) for row in record["rows"]]
    if record["growth"]:
        lines += ["", "| grows | value | ms | over floor | compile, s |", "|" + "---|" * 5]
        lines += [_growth(row) for row in record["growth"]]
    return "\n".join([*lines, "", _notes(record)]) + "\n"


def _comparison(row: dict[str, Any]) -> str:
    ours, plain = row["time"]["ours"], row["time"].get("plain")
    spread = f"{1e3 * ours['median']:.1f} ({1e3 * ours['low']:.1f} to {1e3 * ours['high']:.1f})"
    cells = [row["kind"], row["batch"], row["estimator"], "yes" if row["homeostasis"] else "no", spread]
    cells += [f"{1e3 * plain['median']:.1f}" if plain else "", f"{1e3 * row['floor_seconds']:.2f}"]
    cells += [f"{row[key]:.1f}" if key in row else "" for key in ("ours_over_floor", "plain_over_floor")]
    cells += [f"{row['plain_over_ours']:.1f}" if plain else "", f"{ours['compile']:.1f}"]
    cells += [f"{plain['compile']:.1f}" if plain else "", f"{row['gradient_error']:.1e}"]
    cells += [f"{row['plain_gradient_error']:.1e}" if plain else "", f"{100 * row['unsettled_fraction']:.0f} %"]
    return "| " + " | ".join(map(str, cells)) + " |"


def _growth(row: dict[str, Any]) -> str:
    ours = row["time"]["ours"]
    cells = [row["axis"], row["value"], f"{1e3 * ours['median']:.1f}", f"{row['ours_over_floor']:.1f}"]
    cells.append(f"{ours['compile']:.1f}")
    return "| " + " | ".join(map(str, cells)) + " |"


def _notes(record: dict[str, Any]) -> str:
    where = record["environment"]
    data = "; ".join(f"{kind}: {source}" for kind, source in record["data"].items())
    return (
        f"{where['precision']}, {where['processor']}, {where['cores']} cores, JAX {where['versions']['jax']}, commit "
        f"{where['commit']}. Data: {data}. Medians of interleaved runs. Floor: the matrix products or convolutions of "
        "the evaluations of the drift that our step took on average over the batch, of the input and of the gradient, "
        "at the throughput measured at the same shapes in the same run; readout and homeostasis are not in it. "
        "Gradient error: relative 2-norm over the network's parameters to the same estimator in float64 relaxed until "
        "rounding, without the penalty of homeostasis, on trained networks. Plain: the published fixed steps, rolled."
    )


def figure(record: dict[str, Any], path: Path) -> None:
    """Horizontal bars of time over floor, ours plain-coloured and the plain step hatched, so that print tells them."""
    from matplotlib.figure import Figure

    rows = record["rows"][::-1]
    canvas = Figure(figsize=(7.5, 1.2 + 0.36 * len(rows)), layout="constrained")
    axis = canvas.subplots()
    for name, offset, colour, hatch in (("ours", 0.2, BLUE, ""), ("plain", -0.2, ORANGE, "///")):
        found = [(i + offset, row[f"{name}_over_floor"]) for i, row in enumerate(rows) if f"{name}_over_floor" in row]
        if found:
            bars = axis.barh(*zip(*found, strict=True), height=0.38, color=colour, hatch=hatch, edgecolor="white")
            bars.set_label(name)
            axis.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    labels = [f"{r['kind']}, {r['estimator']}{', homeostasis' if r['homeostasis'] else ''}" for r in rows]
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    axis.set(xscale="log", xlabel="time of a training step over its floor (1: nothing but its matrix products)")
    axis.axvline(1, color="black", lw=1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    canvas.savefig(path, dpi=150)
