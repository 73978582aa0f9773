"""One training step: relax, respond, one gradient of a mean of scalars, optax."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Scalar

from eqprop import _tree, metrics
from eqprop._compaction import compacted
from eqprop._solution import RESULTS, Solution
from eqprop._tree import AnyState
from eqprop.coarse import CoarsePhase
from eqprop.estimator import AbstractErrorEstimator, AbstractEstimator, RecurrentBackprop, Response
from eqprop.homeostasis import AbstractHomeostasis
from eqprop.readout import Model
from eqprop.relaxation import AbstractRelaxation, until_rounding
from eqprop.substrate.stack import Substrate

Batch = tuple[Float[Array, "batch ..."], Array]
"""Inputs, and targets: class numbers `(batch,)` or vectors `(batch, classes)`."""

Metrics = dict[str, Float[Array, ""]]
"""Scalars by name, averages over a batch unless the name says otherwise."""


class TrainState(eqx.Module):
    """All that a training step reads and writes."""

    model: Model
    optimiser: optax.OptState
    key: PRNGKeyArray
    step: Int[Array, ""]


class Trainer(eqx.Module):
    """Training by relaxation. `step` and `evaluate` are pure, to be jitted by the caller:

        trainer = Trainer(relaxation, estimator, optax.adam(1e-3))
        state = trainer.init(model, key=key)
        state, metrics = eqx.filter_jit(trainer.step)(state, (x, y))

    A population is `eqx.filter_vmap` over a state with a leading axis; a member equals the same run alone.
    """

    relaxation: AbstractRelaxation
    """Relaxes the free phase."""
    estimator: AbstractEstimator
    optimiser: optax.GradientTransformation = eqx.field(static=True)
    homeostasis: AbstractHomeostasis | None = None
    coarse: CoarsePhase | None = None
    """A half-precision beginning of the free phase."""
    keep_unsettled: bool = eqx.field(static=True, default=False)
    """Whether examples that did not settle take part in the gradient, as in the published schedule. Otherwise they
    are left out of the mean; they are counted either way, and one that diverged never takes part."""
    substrate: Substrate | None = None
    """What the network runs on; put here by `on`. Models given and returned hold the nominal parameters."""
    patience: int | None = eqx.field(static=True, default=8)
    """Steps after which examples that have not settled leave their batch and relax on in smaller and smaller groups, so
    that a few slow ones do not hold up all. Relaxations without `max_steps` ignore it; `None`: all wait."""

    def __check_init__(self):
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"patience is {self.patience}; expected a number of steps, 1 or more, or None.")

    def on(self, substrate: Substrate | None) -> "Trainer":
        """This trainer with the network on a device: its dynamics in free and nudged phases, its measurement in the
        estimator, its writes at the end of the optimiser's chain.

        **Raises:** `ValueError` if device and estimator do not go together.
        """
        if substrate is None:
            return self
        writes = substrate.writes()
        return dataclasses.replace(
            self,
            substrate=substrate,
            relaxation=self.relaxation if substrate.flow is None else substrate.flow,
            estimator=substrate.equip(self.estimator),
            optimiser=self.optimiser if writes is None else optax.chain(self.optimiser, writes),
        )

    def init(self, model: Model, *, key: PRNGKeyArray) -> TrainState:
        """A state to start from.

        **Raises:** `ValueError` if estimator, homeostasis and network do not go together.
        """
        device = eqx.filter_eval_shape(self.deployed, model)
        self.estimator.check(device)
        if self.homeostasis is not None:
            self.homeostasis.check(device.network)
        optimiser = self.optimiser.init(eqx.filter(model, eqx.is_inexact_array))
        return TrainState(model, optimiser, key, jnp.zeros((), jnp.int32))

    def step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """One update from a batch; metrics are those before it."""
        x, y = batch
        model = state.model
        key = jax.random.fold_in(state.key, state.step)
        respond_key, homeostasis_key = jax.random.split(key)
        free_key, write_key = jax.random.split(jax.random.fold_in(key, 2))
        device = self.deployed(model)
        free = self.free_phase(device, x, key=free_key)
        response = self._respond(device, x, y, free, jax.random.split(respond_key, x.shape[0]))
        settled, usable = self._judge(free, response)
        # Zeros stand where an example is left out, so that nothing of it, not even a NaN, meets the gradient.
        response = jax.vmap(lambda ok, r: eqx.tree_at(lambda r: (r.state, r.payload), r, _masked(ok, r)))(
            usable, response
        )

        def objective(nominal: Model) -> tuple[Scalar, Scalar]:
            model = self.deployed(nominal)
            surrogates = jax.vmap(lambda x, y, r: self.estimator.surrogate(model, x, y, r))(x, y, response)
            task = _mean(surrogates, usable)
            penalty, weight = jnp.zeros_like(task), 0.0
            if self.homeostasis is not None:
                penalties = jax.vmap(lambda u, key: self._homeostasis(model, u, key))(
                    response.state, jax.random.split(homeostasis_key, x.shape[0])
                )
                penalty = _mean(penalties, usable)
                weight = self.homeostasis.coefficient
            return task + weight * penalty, penalty

        gradient, penalty = eqx.filter_grad(objective, has_aux=True)(model)
        rule = optax.with_extra_args_support(self.optimiser)
        params = eqx.filter(model, eqx.is_inexact_array)
        updates, optimiser = rule.update(gradient, state.optimiser, params, key=write_key)
        losses, correct, _ = self._scores(device, response.state, y)
        dtype = losses.dtype
        measured = {
            "loss": _mean(losses, usable),
            "accuracy": _mean(correct.astype(dtype), usable),
            "homeostasis": penalty,
            "gradient_norm": _tree.norm(gradient),
            "unsettled_fraction": jnp.mean(~settled, dtype=dtype),
            "bounded_fraction": jnp.mean(response.bounded, dtype=dtype),
            "free_steps": jnp.mean(free.num_steps, dtype=dtype),
            "nudged_steps": jnp.mean(response.num_steps, dtype=dtype),
        }
        new = TrainState(eqx.apply_updates(model, updates), optimiser, state.key, state.step + 1)
        return new, {name: value.astype(dtype) for name, value in measured.items()}

    def deployed(self, model: Model) -> Model:
        """The model as the substrate realises it; without one, itself."""
        return model if self.substrate is None else self.substrate.deploy(model)

    def evaluate(self, model: Model, batch: Batch, *, key: PRNGKeyArray | None = None) -> Metrics:
        """Loss, accuracy, top-5, residual quantiles, unsettled fraction and steps of the free phase.

        Every example counts, settled or not; one whose scores are not finite is wrong. `key` is of the device's noise,
        by default the same at every call.
        """
        x, y = batch
        device = self.deployed(model)
        free = self._relax(device, x, jax.random.key(0) if key is None else key)
        losses, top1, top5 = self._scores(device, free.state, y)
        dtype = losses.dtype
        return {
            "loss": jnp.mean(losses),
            "accuracy": jnp.mean(top1, dtype=dtype),
            "top5": jnp.mean(top5, dtype=dtype),
            "unsettled_fraction": jnp.mean(free.result != RESULTS.successful, dtype=dtype),
            "free_steps": jnp.mean(free.num_steps, dtype=dtype),
            **metrics.residual_quantiles(free.residual),
        }

    def alignment(self, model: Model, batch: Batch, *, key: PRNGKeyArray) -> Metrics:
        """Cosine of the estimator's error vectors to the true ones, for each layer and over the hidden layers, averaged
        over the examples that take part in the gradient; and the functional asymmetry of the network, with its weight
        angle in degrees if it has reciprocal pairs of kernels.

        The truth is recurrent backpropagation at the fixed point, both relaxed until rounding whatever this trainer's
        own relaxations are; an example that has no such fixed point within reach is left out. On a substrate, it is the
        truth of the deployed network, without errors of nudge and measurement.

        **Raises:** `ValueError` if the estimator has no error vectors.
        """
        if not isinstance(self.estimator, AbstractErrorEstimator):
            raise ValueError(f"{type(self.estimator).__name__} estimates no error vector to compare.")
        x, y = batch
        model = self.deployed(model)
        nudged = self._nudged(model)
        free = self.free_phase(model, x, key=jax.random.fold_in(key, 1))

        def compare(x: Array, y: Array, free: Solution, key: PRNGKeyArray):
            response = self.estimator.respond(nudged, x, y, free, key=key)
            settle = until_rounding(free.state, self.relaxation)
            settled = settle(model.free_drift(x), free.state)
            true = RecurrentBackprop(relaxation=settle).respond(model, x, y, settled, key=key)
            known = (settled.result == RESULTS.successful) & (true.result == RESULTS.successful)
            cosines = metrics.layer_cosines(response.payload, true.payload, model.readout.layer)
            return cosines, response, known, settled.state

        keys = jax.random.split(key, x.shape[0])
        cosines, response, known, states = eqx.filter_vmap(compare)(x, y, free, keys)
        usable = known & self._judge(free, response)[1]
        averages = {f"cosine_{name}": _mean(values, usable) for name, values in cosines.items()}
        first = jax.tree.map(lambda leaf: leaf[0], states)
        averages["functional_asymmetry"] = metrics.functional_asymmetry(model.network, first, key=key)
        if metrics.reciprocal_pairs(model.network):
            averages["weight_angle"] = metrics.weight_angle(model.network)
        return averages

    def free_phase(self, model: Model, x: Float[Array, "batch ..."], *, key: PRNGKeyArray | None = None) -> Solution:
        """The free phase of a batch on a model as it is deployed; for an estimator that needs none, only where to
        start. `key` is split over the examples, for relaxations with noise."""
        if self.estimator.needs_free_phase:
            return self._relax(model, x, key)

        def start(x: Array) -> Solution:
            u0 = model.initial_state(x)
            zero = jnp.zeros((), jnp.int32)
            return Solution(u0, _tree.norm(model.free_drift(x)(u0)), zero, RESULTS.successful)

        return eqx.filter_vmap(start)(x)

    def _nudged(self, device: Model) -> Model:
        return device if self.substrate is None else self.substrate.nudge(device)

    def _relax(self, model: Model, x: Array, key: PRNGKeyArray | None) -> Solution:
        start = eqx.filter_vmap(
            lambda x: Model.initial_state(model, x) if self.coarse is None else self.coarse(model, x)
        )
        examples = x, start(x), None if key is None else jax.random.split(key, x.shape[0])
        steps = getattr(self.relaxation, "max_steps", None)
        if self.patience is None or steps is None:
            return eqx.filter_vmap(lambda x, u, k: self.relaxation(model.free_drift(x), u, key=k))(*examples)

        def relax(example: tuple[Array, AnyState, PRNGKeyArray | None], budget: int, spent: int) -> Solution:
            x, u, key = example
            key = None if key is None else jax.random.fold_in(key, spent)  # it goes on, with noise of its own
            return _with_steps(self.relaxation, budget - spent)(model.free_drift(x), u, key=key)

        return compacted(
            relax,
            examples,
            patience=self.patience,
            max_steps=steps,
            carry_on=lambda e, reached: (e[0], reached.state, e[2]),
        )

    def _respond(self, device: Model, x: Array, y: Array, free: Solution, keys: Array) -> Response:
        model = self._nudged(device)
        relaxation = getattr(self.estimator, "relaxation", None)
        steps = getattr(relaxation, "max_steps", None)
        if self.patience is None or steps is None:
            return eqx.filter_vmap(lambda x, y, f, k: self.estimator.respond(model, x, y, f, key=k))(x, y, free, keys)

        def respond(example: tuple[Array, Array, Solution, Array], budget: int, spent: int) -> Response:
            x, y, free, key = example  # from the free phase again: an estimator does not say where it had got to
            estimator = dataclasses.replace(self.estimator, relaxation=_with_steps(relaxation, budget))  # pyright: ignore
            return estimator.respond(model, x, y, free, key=key)

        examples = x, y, free, keys
        return compacted(
            respond, examples, patience=self.patience, max_steps=steps, carry_on=lambda example, _: example
        )

    def _judge(self, free: Solution, response: Response) -> tuple[Array, Array]:
        """Which examples settled in all phases, and which take part in the gradient."""
        settled = (free.result == RESULTS.successful) & (response.result == RESULTS.successful)
        diverged = (free.result == RESULTS.diverged) | (response.result == RESULTS.diverged)
        return settled, ~diverged if self.keep_unsettled else settled

    def _homeostasis(self, model: Model, u: AnyState, key: PRNGKeyArray) -> Scalar:
        assert self.homeostasis is not None
        return self.homeostasis(model.network, jax.lax.stop_gradient(u), key=key)

    def _scores(self, model: Model, u: AnyState, y: Array) -> tuple[Array, Array, Array]:
        def one(u: AnyState, y: Array) -> tuple[Array, Array, Array]:
            s = model.network.rates(u)
            scores = model.readout.predict(s)
            return model.readout.loss(s, y), metrics.correct(scores, y), metrics.correct(scores, y, k=5)

        return jax.vmap(one)(u, y)


def _with_steps(relaxation: AbstractRelaxation, max_steps: int) -> AbstractRelaxation:
    return dataclasses.replace(relaxation, max_steps=max_steps)  # pyright: ignore


def _mean(values: Float[Array, " batch"], usable: Bool[Array, " batch"]) -> Scalar:
    """The mean over usable examples, zero if there is none."""
    return jnp.sum(jnp.where(usable, values, 0.0)) / jnp.maximum(jnp.sum(usable, dtype=values.dtype), 1.0)


def _masked(usable: Array, response: Response) -> tuple:
    kept = (response.state, response.payload)
    return jax.tree.map(lambda leaf: jnp.where(usable, leaf, jnp.zeros_like(leaf)), kept)
