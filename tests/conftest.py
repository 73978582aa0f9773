"""float64, strict promotion and no silent broadcasting: a class of bugs ends here."""

import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Most of the time of a test is that of its compilation; runs in processes of their own are compiled as users have them.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Thousands of compiled programs in one process exhaust its memory maps, and the compiler then crashes."""
    yield
    jax.clear_caches()


@pytest.fixture
def getkey():
    """A fresh key at each call, the same sequence in every run of a test."""
    count = iter(range(10**6))
    return lambda: jax.random.fold_in(jax.random.key(2309_02214), next(count))
