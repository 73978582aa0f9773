"""float64, strict promotion and no silent broadcasting: a class of bugs ends here."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

COMPUTING = ("test_theory", "test_fixtures", "test_dynamics", "test_homeostasis", "test_substrate", "test_properties")
"""Modules whose tests compute for longer than they compile."""


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
