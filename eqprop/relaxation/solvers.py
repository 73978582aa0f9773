"""Solvers of Lineax and Optimistix as relaxations."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import PRNGKeyArray

from eqprop import _tree
from eqprop._blocks import Blocks
from eqprop._solution import RESULTS, Solution
from eqprop._tree import AnyState, Drift
from eqprop.relaxation.base import AbstractRelaxation, check_tolerance, measure


class Krylov(AbstractRelaxation):
    """The fixed point of an affine drift by a Krylov method: `u = u₀ + d`, `J d = −F(u₀)`, `J = ∂F/∂u` at `u₀`.

    It is made for the linear responses: `RecurrentBackprop(Krylov())` and `TangentResponse(Krylov())` need about ten
    products where sweeps take dozens near a bifurcation, and converge where a relaxation does not. A drift that is not
    affine is met by a single step of Newton's method.

    The result is judged by the measured residual, under `tol` and `rtol` as for `AbstractIteration`.
    """

    tol: float = 1e-5
    rtol: float = 1e-2
    solver: lx.AbstractLinearSolver | None = None
    """Of Lineax; by default `GMRES` with a restart after 40 products, at a tenth of the tolerance."""
    reverse_differentiable: ClassVar[bool] = False

    def __check_init__(self):
        check_tolerance(self, self.tol, 1)

    def __call__(
        self, drift: Drift, u0: AnyState, *, blocks: Blocks | None = None, key: PRNGKeyArray | None = None
    ) -> Solution:
        del blocks, key
        force, product = jax.linearize(drift, u0)
        structure = jax.eval_shape(lambda: u0)
        tol = 0.1 * min(self.tol, self.rtol)
        solver = self.solver or lx.GMRES(rtol=tol, atol=tol, restart=40, stagnation_iters=40, max_steps=400)
        solution = lx.linear_solve(
            lx.FunctionLinearOperator(product, structure), _tree.scale(-1.0, force), solver, throw=False
        )
        return _judged(drift, u0, _tree.add(u0, solution.value), solution.stats["num_steps"], self.tol, self.rtol)


class RootFind(AbstractRelaxation):
    """`F(u) = 0` by a root finder of Optimistix, such as `optimistix.Newton`, `Dogleg` or `LevenbergMarquardt`, whose
    linear solver may be any of Lineax. Complex states are pairs of real numbers.

    The result is judged by the measured residual, under `tol` and `rtol` as for `AbstractIteration`.
    """

    solver: optx.AbstractRootFinder | optx.AbstractLeastSquaresSolver
    tol: float = 1e-6
    rtol: float = 1e-2
    max_steps: int = 100
    reverse_differentiable: ClassVar[bool] = False

    def __check_init__(self):
        check_tolerance(self, self.tol, self.max_steps)

    def __call__(
        self, drift: Drift, u0: AnyState, *, blocks: Blocks | None = None, key: PRNGKeyArray | None = None
    ) -> Solution:
        del blocks, key
        force = lambda y, args: _tree.to_pairs(drift(_tree.from_pairs(y, u0)))
        start = _tree.to_pairs(u0)
        found = optx.root_find(force, self.solver, start, max_steps=self.max_steps, throw=False)
        return _judged(drift, u0, _tree.from_pairs(found.value, u0), found.stats["num_steps"], self.tol, self.rtol)


def _judged(drift: Drift, u0: AnyState, u: AnyState, num_steps: object, tol: float, rtol: float) -> Solution:
    residual, excess = measure(u, u0, dict(enumerate(jax.tree.leaves(drift(u)))), tol, rtol)
    finite = jnp.isfinite(residual)
    unsettled = RESULTS.where(finite, RESULTS.max_steps_reached, RESULTS.diverged)
    result = RESULTS.where(excess <= 1, RESULTS.successful, unsettled)
    return Solution(_tree.where(finite, u, u0), residual, jnp.asarray(num_steps, jnp.int32), result)
