"""Loggers besides the files: TensorBoard, Weights & Biases, MLflow. Each is imported only when it is asked for.

A logger has two methods: `log(step, metrics)` after every epoch, and `close()`. A resumed run goes on in the same log.
"""

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from eqprop.run.record import flatten


@runtime_checkable
class Logger(Protocol):
    """Where metrics go besides the run folder."""

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        """Write the metrics of an epoch; a list holds a value for each member of a population."""
        ...

    def close(self) -> None:
        """Write what is pending."""
        ...


class Silent:
    """No logger: the files are the record."""

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        del step, metrics

    def close(self) -> None:
        pass


class TensorBoard:
    """Event files in `<folder>/tensorboard`."""

    def __init__(self, tensorboard: Any, folder: Path, settings: dict):
        del settings
        self._module, self._folder, self._writer = tensorboard, folder / "tensorboard", None

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        if self._writer is None:  # a resumed run takes back what an earlier process wrote past this step
            self._writer = self._module.SummaryWriter(str(self._folder), purge_step=step)
        for name, value in scalars(metrics).items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A run of the project `eqprop`, named as the folder; `WANDB_MODE=offline` needs no account."""

    def __init__(self, wandb: Any, folder: Path, settings: dict):
        self._run = wandb.init(
            project="eqprop", name=folder.name, id=folder.name, resume="allow", dir=str(folder), config=settings
        )

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        self._run.log(scalars(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """A run of the experiment `eqprop`, named as the folder, in the store that `MLFLOW_TRACKING_URI` names."""

    def __init__(self, mlflow: Any, folder: Path, settings: dict):
        self._module = mlflow
        mlflow.set_experiment("eqprop")
        note = folder / "mlflow_run"
        if note.exists():
            mlflow.start_run(run_id=note.read_text())
        else:
            note.write_text(mlflow.start_run(run_name=folder.name).info.run_id)
            mlflow.log_params(flatten(settings))

    def log(self, step: int, metrics: dict[str, Any]) -> None:
        self._module.log_metrics(scalars(metrics), step=step)

    def close(self) -> None:
        self._module.end_run()


LOGGERS = {
    "tensorboard": (TensorBoard, "tensorboardX", "tensorboardX"),
    "wandb": (WeightsAndBiases, "wandb", "wandb"),
    "mlflow": (MLflow, "mlflow", "mlflow-skinny sqlalchemy alembic"),
}
"""Class, module, and what to install."""


def find_logger(name: str | None) -> Callable[[Path, dict], Logger]:
    """What makes the logger called `name` from a run folder and its configuration; a silent one for `None`.

    **Raises:** `ValueError` if there is none of that name, or its package is not installed.
    """
    if name is None:
        return lambda folder, settings: Silent()
    if name not in LOGGERS:
        raise ValueError(f"run.logger={name}: there is no such logger; there are {', '.join(LOGGERS)}.")
    logger, module, packages = LOGGERS[name]
    try:
        return partial(logger, importlib.import_module(module))
    except ImportError as error:
        raise ValueError(f"run.logger={name} needs {module}, which is not installed: pip install {packages}") from error


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """Numbers by name; of a list, every member's as `name/0`, `name/1`, ... and the mean as `name`."""
    out: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, list):
            out.update({f"{name}/{member}": float(v) for member, v in enumerate(value)})
            out[name] = sum(value) / len(value)
        else:
            out[name] = float(value)
    return out
