"""The results of a run: their names, and how they are shown."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Measure(NamedTuple):
    """How a result is shown."""

    title: str
    factor: float = 1.0
    digits: int = 3


MEASURES = {
    "test_accuracy": Measure("test accuracy (%)", 100.0, 2),
    "test_error": Measure("test error (%)", 100.0, 2),
    "validation_accuracy": Measure("validation accuracy (%)", 100.0, 2),
    "test_rmse": Measure("test RMSE"),
    "test_r2": Measure("test R2", 1.0, 4),
    "validation_r2": Measure("validation R2", 1.0, 4),
    "cosine_hidden": Measure("hidden cosine"),
    "functional_asymmetry": Measure("functional asymmetry"),
    "unsettled_fraction": Measure("unsettled (%)", 100.0, 2),
    "bounded_fraction": Measure("shortened (%)", 100.0, 1),
    "free_steps": Measure("free steps", 1.0, 1),
    "nudged_steps": Measure("nudged steps", 1.0, 1),
    "seconds": Measure("seconds", 1.0, 1),
    "energy_inference_joules": Measure("energy of an inference (nJ)", 1e9, 3),
    "time_inference_seconds": Measure("time of an inference (µs)", 1e6, 2),
    "energy_training_joules": Measure("energy of a training example (nJ)", 1e9, 3),
    "time_training_seconds": Measure("time of a training example (µs)", 1e6, 2),
}
"""Results of a run; those of alignment are of the end of training."""


def results(summary: Mapping[str, Any]) -> dict[str, float]:
    """The results in a summary, by the names of `MEASURES`; of what has a start and an end, the end."""
    named = {name: summary[name] for name in MEASURES if name in summary}
    found = {name: value["end"] if isinstance(value, dict) else value for name, value in named.items()}
    return found | ({"test_error": 1 - found["test_accuracy"]} if "test_accuracy" in found else {})
