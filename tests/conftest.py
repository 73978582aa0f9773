"""float64, strict promotion and no silent broadcasting: a class of bugs ends here. And which tests are slow."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

# Emitting fused loops is most of the time of compilation on a CPU, and a test runs its program once: the suite takes
# two thirds of the time without. A compiler that does not know the flag ends its process, so one is tried, once for
# all workers, which inherit what comes of it. Where XLA_FLAGS is set, empty or not, it stays: `make test-bounded` and
# `make test-slow` compile as users do.
if "XLA_FLAGS" not in os.environ:
    flag = "--xla_cpu_use_fusion_emitters=false"
    words = [sys.executable, "-c", "import jax; jax.numpy.zeros(1)"]
    known = subprocess.run(words, env=os.environ | {"XLA_FLAGS": flag}, capture_output=True).returncode == 0
    os.environ["XLA_FLAGS"] = flag if known else ""

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Compiled programs are kept from module to module and from run to run, by each process for itself.
KEPT = Path(__file__).parents[1] / ".pytest_cache" / "programs" / os.environ.get("PYTEST_XDIST_WORKER", "alone")
jax.config.update("jax_compilation_cache_dir", str(KEPT))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Otherwise its import sets logging up anew, and with it closes the stream in which pytest captures.
os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")

COMPUTING = ("test_theory", "test_fixtures", "test_dynamics", "test_homeostasis", "test_substrate", "test_properties")
"""Modules whose tests compute for longer than they compile."""


SLOW = Path(__file__).with_name("slow.txt")
"""Names of tests, one a line, that are slow without saying so themselves."""


def pytest_collection_modifyitems(items):
    """Mark what `slow.txt` names; a name that is none, where its whole file was collected, is an error."""
    slow = {line for line in SLOW.read_text(encoding="utf-8").splitlines() if not line.startswith("#")}
    names = {item.nodeid for item in items}
    for item in items:
        if item.nodeid in slow:
            item.add_marker(pytest.mark.slow)
    if len({name.partition("::")[0] for name in names}) > 40 and not slow <= names:  # all files were asked for
        raise pytest.UsageError(f"tests/slow.txt names tests that are none: {sorted(slow - names)}. Take them out.")


@pytest.fixture(autouse=True, scope="module")
def forget_programs(request):
    """Thousands of compiled programs in one process exhaust its memory maps, and the compiler then crashes. Where
    compilation is most of a test's time, it is made short; runs are compiled as users have them (`as_users_run`)."""
    jax.config.update("jax_disable_most_optimizations", request.module.__name__ not in COMPUTING)
    yield
    jax.clear_caches()


@pytest.fixture
def getkey():
    """A fresh key at each call, the same sequence in every run of a test."""
    count = iter(range(10**6))
    return lambda: jax.random.fold_in(jax.random.key(2309_02214), next(count))
