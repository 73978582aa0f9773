"""A nonlinear resistive network: Kirchhoff's current law as a network that relaxes."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, Shaped

from eqprop._blocks import Edge
from eqprop._tree import AnyState, product, real_linear
from eqprop.activation import linear
from eqprop.circuit.diodes import Diodes
from eqprop.network.base import AbstractNetwork
from eqprop.network.graph import INPUT


class ResistiveNetwork(AbstractNetwork):
    """A chain of layers of nodes that settles to Kirchhoff's current law; potentials and rates are voltages:

        F(v)_i = Σⱼ g_ij (vⱼ − vᵢ) − leak vᵢ − I_diode(vᵢ)/siemens + Σⱼ t_ji vⱼ,       in units of `siemens · volt`.

    One resistor serves both directions, so that `A = Aᵀ` whatever the values: equilibrium propagation is exact. Two
    things break it. **Amplifiers** between layers (Kendall et al. 2020): the next layer sees `forward_gain · v`, and
    this one `1/backward_gain` of the current that the next one draws; a known factor a layer, the `metric`, makes
    nudges exact again. **Transconductors** `t`, voltage-
    controlled current sources from every node of a layer to every one of its neighbours, each direction its own.

    Inputs are voltage sources, `x`, `−x` and `± 1`, times `volts`, so that conductances need no sign: `g = |kernel|`,
    reflected where an update passes through zero. Hidden nodes have diodes. Use `Newton`, or `Flow`: time in units of
    `farads/siemens`.
    """

    kernels: dict[Edge, Float[Array, "_ _"]]
    """Of resistors, `(a, b)` from a layer to the next, in siemens over `siemens`."""
    transconductances: dict[Edge, Float[Array, "_ _"]]
    """Of `(a, b)`: `(size of a, size of b)`, in the same units; empty without."""
    leak: float = eqx.field(static=True)
    diodes: Diodes
    volts: float = eqx.field(static=True)
    forward_gain: float = eqx.field(static=True)
    backward_gain: float = eqx.field(static=True)
    siemens: float = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    activation: Callable[[Inexact[Array, "..."]], Inexact[Array, "..."]] = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        leak: float = 0.1,
        diodes: Diodes | None = None,
        volts: float = 1.0,
        forward_gain: float = 1.0,
        backward_gain: float = 1.0,
        transconductance: float = 0.0,
        siemens: float = 1e-3,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `sizes`: entries of an example first, then nodes of each layer.
        - `leak`: of every node to ground, in `siemens`, as all conductances.
        - `transconductance`: standard deviation of the controlled sources; 0: none.
        - `key`: resistors are drawn uniform in `[0, 2/(nodes they meet at the next layer)]`.
        """
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"sizes is {tuple(sizes)}; expected the inputs and at least one layer, each above zero.")
        for name, value in (("leak", leak), ("volts", volts), ("siemens", siemens)):
            if value <= 0:
                raise ValueError(f"{name} is {value}; expected a number above 0.")
        self.names = (*(f"l{i}" for i in range(1, len(sizes) - 1)), "out")
        sources = 2 * sizes[0] + 2
        counts = dict(zip((INPUT, *self.names), (sources, *sizes[1:]), strict=True))
        self.kernels, self.transconductances = {}, {}
        for a, b in zip((INPUT, *self.names[:-1]), self.names, strict=True):
            key, first, second, third = jax.random.split(key, 4)
            shape = counts[a], counts[b]
            self.kernels[a, b] = jax.random.uniform(first, shape, float, 0.0, 2.0 / counts[a])
            if transconductance and a != INPUT:
                self.transconductances[a, b] = transconductance * jax.random.normal(second, shape)
                self.transconductances[b, a] = transconductance * jax.random.normal(third, shape[::-1])
        self.leak, self.diodes, self.volts, self.siemens = leak, diodes or Diodes(), volts, siemens
        self.forward_gain, self.backward_gain = forward_gain, backward_gain
        self.activation = linear  # the rates of a circuit are its voltages

    @property
    def holomorphic(self) -> bool:  # pyright: ignore
        """Whether the law of the diodes is analytic; that of ngspice compares voltages."""
        return self.diodes.law == "shockley"

    @property
    def metric(self) -> dict[str, float] | None:
        """Amplifiers weigh a layer by the gains below it: `m = (forward_gain · backward_gain)^(−level)`."""
        ratio = self.forward_gain * self.backward_gain
        return None if ratio == 1 else {name: ratio**-level for level, name in enumerate(self.names)}

    @property
    def sizes(self) -> dict[str, int]:
        """Nodes by layer, without the inputs."""
        return {edge[1]: kernel.shape[1] for edge, kernel in self.kernels.items()}

    def sources(self, x: Shaped[Array, "..."]) -> Float[Array, " sources"]:
        """The voltages of the input nodes, in the precision of the kernels whatever that of `x`."""
        x = x.reshape(-1).astype(self.kernels[INPUT, self.names[0]].dtype)
        one = jnp.ones(1, x.dtype)
        return self.volts * jnp.concatenate([x, -x, one, -one])

    def device_kernels(self) -> dict[Edge, Any]:
        return self.kernels

    def embed(self, x: Shaped[Array, "..."]) -> AnyState:
        first = self.names[0]
        kernel = jnp.abs(self.kernels[INPUT, first])
        sources = self.sources(x)
        if sources.size != kernel.shape[0]:
            raise ValueError(f"An input has {x.size} entries, but the network expects {kernel.shape[0] // 2 - 1}.")
        current = {name: jnp.zeros(size, kernel.dtype) for name, size in self.sizes.items()}
        return {**current, first: product(sources[None], kernel)[0]}

    def drive(self, s: AnyState, current: AnyState) -> AnyState:
        """Kirchhoff's currents, plus `s`, which the leak of the base class takes away."""
        first = self.names[0]
        load = jnp.sum(jnp.abs(self.kernels[INPUT, first]), axis=0)
        total = {}
        for name, v in s.items():
            diode = self.diodes(v) / self.siemens if name != self.names[-1] else jnp.zeros_like(v)
            total[name] = (1 - self.leak) * v - diode + current[name].astype(v.dtype)
        total[first] = total[first] - load.astype(s[first].dtype) * s[first]
        for a, b in zip(self.names[:-1], self.names[1:], strict=True):
            g = jnp.abs(self.kernels[a, b])
            forward = self.forward_gain * s[a]
            into = real_linear(lambda z, g=g: product(z, g), forward) - jnp.sum(g, axis=0).astype(s[b].dtype) * s[b]
            drawn = jnp.sum(g, axis=1).astype(s[a].dtype) * forward - real_linear(lambda z, g=g: product(z, g.T), s[b])
            total[b] = total[b] + into
            total[a] = total[a] - drawn / self.backward_gain
        for edge, t in self.transconductances.items():
            a, b = edge
            total[b] = total[b] + real_linear(lambda z, t=t: product(z, t), s[a])
        return total

    def power(self, state: AnyState, x: Shaped[Array, "..."]) -> Float[Array, ""]:
        """The power in watts that resistors, leaks and diodes dissipate at real potentials `state`, settled or not:

            P = siemens (Σ g (A vᵢ − vⱼ)² + leak Σ vᵢ²) + Σ [D(vᵢ − o)(vᵢ − o) + D(−vᵢ − o)(−vᵢ − o)],

        with `A` the gain of the amplifier between the two layers, and `o` the offset of the diodes. Sources deliver it
        (`supplied`), but for what charges the nodes.
        """
        v = {**state, INPUT: self.sources(x)}
        total = self.leak * sum(jnp.sum(state[name] ** 2) for name in self.names)
        for (a, b), kernel in self.kernels.items():
            near = self._gain(a) * v[a]
            total = total + jnp.sum(jnp.abs(kernel) * (near[:, None] - v[b][None, :]) ** 2)
        diodes = sum((self.diodes.power(state[name]) for name in self.names[:-1]), jnp.zeros(()))
        return self.siemens * jnp.asarray(total) + diodes

    def supplied(self, state: AnyState, x: Shaped[Array, "..."]) -> Float[Array, ""]:
        """The power in watts that all sources deliver: inputs, offsets of the diodes, amplifiers and controlled
        sources. By Tellegen's theorem it is `power` and what charges the nodes, `siemens Σ vᵢ F(v)ᵢ`, whatever the
        potentials."""
        v = {**state, INPUT: self.sources(x)}
        total = jnp.zeros(())
        for (a, b), kernel in self.kernels.items():
            near = self._gain(a) * v[a]
            drawn = jnp.sum(jnp.abs(kernel) * (near[:, None] - v[b][None, :]), axis=1)
            returned = v[a] / self.backward_gain if a != INPUT else 0.0
            total = total + jnp.sum((near - returned) * drawn)
        for (a, b), kernel in self.transconductances.items():
            total = total + v[a] @ kernel @ v[b]
        offsets = sum((self.diodes.supplied(state[name]) for name in self.names[:-1]), jnp.zeros(()))
        return self.siemens * total + offsets

    def _gain(self, layer: str) -> float:
        return 1.0 if layer == INPUT else self.forward_gain
