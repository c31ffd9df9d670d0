"""Jobs of a Slurm cluster, through `submitit`."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import final

from metasynth.children import safe_path
from metasynth.errors import RunError, UsageError
from metasynth.interrupts import held
from metasynth.running.jobs.job import RunJob
from metasynth.running.jobs.launcher import MOST_TIMEOUTS, Launcher, State, require_submitit
from metasynth.running.jobs.settings import SLURM, read_settings

_OVER = {"", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY"}


@final
class SlurmLauncher(Launcher):
    """Job arrays of a Slurm cluster.

    Parameters
    ----------
    texts : sequence of str
        'KEY=VALUE,...': those of `metasynth.running.jobs.settings.SLURM`; timeout_min has to be among them.
    jobs : int or None
        Runs side by side; None: as many as the cluster gives.
    """

    name, elsewhere, seconds_between_looks, environment, gpus = "slurm", True, 5.0, {}, ()
    most = 1000  # an array of a cluster that sets no other number

    def __init__(self, texts: Sequence[str], jobs: int | None) -> None:
        require_submitit(self.name)
        self._side_by_side = jobs or self.most
        self._settings = read_settings(texts, SLURM)
        if "timeout_min" not in self._settings:
            raise UsageError(
                "--launcher slurm: needs --launcher-set timeout_min=MINUTES, after which a job is requeued"
            )
        missing = [command for command in ("sbatch", "squeue", "srun") if shutil.which(command) is None]
        if missing:
            raise UsageError(f"--launcher slurm: there is no {missing[0]} here; start it where jobs are submitted")

    def submit(self, folder: Path, jobs: Sequence[RunJob]) -> list[str]:
        """Submit the jobs as one array; each is called by the array's number and its own in it, as in '17_0'."""
        from submitit import AutoExecutor

        settings = {"name": "metasynth", "array_parallelism": self._side_by_side, **self._settings}
        timeouts = settings.pop("max_num_timeout", MOST_TIMEOUTS)
        executor = AutoExecutor(folder, cluster=self.name, slurm_max_num_timeout=timeouts)
        shared = {"name", "timeout_min", "mem_gb", "cpus_per_task", "gpus_per_node"}
        names = {key: key if key in shared else f"slurm_{key}" for key in settings}
        executor.update_parameters(**{names[key]: value for key, value in settings.items()})
        executor.update_parameters(slurm_additional_parameters={"requeue": True})  # whatever the cluster's default
        try:
            with held(), safe_path():
                return [str(job.job_id) for job in executor.submit_array(jobs)]
        except Exception as error:  # submitit has several for what sbatch may say
            raise RunError(f"--launcher slurm: the jobs were refused: {_told_by_sbatch(error)}") from error

    def states(self, folder: Path, names: Sequence[str]) -> dict[str, State]:
        """What ``squeue`` says."""
        return slurm_states(names)


def slurm_states(names: Sequence[str]) -> dict[str, State]:
    """What ``squeue`` says of jobs, without the accounting that ``sacct`` needs; nothing while it has no answer.

    Raises
    ------
    RunError
        There is no ``squeue`` here.
    """
    arrays = ",".join(sorted({name.partition("_")[0] for name in names}))
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T", f"--jobs={arrays}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RunError(f"squeue cannot be started: {error.strerror or error}") from error
    if asked.returncode and "Invalid job id" not in asked.stderr:  # the controller may be away for a while
        return {}
    told = dict(line.split() for line in asked.stdout.splitlines())
    return {name: _of_slurm(told.get(name, "")) for name in names}


def _of_slurm(told: str) -> State:
    """The state of a job by Slurm's word for it, empty for a job that it no longer knows."""
    if told == "CANCELLED":
        return State.CANCELLED
    if told in _OVER:
        return State.ENDED
    return State.WAITS if told == "PENDING" else State.RUNS


def _told_by_sbatch(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if "error:" in line] or str(error).splitlines() or [repr(error)]
    return lines[0].strip()
