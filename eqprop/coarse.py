"""A beginning of the free phase in half precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, Shaped

from eqprop import _tree
from eqprop._solution import Solution
from eqprop.model import Model
from eqprop.relaxation import AbstractRelaxation


class CoarsePhase(eqx.Module):
    """A first part of the free phase in half precision: model and input are cast, relaxed, and the state is cast back.

    The free phase then goes on from there in full precision, so that its residual is measured in it. As published, that
    is `CoarsePhase(FixedSteps(250), "float16")` before a free phase of `FixedSteps(0)`.
    """

    relaxation: AbstractRelaxation
    dtype: str = eqx.field(static=True, default="float16")

    def __check_init__(self):
        if self.dtype not in ("float16", "bfloat16"):
            raise ValueError(f"dtype is {self.dtype!r}; the half precisions are 'float16' and 'bfloat16'.")

    def __call__(self, model: Model, x: Shaped[Array, "..."], *, key: PRNGKeyArray | None = None) -> Solution:
        """The relaxed potentials of one example in the precision of the model, with residual and status of the half
        precision."""
        half = jax.tree.map(lambda leaf: leaf.astype(self.dtype) if eqx.is_inexact_array(leaf) else leaf, (model, x))
        full, field = model.network.at(x).initial_state(), half[0].network.at(half[1])
        solution = self.relaxation(field.drift, field.initial_state(), blocks=field.blocks, key=key)
        # Half precision reaches 65,504: a state that left it starts again from the beginning.
        finite = jnp.isfinite(_tree.max_norm(solution.state))
        u = _tree.where(finite, _tree.cast_like(solution.state, full), full)
        return Solution(u, solution.residual, solution.num_steps, solution.result)
