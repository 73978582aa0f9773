"""What an imperfection of a device is: where it acts, and what it does to the physics that learning relies on."""

import abc
from typing import Literal

import equinox as eqx
from equinox import AbstractClassVar

Stage = Literal["parameters", "dynamics", "nudge", "measurement", "update"]
"""Where a device departs from its model, in the order in which a training step passes through them."""

Reciprocity = Literal["keeps", "gauge", "breaks", "none"]
"""What a defect does to `A = Aᵀ`: keeps it; makes `A` diagonally similar to a symmetric matrix, which known gains undo;
breaks it beyond repair by gains; or does not touch `A` at all."""


class AbstractImperfection(eqx.Module):
    """One defect of a device. Its fixed pattern comes from a chip's key, its noise from a run's key; the two never
    mix."""

    stage: AbstractClassVar[Stage]
    holomorphic: AbstractClassVar[bool]
    """Whether nudges may still be complex."""
    moves_fixed_point: AbstractClassVar[bool]
    """Whether the free fixed point is another one with the defect than without."""

    @property
    @abc.abstractmethod
    def reciprocity(self) -> Reciprocity:
        """What the defect does to the symmetry that equilibrium propagation relies on."""
