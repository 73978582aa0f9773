"""The batch script that submitit makes of a sweep for SLURM, made without SLURM."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from hydra.errors import HydraException
from omegaconf import OmegaConf

from eqprop.run.compose import compose
from eqprop.run.errors import UsageError
from eqprop.run.overrides import count_runs, parsed


class _Printer(submitit.SlurmExecutor):
    """submitit's own executor, on any machine: it writes the script and submits nothing."""

    @classmethod
    def affinity(cls) -> int:
        return 1  # without which it would look for `srun`

    def script(self, parameters: Mapping[str, Any], jobs: int) -> str:
        self.update_parameters(**self._convert_parameters(dict(parameters)))
        if jobs > 1:
            self.parameters["map_count"] = jobs
        return self._make_submission_file_text(self._submitit_command_str, uid="")


def script(words: Sequence[str], own: Path | None = None) -> str:
    """What submitit would give to `sbatch` for a sweep of these words.

    **Raises:** `UsageError` for a launcher that does not submit to SLURM, or that has no such setting.
    """
    fixed = [word for word, o in zip(words, parsed(words), strict=True) if not o.is_sweep_override()]
    try:
        cfg = compose([*fixed, "hydra.job.name=train"], own=own, with_hydra=True)
        jobs = count_runs(words, own)
    except HydraException as error:
        raise UsageError(str(error)) from error
    parameters = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    assert isinstance(parameters, dict)
    if not parameters.pop("_target_").endswith(".SlurmLauncher"):
        raise UsageError(
            f"--dry-run got hydra/launcher={cfg.hydra.runtime.choices['hydra/launcher']}, which submits nothing to "
            "SLURM; expected hydra/launcher=submitit_slurm."
        )
    executor = _Printer(parameters.pop("submitit_folder"), parameters.pop("max_num_timeout"))
    return executor.script({str(name): value for name, value in parameters.items() if value is not None}, jobs)
