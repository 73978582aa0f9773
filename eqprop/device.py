"""What a trainer asks of a device."""

import abc
from typing import TypeVar

import equinox as eqx
import optax
from equinox import AbstractVar

from eqprop.estimator import AbstractEstimator, Reading
from eqprop.model import Model
from eqprop.relaxation import AbstractRelaxation

Estimator = TypeVar("Estimator", bound=AbstractEstimator)


class AbstractSubstrate(eqx.Module):
    """What a trainer asks of the device that a network runs on."""

    flow: AbstractVar[AbstractRelaxation | None]
    """The device's own relaxation of the free phase."""

    @abc.abstractmethod
    def deploy(self, model: Model) -> Model:
        """The model as the devices realise it."""

    @abc.abstractmethod
    def nudge(self, model: Model) -> Model:
        """A deployed model with the errors of its teaching current."""

    @abc.abstractmethod
    def equip(self, estimator: Estimator) -> Estimator:
        """The estimator as it runs on this device. **Raises:** `ValueError` if they do not go together."""

    @abc.abstractmethod
    def readings(self) -> Reading | None:
        """How rates are read for a prediction; `None`: as they are."""

    @abc.abstractmethod
    def writes(self) -> optax.GradientTransformation | None:
        """The update rule of the devices, for the end of an optimiser's chain."""

    @abc.abstractmethod
    def describe(self) -> str:
        """A table of what the device does, for people."""
