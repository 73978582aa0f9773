"""One training step: relax, respond, one gradient of a mean of scalars, optax."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree, Scalar

from eqprop import _tree, metrics
from eqprop._solution import RESULTS, Solution
from eqprop._tree import AnyState
from eqprop.alignment import alignment
from eqprop.coarse import CoarsePhase
from eqprop.device import AbstractSubstrate
from eqprop.estimator import AbstractErrorEstimator, AbstractEstimator, Response
from eqprop.homeostasis import AbstractHomeostasis, mean_penalty
from eqprop.model import Model, checked
from eqprop.network import Field
from eqprop.readout import Batch as Batch, is_valid
from eqprop.relaxation import AbstractRelaxation, allowed, until_rounding
from eqprop.state import TrainState as TrainState

Metrics = dict[str, Float[Array, ""]]
"""Scalars by name, averages over a batch unless the name says otherwise."""


class Trainer(eqx.Module):
    """Training by relaxation. `gradient`, `step` and `evaluate` are pure, to be jitted by the caller:

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
    are left out of the mean, and not nudged where the free phase failed; they are counted either way, and one that
    diverged never takes part."""
    warm_start: int = eqx.field(static=True, default=0)
    """Steps at the beginning in which homeostasis acts alone. Error vectors that independent feedback weights carry
    have no direction yet, and deep networks take harm from them. The optimiser then starts anew: moments of the
    penalty's gradient, which is large at first, would hold the task's back for as long as it remembers."""
    substrate: AbstractSubstrate | None = None
    """The device that the network runs on: its dynamics in free and nudged phases, its measurement in the estimator and
    in predictions, its writes at the end of the optimiser's chain. Models given and returned hold the nominal
    parameters."""

    def __check_init__(self):
        if not isinstance(self.warm_start, int) or self.warm_start < 0:
            raise ValueError(f"warm_start is {self.warm_start}; expected a number of steps, 0 or more.")
        if self.substrate is not None:
            self.substrate.equip(self.estimator)  # refuses what does not go together

    def on(self, substrate: AbstractSubstrate | None) -> "Trainer":
        """This trainer with the network on that device.

        **Raises:** `ValueError` if device and estimator do not go together.
        """
        return dataclasses.replace(self, substrate=substrate)

    def init(self, model: Model, *, key: PRNGKeyArray) -> TrainState:
        """A state to start from.

        **Raises:** `ValueError` if estimator, homeostasis, optimiser and network do not go together.
        """
        device = eqx.filter_eval_shape(self.deployed, model)
        self._estimator.check(device.network)
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
        """One update from a batch; metrics are those before it (see `gradient`). A step whose gradient is to be
        skipped changes nothing.

        **Raises:** `ValueError` as `gradient` does.
        """
        state, key = self._begun(state), jax.random.fold_in(state.key, state.step)
        task = (state.step >= self.warm_start).astype(float) if self.warm_start else None
        gradient, measured = self._gradient(state.model, batch, key, task)
        params, write_key = eqx.filter(state.model, eqx.is_inexact_array), jax.random.split(key, 5)[4]
        updates, optimiser = self._update(gradient, state.optimiser, params, measured["loss"], write_key)
        updated = measured["skipped_steps"] == 0
        return state.advanced(updated, eqx.apply_updates(state.model, updates), optimiser), measured

    def gradient(self, model: Model, batch: Batch, *, key: PRNGKeyArray) -> tuple[Model, Metrics]:
        """The estimate of the gradient over a batch, with the structure of the model's parameters, and what was
        measured on the way.

        `loss` and the gradient are means over the examples that take part, `usable_fraction` of the batch: those that
        settled in all phases and have a valid target. What the readout measures is over all with a valid target,
        `bounded_fraction`, `free_steps` and `nudged_steps` over all. Where no example takes part, and homeostasis needs
        one, the gradient is zero and `skipped_steps` is 1, as for a gradient that is not finite.

        **Raises:** `ValueError` for an empty batch, or for classes out of range where they can be seen.
        """
        return self._gradient(model, batch, key, None)

    def _gradient(
        self, model: Model, batch: Batch, key: PRNGKeyArray, task_weight: Array | None
    ) -> tuple[Model, Metrics]:
        x, y = checked(model, batch)
        size = x.shape[0]
        free_key, respond_key, homeostasis_key, share_key = jax.random.split(key, 4)
        device = self.deployed(model)
        currents = jax.vmap(device.network.embed)(x)
        free = self._free(device, x, currents, free_key)
        response = self._respond(device, currents, y, free, jax.random.split(respond_key, size))
        losses, measures, valid = self._scores(device, response.state, y)
        settled, usable = self._judge(free, response)
        usable = usable & valid
        any_usable = jnp.any(usable)
        # A copy of one that takes part stands where an example is left out: whatever is not a number in it, input,
        # target or state, meets no parameter on any road.
        kept = jnp.where(usable, jnp.arange(size), jnp.argmax(usable))
        x, y, taken = jax.tree.map(lambda v: jnp.where(any_usable, v[kept], jnp.zeros_like(v)), (x, y, response))

        def objective(nominal: Model) -> tuple[Scalar, Scalar]:
            model = self.deployed(nominal)
            surrogates = jax.vmap(lambda x, y, r: self._estimator.surrogate(model.at(x, y), r))(x, y, taken)
            task, penalty = metrics.mean(surrogates, usable), jnp.zeros((), surrogates.dtype)
            task = task if task_weight is None else task_weight.astype(task.dtype) * task
            if self.homeostasis is None:
                return task, penalty
            penalty = mean_penalty(
                self.homeostasis, model.network, x, taken.state, usable, choose=share_key, key=homeostasis_key
            )
            return task + self.homeostasis.coefficient * penalty, penalty

        gradient, penalty = eqx.filter_grad(objective, has_aux=True)(model)
        always = self.homeostasis is not None and not self.homeostasis.depends_on_state
        good = (any_usable | always) & jnp.isfinite(_tree.norm(gradient))
        gradient = _tree.where(good, gradient, _tree.zeros_like(gradient))
        dtype = losses.dtype
        measured = {
            "loss": metrics.mean(losses, usable),
            **{name: metrics.mean(values, valid) for name, values in measures.items()},
            "homeostasis": penalty,
            "gradient_norm": _tree.norm(gradient),
            "unsettled_fraction": jnp.mean(~settled, dtype=dtype),
            "usable_fraction": jnp.mean(usable, dtype=dtype),
            "invalid_fraction": jnp.mean(~valid, dtype=dtype),
            "bounded_fraction": jnp.mean(response.bounded, dtype=dtype),
            "skipped_steps": ~good,
            "free_steps": jnp.mean(free.num_steps, dtype=dtype),
            "nudged_steps": jnp.mean(response.num_steps, dtype=dtype),
        }
        return gradient, {name: value.astype(dtype) for name, value in measured.items()}

    def deployed(self, model: Model) -> Model:
        """The model as the substrate realises it; without one, itself."""
        return model if self.substrate is None else self.substrate.deploy(model)

    def evaluate(self, model: Model, batch: Batch, *, key: PRNGKeyArray | None = None) -> Metrics:
        """Loss, what the readout measures, residual quantiles, unsettled fraction and steps of the free phase, from
        rates as the device reads them. Averages over several batches go through `model.readout.summary`.

        Every example with a valid target counts, settled or not; one whose scores are not finite is wrong. `key` is of
        the device's noise, by default the same at every call.

        **Raises:** `ValueError` as `gradient` does.
        """
        x, y = checked(model, batch)
        device = self.deployed(model)
        relax_key, read_key = jax.random.split(jax.random.key(0) if key is None else key)
        free = self._relax(device, x, jax.vmap(device.network.embed)(x), relax_key)
        losses, measures, valid = self._scores(device, free.state, y, read_key)
        dtype = losses.dtype
        return {
            "loss": metrics.mean(losses, valid),
            **{name: metrics.mean(values, valid) for name, values in measures.items()},
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
        currents = jax.vmap(device.network.embed)(x)
        free = self._free(device, x, currents, free_key)
        reference, usable = until_rounding(self.relaxation), lambda response: self._judge(free, response)[1]
        models = device, device if self.substrate is None else self.substrate.nudge(device)
        return alignment(models, currents, y, free, estimator, reference=reference, usable=usable, key=align_key)

    def _begun(self, state: TrainState) -> TrainState:
        """The state with a new optimiser where a warm start has ended."""
        if not self.warm_start:
            return state
        new = self._rule.init(eqx.filter(state.model, eqx.is_inexact_array))
        begins = state.step == self.warm_start
        return TrainState(state.model, _tree.where(begins, new, state.optimiser), state.key, state.step)

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

    def _free(self, model: Model, x: Array, currents: PyTree, key: PRNGKeyArray) -> Solution:
        """The free phase; for an estimator that needs none, only where to start."""
        if self.estimator.needs_free_phase:
            return self._relax(model, x, currents, key)

        def start(current: PyTree) -> Solution:
            field = Field(model.network, current)
            u0 = field.initial_state()
            return Solution(u0, _tree.max_norm(field.drift(u0)), jnp.zeros((), jnp.int32), RESULTS.successful)

        return eqx.filter_vmap(start)(currents)

    def _relax(self, model: Model, x: Array, currents: PyTree, key: PRNGKeyArray) -> Solution:
        own = None if self.substrate is None else self.substrate.flow
        relaxation = self.relaxation if own is None else own

        def one(x: Array, current: PyTree, key: PRNGKeyArray) -> Solution:
            field = Field(model.network, current)
            if self.coarse is None:
                return relaxation(field.drift, field.initial_state(), blocks=field.blocks, key=key)
            begun = self.coarse(model, x, key=jax.random.fold_in(key, 1))
            solution = relaxation(field.drift, begun.state, blocks=field.blocks, key=key)
            return eqx.tree_at(lambda s: s.num_steps, solution, begun.num_steps + solution.num_steps)

        return eqx.filter_vmap(one)(x, currents, jax.random.split(key, x.shape[0]))

    def _respond(self, device: Model, currents: PyTree, y: Array, free: Solution, keys: Array) -> Response:
        model = device if self.substrate is None else self.substrate.nudge(device)

        def one(current: PyTree, y: Array, free: Solution, key: PRNGKeyArray) -> Response:
            estimator = self._estimator
            if not self.keep_unsettled:
                estimator = allowed(estimator, free.result == RESULTS.successful)
            return estimator.respond(model.bind(current, y), free, key=key)

        return eqx.filter_vmap(one)(currents, y, free, keys)

    def _judge(self, free: Solution, response: Response) -> tuple[Array, Array]:
        """Which examples settled in all phases, and which take part in the gradient."""
        settled = (free.result == RESULTS.successful) & (response.result == RESULTS.successful)
        diverged = (free.result == RESULTS.diverged) | (response.result == RESULTS.diverged)
        return settled, ~diverged if self.keep_unsettled else settled

    def _scores(
        self, model: Model, u: AnyState, y: Array, key: PRNGKeyArray | None = None
    ) -> tuple[Array, dict[str, Array], Array]:
        """Loss, what the readout measures, and whether the target is one, by example; with `key`, from rates as they
        are read."""
        reading = None if self.substrate is None or key is None else self.substrate.readings()

        def one(u: AnyState, y: Array, key: PRNGKeyArray | None) -> tuple[Array, dict[str, Array], Array]:
            s = model.network.rates(u)
            s = s if reading is None else reading(s, phase=0, key=key)
            scores = model.readout.predict(s)
            return model.readout.loss(s, y), model.readout.measures(scores, y), is_valid(y, scores.size)

        return eqx.filter_vmap(one)(u, y, None if key is None else jax.random.split(key, y.shape[0]))
