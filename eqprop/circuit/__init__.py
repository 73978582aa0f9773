"""Circuits that are networks: Kirchhoff's current law relaxes them, and nudges train them."""

from eqprop.circuit.diodes import Diodes as Diodes
from eqprop.circuit.graph import ResistorGraph as ResistorGraph
from eqprop.circuit.resistive import ResistiveNetwork as ResistiveNetwork
from eqprop.circuit.transient import Settling as Settling, settling as settling
