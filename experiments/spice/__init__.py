"""Circuits of eqprop against a circuit simulator that shares no code with it."""
