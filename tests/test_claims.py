"""What studies claim: their sentences with numbers from records, on the page that leads to all results."""

import re

import pytest

from eqprop.run.errors import UsageError
from eqprop.run.study import index as index_page
from eqprop.run.study.claims import claims
from eqprop.run.study.index import index
from eqprop.run.study.records import FILE, load, save
from eqprop.run.study.spec import TOPICS, names, read
from helpers import ROOT
from studies import record, study

RECORDS = [
    *(record("with", percent, seed) for seed, percent in enumerate((80.0, 82.0, 84.0))),
    *(record("without", percent, seed) for seed, percent in enumerate((70.0, 71.0))),
]


def test_numbers_come_from_records():
    said = claims(study(claims=["It ends at {with}, and is worth {with - without} points."]), "cpu", RECORDS)
    assert said == ["It ends at 82.00 ± 2.00, and is worth 10.5 ± 0.7 points. (n = 2 to 3)"]
    assert claims(study(claims=["Nothing to fill in."]), "cpu", RECORDS) == ["Nothing to fill in."]


def test_without_runs_nothing_is_claimed():
    made = study(claims=["It is worth {with - without} points.", "It ends at {with}."])
    assert claims(made, "cpu", RECORDS[:3]) == ["It ends at 82.00 ± 2.00. (n = 3)"]
    missing = [*RECORDS[:3], record("without", missing="stopped")]
    assert claims(made, "cpu", missing) == ["It ends at 82.00 ± 2.00. (n = 3)"]


@pytest.mark.parametrize("hole", ["{none}", "{with: beauty}", "{with - without - with}"])
def test_what_is_no_cell_and_no_measure(hole):
    with pytest.raises(UsageError, match="made: the claim has .* no cell and measure"):
        claims(study(claims=[f"It ends at {hole}."]), "cpu", RECORDS)


@pytest.mark.parametrize("name", [name for name in names() if "claims" in read(name).spec])
def test_claims_name_cells(name):
    assert isinstance(claims(read(name), "cpu", []), list)


def test_the_committed_page_is_made_from_the_records(monkeypatch):
    folder = ROOT / "docs" / "results"
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert text == index(folder) and "## In five minutes" in text
    digits = claims(read("digits"), "cpu", load(folder / "digits" / "cpu" / FILE))
    assert len(digits) == 1 and digits[0] in text
    # A study that only measures begins with the words of its answer, whatever table stands before them.
    assert (
        "\n- Every comparison is within its tolerance." in text and "\n- With N = 1, 2, 4, 8 points the least" in text
    )
    topics = [text.index(f"### {topic}") for topic in TOPICS.values()]
    assert topics == sorted(topics) and "### Others" not in text
    monkeypatch.setattr(index_page, "names", lambda: ["table2"])  # it claims nothing
    assert "In five minutes" not in index(folder)


def test_a_study_of_no_topic_stands_among_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(index_page, "names", lambda: ["made"])
    monkeypatch.setattr(index_page, "read", lambda name: study(claims=["It ends at {with}."]))
    save(tmp_path / "made" / "cpu", RECORDS)
    assert (
        "### Others\n\n**[A made study](made/cpu/README.md)**, `eqprop study made`\n\n"
        "- It ends at 82.00 ± 2.00. (n = 3)\n- Not shown: The rest.\n"
    ) in index(tmp_path)


def test_numbers_of_the_front_page_stand_on_the_pages_that_it_names():
    """Every accuracy with two decimals, in a line of the table or a paragraph, on a page that is linked there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = [
        part for block in text.split("\n\n") for part in (block.splitlines() if block.startswith("|") else [block])
    ]
    found = 0
    for part in parts:
        pages = " ".join(
            (ROOT / link).read_text(encoding="utf-8") for link in re.findall(r"\((docs/results/\S+md)\)", part)
        )
        for number in re.findall(r"\d+\.\d\d(?: ± \d+\.\d\d)?(?![\d.])", part) if pages else ():
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", pages), (
                f"{number} is on no page that {part!r} names"
            )
            found += 1
    assert found > 10
