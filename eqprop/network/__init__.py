"""Networks: parameters, drive, embedding of the input, activation."""

from eqprop.network.base import (
    AbstractEnergyNetwork as AbstractEnergyNetwork,
    AbstractLinearNetwork as AbstractLinearNetwork,
    AbstractNetwork as AbstractNetwork,
)
from eqprop.network.conv import ConvNetwork as ConvNetwork
from eqprop.network.dense import DenseNetwork as DenseNetwork
from eqprop.network.energy import HopfieldNetwork as HopfieldNetwork
