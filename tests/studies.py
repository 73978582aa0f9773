"""Studies and records as tests need them: made up, so that nothing is trained."""

from pathlib import Path
from typing import Any

import yaml

from eqprop.run.study.records import Record
from eqprop.run.study.spec import Study

SPEC: dict[str, Any] = {
    "title": "A made study",
    "question": "Does it do what it says?",
    "setting": "Nothing is trained.",
    "scales": {"quick": {"seeds": [0]}, "cpu": {"seeds": [0, 1, 2]}, "full": {"seeds": [0, 1, 2]}},
    "rows": {"with": {"title": "with homeostasis"}, "without": {"title": "without", "set": ["homeostasis=none"]}},
    "measures": ["test_accuracy", "cosine_hidden", "unsettled_fraction"],
    "parts": [{"compare": [["with", "without"]]}],
    "figures": {"curves": {"kind": "curves", "panels": ["accuracy", "cosine_hidden"], "caption": "What happens."}},
    "not_shown": "The rest.",
}
"""Two rows, one column, a pair to compare and a figure."""


def study(**changes: Any) -> Study:
    """The made study with other entries."""
    return Study("made", {**SPEC, **changes})


def write_study(folder: Path, name: str = "made", **changes: Any) -> Path:
    """Its file among a user's own configurations; an entry of `None` is left out."""
    path = folder / "study" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    spec = {key: value for key, value in {**SPEC, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    return path


def record(
    label: str = "with",
    percent: float = 80.0,
    seed: int = 0,
    *,
    missing: str | None = None,
    epochs: int = 2,
    examples: int | None = None,
    data: str = "digits",
    environment: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    summary: dict[str, Any] | None = None,
) -> Record:
    """What a run leaves, whose accuracy rises to `percent`; the mappings change what is said of it."""
    settings = {
        "epochs": epochs,
        "data": {"train_examples": examples, "label": data, "load": {"_target_": "eqprop.data.digits"}},
        "seed": seed,
        "numerics": 2,
    } | (config or {})
    if missing is not None:
        return Record(label, seed, settings, {}, [], {}, missing)
    where = {
        "precision": "float32",
        "devices": ["cpu: cpu"],
        "processor": "a processor",
        "cores_used": 1,
        "commit": "0123456789abcdef",
        "versions": {"jax": "0.7.2"},
    } | (environment or {})
    metrics = [
        {
            "epoch": epoch,
            "validation_accuracy": percent / 100 * epoch / epochs,
            "cosine_hidden": 0.4 * epoch / epochs,
            "cosine_l1": 0.3 * epoch / epochs,
            "cosine_l2": 0.5 * epoch / epochs,
            "cosine_out": 0.9,
            "functional_asymmetry": 0.5,
            "unsettled_fraction": 0.25,
        }
        for epoch in range(epochs + 1)
    ]
    found = {
        "seeds": [seed],
        "measured": "last",
        "test_accuracy": percent / 100,
        "cosine_hidden": {"start": 0.0, "end": 0.4},
        "functional_asymmetry": {"start": 0.5, "end": 0.01},
        "unsettled_fraction": 0.25,
        "seconds": 30.0,
    } | (summary or {})
    return Record(label, seed, settings, where, metrics, found)


def rows(gap: float = 10.0) -> list[Record]:
    """Records of every cell of the made study at the scale cpu: with homeostasis a gap ahead that grows by a seed."""
    ours = [record("with", 80.0 + seed, seed) for seed in range(3)]
    return ours + [record("without", 80.0 - gap, seed) for seed in range(3)]
