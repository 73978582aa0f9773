"""eqprop: learning by relaxation. Generalized holomorphic equilibrium propagation in JAX."""

from importlib.metadata import PackageNotFoundError, version

from eqprop import (
    circuit as circuit,
    companion as companion,
    metrics as metrics,
    plot as plot,
    substrate as substrate,
    topology as topology,
)
from eqprop._blocks import Blocks as Blocks
from eqprop._motion import STATUS as STATUS
from eqprop._numerics import NUMERICS as NUMERICS
from eqprop._solution import RESULTS as RESULTS, Solution as Solution, worst as worst
from eqprop.activation import (
    clipped_relu as clipped_relu,
    dsilu as dsilu,
    hard_sigmoid as hard_sigmoid,
    linear as linear,
    shifted_sigmoid as shifted_sigmoid,
    tanh as tanh,
)
from eqprop.audit import Audit as Audit, audit as audit
from eqprop.coarse import CoarsePhase as CoarsePhase
from eqprop.equilibrium import equilibrium as equilibrium
from eqprop.estimator import (
    AbstractErrorEstimator as AbstractErrorEstimator,
    AbstractEstimator as AbstractEstimator,
    AsymmetricNudge as AsymmetricNudge,
    BackpropThroughTime as BackpropThroughTime,
    CalibratedAsymmetric as CalibratedAsymmetric,
    ContrastiveHebbian as ContrastiveHebbian,
    Device as Device,
    DyadicNudge as DyadicNudge,
    Error as Error,
    FiniteNudge as FiniteNudge,
    LockIn as LockIn,
    OscillatingNudge as OscillatingNudge,
    RecurrentBackprop as RecurrentBackprop,
    Response as Response,
    TangentResponse as TangentResponse,
)
from eqprop.fit import History as History, fit as fit
from eqprop.homeostasis import (
    AbstractHomeostasis as AbstractHomeostasis,
    ExactHomeostasis as ExactHomeostasis,
    ForwardHomeostasis as ForwardHomeostasis,
    SkewHomeostasis as SkewHomeostasis,
)
from eqprop.model import Example as Example, Model as Model, check_teaching as check_teaching
from eqprop.network import (
    AbstractEnergyNetwork as AbstractEnergyNetwork,
    AbstractLinearNetwork as AbstractLinearNetwork,
    AbstractNetwork as AbstractNetwork,
    ConvEdge as ConvEdge,
    ConvNetwork as ConvNetwork,
    DenseNetwork as DenseNetwork,
    EnergyNetwork as EnergyNetwork,
    Field as Field,
    HopfieldNetwork as HopfieldNetwork,
    SparseNetwork as SparseNetwork,
    VectorField as VectorField,
)
from eqprop.plasticity import same_update as same_update
from eqprop.readout import (
    AbstractReadout as AbstractReadout,
    JointReadout as JointReadout,
    SoftmaxReadout as SoftmaxReadout,
    SquaredError as SquaredError,
)
from eqprop.relaxation import (
    AbstractIteration as AbstractIteration,
    AbstractRelaxation as AbstractRelaxation,
    Anderson as Anderson,
    FixedSteps as FixedSteps,
    Flow as Flow,
    Krylov as Krylov,
    Momentum as Momentum,
    Newton as Newton,
    Picard as Picard,
    RootFind as RootFind,
    Sweep as Sweep,
)
from eqprop.save import load as load, read_header as read_header, save as save
from eqprop.state import TrainState as TrainState
from eqprop.stencil import (
    Stencil as Stencil,
    cauchy as cauchy,
    centred as centred,
    chebyshev as chebyshev,
    one_sided as one_sided,
)
from eqprop.substrate import Substrate as Substrate
from eqprop.trace import Trajectory as Trajectory, trace as trace
from eqprop.train import Trainer as Trainer

try:
    __version__ = version("eqprop")
except PackageNotFoundError:  # a checkout on the path, not installed
    __version__ = "0+unknown"
