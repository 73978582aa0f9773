"""The record of a benchmark as JSON, as Markdown and as a figure: reading and drawing, no numerics."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from eqprop.run.checkpoint import write_atomically
from eqprop.run.provenance import environment
from eqprop.run.record import to_json
from eqprop.run.study.style import BLUE, ORANGE, PURPLE
from experiments.bench.cost import parts_total

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "bench"
Sections = dict[str, dict[str, Any]]
Data = dict[str, dict[str, str]]
"""By the name of the data, the checksums of its files."""


class OtherData(Exception):
    """A record that shall not be overwritten; the message says why."""


def provenance(checksums: dict[str, str]) -> dict[str, Any]:
    """Commit, versions, devices, processor, precision, data."""
    runtime = {"runtime": {"x64": False, "matmul_precision": None}}
    return environment(OmegaConf.create(runtime), checksums)


def read(folder: Path) -> Sections:
    """The parts measured so far."""
    path = folder / "bench.json"
    return json.loads(path.read_text())["parts"] if path.exists() else {}


def refuse_other_data(folder: Path, part: str, data: Data) -> None:
    """**Raises:** `OtherData` if that part of the record in `folder` was made on other data."""
    there = read(folder).get(part)
    if there is not None and there["data"] != data:
        raise OtherData(
            f"{folder / 'bench.json'} holds {part!r} measured on {', '.join(there['data'])}; this run's data "
            f"({', '.join(data)}) differ in name or checksum. Give another --out, or --force to overwrite it."
        )


def write(folder: Path, part: str, section: dict[str, Any], data: Data) -> str:
    """Put one part into the record, with its provenance, and draw table and figure anew; the table."""
    folder.mkdir(parents=True, exist_ok=True)
    checksums = {f"{name}: {file}": digest for name, files in data.items() for file, digest in files.items()}
    parts = read(folder) | {part: {**section, "data": data, "environment": provenance(checksums)}}
    record = to_json({"parts": parts}, indent=2) + "\n"
    write_atomically(folder / "bench.json", lambda file: file.write(record.encode()))
    parts = read(folder)
    text = table(parts)
    write_atomically(folder / "table.md", lambda file: file.write(text.encode()))
    if part == "curves":
        figure(parts[part]["curves"], folder / "time_against_error.png")
    return text


class Target(NamedTuple):
    """What a part of the record should say."""

    title: str
    part: str
    value: Callable[[dict[str, Any]], float | None]
    limit: float
    at_least: bool = False
    unit: str = ""


def _ratio(network: str, points: int, homeostasis: bool) -> Callable[[dict[str, Any]], float | None]:
    where = {"network": network, "points": points, "homeostasis": homeostasis, "family": "Sweep"}

    def value(curves: dict[str, Any]) -> float | None:
        rows = [row for row in curves["ratios"] if where.items() <= row.items()]
        return (rows[0]["at"]["0.05"] or rows[0]["beyond"]["0.05"]) if rows else None

    return value


def _reached(level: str) -> Callable[[dict[str, Any]], float | None]:
    return lambda part: (part["seconds"].get(level) or {}).get("median")


TARGETS = [
    Target("dense, N = 2, without homeostasis: plain over ours at 5 %", "curves", _ratio("dense", 2, False), 4, True),
    Target("dense, N = 2, with homeostasis", "curves", _ratio("dense with homeostasis", 2, True), 8, True),
    *(
        Target(f"{name}, N = {n}, with homeostasis", "curves", _ratio(name, n, True), 6, True)
        for n in (4, 6)
        for name in ("dense", "dense with homeostasis")
    ),
    Target("weak feedback: a step over its counted floor", "cost", lambda p: p["over_floor"], 2.5),
    Target("weak feedback: a step over one of backpropagation", "cost", lambda p: p["over_backpropagation"], 6),
    Target("compile, dense, any N", "cost", lambda p: max(p["compile_seconds"].values()), 4, unit=" s"),
    Target("compile, conv, any N", "conv", lambda p: max(p["compile_seconds"].values()), 8, unit=" s"),
    Target("conv, an image, N = 2 with homeostasis", "conv", lambda p: p["milliseconds_an_image"], 3, unit=" ms"),
    *(
        Target(f"Fashion-MNIST, {100 * float(level):.0f} %", "accuracy", _reached(level), limit, unit=" s")
        for level, limit in (("0.8", 6), ("0.83", 10), ("0.85", 20), ("0.87", 90))
    ),
    Target(
        "a digits step of the training loop over one in a scan", "resident", lambda p: p.get("ratio_in_the_loop"), 1.2
    ),
    Target("a lone digits step over one in a scan", "resident", lambda p: p["ratio"], 1.2),
    Target("100,000 sparse neurons, batch 8", "sparse", lambda p: p["seconds"]["median"], 1, unit=" s"),
]


def table(parts: Sections) -> str:
    """All that was measured."""
    lines = ["# Time of a training step", "", "| target | | measured | |", "|---|---|---|---|"]
    lines += [_target(target, parts.get(target.part)) for target in TARGETS]
    lines += ["", "Where the plain step never gets to 5 %, its longest schedule stands in: the ratio is a lower bound."]
    if "curves" in parts:
        lines += _curves(parts["curves"])
    for part in ("cost", "conv"):
        if part in parts:
            lines += _cost(parts[part])
    if "levers" in parts:
        lines += _levers(parts["levers"])
    if "accuracy" in parts:
        lines += _accuracy(parts["accuracy"])
    if "sparse" in parts:
        lines += _sparse(parts["sparse"])
    lines += ["", "## Where", ""]
    return "\n".join(lines + [_where(name, part) for name, part in parts.items()]) + "\n"


def _target(target: Target, part: dict[str, Any] | None) -> str:
    limit = f"{'≥' if target.at_least else '≤'} {target.limit:g}{target.unit}"
    value = None if part is None else target.value(part)
    if value is None:
        return f"| {target.title} | {limit} | {'not measured' if part is None else 'not reached'} | |"
    met = value >= target.limit if target.at_least else value <= target.limit
    return f"| {target.title} | {limit} | {value:.3g}{target.unit} | {'met' if met else 'missed'} |"


def _curves(curves: dict[str, Any]) -> list[str]:
    lines = ["", "## Time against error", "", "![Time of a step against its error](time_against_error.png)", ""]
    for name, f in curves["networks"].items():
        clear = [100 * found["one_answer"] for found in curves["oracles"] if found["network"] == name]
        lines.append(
            f"* {name}: {100 * f['test_accuracy']:.1f} % of {f['test_images']} test images, batches of "
            f"{f['batch_size']}, β = {f['beta']:g}; at least {min(clear):.1f} % of examples have one answer"
        )
    lines += ["", "| network | N | homeostasis | ours | plain over ours at 5 % | at 1 % |", "|" + "---|" * 6]
    for row in curves["ratios"]:
        at = [_read(row["at"][error], row["beyond"][error]) for error in ("0.05", "0.01")]
        cells = [row["network"], row["points"], "yes" if row["homeostasis"] else "no", row["family"], *at]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lost = max(100 * oracle["unsettled"] for oracle in curves["oracles"])
    return [
        *lines,
        "",
        f"Medians over {curves['batches']} batches of examples with one answer: on the others, sweeps and damped "
        "synchronous steps end at different error vectors in float64, and no error has a meaning. Error: relative "
        "2-norm of the task's whole gradient to the same stencil in float64 relaxed to 1e-12 "
        f"(at most {lost:.2g} % of examples did not get there). Plain: the "
        "published step at its best schedule and damping for that error. None: ours does not reach the error, or plain "
        "was not measured there; never: plain does not reach it, and its longest schedule takes so many times longer; "
        "where even our loosest tolerance is more accurate, it stands in, and the ratio is a lower bound.",
    ]


def _read(ratio: float | None, beyond: float | None) -> str:
    if ratio is None and beyond is None:
        return "none"
    return f"{ratio:.2g}" if ratio is not None else f"never (over {beyond:.2g})"


def _cost(part: dict[str, Any]) -> list[str]:
    ((name, facts),) = part["network"].items()
    step = part["seconds"]["step"]["median"]
    lines = ["", f"## What relaxation costs: {name}", "", "| | ms | quartiles | of the step |", "|---|---|---|---|"]
    for label, found in part["seconds"].items():
        low, middle, high = (f"{1e3 * found[key]:.3g}" for key in ("low", "median", "high"))
        lines.append(f"| {label} | {middle} | {low} to {high} | {found['median'] / step:.0%} |")
    lines.append(f"| counted floor | {1e3 * part['floor_seconds']:.3g} | | {part['floor_seconds'] / step:.0%} |")
    compiled = ", ".join(f"N = {n}: {value:.1f}" for n, value in part["compile_seconds"].items())
    metrics = part["metrics"]
    return [
        *lines,
        "",
        f"Batches of {part['batch']}, {100 * facts['test_accuracy']:.1f} % of test images; "
        f"{part['milliseconds_an_image']:.3g} ms an image. Steps: {metrics['free_steps']:.1f} free, "
        f"{metrics['nudged_steps']:.1f} nudged in sum, {part['drift_evaluations']:.1f} evaluations of the drift. Parts "
        f"are compiled alone, and add to {parts_total(part['seconds']) / step:.0%} of the step. Compile, seconds: "
        f"{compiled}. Floor: the matrix products of those evaluations, of the input and of the gradient, at the "
        "throughput measured at the same shapes in the same run; readout and homeostasis are not in it.",
    ]


def _levers(part: dict[str, Any]) -> list[str]:
    ((name, facts),) = part["network"].items()
    lines = [
        "",
        f"## Levers: {name}",
        "",
        "| one setting changed | ms | error | free | nudged | compile |",
        "|" + "---|" * 6,
    ]
    for label, row in part["levers"].items():
        times = [f"{1e3 * row['seconds'][key]:.2f}" for key in ("median", "low", "high")]
        cells = [f"{times[0]} ({times[1]} to {times[2]})", f"{100 * row['error']['median']:.2g} %"]
        cells += [f"{row[key]:.1f}" for key in ("free_steps", "nudged_steps")] + [f"{row['compile_seconds']:.1f} s"]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    note = (
        f"Medians and quartiles over {part['batches']} batches of {facts['batch_size']}, all levers in turn on each. "
    )
    note += (
        "Steps are means over examples, nudged ones summed over two nodes; errors are those of the task's gradient to "
    )
    return [*lines, "", note + "that of the same nudges in float64, relaxed to 1e-12."]


def _accuracy(part: dict[str, Any]) -> list[str]:
    lines = ["", "## Time to accuracy", "", "| validation | seconds (extremes) | batches | test |", "|---|---|---|---|"]
    for level, found in part["seconds"].items():
        runs = [run["reached"][level] for run in part["runs"] if level in run["reached"]]
        cells = ["not reached by all seeds" if not found else f"{found['median']:.1f} ({found['low']:.1f} to "
                 f"{found['high']:.1f})"]  # fmt: skip
        cells += [", ".join(str(run["batches"]) for run in runs), ", ".join(f"{run['test']:.1%}" for run in runs)]
        lines.append(f"| {float(level):.0%} | " + " | ".join(cells) + " |")
    note = f"{len(part['runs'])} seeds; {part['validation_images']} training images kept back decide what is reached."
    return [*lines, "", note + " Seconds of training steps alone: no compiling, no evaluation."]


def _sparse(part: dict[str, Any]) -> list[str]:
    low, middle, high, steps = *(f"{part['seconds'][key]:.3g}" for key in ("low", "median", "high")), part["steps"]
    edges = f"{part['recurrent_edges']:,} recurrent and {part['input_edges']:,} input edges"
    return [
        "",
        "## A sparse network",
        "",
        f"{part['neurons']:,} neurons, {edges}, batch {part['batch']}, centred nudges: {middle} s a step ({low} to "
        f"{high}), the first one {part['first_seconds']:.3g} s with compiling, {part['peak_gigabytes']:.2g} GB at the "
        f"peak. Sweeps: {steps['free_steps']:.1f} free, {steps['nudged_steps']:.1f} nudged in sum; "
        f"{100 * steps['unsettled_fraction']:.2g} % unsettled.",
    ]


def _where(name: str, part: dict[str, Any]) -> str:
    at = part["environment"]
    return (
        f"* {name}: {at['precision']}, {at['processor']}, {at['cores_used']} of {at['cores']} cores, JAX "
        f"{at['versions']['jax']}, commit {at['commit']}; {', '.join(part['data'])}."
    )


STYLES = {
    "Sweep": (BLUE, "o-"),
    "plain": (ORANGE, "^-"),
    "plain, damping 0.5": (PURPLE, "v--"),
}


def figure(curves: list[dict[str, Any]], path: Path) -> None:
    """Time against error of the step with homeostasis: a panel for each network and number of points."""
    from matplotlib.figure import Figure

    shown = [curve for curve in curves if curve["homeostasis"]]
    rows, columns = list(dict.fromkeys(c["network"] for c in shown)), sorted({c["points"] for c in shown})
    canvas = Figure(figsize=(1 + 2.7 * len(columns), 0.8 + 2.3 * len(rows)), layout="constrained")
    axes = canvas.subplots(len(rows), len(columns), squeeze=False, sharex=True, sharey=True)
    for curve in shown:
        axis = axes[rows.index(curve["network"])][columns.index(curve["points"])]
        colour, style = STYLES[curve["family"]]
        points = [p for p in curve["curve"] if p["error"]["median"] is not None]  # no number where plain diverged
        errors, times = (
            [factor * p[key]["median"] for p in points] for key, factor in (("error", 100), ("seconds", 1e3))
        )
        label = "ours, by tolerance" if curve["family"] == "Sweep" else f"{curve['family']}, by steps"
        axis.loglog(errors, times, style, color=colour, label=label, markersize=4, lw=1.2)
    for network, line in zip(rows, axes, strict=True):
        for points, axis in zip(columns, line, strict=True):
            axis.set_title(f"{network}, N = {points}", fontsize=9)
            axis.spines[["top", "right"]].set_visible(False)
            for error in (1, 5):
                axis.axvline(error, color="grey", lw=0.6, ls=":")
        line[0].set_ylabel("ms a step")
    for axis in axes[-1]:
        axis.set_xlabel("error of the gradient (%)")
    canvas.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    canvas.savefig(path, dpi=110)
