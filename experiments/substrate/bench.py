"""Trained networks at their free fixed points, on which devices measure error vectors that are known."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from eqprop import AbstractErrorEstimator, AbstractRelaxation, Model, Picard, Solution, TangentResponse
from eqprop.run.study.trained import images, models, short_compilation, train

NETWORK = ("data=digits", "epochs=3", "network.angle=0.0", "runtime.x64=true", "homeostasis=none")
SETTLE = Picard(tol=1e-12, rtol=1e-9, max_steps=4000, damping=0.5)
SIZES = {"quick": (1, 4), "cpu": (3, 20), "full": (5, 100)}
"""Networks and images of each."""

Make = Callable[[Array, Array], AbstractErrorEstimator]
"""From the strength of the nudge and the level of a defect, an estimator; one program serves all of them."""


class Bench:
    """Networks of several seeds on the digits, with some held-out images each. It is made and used in float64."""

    def __init__(self, scale: str):
        self.networks, self.images = SIZES[scale]
        runs = [train(f"seed {seed}", (*NETWORK, f"seed={seed}")) for seed in range(self.networks)]
        self.records = [run.record for run in runs]
        with short_compilation():
            self._cases = [_Case(models(run)[-1][1], *images(run, self.images)) for run in runs]

    @property
    def size(self) -> dict[str, int]:
        """What the data of every figure say of it."""
        return {"networks": self.networks, "images": self.images}

    def errors(
        self,
        make: Make,
        strengths: Sequence[float] | np.ndarray,
        levels: Sequence[float] | np.ndarray = (0,),
        *,
        draws: int = 1,
        free: AbstractRelaxation | None = None,
    ) -> np.ndarray:
        """`‖δ − true‖/‖true‖` by strength, level and image of every network; the root mean square over draws of noise.

        **Arguments:** `free`: what brings the network to its free state; by default it is settled.
        """
        return np.sqrt(np.mean(self.each_draw(make, strengths, levels, draws=draws, free=free) ** 2, axis=-1))

    def each_draw(
        self,
        make: Make,
        strengths: Sequence[float] | np.ndarray,
        levels: Sequence[float] | np.ndarray = (0,),
        *,
        draws: int,
        free: AbstractRelaxation | None = None,
    ) -> np.ndarray:
        """The same, with the draws along a last axis."""
        grid = jnp.asarray(strengths), jnp.asarray(levels)
        with short_compilation():
            found = [case.errors(make, *grid, draws, free) for case in self._cases]
        return np.concatenate(found, axis=-2)


class _Case:
    """One network."""

    def __init__(self, model: Model, x: Array, y: Array):
        self._model, self._x, self._y = model, x.astype(float), y
        self._free = _relaxed(SETTLE, model, self._x)
        self._true = _true(model, self._x, y, self._free)

    def errors(
        self, make: Make, strengths: Array, levels: Array, draws: int, free: AbstractRelaxation | None
    ) -> np.ndarray:
        start = self._free if free is None else _relaxed(free, self._model, self._x)
        return np.asarray(_misses(make, draws, (self._model, self._x, self._y, start, self._true), strengths, levels))


@eqx.filter_jit
def _relaxed(relaxation: AbstractRelaxation, model: Model, x: Array) -> Solution:
    def one(x: Array) -> Solution:
        field = model.network.at(x)
        return relaxation(field.drift, field.initial_state(), blocks=field.blocks)

    return jax.vmap(one)(x)


@eqx.filter_jit
def _true(model: Model, x: Array, y: Array, free: Solution) -> Array:
    tangent = TangentResponse(relaxation=SETTLE)
    return jax.vmap(lambda x, y, free: ravel_pytree(tangent.error(model.at(x, y), free).delta)[0])(x, y, free)


@eqx.filter_jit
def _misses(make: Make, draws: int, case: tuple[Model, Any, Any, Any, Any], strengths: Array, levels: Array) -> Array:
    model, x, y, free, true = case
    keys = jax.random.split(jax.random.key(0), (draws, x.shape[0]))

    def one(beta: Array, level: Array, x: Array, y: Array, free: Solution, true: Array, key: Array) -> Array:
        delta, _ = ravel_pytree(make(beta, level).error(model.at(x, y), free, key=key).delta)
        return jnp.sqrt(jnp.sum((delta - true) ** 2) / jnp.sum(true**2))

    # Over levels and draws alone nothing that relaxes differs: the phases are relaxed once for all readings of them.
    over_draws = jax.vmap(one, in_axes=(*[None] * 6, 0))
    over_levels = jax.vmap(over_draws, in_axes=(None, 0, *[None] * 5))
    over_images = jax.vmap(over_levels, in_axes=(None, None, 0, 0, 0, 0, 1), out_axes=1)
    return jax.lax.map(lambda beta: over_images(beta, levels, x, y, free, true, keys), strengths)
