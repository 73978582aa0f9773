"""Split the error of a gradient estimate into finite nudge, finite relaxation and asymmetry.

    python -m experiments.audit                          # the default network as it is made
    python -m experiments.audit checkpoint=outputs/.../checkpoints/best.eqx network=... (as it was trained)
    python -m experiments.audit stencil=centred stencil.beta=0.05 relaxation=fixed_steps

The estimator is the finite nudge of the configuration; `examples` test images are audited.
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from experiments.cli import CONFIGS, check_command_line, fail


def run(cfg: DictConfig) -> str:
    """The audit of one model, as a Markdown table.

    **Raises:** `ValueError` if the estimator is no finite nudge, or the checkpoint is of another model.
    """
    import equinox as eqx
    import jax.numpy as jnp

    import eqprop
    from experiments import runtime
    from experiments.build import build
    from experiments.checkpoint import DamagedCheckpoint, load
    from experiments.loop import Programs

    runtime.configure(cfg)
    if cfg.population > 1:
        raise ValueError(f"population is {cfg.population}; the audit looks at one network, set population=1.")
    task = build(cfg)
    estimator = task.trainer.estimator
    if not isinstance(estimator, eqprop.FiniteNudge):
        raise ValueError(
            f"The audit splits finite nudges, not {type(estimator).__name__}; take estimator=finite_nudge."
        )
    state = task.initial(cfg.seed)
    if cfg.checkpoint is not None:
        try:
            sums = Programs(cfg, task).zeros(state, next(task.batches.epoch(0)))
            (state, _), _ = load(Path(cfg.checkpoint), (state, sums))
        except (DamagedCheckpoint, FileNotFoundError) as error:
            raise ValueError(f"checkpoint={cfg.checkpoint}: {error}") from error
    split = task.dataset.test[: cfg.examples]
    x, y = task.preprocess(split.images), task.target(jnp.asarray(split.labels))
    compiled = eqx.filter_jit(
        lambda model: eqprop.audit(model, x, y, estimator=estimator, relaxation=task.trainer.relaxation)
    )
    report = compiled(task.trainer.deployed(state.model))
    for line in report.warnings():
        print(f"warning: {line}", file=sys.stderr)
    return report.table()


@hydra.main(config_path=str(CONFIGS), config_name="audit", version_base="1.3")
def _main(cfg: DictConfig) -> None:
    try:
        print(run(cfg))
    except (ValueError, OSError) as error:
        fail(error)


def main() -> None:
    """The command line."""
    check_command_line("audit")
    _main()


if __name__ == "__main__":
    main()
