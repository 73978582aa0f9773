"""Relaxations: a drift taken to a fixed point, with residual and status."""

from eqprop.relaxation.anderson import Anderson as Anderson
from eqprop.relaxation.base import (
    AbstractIteration as AbstractIteration,
    AbstractRelaxation as AbstractRelaxation,
    allowed as allowed,
)
from eqprop.relaxation.fixed_steps import FixedSteps as FixedSteps
from eqprop.relaxation.flow import Flow as Flow
from eqprop.relaxation.momentum import Momentum as Momentum
from eqprop.relaxation.motion import AbstractMotion as AbstractMotion, Motion as Motion
from eqprop.relaxation.newton import Newton as Newton
from eqprop.relaxation.picard import Picard as Picard
from eqprop.relaxation.reference import until_rounding as until_rounding
from eqprop.relaxation.solvers import Krylov as Krylov, RootFind as RootFind
from eqprop.relaxation.sweep import AbstractSweep as AbstractSweep, Sweep as Sweep
