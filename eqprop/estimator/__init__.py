"""Estimators: how the fixed point answers to a nudge, and the scalar whose gradient is the estimate."""

from eqprop.estimator.asymmetric import AsymmetricNudge as AsymmetricNudge
from eqprop.estimator.base import (
    AbstractErrorEstimator as AbstractErrorEstimator,
    AbstractEstimator as AbstractEstimator,
    Device as Device,
    Error as Error,
    Reading as Reading,
    Response as Response,
)
from eqprop.estimator.bptt import BackpropThroughTime as BackpropThroughTime
from eqprop.estimator.calibrated import CalibratedAsymmetric as CalibratedAsymmetric
from eqprop.estimator.contrastive import ContrastiveHebbian as ContrastiveHebbian
from eqprop.estimator.finite_nudge import FiniteNudge as FiniteNudge
from eqprop.estimator.linear_response import (
    DyadicNudge as DyadicNudge,
    RecurrentBackprop as RecurrentBackprop,
    TangentResponse as TangentResponse,
)
from eqprop.estimator.waveform import LockIn as LockIn, OscillatingNudge as OscillatingNudge
