"""Networks: a vector field over potentials, bound to an example as a field."""

from eqprop.network.base import (
    AbstractEnergyNetwork as AbstractEnergyNetwork,
    AbstractLinearNetwork as AbstractLinearNetwork,
    AbstractNetwork as AbstractNetwork,
    Field as Field,
)
from eqprop.network.conv import ConvNetwork as ConvNetwork
from eqprop.network.convolution import ConvEdge as ConvEdge
from eqprop.network.dense import DenseNetwork as DenseNetwork
from eqprop.network.hopfield import HopfieldNetwork as HopfieldNetwork
from eqprop.network.sparse import SparseNetwork as SparseNetwork
from eqprop.network.user import EnergyNetwork as EnergyNetwork, VectorField as VectorField
