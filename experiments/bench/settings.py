"""What is measured: every setting of "ours" and of the published step, in one place."""

from dataclasses import dataclass
from typing import Any

import optax

import eqprop as eq

NUDGES = (1, 2, 4, 6)
"""Points of the stencils that are compared with the plain step."""
ESTIMATORS = {
    "dense": (*(f"N={n}" for n in NUDGES), "TangentResponse", "RecurrentBackprop", "AsymmetricNudge"),
    "conv": ("N=2", "N=4", "TangentResponse"),
}
ERROR_BATCHES = {"dense": 3, "conv": 2}
"""Batches over which the median of a gradient's error is taken."""


@dataclass(frozen=True)
class Settings:
    """The settings of a network's benchmark: tolerances are ours, the step counts are as published."""

    tolerances: tuple[float, float]
    """Of the free and the nudged phases, as tight as the plain step's error demands, without homeostasis."""
    homeostatic_tolerances: tuple[float, float]
    """The same on a network trained with homeostasis, where the plain step settles."""
    beta: float
    plain_free_steps: int
    plain_nudged_steps: int
    batch: int
    coefficient: float
    """Of homeostasis, for the rows that have it."""

    def relaxations(self, *, homeostatic: bool) -> tuple[eq.AbstractRelaxation, eq.AbstractRelaxation]:
        """Of the free and the nudged phases."""
        free, nudged = self.homeostatic_tolerances if homeostatic else self.tolerances
        return eq.Sweep(tol=free, max_steps=300), eq.Sweep(tol=nudged, max_steps=200)


SETTINGS = {
    "dense": Settings((1e-2, 1e-2), (1e-3, 1e-4), 0.5, 150, 20, batch=50, coefficient=10.0),
    "conv": Settings((1e-5, 1e-5), (1e-5, 1e-5), 1.0, 250, 40, batch=32, coefficient=15.0),
}
REFERENCE = eq.Picard(tol=1e-9, max_steps=2000, damping=0.5)
"""The relaxation of the float64 oracle."""


def num_points(estimator: str) -> int | None:
    """Of the circle in a label such as `N=4`, `None` for the other estimators."""
    return int(estimator[2:]) if estimator.startswith("N=") else None


def our_estimator(
    name: str, beta: float, relaxation: eq.AbstractRelaxation, norm_bound: float | None = None
) -> eq.AbstractErrorEstimator:
    """The estimator of a label of `ESTIMATORS`."""
    if points := num_points(name):
        return eq.FiniteNudge(stencil=eq.cauchy(beta, points), relaxation=relaxation, norm_bound=norm_bound)
    if name == "AsymmetricNudge":
        return eq.AsymmetricNudge(stencil=eq.cauchy(beta, 2), relaxation=relaxation, norm_bound=norm_bound)
    exact = {"TangentResponse": eq.TangentResponse, "RecurrentBackprop": eq.RecurrentBackprop}
    return exact[name](relaxation=relaxation, norm_bound=norm_bound)


def homeostasis(kind: str, coefficient: float) -> eq.AbstractHomeostasis:
    """Exact where the drive is linear, from one skew probe where it is not."""
    return eq.ExactHomeostasis(coefficient) if kind == "dense" else eq.SkewHomeostasis(coefficient)


def our_trainer(
    kind: str,
    estimator: str,
    optimiser: optax.GradientTransformation,
    *,
    homeostatic: bool,
    reference: bool = False,
    **options: Any,
) -> eq.Trainer:
    """The trainer that is measured; with `reference`, the same estimator relaxed until rounding.

    Make the reference where float64 is enabled, since its stencil takes the precision of the day.
    """
    settings = SETTINGS[kind]
    free, nudged = (REFERENCE, REFERENCE) if reference else settings.relaxations(homeostatic=homeostatic)
    return eq.Trainer(
        relaxation=free,
        estimator=our_estimator(estimator, settings.beta, nudged, **options),
        optimiser=optimiser,
        homeostasis=homeostasis(kind, settings.coefficient) if homeostatic else None,
    )
