"""The studies of the substrate: their jobs compose, their closed forms hold, their records are committed."""

import json

import numpy as np
import pytest
from experiments.paper.study import RESULTS, configuration
from hydra.utils import instantiate

from experiments.substrate import mismatch, page

FOLDER = RESULTS / "substrate"


@pytest.mark.parametrize("data", mismatch.SIGMAS)
def test_jobs_build_their_devices(data):
    """Every case on its device: the class, the spread and the chip that its label says."""
    jobs = mismatch.jobs(data)
    assert len({job.label for job in jobs}) == len(jobs)
    for job in jobs:
        device = instantiate(configuration((*job.overrides, "seed=1")).substrate)
        assert device.chip == 1 and device.parts["mismatch"].sigma in mismatch.SIGMAS[data]
        if "shared" in job.label:
            assert device.reciprocity == "keeps"
        if "gains-known" in job.label:
            assert device.known_gains and device.reciprocity == "gauge"
        if "per-direction" in job.label:
            assert device.reciprocity == "breaks"


def test_committed_exponents():
    """Measured against predicted, as committed: `N/(N + 1)` of real points and circles."""
    found = json.loads((FOLDER / "noise.json").read_text())["exponents"]
    assert len(found) == 5
    for scheme, power in found.items():
        assert power["measured"] == pytest.approx(power["predicted"], abs=0.04), scheme


def test_page(tmp_path, monkeypatch):
    """Data beside the picture; what is no number is null."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(page, "FOLDER", tmp_path)
    page.write("name", {"a": np.asarray([1.0, np.nan])}, Figure())
    assert json.loads((tmp_path / "name.json").read_text()) == {"a": [1.0, None]}
    assert (tmp_path / "name.png").exists()
