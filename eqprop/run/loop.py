"""The training loop: epochs of jitted steps, evaluation, checkpoints, a summary."""

import functools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from omegaconf import DictConfig

from eqprop import AbstractErrorEstimator, Model, Trainer, TrainState
from eqprop.data import Batches, Split, batch_key
from eqprop.fit import grouped
from eqprop.run import checkpoint
from eqprop.run.build import Task
from eqprop.run.cost import COSTS, cost_of
from eqprop.run.errors import Interrupted, Unsettled
from eqprop.run.loggers import Logger
from eqprop.run.population import over_members, population_of
from eqprop.run.progress import Progress
from eqprop.run.provenance import environment
from eqprop.run.record import RunFolder
from eqprop.run.runtime import interruptible

Records = list[dict[str, Any]]
Stack = tuple[np.ndarray, np.ndarray]
"""Images and labels."""


class Programs:
    """The compiled programs of a run, over a population if there is one; compiled once each."""

    def __init__(self, cfg: DictConfig, task: Task):
        preprocess, place = task.preprocess, task.placement
        self.population = cfg.population
        step = over_members(cfg, task.trainer, Trainer.step)
        evaluation = over_members(cfg, task.trainer, Trainer.evaluate)
        alignment = over_members(cfg, task.trainer, functools.partial(Trainer.alignment, key=jax.random.key(0)))

        def advance(state: TrainState, sums: dict, images: Array, labels: Array, keys: Array, count: Array):
            """The first `count` of several batches, without leaving the device in between."""
            arrays, rest = eqx.partition((state, sums), eqx.is_array)

            def one(k: Array, arrays: Any) -> Any:
                state, sums = eqx.combine(arrays, rest)
                batch = preprocess(images[k], key=keys[k]), task.target(labels[k])
                state, metrics = step(state, batch)
                sums = place.everywhere(jax.tree.map(jnp.add, sums, metrics))
                return eqx.filter((state, sums), eqx.is_array)

            # A lone step is no loop, in which XLA would compile convolutions for a CPU to code several times slower.
            alone = len(keys) == 1
            return eqx.combine(one(jnp.int32(0), arrays) if alone else jax.lax.fori_loop(0, count, one, arrays), rest)

        def evaluate(model: Model, images: Array, labels: Array):
            return place.everywhere(evaluation(model, (preprocess(images), labels)))

        def align(model: Model, images: Array, labels: Array):
            return place.everywhere(alignment(model, (preprocess(images), labels)))

        self.advance = eqx.filter_jit(advance, donate="none")
        self.evaluate = eqx.filter_jit(evaluate)
        self.align = eqx.filter_jit(align)
        self._shapes = lambda state, batch: eqx.filter_eval_shape(step, state, batch)[1]
        self._task = task

    def initial(self, seed: int) -> TrainState:
        """The first state: of one run, or of seeds `seed … seed + population − 1` along a leading axis."""
        states = [self._task.initial(seed + member) for member in range(self.population)]
        return states[0] if self.population == 1 else population_of(states)

    def zeros(self, state: TrainState, batch: tuple[np.ndarray, np.ndarray]) -> dict[str, Array]:
        """Sums of metrics to start an epoch from."""
        prepared = self._task.preprocess(batch[0]), self._task.target(jnp.asarray(batch[1]))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self._shapes(state, prepared))


def train(cfg: DictConfig, task: Task, folder: RunFolder, logger: Logger) -> dict[str, Any]:
    """Train, or go on training, and return the summary. The metrics of every epoch go to `logger` too.

    Validation images decide what is best. The test images are measured once, at the end.

    **Raises:** `Unsettled` past `max_unsettled`; `Interrupted` after Ctrl-C, SIGTERM or SIGUSR1, when all is saved.
    """
    began = saved = time.monotonic()
    programs = Programs(cfg, task)
    folder.begin(environment(cfg, task.dataset.checksums))
    state = programs.initial(cfg.seed)
    sums = zeros = programs.zeros(state, next(task.batches.epoch(0)))
    head: dict[str, Any] = {"position": 0, "records": [], "seconds": 0.0, "best": -np.inf}
    restored = folder.restore((state, sums))
    if restored is not None:
        (state, sums), head = restored
        _check_settled(cfg, head["records"][-1])
    state, sums, zeros = (task.placement.state(state), *task.placement.state((sums, zeros)))
    if not head["records"]:
        head["records"].append({"epoch": 0, **_diagnose(cfg, task, programs, state.model)})
    batches = len(task.batches)
    reached, first = divmod(head["position"], batches)
    progress = Progress(cfg.epochs, batches, cfg.batch_size * cfg.population, done=head["position"])
    if restored is not None:
        progress.say(f"resuming {folder.path} at epoch {reached + 1}, batch {first + 1}")
    clock = began - head["seconds"]
    calls = cfg.run.steps_per_call or grouped(state.model.network, 10)
    calls = calls if cfg.run.checkpoint_minutes else 1

    def save(best: bool = False) -> None:
        nonlocal saved
        folder.save(task.placement.gather((state, sums)), {**head, "seconds": time.monotonic() - clock}, best=best)
        saved = time.monotonic()

    with interruptible() as request, progress:
        for epoch in range(reached, cfg.epochs):
            number = first
            for images, labels, count in stacked(task.batches.epoch(epoch, start=first), calls):
                keys = jnp.stack(
                    [batch_key(cfg.data.seed, epoch, number + 1 + min(k, count - 1)) for k in range(calls)]
                )
                several = task.placement.batches(images, labels)
                state, sums = programs.advance(state, sums, *several, keys, jnp.int32(count))
                number, head["position"] = number + count, head["position"] + count
                progress.compiled(head["position"])
                if progress.due():
                    progress.update(epoch, number, _means(sums, number))
                if number == batches:
                    break  # the epoch's end saves below
                if request.signal or time.monotonic() - saved > 60 * cfg.run.checkpoint_minutes:
                    save()
                if request.signal:
                    raise _interrupted(request.signal, folder)
            means = state.model.readout.summary(_members(sums, batches))
            record = {"epoch": epoch + 1, **jax.tree.map(_plain, means), "seconds": time.monotonic() - clock}
            if (epoch + 1) % cfg.evaluation.every == 0 or epoch + 1 == cfg.epochs:
                record.update(_diagnose(cfg, task, programs, state.model))
            head["records"].append(record)
            folder.write_metrics(head["records"])
            logger.log(epoch + 1, record)
            progress.epoch(epoch, {name: float(np.mean(value)) for name, value in record.items()})
            score = float(np.mean(record.get(f"validation_{score_of(record)}", -np.inf)))
            best, head["best"] = score > head["best"], max(score, head["best"])
            sums, first = zeros, 0
            save(best)
            _check_settled(cfg, record)
            if request.signal and epoch + 1 < cfg.epochs:
                raise _interrupted(request.signal, folder)
        if cfg.evaluation.measure == "best":
            state, _ = folder.restore_best((state, sums))
        tested = _evaluate(cfg, task, programs, state.model, "test")
    return _summary(cfg, head, {**tested, **cost_of(cfg, task, state)}, time.monotonic() - clock)


def model_of(cfg: DictConfig, task: Task, path: Path) -> tuple[Model, dict[str, Any]]:
    """The model that a run of this configuration saved in a checkpoint, and the checkpoint's header.

    **Raises:** `DamagedCheckpoint` if it is damaged or of another model, `FileNotFoundError` if it is not there.
    """
    programs = Programs(cfg, task)
    state = programs.initial(cfg.seed)
    (state, _), header = checkpoint.load(path, (state, programs.zeros(state, next(task.batches.epoch(0)))))
    return state.model, header


def stacked(batches: Iterable[Stack], size: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Up to `size` batches of one length at a time, along a leading axis of that size, and how many they are."""

    def full(group: list[Stack]) -> tuple[np.ndarray, np.ndarray, int]:
        padded = group + group[-1:] * (size - len(group))
        images, labels = (np.stack(parts) for parts in zip(*padded, strict=True))
        return images, labels, len(group)

    group: list[Stack] = []
    for batch in batches:
        if group and (len(group) == size or len(batch[1]) != len(group[0][1])):
            yield full(group)
            group = []
        group.append(batch)
    if group:
        yield full(group)


def _evaluate(cfg: DictConfig, task: Task, programs: Programs, model: Model, name: str) -> dict[str, Any]:
    """Metrics on a split: means over its batches, weighted by their size; the maximum of maxima. None without it."""
    split: Split | None = getattr(task.dataset, name)
    if split is None:
        return {}
    size = min(cfg.evaluation.batch_size, len(split))
    parts, weights = [], []
    for images, labels in Batches(split, size, 0, shuffle=False).epoch(0):
        measured = programs.evaluate(model, *task.placement.batch(images, labels))
        parts.append({name: np.asarray(value) for name, value in measured.items()})
        weights.append(len(labels))

    def combine(name: str) -> np.ndarray:
        values = np.stack([part[name] for part in parts])
        return np.asarray(values.max(0) if name.endswith("_max") else np.average(values, axis=0, weights=weights))

    means = model.readout.summary({metric: combine(metric) for metric in parts[0]})
    return {f"{name}_{metric}": _plain(np.asarray(value)) for metric, value in means.items()}


def _align(cfg: DictConfig, task: Task, programs: Programs, model: Model) -> dict[str, Any]:
    """Cosines to the true error vectors on images that are not test images, and the asymmetry of the network."""
    if not isinstance(task.trainer.estimator, AbstractErrorEstimator):
        return {}
    split = (task.dataset.validation or task.dataset.train)[: cfg.evaluation.alignment_examples]
    batch = task.placement.batch(np.asarray(split.images), split.targets)
    aligned = programs.align(model, *batch)
    return {name: _plain(np.asarray(value)) for name, value in aligned.items()}


def _diagnose(cfg: DictConfig, task: Task, programs: Programs, model: Model) -> dict[str, Any]:
    """All that is measured of a model between epochs."""
    return {**_evaluate(cfg, task, programs, model, "validation"), **_align(cfg, task, programs, model)}


MEASURED = ("accuracy", "loss", "top5", "rmse", "r2", "unsettled_fraction")


def score_of(record: dict[str, Any]) -> str:
    """What makes a model the best by validation: its accuracy, or R² in a regression."""
    return "r2" if "r2" in record else "accuracy"


def _summary(cfg: DictConfig, head: dict[str, Any], tested: dict[str, Any], seconds: float) -> dict[str, Any]:
    start, *records = head["records"]
    last = {**records[-1], **tested}
    summary: dict[str, Any] = {
        "data": cfg.data.label,
        "epochs": cfg.epochs,
        "seeds": list(range(cfg.seed, cfg.seed + cfg.population)),
        "measured": cfg.evaluation.measure,
    }
    names = [f"{split}_{name}" for split in ("test", "validation") for name in MEASURED]
    summary |= {name: _mean(last[name]) for name in names if name in last}
    score = f"validation_{score_of(last)}"
    if score in last:
        summary[f"best_{score}"] = head["best"]
    for name in ("cosine_hidden", "functional_asymmetry"):
        if name in last:
            summary[name] = {"start": _mean(start[name]), "end": _mean(last[name])}
    summary["unsettled_fraction"] = float(np.mean([_mean(record["unsettled_fraction"]) for record in records]))
    summary["bounded_fraction"] = float(np.mean([_mean(record["bounded_fraction"]) for record in records]))
    summary["free_steps"], summary["nudged_steps"] = _mean(last["free_steps"]), _mean(last["nudged_steps"])
    summary["seconds"] = seconds
    summary |= {name: _mean(last[name]) for name in COSTS if name in last}
    summary |= {name: last[name] for name in ("cost_reasons",) if name in last}
    if cfg.population > 1:
        names = ("test_accuracy", "test_r2", "test_loss", "validation_accuracy", "validation_r2")
        names += ("cosine_hidden", "functional_asymmetry", "unsettled_fraction", *COSTS)
        summary["members"] = {name: last[name] for name in names if name in last}
    return summary


def _check_settled(cfg: DictConfig, record: dict[str, Any]) -> None:
    fraction = float(np.max(record.get("unsettled_fraction", 0.0)))
    if fraction > cfg.max_unsettled:
        raise Unsettled(
            f"In epoch {record['epoch']}, {fraction:.1%} of the examples did not settle; max_unsettled allows "
            f"{cfg.max_unsettled:.1%}. Give the relaxation more steps or damping (relaxation.max_steps, "
            "relaxation.damping), shrink the stencil, or raise max_unsettled."
        )


def _interrupted(number: int, folder: RunFolder) -> Interrupted:
    return Interrupted(
        number, f"Stopped by signal {number}; saved in {folder.path}. The same command goes on from there."
    )


def _means(sums: dict[str, Array], count: int) -> dict[str, float]:
    return {name: float(jnp.mean(value)) / count for name, value in sums.items()}


def _members(sums: dict[str, Array], count: int) -> dict[str, np.ndarray]:
    return {name: np.asarray(np.asarray(value) / count) for name, value in sums.items()}


def _plain(value: np.ndarray | np.number) -> Any:
    """A number, or one a member."""
    return value.tolist()


def _mean(value: float | list[float]) -> float:
    return float(np.mean(value))
