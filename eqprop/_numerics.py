"""The number of the numerics: which results are comparable."""

NUMERICS = 3
"""Raised whenever the same configuration leads to other numbers than before. It is a part of every run's identity, so
that no result of older code is taken for one of today's; `tests/test_numerics.py` notices when it should be raised."""
