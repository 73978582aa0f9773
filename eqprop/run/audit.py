"""Split the error of a gradient estimate into finite nudge, finite relaxation and asymmetry: `eqprop audit`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from eqprop.run.compose import compose
from eqprop.run.overrides import check_overrides

USAGE = """
usage: eqprop audit [KEY=VALUE ...]

  eqprop audit                                             the default network as it is made
  eqprop audit checkpoint=outputs/.../checkpoints/best.eqx network=... (as it was trained)
  eqprop audit stencil=centred stencil.beta=0.05 relaxation=fixed_steps

The estimator is the finite nudge of the configuration; `examples` training images are audited.
"""


def run(cfg: DictConfig) -> str:
    """The audit of one model, as a Markdown table.

    **Raises:** `ValueError` if the estimator is no finite nudge, or the checkpoint is of another model.
    """
    import equinox as eqx
    import jax.numpy as jnp

    import eqprop
    from eqprop.run import runtime
    from eqprop.run.build import build
    from eqprop.run.checkpoint import DamagedCheckpoint
    from eqprop.run.loop import model_of

    runtime.configure(cfg)
    if cfg.population > 1:
        raise ValueError(f"population is {cfg.population}; the audit looks at one network, set population=1.")
    task = build(cfg)
    estimator = task.trainer.estimator
    if not isinstance(estimator, eqprop.FiniteNudge):
        raise ValueError(
            f"The audit splits finite nudges, not {type(estimator).__name__}; take estimator=finite_nudge."
        )
    model = task.initial(cfg.seed).model
    if cfg.checkpoint is not None:
        try:
            model, _ = model_of(cfg, task, Path(cfg.checkpoint).expanduser())
        except (DamagedCheckpoint, FileNotFoundError) as error:
            raise ValueError(f"checkpoint={cfg.checkpoint}: {error}") from error
    split = (task.dataset.validation or task.dataset.train)[: cfg.examples]
    x, y = task.preprocess(split.images), task.target(jnp.asarray(split.labels))
    compiled = eqx.filter_jit(
        lambda model: eqprop.audit(model, x, y, estimator=estimator, relaxation=task.trainer.relaxation)
    )
    report = compiled(task.trainer.deployed(model))
    for line in report.warnings():
        print(f"warning: {line}", file=sys.stderr)
    return report.table()


def main(arguments: Sequence[str]) -> None:
    """The command line of `eqprop audit`."""
    from eqprop.run.train import parse

    flags, own, words = parse(arguments)
    if flags.help:
        from eqprop.run.helptext import of_train

        print(of_train("audit", USAGE, own))
        return
    check_overrides(words, "audit", own)
    print(run(compose(words, "audit", own)))
