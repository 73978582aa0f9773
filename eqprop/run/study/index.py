"""The page that leads to the pages of all studies."""

from pathlib import Path

from eqprop.run.study import measured
from eqprop.run.study.claims import claims
from eqprop.run.study.records import FILE, load
from eqprop.run.study.spec import SCALES, TOPICS, Study, names, read
from eqprop.run.tables import markdown

INTRODUCTION = """# Results

Every page here is made by one command from the records beside it, and a test makes it again and compares. A record is a
run's resolved configuration, environment, metrics by epoch and summary; all records of a study are one file
([how to read them](../studies.md#records)). A study whose records are of the present configuration and numerics trains
nothing.

"""
SUMMARY = """## In five minutes

All numbers are filled in from the records. Accuracies are percent of test images, mean ± standard deviation over n
seeds.

"""
STUDIES = """
## All studies

"""
END = """
`quick` shows that a command works and is no result. `cpu` is two cores: the same networks on Fashion-MNIST for fewer
epochs, a narrow convolutional network on few images. `full` is the published length, for graphics cards. Scales never
share a table. The cost of a training step is [measured apart](../performance.md), by `make bench`.
"""


OTHERS = "Others"
"""Where studies stand that name no topic."""


def index(results: Path) -> str:
    """What every study with records under `results` found, by topic; then a row for each of them: its question, and a
    link to its page at every scale.
    """
    rows: list[list[str]] = []
    found: dict[str, list[str]] = {topic: [] for topic in (*TOPICS.values(), OTHERS)}
    for study in map(read, names()):
        scales = [scale for scale in SCALES if (results / study.name / scale / FILE).exists()]
        if not scales:
            continue
        links = ", ".join(f"[{scale}]({study.name}/{scale}/README.md)" for scale in scales)
        rows.append([f"`{study.name}`", study.spec["question"], links])
        best = scales[-1]
        said = _found(study, best, results / study.name / best)
        if said:
            heading = f"**[{study.spec['title']}]({study.name}/{best}/README.md)**, `eqprop study {study.name}`\n\n"
            limits = [f"Not shown: {study.spec['not_shown']}"] if "not_shown" in study.spec else []
            points = [f"- {' '.join(text.split())}\n" for text in (*said, *limits)]
            found[TOPICS.get(study.spec.get("topic", ""), OTHERS)].append(heading + "".join(points))
    topics = [f"### {topic}\n\n" + "\n".join(studies) for topic, studies in found.items() if studies]
    summary = SUMMARY + "\n".join(topics) if topics else ""
    return INTRODUCTION + summary + STUDIES + markdown(["study", "question", "pages"], rows) + END


def _found(study: Study, scale: str, folder: Path) -> list[str]:
    """The claims of a study; of one that only measures, the first words of its answer, without tables."""
    if "claims" in study.spec:
        return claims(study, scale, load(folder))
    if "measure" not in study.spec:
        return []
    answer = measured.module(study.spec["measure"]).answer(measured.load(folder))
    return next(([text] for text in answer.strip().split("\n\n") if not text.startswith("|")), [])
