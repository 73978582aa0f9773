"""Circuits that are networks: Kirchhoff's current law relaxes them, and nudges train them."""

from eqprop.circuit.circuit import Circuit as Circuit
from eqprop.circuit.coupled import CoupledLearning as CoupledLearning
from eqprop.circuit.diodes import Diodes as Diodes
from eqprop.circuit.elements import Diode as Diode, Resistor as Resistor, Source as Source
from eqprop.circuit.graph import ResistorGraph as ResistorGraph
from eqprop.circuit.reader import read_circuit as read_circuit
from eqprop.circuit.resistive import ResistiveNetwork as ResistiveNetwork
from eqprop.circuit.transient import Settling as Settling, settling as settling
from eqprop.circuit.writer import write_circuit as write_circuit
