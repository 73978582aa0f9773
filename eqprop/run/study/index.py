"""The page that leads to the pages of all studies."""

from pathlib import Path

from eqprop.run.study.claims import claims
from eqprop.run.study.records import FILE, load
from eqprop.run.study.spec import SCALES, names, read
from eqprop.run.tables import DASH, markdown

INTRODUCTION = """# Results

Every page here is made by one command from the records beside it, and a test makes it again and compares. A record is a
run's resolved configuration, environment, metrics by epoch and summary; all records of a study are one file
([how to read them](../studies.md#records)). A study whose records are of the present configuration and numerics trains
nothing.

"""
SUMMARY = """## In five minutes

Numbers are percent of test images, mean ± standard deviation over n seeds, filled in from the records.

"""
STUDIES = """
## All studies

"""
END = """
`quick` shows that a command works and is no result. `cpu` is two cores: the same networks on Fashion-MNIST for fewer
epochs, a narrow convolutional network on few images. `full` is the published length, for graphics cards. Scales never
share a table. The cost of a training step is [measured apart](../performance.md), by `make bench`.
"""


def index(results: Path) -> str:
    """A row for each study that has records under `results`: its question, and a link to its page at every scale."""
    rows, claimed = [], []
    for name in names():
        study, scales = read(name), [scale for scale in SCALES if (results / name / scale / FILE).exists()]
        if not scales:
            continue
        links = ", ".join(f"[{scale}]({name}/{scale}/README.md)" for scale in scales)
        rows.append([f"`{name}`", study.spec["question"], links])
        best = scales[-1]
        found = claims(study, best, load(results / name / best)) if "claims" in study.spec else []
        if found:
            limits = " ".join(study.spec.get("not_shown", DASH).split())
            claimed.append([" ".join(found), limits, f"[`eqprop study {name}`]({name}/{best}/README.md)"])
    summary = SUMMARY + markdown(["claim", "what it does not show", "command and page"], claimed) if claimed else ""
    return INTRODUCTION + summary + STUDIES + markdown(["study", "question", "pages"], rows) + END
