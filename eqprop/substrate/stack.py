"""A device: named defects of all stages, and what they amount to."""

import dataclasses
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
from jaxtyping import PRNGKeyArray, PyTree

from eqprop import _tree
from eqprop._tree import AnyState
from eqprop.device import AbstractSubstrate, Estimator
from eqprop.estimator import Device
from eqprop.model import Model
from eqprop.readout import Batch
from eqprop.relaxation import AbstractRelaxation
from eqprop.substrate.base import AbstractImperfection, Chip, Reciprocity, chip_key
from eqprop.substrate.cost import Cost, cost
from eqprop.substrate.deployment import AbstractDeployment, MirrorGain, Mismatch
from eqprop.substrate.dynamics import DeviceFlow
from eqprop.substrate.kernels import kernels_of, straight_through, with_kernels
from eqprop.substrate.neurons import dense_biases
from eqprop.substrate.nudge import AbstractNudge, DeviceReadout, num_nudged
from eqprop.substrate.probe import AbstractProbe, Measurement
from eqprop.substrate.technology import Technology
from eqprop.substrate.write import AbstractWrite, WriteRule, write
from eqprop.train import Trainer

Module = TypeVar("Module", bound=eqx.Module)
Part = TypeVar("Part", bound=AbstractImperfection)

_WORSE: tuple[Reciprocity, ...] = ("none", "keeps", "gauge", "breaks")


class Substrate(AbstractSubstrate):
    """What a network runs on:

        substrate = Substrate(chip=3, mismatch=Mismatch(0.1), adc=ADC(8))
        trainer = Trainer(relaxation, estimator, optax.sgd(0.1)).on(substrate)

    Every part draws its fixed pattern from the number of the chip and its own name, so that stacking another one does
    not redraw it. Parts of a stage act in the order given.
    """

    technology: Technology | None
    """The physical constants from which `cost` follows."""
    parts: OrderedDict[str, AbstractImperfection]
    """In the order given, which a plain dictionary loses in a compiled function: JAX sorts its names."""
    flow: AbstractRelaxation | None
    """The device's own relaxation, in place of that of the trainer and of estimators that nudge."""
    chip: Chip
    known_gains: bool = eqx.field(static=True)
    """Whether the gains of `MirrorGain` and of mismatch by row or column were measured, and are corrected: `G g` is
    nudged, and what is read divided by `G`. Exact where the weights are symmetric; not applied to a stack that breaks
    reciprocity, which gains do not repair."""
    aware: bool = eqx.field(static=True)
    """How a gradient reaches the nominal parameters. Not aware, as on a chip: the local rule's update for the effective
    device is made to the nominal one. Aware: by the chain rule through the deployment."""

    def __init__(
        self,
        chip: Chip = 0,
        aware: bool = False,
        flow: AbstractRelaxation | None = None,
        known_gains: bool = False,
        technology: Technology | None = None,
        **parts: AbstractImperfection | None,
    ):
        """**Arguments:** `parts`, under names of your choice; those that are `None` are left out."""
        if isinstance(flow, DeviceFlow):
            flow = _replaced(flow, dynamics=_replaced(flow.dynamics, chip=chip))
        self.chip, self.aware, self.flow, self.known_gains, self.technology = chip, aware, flow, known_gains, technology
        self.parts = OrderedDict((name, part) for name, part in parts.items() if part is not None)
        for name, part in self.parts.items():
            if not isinstance(part, AbstractImperfection):
                raise ValueError(
                    f"{name} is a {type(part).__name__}; expected a defect such as Mismatch, or None. "
                    "A relaxation goes under the name flow."
                )

    def with_chip(self, chip: Chip) -> "Substrate":
        """The same parts on another chip. Under `vmap` over the number, many chips are one program."""
        return Substrate(chip, self.aware, self.flow, self.known_gains, self.technology, **self.parts)

    def deploy(self, model: Model) -> Model:
        """The model that the devices realise, without errors of nudge and measurement: what the truth is about."""
        for name, part in self._of(AbstractDeployment).items():
            key = chip_key(self.chip, name)
            if self.aware:
                model = part(model, key=key)
                continue
            asked = part.intended(model, key=key)
            got = part(_with_constant_kernels(asked), key=key)
            before, after = kernels_of(asked), _tree.stop_gradient(kernels_of(got))
            model = with_kernels(got, {n: straight_through(before[n], after[n]) for n in after}) if after else got
        return model

    def nudge(self, model: Model) -> Model:
        """A deployed model whose teaching current has the errors of the nudge."""
        readout = model.readout
        for name, part in self._of(AbstractNudge).items():
            readout = part(readout, num_nudged(model, part), key=chip_key(self.chip, name))
        for name, gauge in self._gauges().items():
            (layer,) = readout.layers
            gain = gauge({layer: dense_biases(model.network, self)[layer]}, key=chip_key(self.chip, name))[layer]
            readout = DeviceReadout(readout=readout, gain=gain, offset=None)  # pyright: ignore[reportCallIssue]
        return Model(model.network, readout)

    def equip(self, estimator: Estimator) -> Estimator:
        """The estimator as it runs on this device: with its relaxation, its motion and its readings.

        **Raises:** `ValueError` if they do not go together.
        """
        real_only = [name for name, part in self.parts.items() if not part.holomorphic]
        if real_only and estimator.complex_nudges:
            raise ValueError(
                f"{type(estimator).__name__} nudges in the complex plane, but {', '.join(real_only)} of the substrate "
                "is not holomorphic. Use FiniteNudge with a real stencil, such as eqprop.centred(beta)."
            )
        probes, gauges = self._of(AbstractProbe), self._gauges()
        probe = Measurement(probes, self.chip, gauges) if probes or gauges else None
        if self.flow is None and probe is None:
            return estimator
        dynamics = self.flow.dynamics if isinstance(self.flow, DeviceFlow) else None
        return estimator.on_device(Device(self.flow, dynamics, probe))  # pyright: ignore[reportReturnType]

    def readings(self) -> Measurement | None:
        """How rates are read for a prediction; `None`: as they are."""
        probes = self._of(AbstractProbe)
        return Measurement(probes, self.chip) if probes else None

    def writes(self) -> WriteRule | None:
        """The update rule of the devices, for the end of an optimiser's chain."""
        parts = self._of(AbstractWrite)
        return write(parts, self.chip) if parts else None

    def cost(
        self,
        trainer: Trainer,
        model: Model,
        batch: Batch,
        *,
        optimiser_state: PyTree = None,
        key: PRNGKeyArray | None = None,
    ) -> Cost:
        """Energy and time of an inference and of a training example, by cause, means over a batch on which the phases
        are run. Closed forms are those of `Technology`.

        An inference is an input converted to volts, a free phase, and a read-out of the layers that are read. A
        training example is that with a read-out of all neurons, and the nudged phases with theirs: the nodes of a
        stencil one after the other, or the turns of an oscillating nudge. A complex nudge takes amplifiers and
        converters of two quadratures, of which the imaginary one conducts nothing to first order. AsymEP takes the
        currents of `A` and `Aᵀ` besides. A training example has its probes of homeostasis, two products each, or its
        share of a reading of all weights once a batch for the closed form, and its share of the pulses of the update.

        Phases last as long as `DeviceFlow` says. A step of a numerical relaxation counts as `damping` time constants,
        which gives the scale of the answer and not more. Power is that of the settled state, all the time. What no
        device does costs NaN, and `Cost.reasons` says why.

        **Arguments:** `optimiser_state`: that of the trainer in the course of a training, by default that at its
        beginning, which decides how many pulses a write takes.

        **Raises:** `ValueError` without a technology, or as `Trainer.gradient`.
        """
        if self.technology is None:
            raise ValueError("This substrate has no technology: give it technology=Technology(volts=0.2, ...).")
        return cost(self.technology, self.parts, self, trainer, model, batch, optimiser_state=optimiser_state, key=key)

    @property
    def reciprocity(self) -> Reciprocity:
        """The worst of all parts, keeps < gauge < breaks, in the order in which they act. What neither scales devices
        nor leaves them alone, such as rounding, makes the gains before it unknown: gauge, then rounding, breaks."""
        worst: Reciprocity = "none"
        for part in self.parts.values():
            unknown = worst == "gauge" and part.reciprocity == "keeps" and not part.commutes_with_gains
            both: tuple[Reciprocity, Reciprocity] = worst, part.reciprocity
            worst = "breaks" if unknown else max(both, key=_WORSE.index)
        return worst

    def describe(self) -> str:
        """A table of the parts, and the class of the whole."""
        rows = [("part", "defect", "stage", "holomorphic", "reciprocity", "moves fixed point")]
        moving = self.flow.dynamics.parts if isinstance(self.flow, DeviceFlow) else {}
        for name, part in {**self.parts, **{f"flow.{name}": part for name, part in moving.items()}}.items():
            flags = [("no", "yes")[flag] for flag in (part.holomorphic, part.moves_fixed_point)]
            rows.append((name, type(part).__name__, part.stage, flags[0], part.reciprocity, flags[1]))
        if self.flow is not None and not isinstance(self.flow, DeviceFlow):
            rows.append(("flow", type(self.flow).__name__, "dynamics", "yes", "none", "no"))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += [f"{name}: {part.note()}" for name, part in self.parts.items() if part.note()]
        aware = "through the chain rule" if self.aware else "as for the effective devices"
        meaning = {
            "none": "A is untouched",
            "keeps": "A = Aᵀ is kept where the nominal weights have it",
            "gauge": "A is symmetric up to gains, which undo it if they are known",
            "breaks": "A ≠ Aᵀ: homeostasis or AsymmetricNudge",
        }[self.reciprocity]
        if self.known_gains and self.reciprocity == "breaks":
            lines.append("known gains: not applied, as they do not undo this stack; defects of devices go first")
        if self.technology is not None:
            lines.append(f"technology: a time constant of {float(self.technology.time_constant()):.3g} s")
        return "\n".join([*lines, f"chip {self.chip}, updates {aware}; reciprocity: {self.reciprocity} ({meaning})"])

    def _gauges(self) -> dict[str, Callable[..., AnyState]]:
        known = self.parts.items() if self.known_gains and self.reciprocity == "gauge" else ()
        return {n: p.gauge for n, p in known if isinstance(p, (MirrorGain, Mismatch)) and p.reciprocity == "gauge"}

    def _of(self, kind: type[Part]) -> dict[str, Part]:
        return OrderedDict((name, part) for name, part in self.parts.items() if isinstance(part, kind))


def _with_constant_kernels(model: Model) -> Model:
    kernels = kernels_of(model)
    return with_kernels(model, _tree.stop_gradient(kernels)) if kernels else model


def _replaced(module: Module, **changes: object) -> Module:
    return dataclasses.replace(module, **changes)  # pyright: ignore
