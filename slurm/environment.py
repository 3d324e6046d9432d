"""The environment of SLURM's commands: their answers depend neither on what users like to see nor on a job around."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# How a command reaches its cluster, and as whom.
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
# SQUEUE_STATES, SACCT_FORMAT, SCANCEL_USER, SLURM_CLUSTERS, SLURM_TIME_FORMAT, SLURM_NTASKS of an interactive job, ...
_PREFIXES = ("SLURM", "SINFO", "SQUEUE", "SACCT", "SCANCEL", "SCONTROL", "SBATCH", "SRUN", "SALLOC")
# The same for a shell line that calls squeue and scontrol in a job, whose other variables of SLURM srun needs.
UNSET_IN_SHELL = "unset ${!SQUEUE_*} ${!SCONTROL_*} SLURM_CLUSTERS SLURM_BITSTR_LEN"
# The number of a job, 12 or 12_3. Of an array's last task, SLURM_JOB_ID is the number of the whole array.
SET_JOB_IN_SHELL = 'kd_job="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"'
JOB_IN_SHELL = '"$kd_job"'


def query_environment() -> dict[str, str]:
    """Return this process's environment without the variables that are options of SLURM's commands."""
    return {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(_PREFIXES)}


@contextmanager
def submission_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Let this process have just these options of SLURM's commands: sbatch obeys them, and its jobs inherit them."""
    before = dict(os.environ)
    _replace({**query_environment(), **variables})
    try:
        yield
    finally:
        _replace(before)


def _replace(environment: Mapping[str, str]) -> None:
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
