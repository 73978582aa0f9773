"""The physical constants of a device, from which energy and time follow."""

import equinox as eqx
from jaxtyping import Array, Float

from eqprop.substrate.base import Number, check_range


class Technology(eqx.Module):
    """Volts, siemens, farads, joules and seconds of a device. The energies and times are

        swing of a node by ΔV and back:    C ΔV²                                 (farads)
        static conduction:                 Σ G ΔV² · time                        (siemens)
        amplifiers of n neurons:           n · amplifier_watts · time
        a conversion of b bits:            FOM · 2^b, the figure of merit of Walden
        a read-out of a neuron:            conversions · FOM · 2^b
        a write of a weight:               pulses · pulse_joules.

    The numbers given here are those of a small memristor crossbar with a converter for each neuron, engineering guesses
    but for the converters. Replace them by those of your device.
    """

    volts: Number = 0.2
    """V: what a rate of 1, or an input of 1, stands for. Guess. A circuit has volts of its own."""
    siemens: Number = 1e-6
    """S: the conductance of a weight of 1, and of the leak of a neuron. Guess. A circuit has siemens of its own."""
    farads: Number = 100e-15
    """F: the capacitance of a node, with its wires. Guess."""
    seconds: Number | None = None
    """s: the time constant of a neuron; `None`: `farads/siemens`."""
    adc_figure_of_merit: Number = 10e-15
    """J a conversion step. The ADC survey of B. E. Jonsson (converterpassion.wordpress.com, of 2012) lists six
    converters of 7.5 to 10 effective bits with 6 to 10 fJ."""
    adc_seconds: Number = 1e-7
    """s: a conversion. Guess."""
    adc_bits: int = eqx.field(static=True, default=8)
    """Where the stack has no `ADC`."""
    neurons_per_adc: int = eqx.field(static=True, default=1)
    """Neurons that one converter serves in turn."""
    dac_figure_of_merit: Number = 10e-15
    """J a conversion step of the converters of inputs and nudges. Guess: as the other ones."""
    dac_seconds: Number = 1e-8
    """s: a conversion; all lines are converted at once. Guess."""
    dac_bits: int = eqx.field(static=True, default=8)
    """Of inputs, and of nudges where the stack has no `NudgeDAC`."""
    pulse_joules: Number = 1e-12
    """J a write pulse. Guess: 1 V on 10 µS for 100 ns."""
    pulse_seconds: Number = 1e-7
    """s: a write pulse. Guess."""
    parallel_writes: int = eqx.field(static=True, default=64)
    """Devices that get pulses at the same time. Guess: a row."""
    amplifier_watts: Number = 0.0
    """W: static power of a neuron's amplifier."""

    def __check_init__(self):
        for name in ("volts", "siemens", "farads"):
            check_range(self, name, 1e-30)
        if self.seconds is not None:
            check_range(self, "seconds", 1e-30)
        names = ("adc_figure_of_merit", "adc_seconds", "dac_figure_of_merit", "dac_seconds", "pulse_joules")
        for name in (*names, "pulse_seconds", "amplifier_watts"):
            check_range(self, name)
        for name in ("adc_bits", "dac_bits"):
            check_range(self, name, 1, 24)
        for name in ("neurons_per_adc", "parallel_writes"):
            check_range(self, name, 1)

    def time_constant(self, siemens: Number | None = None) -> Number:
        """In seconds.

        **Arguments:** `siemens`: of a circuit, whose leak is in units of it.
        """
        if self.seconds is not None:
            return self.seconds
        return self.farads / (self.siemens if siemens is None else siemens)

    def adc_joules(self, bits: int) -> Number:
        """`FOM · 2^bits` of one conversion from volts to a number."""
        return self.adc_figure_of_merit * 2.0**bits

    def dac_joules(self, bits: int) -> Number:
        """`FOM · 2^bits` of one conversion from a number to volts."""
        return self.dac_figure_of_merit * 2.0**bits

    def write_seconds(self, pulses: Number | Float[Array, ""]) -> Number | Float[Array, ""]:
        """Of so many pulses in all, `parallel_writes` at a time."""
        return pulses * self.pulse_seconds / self.parallel_writes
