"""What an imperfect device does to learning."""

from eqprop.substrate.base import AbstractImperfection as AbstractImperfection
from eqprop.substrate.bit_slicing import BitSliced as BitSliced
from eqprop.substrate.calibration import CalibratedADC as CalibratedADC, calibrate_range as calibrate_range
from eqprop.substrate.compander import Compander as Compander
from eqprop.substrate.conductance import (
    Drift as Drift,
    Faults as Faults,
    ProgrammingNoise as ProgrammingNoise,
    Quantised as Quantised,
)
from eqprop.substrate.cost import Cost as Cost, Expense as Expense
from eqprop.substrate.deployment import (
    AbstractDeployment as AbstractDeployment,
    MirrorGain as MirrorGain,
    Mismatch as Mismatch,
    NeuronSpread as NeuronSpread,
    WeightAngle as WeightAngle,
)
from eqprop.substrate.dynamics import (
    DeviceFlow as DeviceFlow,
    Dynamics as Dynamics,
    Flicker as Flicker,
    TimeConstants as TimeConstants,
    WhiteNoise as WhiteNoise,
)
from eqprop.substrate.low_bit import (
    FreezeConfident as FreezeConfident,
    Oscillation as Oscillation,
    freeze_oscillating as freeze_oscillating,
    oscillation_fraction as oscillation_fraction,
    reversals as reversals,
)
from eqprop.substrate.nudge import (
    AbstractNudge as AbstractNudge,
    NudgeDAC as NudgeDAC,
    NudgeGain as NudgeGain,
    NudgeOffset as NudgeOffset,
    NudgePhase as NudgePhase,
)
from eqprop.substrate.probe import (
    ADC as ADC,
    AbstractADC as AbstractADC,
    AbstractProbe as AbstractProbe,
    DriftBetweenPhases as DriftBetweenPhases,
    Measurement as Measurement,
    PhaseOffset as PhaseOffset,
    ReadoutNoise as ReadoutNoise,
)
from eqprop.substrate.read_disturb import ReadDisturb as ReadDisturb
from eqprop.substrate.stack import Substrate as Substrate
from eqprop.substrate.table_conductance import TableConductance as TableConductance
from eqprop.substrate.table_step import Fit as Fit, TableStep as TableStep, fit_step as fit_step
from eqprop.substrate.technology import Technology as Technology
from eqprop.substrate.wires import WireResistance as WireResistance
from eqprop.substrate.write import (
    AbstractWrite as AbstractWrite,
    ConstantStep as ConstantStep,
    SoftBounds as SoftBounds,
    WriteNoise as WriteNoise,
    write as write,
)
