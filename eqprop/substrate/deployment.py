"""Fixed patterns between the parameters that training holds and those that the devices have."""

import abc
import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from eqprop._tree import AnyState, is_concrete
from eqprop.model import Model
from eqprop.substrate.base import (
    AbstractImperfection,
    Number,
    Reciprocity,
    Stage,
    check_choice,
    check_range,
    clipped_normal,
    lognormal,
    named,
)
from eqprop.substrate.kernels import (
    Name,
    elementwise,
    flip,
    gauge_layers,
    gauge_of,
    kernels_of,
    primary_kernels,
    tied,
    with_gains,
    with_kernels,
)
from eqprop.substrate.neurons import dense_biases, with_neurons

Structure = Literal["shared", "row", "column", "per_direction", "per_direction_tied"]


class AbstractDeployment(AbstractImperfection):
    """From the nominal model to the one the devices realise: fixed by the chip's key, differentiable."""

    stage: ClassVar[Stage] = "parameters"
    holomorphic: ClassVar[bool] = True
    moves_fixed_point: ClassVar[bool] = True

    @abc.abstractmethod
    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        """The effective model.

        **Raises:** `ValueError` for a model this defect is not defined on.
        """

    def intended(self, model: Model, *, key: PRNGKeyArray) -> Model:
        """What the devices are asked to hold: the parameters that an update blind to the defect reaches."""
        del key
        return model


class Mismatch(AbstractDeployment):
    """Devices that are not what they were programmed to be, `K_eff = K ∘ f(E)` with `E` standard normal up to `clip`:

        lognormal: f = exp(σE − σ²/2), keeps the sign;      gaussian: f = 1 + σE, which changes it below −1/σ.

    - `shared`: one two-terminal device serves both directions, the same factor for `K_ab` and `K_baᵀ`: keeps `A = Aᵀ`.
    - `row`, `column`: one factor a receiving, a sending neuron of the network: a gauge. The readout has none.
    - `per_direction`: a factor each: breaks it, beyond what gains repair.
    - `per_direction_tied`: one programmable device, `K_ba := K_abᵀ`, with two mismatched read paths. Homeostasis cannot
        reach it but by shrinking `K`.

    `sigma` 0 to 0.3: 0.1 is rockpool's default, 0.3 aihwkit's `w_max_dtod`. A tap of a filter is one device.
    """

    sigma: Number = 0.1
    law: Literal["lognormal", "gaussian"] = eqx.field(static=True, default="lognormal")
    structure: Structure = eqx.field(static=True, default="shared")
    clip: float = eqx.field(static=True, default=2.5)

    def __check_init__(self):
        check_range(self, "sigma")
        check_choice(self, "law", ("lognormal", "gaussian"))
        check_choice(self, "structure", ("shared", "row", "column", "per_direction", "per_direction_tied"))

    @property
    def reciprocity(self) -> Reciprocity:
        return {"shared": "keeps", "row": "gauge", "column": "gauge"}.get(self.structure, "breaks")  # pyright: ignore

    @property
    def commutes_with_gains(self) -> bool:
        return True

    def note(self) -> str:
        if self.law == "lognormal" or not is_concrete(self.sigma) or np.max(self.sigma) * self.clip <= 1:
            return ""
        flips = 0.5 * math.erfc(1 / (float(np.max(self.sigma)) * math.sqrt(2)))
        return f"gaussian: {flips:.1%} of the devices change sign, where updates go the wrong way; take lognormal"

    def factor(self, w: Array, key: PRNGKeyArray) -> Array:
        """`f(E)` in the shape of `w`."""
        if self.law == "gaussian":
            return 1 + self.sigma * clipped_normal(key, w, self.clip)
        return lognormal(key, w, self.sigma, self.clip)

    def intended(self, model: Model, *, key: PRNGKeyArray) -> Model:
        del key
        return tied(model, self) if self.structure == "per_direction_tied" else model

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        if self.structure in ("row", "column"):
            return with_gains(model, *self._gains(gauge_layers(model, self), key))
        return elementwise(
            self.intended(model, key=key),
            key,
            lambda w, k: w * self.factor(w, k),
            shared=self.structure == "shared",
            part=self,
        )

    def gauge(self, neurons: AnyState, *, key: PRNGKeyArray) -> AnyState:
        """As `MirrorGain.gauge`, for the structures `row` and `column`.

        **Raises:** `ValueError` for the others.
        """
        if self.structure not in ("row", "column"):
            raise ValueError(f"A mismatch of structure {self.structure!r} is no gauge; only row and column are.")
        return gauge_of(*self._gains(neurons, key))

    def _gains(self, neurons: AnyState, key: PRNGKeyArray) -> tuple[AnyState, AnyState]:
        ones = {name: jnp.ones_like(b.real) for name, b in neurons.items()}
        drawn = {name: self.factor(b.real, named(key, name)) for name, b in neurons.items()}
        return (drawn, ones) if self.structure == "row" else (ones, drawn)


class MirrorGain(AbstractDeployment):
    """Current mirrors and amplifiers at the neurons, `A_eff = R A C`, `R = 1 + receiver · E`, `C = 1 + sender · E′`.

    A gauge: with `A` symmetric and `G = R C⁻¹`, the true error vector is `G⁻¹` times that of a nudge `G g`, which
    known gains correct exactly. Input kernels have receivers only; the readout stands outside.

    Standard deviations, 0.02 to 0.2, of normal numbers up to 2.5 of them (an engineering guess; the 10 % of Kendall's
    bidirectional amplifiers is in the middle).
    """

    receiver: Number = 0.1
    sender: Number = 0.1

    def __check_init__(self):
        check_range(self, "receiver", 0.0, 0.39)  # the gains stay positive, and so invertible
        check_range(self, "sender", 0.0, 0.39)

    @property
    def reciprocity(self) -> Reciprocity:
        return "gauge"

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        return with_gains(model, *self._gains(gauge_layers(model, self), key))

    def gauge(self, neurons: AnyState, *, key: PRNGKeyArray) -> AnyState:
        """The gains `G = R C⁻¹` of every neuron, whose layers are given by any array of their shape: nudge `G g`, and
        divide the answer by `G`. See `Substrate.known_gains`."""
        return gauge_of(*self._gains(neurons, key))

    def _gains(self, neurons: AnyState, key: PRNGKeyArray) -> tuple[AnyState, AnyState]:
        def draw(side: str, sigma: Number) -> AnyState:
            return {n: 1 + sigma * clipped_normal(named(named(key, side), n), b) for n, b in neurons.items()}

        return draw("receiver", self.receiver), draw("sender", self.sender)


class WeightAngle(AbstractDeployment):
    """Feedback at a fixed angle to the transposed forward weights:

        K_fb = cos α K_fwdᵀ + sin α N,      N random, orthogonal to K_fwdᵀ and as long.

    The knob of the paper (Laborieux & Zenke, ICLR 2024), there of the first weights, here of every step: what training
    holds of the feedback weights is not used. `angle` in degrees, 0 to 90. Other edges stay.
    """

    angle: Number = 15.0

    @property
    def reciprocity(self) -> Reciprocity:
        return "keeps" if is_concrete(self.angle) and np.all(np.asarray(self.angle) == 0) else "breaks"

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        kernels = kernels_of(model, self)
        pairs = {name: source for name, source in primary_kernels(kernels, model).items() if source != name}
        if not pairs:
            raise ValueError(
                "WeightAngle turns feedback kernels, but the network has no pair of kernels in opposite directions. "
                "Use DenseNetwork.chain or a ConvNetwork."
            )

        def turned(name: Name, source: Name) -> Array:
            towards = flip(kernels[source])
            noise = jax.random.normal(named(key, name), towards.shape, towards.dtype)
            square = jnp.sum(towards**2)
            across = noise - jnp.sum(noise * towards) / jnp.where(square > 0, square, 1.0) * towards
            across = across * jnp.sqrt(square / jnp.sum(across**2))
            angle = jnp.radians(jnp.asarray(self.angle, towards.dtype))
            return jnp.cos(angle) * towards + jnp.sin(angle) * across

        return with_kernels(model, {name: turned(name, source) for name, source in pairs.items()})


class NeuronSpread(AbstractDeployment):
    """Neurons with gains and thresholds of their own, `s = σ(g (u − t))`: `g = exp(gain · E − gain²/2)`,
    `t = threshold · E′`. They move the fixed point and leave `A` alone.

    `gain` 0.05 to 0.2, `threshold` 1 to 10 % of the swing, in units of the potential (engineering guesses). For dense
    networks.
    """

    gain: Number = 0.1
    threshold: Number = 0.05

    def __check_init__(self):
        check_range(self, "gain")
        check_range(self, "threshold")

    @property
    def reciprocity(self) -> Reciprocity:
        return "none"

    def __call__(self, model: Model, *, key: PRNGKeyArray) -> Model:
        biases = dense_biases(model.network, self)

        def key_of(what: str, layer: str) -> PRNGKeyArray:
            return named(named(key, what), layer)

        gain = {name: lognormal(key_of("gain", name), b, self.gain) for name, b in biases.items()}
        threshold = {name: self.threshold * clipped_normal(key_of("threshold", name), b) for name, b in biases.items()}
        network = with_neurons(model.network, self, gain=gain, threshold=threshold)
        return Model(network, model.readout)
