"""The report of a run as one HTML file: what was asked, what came out, what to look at, drawn from its records."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from eqprop.run import curve
from eqprop.run.measures import MEASURES, results as results_of
from eqprop.run.record import ENVIRONMENT, REPORT, STOPPED, flatten, read_metrics, read_summary, recorded
from eqprop.run.study import style
from eqprop.run.study.figures import by_layer

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; }
td, th { padding: 0.15rem 0.8rem 0.15rem 0; text-align: left; overflow-wrap: anywhere; }
figure { margin: 1rem 0; padding: 0.5rem; background: white; color: black; border-radius: 4px; }
figure svg { max-width: 100%; height: auto; }
figcaption { font-size: 0.9rem; }
details { margin: 1rem 0; }
.warning { border-left: 4px solid #E69F00; padding-left: 0.8rem; }
"""


class Drawing(NamedTuple):
    """A figure with its sentence, which is its alternative text too."""

    title: str
    figure: Figure
    caption: str


def write(folder: Path, drawings: Sequence[Drawing] = (), notes: Sequence[str] = ()) -> Path:
    """Write `report.html` from the files of a run, finished or not.

    **Arguments:** `drawings`: of the trained network, which its records do not hold. `notes`: why there are none.

    **Raises:** `FileNotFoundError` if the folder holds no run.
    """
    settings, summary, records = OmegaConf.to_container(recorded(folder)), read_summary(folder), read_metrics(folder)
    assert isinstance(settings, dict)
    environment = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    stopped = (folder / STOPPED).read_text(encoding="utf-8").strip() if (folder / STOPPED).exists() else None
    with style.styled():
        curves = of_records(records)
    body = [f"<h1>{escape(folder.name)}</h1>", *_state(summary, stopped, records)]
    said = [*warnings(summary, records, settings), *notes]
    body += [f'<p class="warning">{escape(line)}</p>' for line in said]
    body += [_table(results(summary, records))]
    for drawing in (*curves, *drawings):
        body += [f"<h2>{escape(drawing.title)}</h2>", _figure(drawing)]
    body += [_details("Settings", flatten(settings))]
    body += [_details("Where it ran", flatten(environment))]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(folder.name)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body>{''.join(body)}</body></html>\n"
    )
    path = folder / REPORT
    path.write_text(page, encoding="utf-8", newline="\n")
    return path


def of_records(records: Sequence[Mapping[str, Any]]) -> list[Drawing]:
    """What the metrics of the epochs show; a population is shown by its means."""
    made = [
        Drawing(
            "Learning",
            curve.draw(records),
            "By epoch: what is learned, how error vectors lie to the true ones, and the share of examples that did not "
            "settle.",
        )
    ]
    aligned = [record for record in records if "cosine_hidden" in record]
    layers = by_layer(aligned[-1]) if aligned else {}
    if len(layers) > 1:
        figure, (axis,) = style.canvas(width=6.8)
        for index, name in enumerate(layers):
            values = [float(np.mean(record[f"cosine_{name}"])) for record in aligned]
            style.line(axis, [record["epoch"] for record in aligned], values, index, name)
        style.frame(axis, "epoch", "cosine to the true errors")
        axis.locator_params(axis="x", integer=True)
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        made.append(Drawing("Alignment by layer", figure, "Cosine of error vectors to the true ones, by layer."))
    stepped = [record for record in records if "free_steps" in record]
    if stepped:
        figure, (axis,) = style.canvas(width=6.8)
        phases = {"free_steps": "free phase", "nudged_steps": "nudged phases, in sum"}
        for index, (name, label) in enumerate(phases.items()):
            values = [float(np.mean(record[name])) for record in stepped]
            style.line(axis, [record["epoch"] for record in stepped], values, index, label)
        style.frame(axis, "epoch", "steps an example")
        axis.set_ylim(bottom=0)
        axis.locator_params(axis="x", integer=True)
        axis.legend()
        made.append(Drawing("Relaxation", figure, "Steps that an example takes to settle, by epoch."))
    return made


def warnings(
    summary: Mapping[str, Any] | None, records: Sequence[Mapping[str, Any]], settings: Mapping[Any, Any]
) -> list[str]:
    """What a reader should look at, in words; empty where there is nothing to say."""
    last = records[-1] if records else {}
    value = lambda name: float(np.mean(last[name])) if name in last else math.nan
    said = []
    unsettled, shortened, cosine = value("unsettled_fraction"), value("bounded_fraction"), value("cosine_hidden")
    if unsettled > 0.01:
        said.append(
            f"{unsettled:.1%} of the training examples did not settle in the last epoch and took no part. Give the "
            "relaxation more steps, weaken the feedback (network.feedback_gain), or damp it (relaxation.damping)."
        )
    if value("validation_unsettled_fraction") > 0.01:
        said.append(
            f"{value('validation_unsettled_fraction'):.1%} of the validation examples did not settle; their "
            "predictions are those of the last state."
        )
    if cosine < 0.5:
        said.append(
            f"Hidden error vectors have a cosine of {cosine:.2f} to the true ones: most of what hidden layers are "
            "taught is not the gradient. Align them (homeostasis=exact or skew), or take estimator=asymmetric."
        )
    if shortened > 0.5:
        said.append(
            f"{shortened:.0%} of the error vectors were shortened to norm_bound={settings.get('norm_bound')}: the "
            "bound takes part in most updates."
        )
    if value("skipped_steps") > 0:
        said.append(f"{value('skipped_steps'):.1%} of the steps of the last epoch had no gradient and changed nothing.")
    score = "validation_r2" if "validation_r2" in last else "validation_accuracy"
    best = (summary or {}).get(f"best_{score}")
    if best is not None and settings.get("evaluation", {}).get("measure") == "last" and best - value(score) > 0.02:
        said.append(
            f"The last model is {best - value(score):.3f} below the best by validation ({best:.3f}); the test measured "
            "the last. evaluation.measure=best measures the best."
        )
    return said


def results(summary: Mapping[str, Any] | None, records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The results by their titles: of a finished run its summary, of another the last epoch."""
    found = results_of(summary if summary is not None else records[-1] if records else {})
    shown = {m.title: (found[name], m) for name, m in MEASURES.items() if name in found and name != "test_error"}
    return {title: f"{m.factor * float(np.mean(value)):.{m.digits}f}" for title, (value, m) in shown.items()}


def _state(summary: Mapping[str, Any] | None, stopped: str | None, records: Sequence[Mapping[str, Any]]) -> list[str]:
    reached = f"after epoch {records[-1]['epoch']}" if records else "before the first epoch"
    if summary is not None:
        return [f"<p>Finished {reached}. The test images were measured once, at the end.</p>"]
    return [f'<p class="warning">Not finished: {escape(stopped or "running, or ended without a word")}, {reached}.</p>']


def _table(rows: Mapping[str, Any]) -> str:
    cells = "".join(f"<tr><th>{escape(str(k))}</th><td>{escape(str(v))}</td></tr>" for k, v in rows.items())
    return f"<table>{cells}</table>"


def _details(title: str, rows: Mapping[str, Any]) -> str:
    return f"<details><summary>{title}</summary>{_table(rows)}</details>"


def _figure(drawing: Drawing) -> str:
    """The figure as SVG within the page, without the prologue of a file of its own."""
    stream = io.StringIO()
    with style.styled():
        drawing.figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    caption = escape(drawing.caption)
    image = text[text.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{caption}"', 1)
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
