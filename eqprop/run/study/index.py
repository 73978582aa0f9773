"""The page that leads to the pages of all studies."""

from pathlib import Path

from eqprop.run.study.records import FILE
from eqprop.run.study.spec import SCALES, names, read
from eqprop.run.tables import markdown

INTRODUCTION = """# Results

Every page here is made by one command from the records beside it, and a test makes it again and compares. A record is a
run's resolved configuration, environment, metrics by epoch and summary; all records of a study are one file
([how to read them](../studies.md#records)). A study whose records are of the present configuration and numerics trains
nothing.

"""
END = """
`quick` shows that a command works and is no result. `cpu` is two cores: the same networks on Fashion-MNIST for fewer
epochs, a narrow convolutional network on few images. `full` is the published length, for graphics cards. Scales never
share a table. The cost of a training step is [measured apart](../performance.md), by `make bench`.
"""


def index(results: Path) -> str:
    """A row for each study that has records under `results`: its question, and a link to its page at every scale."""
    rows = []
    for name in names():
        scales = [scale for scale in SCALES if (results / name / scale / FILE).exists()]
        if scales:
            links = ", ".join(f"[{scale}]({name}/{scale}/README.md)" for scale in scales)
            rows.append([f"`{name}`", read(name).spec["question"], links])
    return INTRODUCTION + markdown(["study", "question", "pages"], rows) + END
