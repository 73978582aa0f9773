"""A relaxation watched step by step."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Shaped

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._motion import LEAST_STEPS, NAMES, STATUS, judge
from eqprop._tree import AnyState, Drift
from eqprop.model import Model
from eqprop.network.base import AbstractEnergyNetwork
from eqprop.relaxation import AbstractIteration, AbstractRelaxation, FixedSteps, Flow
from eqprop.relaxation.base import Iterate
from eqprop.relaxation.sweep import AbstractSweep


class Trajectory(eqx.Module):
    """One example's relaxation. Arrays have a leading axis of time, `T + 1` long, that begins with the initial state;
    under `jax.vmap` one of examples comes before it.
    """

    states: AnyState
    """Potentials `u`."""
    rates: AnyState
    """`s = σ(u)`."""
    times: Float[Array, "..."]
    """Steps, of which a sweep is one; time constants of the leak for `Flow`."""
    residual: Float[Array, "..."]
    """`max |F(u)|` over all neurons."""
    energy: Float[Array, "..."] | None
    """`E(u)` of a network that has one, up to a constant; else `None`."""
    status: STATUS
    period: Float[Array, "..."]
    """Of the orbit, in units of `times`: the first return of the state to within 2 % of the amplitude, up to a quarter
    of the trajectory. It is NaN unless the state is cycling."""
    amplitude: Float[Array, "..."]
    """The largest peak-to-peak excursion of a potential in the last quarter."""
    rate: Float[Array, "..."]
    """The factor by which the residual falls or grows in a unit of `times`: a least-squares slope of its logarithm over
    the last half, where it stands clear of rounding. It is NaN where nothing does."""
    remaining: Float[Array, "..."]
    """Units of `times` that a slow state needs to settle if it goes on like this; NaN if it is not slow."""

    unit: str = eqx.field(static=True)
    """What `times` counts."""

    def __str__(self) -> str:
        """The status, the numbers that go with it, and what to do; of several examples the number of each status."""
        if self.residual.ndim == 1:
            return f"{self.headline()}. {STATUS[self.status]}"
        return ", ".join(f"{int(jnp.sum(self.status == getattr(STATUS, name)))} {name}" for name in NAMES)

    def headline(self) -> str:
        """The name of one example's status and its numbers."""
        name = next(name for name in NAMES if self.status == getattr(STATUS, name))
        shown = {"slow": ("rate", "remaining"), "cycling": ("period", "amplitude"), "wandering": ("amplitude",)}
        numbers = [f", {what} {float(getattr(self, what)):.4g}" for what in shown.get(name, ())]
        return f"{name}{''.join(numbers)} ({int(self.times.size) - 1} {self.unit})"


def trace(
    model: Model,
    x: Shaped[Array, "..."],
    relaxation: AbstractRelaxation,
    *,
    num_steps: int | None = None,
    key: PRNGKeyArray | None = None,
) -> Trajectory:
    """Relax the free phase of one example, go on when it has settled, and keep every state on the way.

    **Arguments:**

    - `model`, `x`: the model and one input; a batch goes through `equinox.filter_vmap`.
    - `relaxation`: an iteration (`Picard`, `Sweep`, `Anderson`, `Newton`), `FixedSteps` or `Flow`. A step of a sweep is
        one sweep, whatever its `every`.
    - `num_steps`: `T`, by default those of the relaxation. For `Flow` it is the number of intervals of the even grid
        on which its solution is kept, by default 500 over the horizon; a solver that runs out of its own steps has
        diverged.
    - `key`: for stochastic relaxations; those that can be traced ignore it.

    **Raises:** `ValueError` for fewer than 16 steps, and for a relaxation that has no steps to look at.
    """
    del key
    field = model.network.at(x)
    drift, u0, blocks = field.drift, field.initial_state(), field.blocks
    usual = _usual_steps(relaxation)
    count = usual if num_steps is None else num_steps
    if not isinstance(count, int) or count < LEAST_STEPS:
        raise ValueError(f"num_steps is {count}; expected a whole number of {LEAST_STEPS} or more.")
    times = jnp.arange(count + 1, dtype=jax.tree.leaves(u0)[0].dtype)
    unit = "sweeps" if isinstance(relaxation, AbstractSweep) else "steps"
    if isinstance(relaxation, Flow):
        times, unit = times * (relaxation.horizon / count), "time constants"
        states = _solve(relaxation, drift, u0, times)
        residual = jax.lax.map(lambda u: _tree.max_norm(drift(u)), states)
        excess = residual[-1] / relaxation.tol
    elif isinstance(relaxation, AbstractIteration):
        states, residual, excess = _iterate(relaxation, drift, u0, blocks, count)
    else:
        step = lambda u, _: (_tree.add(u, drift(u)), (u, _tree.max_norm(drift(u))))
        _, (states, residual) = jax.lax.scan(step, u0, None, length=count + 1)
        excess = residual[-1] / relaxation.tol  # pyright: ignore[reportAttributeAccessIssue]
    energies = None
    if isinstance(model.network, AbstractEnergyNetwork):
        network = model.network
        energies = jax.lax.map(lambda u: energy(network, u, field.current), states)
    rates = jax.vmap(model.network.rates)(states)
    return Trajectory(states, rates, times, residual, energies, *judge(states, times, residual, excess), unit)


def energy(network: AbstractEnergyNetwork, u: AnyState, current: PyTree) -> Float[Array, ""]:
    """`E(u) = Σᵢ ∫₀^{uᵢ} v σ′(v) dv − Φ(s)` with `∂E/∂u = −σ′ F`. By parts the integral is
    `u σ(u) − ∫₀^u σ`, the latter by Gauss and Legendre's rule of 64 nodes, without any derivative of `σ`."""
    nodes, weights = np.polynomial.legendre.leggauss(64)

    def well(u: Array) -> Array:
        at = lambda node, weight: weight * network.activation(node * u)
        parts = [jnp.asarray(0.5 * v, u.dtype) for v in (nodes + 1.0, weights)]
        return jnp.sum(u * (network.activation(u) - jnp.sum(jax.vmap(at)(*parts), axis=0)))

    s = network.rates(u)
    return sum(map(well, jax.tree.leaves(u)), start=-network.interaction(s, current))


def _usual_steps(relaxation: AbstractRelaxation) -> int:
    if isinstance(relaxation, FixedSteps):
        return max(relaxation.num_steps, LEAST_STEPS)
    if isinstance(relaxation, AbstractIteration):
        return max(relaxation.max_steps, LEAST_STEPS)
    if isinstance(relaxation, Flow):
        return 500
    raise ValueError(
        f"A {type(relaxation).__name__} has no steps to look at. Trace Picard, Sweep, Anderson, Newton or another "
        "AbstractIteration, FixedSteps, or Flow."
    )


def _iterate(
    relaxation: AbstractIteration, drift: Drift, u0: AnyState, blocks: Blocks | None, count: int
) -> tuple[AnyState, Array, Array]:
    """States, residuals, and the largest ratio of a layer's residual to its tolerance at the end."""
    if isinstance(relaxation, AbstractSweep):
        relaxation = dataclasses.replace(relaxation, every=1)  # pyright: ignore[reportCallIssue]
    blocks = Blocks.alternate(len(jax.tree.leaves(u0))) if blocks is None else blocks

    def step(now: Iterate, _: None) -> tuple[Iterate, tuple[AnyState, Array]]:
        now = relaxation.step(drift, now, blocks)
        return now, (now.u, now.residual)

    end, (states, residual) = jax.lax.scan(step, relaxation.init(drift, u0, blocks), None, length=count)
    first = u0, _tree.max_norm(drift(u0))
    return *jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, (states, residual)), end.excess


def _solve(flow: Flow, drift: Drift, u0: AnyState, times: Array) -> AnyState:
    """The solution of `du/dt = F(u)` at `times`, by the solver and the controller of `flow`."""
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, u, args: drift(u)),
        flow.solver,
        t0=times[0],
        t1=times[-1],
        dt0=flow.dt0,
        y0=u0,
        saveat=diffrax.SaveAt(ts=times),
        stepsize_controller=flow.step_control,
        max_steps=flow.max_steps,
        throw=False,
    )
    return solution.ys
