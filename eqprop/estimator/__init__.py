"""Estimators of the gradient, all behind one interface."""

from eqprop.estimator.asymmetric import AsymmetricNudge as AsymmetricNudge
from eqprop.estimator.base import (
    AbstractErrorEstimator as AbstractErrorEstimator,
    AbstractEstimator as AbstractEstimator,
    Error as Error,
    Response as Response,
)
from eqprop.estimator.bptt import BackpropThroughTime as BackpropThroughTime
from eqprop.estimator.contrastive import ContrastiveHebbian as ContrastiveHebbian
from eqprop.estimator.dyadic import DyadicNudge as DyadicNudge
from eqprop.estimator.finite_nudge import FiniteNudge as FiniteNudge
from eqprop.estimator.linear_response import (
    RecurrentBackprop as RecurrentBackprop,
    TangentResponse as TangentResponse,
)
from eqprop.estimator.lock_in import LockIn as LockIn
from eqprop.estimator.oscillating import OscillatingNudge as OscillatingNudge
