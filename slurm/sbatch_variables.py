"""Variables that sbatch reads (SBATCH_ACCOUNT, ...): which of them count for a profile's jobs.

They count as for sbatch, except that a profile wins, and that none changes what the harness depends on. sbatch itself
prefers a variable to an option in a script, so that others are hidden from it.
"""

import os
from collections.abc import Iterator

from harness.errors import printable, shorten
from slurm.profiles import Profile

# Variables that say where a job runs, who pays and what it gets -> the option that they set.
OPTIONS = {
    "SBATCH_ACCOUNT": "account", "SBATCH_ACCTG_FREQ": "acctg-freq", "SBATCH_BATCH": "batch",
    "SBATCH_BURST_BUFFER": "bb", "SBATCH_CONSTRAINT": "constraint", "SBATCH_CORE_SPEC": "core-spec",
    "SBATCH_CPU_FREQ_REQ": "cpu-freq", "SBATCH_DELAY_BOOT": "delay-boot", "SBATCH_EXCLUSIVE": "exclusive",
    "SBATCH_GPUS": "gpus", "SBATCH_GPUS_PER_NODE": "gpus-per-node", "SBATCH_GPUS_PER_SOCKET": "gpus-per-socket",
    "SBATCH_GPUS_PER_TASK": "gpus-per-task", "SBATCH_GPU_BIND": "gpu-bind", "SBATCH_GPU_FREQ": "gpu-freq",
    "SBATCH_GRES": "gres", "SBATCH_GRES_FLAGS": "gres-flags", "SBATCH_HINT": "hint",
    "SBATCH_MEM_PER_CPU": "mem-per-cpu", "SBATCH_MEM_PER_GPU": "mem-per-gpu", "SBATCH_MEM_PER_NODE": "mem",
    "SBATCH_NETWORK": "network", "SBATCH_OVERCOMMIT": "overcommit", "SBATCH_PARTITION": "partition",
    "SBATCH_POWER": "power", "SBATCH_PROFILE": "profile", "SBATCH_QOS": "qos", "SBATCH_REQ_SWITCH": "switches",
    "SBATCH_RESERVATION": "reservation", "SBATCH_SEGMENT": "segment", "SBATCH_SPREAD_JOB": "spread-job",
    "SBATCH_THREADS_PER_CORE": "threads-per-core", "SBATCH_THREAD_SPEC": "thread-spec",
    "SBATCH_TRES_BIND": "tres-bind", "SBATCH_TRES_PER_TASK": "tres-per-task",
    "SBATCH_USE_MIN_NODES": "use-min-nodes", "SBATCH_WAIT4SWITCH": "switches", "SBATCH_WCKEY": "wckey",
}  # fmt: skip
_OF_HARNESS = "the harness states its own"
_OF_CLUSTER = "jobs go to the cluster of SLURM_CONF"
# Variables that never count -> why. A name that is in neither table is a newer SLURM's, of unknown effect.
_UNUSED = {
    **dict.fromkeys(
        (
            "SBATCH_ARRAY_INX", "SBATCH_CPUS_PER_GPU", "SBATCH_DISTRIBUTION", "SBATCH_ERROR", "SBATCH_EXPORT",
            "SBATCH_GET_USER_ENV", "SBATCH_INPUT", "SBATCH_JOB_NAME", "SBATCH_NO_KILL", "SBATCH_NO_REQUEUE",
            "SBATCH_OPEN_MODE", "SBATCH_OUTPUT", "SBATCH_REQUEUE", "SBATCH_SIGNAL", "SBATCH_WAIT",
            "SBATCH_WAIT_ALL_NODES",
        ),
        _OF_HARNESS,
    ),
    "SBATCH_TIMELIMIT": "the profile states resources.time_minutes",
    "SBATCH_CONTAINER": "containers are stated in the profile", "SBATCH_CONTAINER_ID": _OF_HARNESS,
    "SBATCH_CLUSTERS": _OF_CLUSTER, "SLURM_CLUSTERS": _OF_CLUSTER, "SBATCH_CLUSTER_CONSTRAINT": _OF_CLUSTER,
}  # fmt: skip
# Options of which a job can have one.
_ALTERNATIVES = (
    {"mem", "mem-per-cpu", "mem-per-gpu"},
    {"gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres", "tres-per-task"},
)


def in_force(profile: Profile) -> dict[str, str]:
    """Return the variables of this process that sbatch shall obey for a profile's jobs."""
    stated = _stated(profile)
    set_ = ((name, os.environ.get(name), option) for name, option in OPTIONS.items())
    return {name: value for name, value, option in set_ if value and option not in stated}


def note(profile: Profile) -> str:
    """Return which of sbatch's variables count for a profile's jobs and which do not, in one line; "" without any."""
    obeyed, stated = in_force(profile), _stated(profile)
    unused = [
        f"{_shown(name)} ({_reason(name, stated)})"
        for name in sorted(os.environ)
        if _is_set(name) and name not in obeyed
    ]
    parts = [f"in force: {', '.join(map(_shown, obeyed))}"] if obeyed else []
    parts += [f"not in force: {', '.join(unused)}"] if unused else []
    return f"variables of sbatch {'; '.join(parts)}" if parts else ""


def _is_set(name: str) -> bool:
    return bool(os.environ[name]) and (name.startswith("SBATCH_") or name in _UNUSED)


def _shown(name: str) -> str:
    value = os.environ[name]
    return f"{name}={printable(value) if len(value) <= 80 else shorten(value)}"


def _reason(name: str, stated: dict[str, str]) -> str:
    if option := OPTIONS.get(name):
        return f"the profile states {stated[option]}"
    return _UNUSED.get(name, "not known to the harness")


def _stated(profile: Profile) -> dict[str, str]:
    """Return option -> key of the profile that states it, or another option of which a job can have one."""
    keys = dict(_stated_alone(profile))
    for options in _ALTERNATIVES:
        if key := next((keys[option] for option in sorted(options & keys.keys())), None):
            keys = {**dict.fromkeys(options, key), **keys}
    return keys


def _stated_alone(profile: Profile) -> Iterator[tuple[str, str]]:
    for key in ("partition", "account", "qos", "constraint"):
        if getattr(profile, key):
            yield key, key
    for option, key in (("mem", "mem_gb"), ("gpus-per-node", "gpus_per_node")):
        if getattr(profile.resources, key) or any(rule.resources.get(key) for rule in profile.by_size):
            yield option, f"resources.{key}"
    for name in profile.sbatch:
        yield name.replace("_", "-"), f"sbatch.{name}"
