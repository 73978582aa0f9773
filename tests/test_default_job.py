"""The default job reaches what it promises: minutes, so run by `make test-slow`."""

import pytest

from eqprop.run.train import run
from runs import as_users_run, configuration


@pytest.mark.slow
def test_homeostasis_aligns_the_errors_and_the_network_learns_the_digits(tmp_path):
    """Three seeds with homeostasis and three without, as populations."""
    summaries = {}
    with as_users_run():
        for homeostasis in ("exact", "none"):
            words = [f"homeostasis={homeostasis}", "population=3", f"run.dir='{tmp_path / homeostasis}'"]
            summaries[homeostasis] = run(configuration(*words))
    repaired, left = summaries["exact"], summaries["none"]
    assert min(repaired["members"]["test_accuracy"]) >= 0.97
    assert min(repaired["members"]["cosine_hidden"]) >= 0.95
    assert max(left["members"]["cosine_hidden"]) < 0.6
    for summary in (repaired, left):
        assert abs(summary["cosine_hidden"]["start"]) < 0.2
        assert summary["unsettled_fraction"] < 0.01
    assert max(repaired["members"]["functional_asymmetry"]) < 0.02 < 0.4 < min(left["members"]["functional_asymmetry"])
