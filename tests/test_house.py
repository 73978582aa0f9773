"""What surrounds the code agrees with it: citation, changelog, workflows, templates, links and targets."""

import re
import tomllib
from typing import Any

import pytest
import yaml

import eqprop
import eqprop.data
from helpers import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
PAGES = sorted(ROOT.glob("*.md"))

NOT_METHODS = {
    "Friedman 1991": "a made data set",
    "1708.07747": "the data set Fashion-MNIST",
    "1707.08819": "the data set ImageNet 32x32",
    "1702.05373": "the data set EMNIST",
    "1812.01718": "the data set KMNIST",
    "2006.13177": "numbers of a preset, BrainScaleS-2",
    "2302.12480": "the question of the study signatures",
    "2505.02103": "numbers of a preset, an oscillator Ising machine",
    "2512.12428": "numbers of a preset, the on/off ratio of memristors",
    "Cai 2023": "the question of the study signatures",
    "Doell 2025": "numbers of a preset, the on/off ratio of memristors",
    "Gower 2025": "numbers of a preset, an oscillator Ising machine",
    "Kaynak 1998": "the data set digits",
    "Krizhevsky 2009": "the data sets CIFAR-10 and CIFAR-100",
    "Moshier 1989": "coefficients of a polynomial",
    "Weis 2020": "numbers of a preset, BrainScaleS-2",
    "Xun 2025": "a number of readings after which memories fail",
    "Yao 2020": "a number of readings of memristors",
}
"""What is mentioned in the code and is no method of it: it stands with its source where it is used."""

ARXIV = re.compile(r"(?:arXiv[ :]*|arxiv\.org/abs/)(\d{4}\.\d{4,5})")
PAPER = re.compile(
    r"\b([A-Z][a-z]+)(?: (?:&|and) [A-Z][a-z]+| et al\.)?"
    r",?\s\(?(?:[A-Z][A-Za-z]+ )*(?:\d+, )?((?:19|20)\d\d)\b(?![-.\d])"
)
"""`Name (1987)`, `Name & Name (Journal 15, 2003)`, `Name et al. 2020`: the first name and the year."""


def mentioned(pattern: re.Pattern[str]) -> dict[str, str]:
    """Matches in the package, configurations and documentation, each with a file in which it stands."""
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    files += [*(ROOT / "eqprop").rglob("*.py"), *(ROOT / "configs").rglob("*.yaml")]
    found = {}
    for path in files:
        text = re.sub(r"\s+(?:# )?", " ", path.read_text(encoding="utf-8"))  # a line may end within a name
        for match in pattern.finditer(text):
            found[" ".join(match.groups())] = path.relative_to(ROOT).as_posix()
    return found


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def arxiv_of(reference: dict[str, Any]) -> str | None:
    values = [identifier["value"] for identifier in reference.get("identifiers", ())]
    return next((value.removeprefix("arXiv:") for value in values if value.startswith("arXiv:")), None)


def test_the_citation_is_whole(citation):
    """Software without a version of its own, since versions are made from tags; references one can look up."""
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert citation["authors"] and "version" not in citation
    assert citation["license"] == ["Apache-2.0", "CC-BY-4.0"]
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year"} <= set(reference)
        place = {"journal", "collection-title"} & set(reference) or arxiv_of(reference)
        assert place, f"{reference['title']} says nowhere where it appeared"


def test_every_reference_says_what_it_is_for(citation):
    """By a name of the library, or as a subject of the documentation."""
    exported = {*vars(eqprop), *vars(eqprop.circuit), *vars(eqprop.substrate)}
    for reference in citation["references"]:
        words = set(re.findall(r"\w+", reference["notes"]))
        assert words & exported or "weak feedback" in reference["notes"], reference["notes"]
        classes = {word for word in words if re.match(r"[A-Z][a-z]+[A-Z]", word)}
        assert classes - {"AsymEP"} <= exported, reference["notes"]


def test_every_preprint_in_the_code_is_cited(citation):
    cited = {arxiv_of(reference) for reference in citation["references"]}
    found = mentioned(ARXIV)
    missing = {number: path for number, path in found.items() if number not in cited and number not in NOT_METHODS}
    assert not missing, f"add to CITATION.cff, or to NOT_METHODS with a reason: {missing}"
    assert {"2602.03670", "2208.08862", "2309.02214"} <= set(found), "the pattern finds what is there"


def test_every_paper_in_the_code_is_cited(citation):
    """By its first author and the year, of the paper or of its preprint."""
    cited = set()
    for reference in citation["references"]:
        preprint = arxiv_of(reference)
        years = {reference["year"], 2000 + int(preprint[:2]) if preprint else reference["year"]}
        cited |= {f"{reference['authors'][0]['family-names']} {year}" for year in years}
    found = mentioned(PAPER)
    missing = {paper: path for paper, path in found.items() if paper not in cited and paper not in NOT_METHODS}
    assert not missing, f"add to CITATION.cff, or to NOT_METHODS with a reason: {missing}"
    expected = {"Scellier 2017", "Almeida 1987", "Xie 2003", "Anisetti 2022", "Walker 2011", "Laborieux 2022"}
    assert expected <= set(found), "the pattern finds what is there"


def test_exceptions_are_mentioned():
    """No exception outlives what it is for."""
    found = {*mentioned(ARXIV), *mentioned(PAPER)}
    assert set(NOT_METHODS) <= found


def load(path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_small_and_modest(path):
    """It may read, and what a job may do besides, the job says; it ends; actions are pinned to a major version."""
    workflow = load(path)
    assert True in workflow, "the key `on`, which YAML 1.1 reads as true"
    assert workflow["permissions"] == {"contents": "read"}
    assert "cancel-in-progress" in workflow["concurrency"]
    for job in workflow["jobs"].values():
        assert job["runs-on"] and job["timeout-minutes"] <= 180
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step.get("uses", "a/b@v1"))
            # A name of a branch in a shell is a command of whoever chose the name.
            assert "github.event" not in step.get("run", "") and "github.ref" not in step.get("run", "")


def test_what_workflows_there_are():
    assert {path.stem for path in WORKFLOWS} == {"checks", "lowest", "nightly", "release", "wheel"}
    tests = load(GITHUB / "workflows/checks.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert tests["python"] == ["3.11", "3.12", "3.13", "3.14"]


def test_extras_that_are_installed_exist():
    """In workflows and the guide."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for path in [*WORKFLOWS, ROOT / "CONTRIBUTING.md"]:
        for extras in re.findall(r"'\.\[([\w,]+)\]'", path.read_text(encoding="utf-8")):
            assert set(extras.split(",")) <= set(project["optional-dependencies"]), path.name


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_can_be_filled_in(path):
    """Fields with labels of their own, one of them required."""
    form = load(path)
    assert form["name"] and form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    labels = [field["attributes"]["label"] for field in fields]
    assert len({field["id"] for field in fields}) == len(fields) == len(set(labels))
    assert any(field.get("validations", {}).get("required") for field in fields)


def test_a_bug_report_asks_for_provenance():
    text = (GITHUB / "ISSUE_TEMPLATE/bug.yml").read_text(encoding="utf-8")
    for wanted in ("eqprop --version", "environment.json", "config.yaml", "unsettled_fraction"):
        assert wanted in text


def commands(path) -> str:
    """What a file says is typed: the commands of a workflow, code in Markdown, all of a template in YAML."""
    text = path.read_text(encoding="utf-8")
    if path.parent.name == "workflows":
        steps = [step for job in load(path)["jobs"].values() for step in job["steps"]]
        return "\n".join(step.get("run", "") for step in steps)
    if path.suffix == ".md":
        return "\n".join(re.findall(r"^```.*?^```|`[^`\n]+`", text, re.MULTILINE | re.DOTALL))
    return text


SAYING = [*WORKFLOWS, *FORMS, *PAGES, GITHUB / "pull_request_template.md", ROOT / ".pre-commit-config.yaml"]


def targets() -> set[str]:
    """Of the Makefile, by its list of those that are no files."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    variables = dict(re.findall(r"^([A-Z]+) *[:?]?= *(.*)$", text, re.MULTILINE))
    phony = " ".join(re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE))
    return set(re.sub(r"\$\(([A-Z]+)\)", lambda match: variables[match[1]], phony).split())


@pytest.mark.parametrize("path", SAYING, ids=lambda path: path.name)
def test_every_target_that_is_named_exists(path):
    named = set(re.findall(r"\bmake ([a-z][a-z0-9_-]*)", commands(path)))
    assert not named - targets(), f"{path.name} names targets that the Makefile does not have"


def test_targets_are_found_where_they_are():
    """The search above sees something."""
    assert "make test-bounded" in commands(GITHUB / "workflows/checks.yml")
    assert "make develop" in commands(ROOT / "CONTRIBUTING.md")
    assert "make check" in commands(GITHUB / "pull_request_template.md")
    assert {"setup", "test", "check"} <= targets()


def test_hooks_call_the_tools_of_the_environment():
    repositories = load(ROOT / ".pre-commit-config.yaml")["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = {hook["id"]: hook for hook in repositories[0]["hooks"]}
    assert set(hooks) == {"ruff", "ruff-format", "pyright"}
    assert all(hook["language"] == "system" and hook["entry"].startswith(".venv/bin/") for hook in hooks.values())


FEATURES = [
    *("EnergyNetwork", "VectorField", "ConvNetwork", "Weak feedback", "Anderson", "Newton", "queue"),
    *("FiniteNudge", "LockIn", "lock-in", "OscillatingNudge", "AsymEP", "Dyadic EP", "ContrastiveHebbian"),
    *("BackpropThroughTime", "RecurrentBackprop", "homeostasis", "in the metric", "`equilibrium`", "`fit`"),
    *("`save`", "`trace`", "`plot`", "`audit`", "`metrics`", "Presets", "mismatch", "ngspice", "netlist"),
    *("ResistiveNetwork", "ImageNet 32x32", "sweeps", "search", "Studies", "docs/theory.md"),
]


def test_the_changelog_knows_what_there_is():
    """An Unreleased section first, groups of Keep a Changelog, every feature and every public package."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert sections[0].startswith("[Unreleased]\n")
    allowed = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for section in sections:
        groups = re.findall(r"^### (.+)$", section, re.MULTILINE)
        assert set(groups) <= allowed and len(groups) == len(set(groups))
    assert sections[1].startswith("[0.1.0]") and "Not in it" in sections[1] and "Known limits" in sections[1]
    packages = {path.parent.name for path in (ROOT / "eqprop").glob("*/__init__.py")}
    words = {"network": "Networks", "relaxation": "Relaxations", "estimator": "Estimators", "substrate": "`Substrate`"}
    words |= {"data": "Data", "run": "Run folders"}
    for wanted in [*FEATURES, *(words.get(name, name) for name in packages if not name.startswith("_"))]:
        assert wanted in text, f"CHANGELOG.md does not mention {wanted}"


def test_estimators_are_in_the_changelog():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    base = eqprop.AbstractEstimator
    names = [n for n, c in vars(eqprop).items() if isinstance(c, type) and issubclass(c, base)]
    concrete = [name for name in names if not name.startswith("Abstract")]
    assert len(concrete) >= 9 and all(name in text for name in concrete)


@pytest.mark.parametrize("path", [*PAGES, *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    made = {"configuration.md"}  # by the build of the site
    assert not [link for link in local if link not in made and not (path.parent / link).exists()]
