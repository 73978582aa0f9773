"""Ways to nudge a device and to read it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from eqprop import Stencil, cauchy, centred, chebyshev, one_sided


class Scheme(NamedTuple):
    """A way to nudge and to read."""

    stencil: Callable[[Any], Stencil]
    order: int
    """Of the bias in the strength of the nudge."""
    readings: int
    """Of every neuron, one after the other; a complex state is two."""


SCHEMES = {
    "one-sided": Scheme(one_sided, 1, 2),
    "two points": Scheme(centred, 2, 2),
    "4 real points": Scheme(lambda beta: chebyshev(beta, 4), 4, 4),
    "circle, N = 4": Scheme(lambda beta: cauchy(beta, 4), 4, 4),
    "circle, N = 8": Scheme(lambda beta: cauchy(beta, 8), 8, 8),
}
FEWEST, MOST = 2, 8
"""Readings of the schemes."""
