"""One training step: relax, respond, one gradient of a mean of scalars, optax."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, Scalar, Shaped

from eqprop import _tree, metrics
from eqprop._solution import RESULTS, Solution
from eqprop._tree import AnyState
from eqprop.alignment import alignment
from eqprop.coarse import CoarsePhase
from eqprop.estimator import AbstractErrorEstimator, AbstractEstimator, Response
from eqprop.homeostasis import AbstractHomeostasis
from eqprop.readout import Batch as Batch, Model, checked, is_valid
from eqprop.relaxation import AbstractRelaxation, until_rounding
from eqprop.state import TrainState as TrainState
from eqprop.substrate.stack import Substrate

Metrics = dict[str, Float[Array, ""]]
"""Scalars by name, averages over a batch unless the name says otherwise."""


class Trainer(eqx.Module):
    """Training by relaxation. `step` and `evaluate` are pure, to be jitted by the caller:

        trainer = Trainer(relaxation, estimator, optax.adam(1e-3))
        state = trainer.init(model, key=key)
        state, metrics = eqx.filter_jit(trainer.step)(state, (x, y))

    A population is `eqx.filter_vmap` over a state with a leading axis; a member equals the same run alone.
    """

    relaxation: AbstractRelaxation
    """Relaxes the free phase, unless a substrate has a relaxation of its own."""
    estimator: AbstractEstimator
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    homeostasis: AbstractHomeostasis | None = None
    coarse: CoarsePhase | None = None
    """A half-precision beginning of the free phase."""
    keep_unsettled: bool = eqx.field(static=True, default=False)
    """Whether examples that did not settle take part in the gradient, as in the published schedule. Otherwise they
    are left out of the mean; they are counted either way, and one that diverged never takes part."""
    warm_start: int = eqx.field(static=True, default=0)
    """Steps at the beginning in which homeostasis acts alone. Error vectors that independent feedback weights carry
    have no direction yet, and deep networks take harm from them."""
    substrate: Substrate | None = None
    """The device that the network runs on: its dynamics in free and nudged phases, its measurement in the estimator and
    in predictions, its writes at the end of the optimiser's chain. Models given and returned hold the nominal
    parameters."""

    def __check_init__(self):
        if not isinstance(self.warm_start, int) or self.warm_start < 0:
            raise ValueError(f"warm_start is {self.warm_start}; expected a number of steps, 0 or more.")
        if self.substrate is not None:
            self.substrate.equip(self.estimator)  # refuses what does not go together

    def on(self, substrate: Substrate | None) -> "Trainer":
        """This trainer with the network on that device.

        **Raises:** `ValueError` if device and estimator do not go together.
        """
        return dataclasses.replace(self, substrate=substrate)

    def init(self, model: Model, *, key: PRNGKeyArray) -> TrainState:
        """A state to start from.

        **Raises:** `ValueError` if estimator, homeostasis, optimiser and network do not go together.
        """
        device = eqx.filter_eval_shape(self.deployed, model)
        self._estimator.check(device)
        if self.homeostasis is not None:
            self.homeostasis.check(device.network)
        params = eqx.filter(model, eqx.is_inexact_array)
        optimiser = self._rule.init(params)
        try:
            eqx.filter_eval_shape(self._update, params, optimiser, params, jnp.zeros(()), key)
        except TypeError as error:
            raise ValueError(
                "The optimiser asks for more than a step has, which is the gradient, the loss (value) and a key: "
                f"{error}. Rules that evaluate an objective again, such as optax.lbfgs, do not fit."
            ) from error
        return TrainState(model, optimiser, key, jnp.zeros((), jnp.int32))

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One update from a batch; metrics are those before it.

        `loss` and the gradient are means over the examples that take part, `usable_fraction` of the batch: those that
        settled in all phases and have a valid target. `accuracy` is over all examples with a valid target,
        `bounded_fraction`, `free_steps` and `nudged_steps` over all. A step in which no example takes part changes
        nothing, unless homeostasis needs none.

        **Raises:** `ValueError` for an empty batch, or for classes out of range where they can be seen.
        """
        model = state.model
        x, y = checked(model, batch)
        size = x.shape[0]
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 5)
        free_key, respond_key, homeostasis_key, share_key, write_key = keys
        device = self.deployed(model)
        free = self.free_phase(device, x, key=free_key)
        response = self._respond(device, x, y, free, jax.random.split(respond_key, size))
        losses, correct, _, valid = self._scores(device, response.state, y)
        settled, usable = self._judge(free, response)
        usable = usable & valid
        any_usable = jnp.any(usable)
        # A copy of one that takes part stands where an example is left out: whatever is not a number in it, input,
        # target or state, meets no parameter on any road.
        kept = jnp.where(usable, jnp.arange(size), jnp.argmax(usable))
        x, y, response = jax.tree.map(lambda v: jnp.where(any_usable, v[kept], jnp.zeros_like(v)), (x, y, response))

        def objective(nominal: Model) -> tuple[Scalar, Scalar]:
            model = self.deployed(nominal)
            surrogates = jax.vmap(lambda x, y, r: self._estimator.surrogate(model, x, y, r))(x, y, response)
            task, penalty = metrics.mean(surrogates, usable), jnp.zeros((), surrogates.dtype)
            task = jnp.where(state.step < self.warm_start, 0.0, task) if self.warm_start else task
            if self.homeostasis is None:
                return task, penalty
            penalty = self._penalty(model, response.state, usable, share_key, homeostasis_key)
            return task + self.homeostasis.coefficient * penalty, penalty

        gradient, penalty = eqx.filter_grad(objective, has_aux=True)(model)
        always = self.homeostasis is not None and not self.homeostasis.depends_on_state
        updated = (any_usable | always) & jnp.isfinite(_tree.norm(gradient))
        gradient = _tree.where(updated, gradient, _tree.zeros_like(gradient))
        params, loss = eqx.filter(model, eqx.is_inexact_array), metrics.mean(losses, usable)
        updates, optimiser = self._update(gradient, state.optimiser, params, loss, write_key)
        new = state.advanced(updated, eqx.apply_updates(model, updates), optimiser)
        dtype = losses.dtype
        measured = {
            "loss": loss,
            "accuracy": metrics.mean(correct.astype(dtype), valid),
            "homeostasis": penalty,
            "gradient_norm": _tree.norm(gradient),
            "unsettled_fraction": jnp.mean(~settled, dtype=dtype),
            "usable_fraction": jnp.mean(usable, dtype=dtype),
            "invalid_fraction": jnp.mean(~valid, dtype=dtype),
            "bounded_fraction": jnp.mean(response.bounded, dtype=dtype),
            "skipped_steps": (~updated).astype(dtype),
            "free_steps": jnp.mean(free.num_steps, dtype=dtype),
            "nudged_steps": jnp.mean(response.num_steps, dtype=dtype),
        }
        return new, {name: value.astype(dtype) for name, value in measured.items()}

    def deployed(self, model: Model) -> Model:
        """The model as the substrate realises it; without one, itself."""
        return model if self.substrate is None else self.substrate.deploy(model)

    def evaluate(self, model: Model, batch: Batch, *, key: PRNGKeyArray | None = None) -> Metrics:
        """Loss, accuracy, top-5, residual quantiles, unsettled fraction and steps of the free phase, from rates as the
        device reads them.

        Every example with a valid target counts, settled or not; one whose scores are not finite is wrong. `key` is of
        the device's noise, by default the same at every call.

        **Raises:** `ValueError` as `step` does.
        """
        x, y = checked(model, batch)
        device = self.deployed(model)
        relax_key, read_key = jax.random.split(jax.random.key(0) if key is None else key)
        free = self._relax(device, x, relax_key)
        losses, top1, top5, valid = self._scores(device, free.state, y, read_key)
        dtype = losses.dtype
        return {
            "loss": metrics.mean(losses, valid),
            "accuracy": metrics.mean(top1.astype(dtype), valid),
            "top5": metrics.mean(top5.astype(dtype), valid),
            "unsettled_fraction": jnp.mean(free.result != RESULTS.successful, dtype=dtype),
            "invalid_fraction": jnp.mean(~valid, dtype=dtype),
            "free_steps": jnp.mean(free.num_steps, dtype=dtype),
            **metrics.residual_quantiles(free.residual),
        }

    def alignment(self, model: Model, batch: Batch, *, key: PRNGKeyArray) -> Metrics:
        """Cosine of the estimator's error vectors to the true ones, for each layer and over the hidden layers, averaged
        over the examples that take part in the gradient; and the functional asymmetry of the network, with its weight
        angle in degrees if it has reciprocal pairs of kernels.

        The truth is recurrent backpropagation at the fixed point, both relaxed until rounding whatever this trainer's
        own relaxations are; an example that has no such fixed point within reach is left out. On a substrate, it is the
        truth of the deployed network, without errors of nudge and measurement. A layer in which either vector vanishes
        has no cosine: `vanished_fraction` of the examples have such a layer.

        **Raises:** `ValueError` if the estimator has no error vectors.
        """
        estimator = self._estimator
        if not isinstance(estimator, AbstractErrorEstimator):
            raise ValueError(f"{type(estimator).__name__} estimates no error vector to compare.")
        x, y = checked(model, batch)
        free_key, align_key = jax.random.split(key)
        device = self.deployed(model)
        free = self.free_phase(device, x, key=free_key)
        reference, usable = until_rounding(self.relaxation), lambda response: self._judge(free, response)[1]
        models = device, self._nudged(device)
        return alignment(models, x, y, free, estimator, reference=reference, usable=usable, key=align_key)

    def free_phase(self, model: Model, x: Shaped[Array, "batch ..."], *, key: PRNGKeyArray | None = None) -> Solution:
        """The free phase of a batch on a model as it is deployed; for an estimator that needs none, only where to
        start. `key` is split over the examples, for relaxations with noise."""
        if self.estimator.needs_free_phase:
            return self._relax(model, x, key)

        def start(x: Array) -> Solution:
            u0 = model.initial_state(x)
            zero = jnp.zeros((), jnp.int32)
            return Solution(u0, _tree.max_norm(model.free_drift(x)(u0)), zero, RESULTS.successful)

        return eqx.filter_vmap(start)(x)

    @property
    def _estimator(self) -> AbstractEstimator:
        return self.estimator if self.substrate is None else self.substrate.equip(self.estimator)

    @property
    def _rule(self) -> optax.GradientTransformationExtraArgs:
        writes = None if self.substrate is None else self.substrate.writes()
        rule = self.optimiser if writes is None else optax.chain(self.optimiser, writes)
        return optax.with_extra_args_support(rule)

    def _update(self, gradient: Any, state: optax.OptState, params: Any, loss: Array, key: PRNGKeyArray) -> tuple:
        return self._rule.update(gradient, state, params, value=loss, grad=gradient, key=key)

    def _nudged(self, device: Model) -> Model:
        return device if self.substrate is None else self.substrate.nudge(device)

    def _relax(self, model: Model, x: Array, key: PRNGKeyArray | None) -> Solution:
        own = None if self.substrate is None else self.substrate.flow
        relaxation = self.relaxation if own is None else own

        def one(x: Array, key: PRNGKeyArray | None) -> Solution:
            drift, blocks = model.free_drift(x), model.network.blocks
            if self.coarse is None:
                return relaxation(drift, model.initial_state(x), blocks=blocks, key=key)
            begun = self.coarse(model, x, key=None if key is None else jax.random.fold_in(key, 1))
            solution = relaxation(drift, begun.state, blocks=blocks, key=key)
            return eqx.tree_at(lambda s: s.num_steps, solution, begun.num_steps + solution.num_steps)

        return eqx.filter_vmap(one)(x, None if key is None else jax.random.split(key, x.shape[0]))

    def _respond(self, device: Model, x: Array, y: Array, free: Solution, keys: Array) -> Response:
        model = self._nudged(device)
        return eqx.filter_vmap(lambda x, y, f, k: self._estimator.respond(model, x, y, f, key=k))(x, y, free, keys)

    def _judge(self, free: Solution, response: Response) -> tuple[Array, Array]:
        """Which examples settled in all phases, and which take part in the gradient."""
        settled = (free.result == RESULTS.successful) & (response.result == RESULTS.successful)
        diverged = (free.result == RESULTS.diverged) | (response.result == RESULTS.diverged)
        return settled, ~diverged if self.keep_unsettled else settled

    def _penalty(
        self, model: Model, states: AnyState, usable: Array, choose: PRNGKeyArray, key: PRNGKeyArray
    ) -> Scalar:
        """The mean penalty over the usable examples, estimated from a share of the batch."""
        homeostasis = self.homeostasis
        assert homeostasis is not None
        if not homeostasis.depends_on_state:
            return homeostasis(model.network, jax.tree.map(lambda v: v[0], states), key=key)
        count = math.ceil(homeostasis.share * usable.shape[0])
        # Usable examples come first, in random order.
        draw = jax.random.uniform(choose, usable.shape)
        order = jnp.argsort(jnp.where(usable, draw, draw + 2.0))[:count]
        chosen = jax.lax.stop_gradient(jax.tree.map(lambda v: v[order], states))
        penalties = jax.vmap(lambda u, k: homeostasis(model.network, u, key=k))(chosen, jax.random.split(key, count))
        return metrics.mean(penalties, usable[order])

    def _scores(
        self, model: Model, u: AnyState, y: Array, key: PRNGKeyArray | None = None
    ) -> tuple[Array, Array, Array, Array]:
        """Loss, whether the first and the first five guesses are right, and whether the target is one, by example; with
        `key`, from rates as they are read."""
        probe = None if self.substrate is None or key is None else self.substrate.readings()

        def one(u: AnyState, y: Array, key: PRNGKeyArray | None) -> tuple[Array, Array, Array, Array]:
            s = model.network.rates(u)
            s = s if probe is None else probe(s, phase=0, key=key)
            scores = model.readout.predict(s)
            right = metrics.correct(scores, y), metrics.correct(scores, y, k=5)
            return model.readout.loss(s, y), *right, is_valid(y, scores.size)

        return eqx.filter_vmap(one)(u, y, None if key is None else jax.random.split(key, y.shape[0]))
