"""Options of sbatch that a profile adds: which of them have a key of their own, and the nearest name of a misspelt one.

An option that is neither is left to sbatch, since sites and newer versions have their own.
"""

import difflib
import re
from typing import Any

from harness.errors import expected
from harness.phrases import plural

# Option -> key of a profile that sets it.
KEYS = {
    "time": "resources.time_minutes", "t": "resources.time_minutes",
    "mem": "resources.mem_gb",
    "nodes": "resources.nodes", "N": "resources.nodes",
    "ntasks": "resources.tasks_per_node (of each of resources.nodes)",
    "n": "resources.tasks_per_node (of each of resources.nodes)",
    "ntasks-per-node": "resources.tasks_per_node", "tasks-per-node": "resources.tasks_per_node",
    "cpus-per-task": "resources.cpus_per_task", "c": "resources.cpus_per_task",
    "gpus": "resources.gpus_per_node", "G": "resources.gpus_per_node", "gpus-per-node": "resources.gpus_per_node",
    "partition": "partition", "p": "partition",
    "account": "account", "A": "account",
    "qos": "qos", "q": "qos",
    "constraint": "constraint", "C": "constraint",
}  # fmt: skip
# Options that the harness relies on -> why a profile cannot change them.
_FOUND = "is set by the harness, which finds its jobs and logs by it"
_ANSWER = "would keep from the harness the number of its jobs, which sbatch prints"
_CLUSTER = "is another cluster's: the harness asks that of SLURM_CONF for its jobs; state SLURM_CONF when you call it"
OWN = {
    **dict.fromkeys(("array", "error", "job-name", "output", "wrap"), _FOUND),
    "signal": "is set by the harness, whose jobs checkpoint by it; state `signal_seconds`",
    "open-mode": "is always append: a job that is requeued goes on with its log, by which the harness judges its ends",
    **dict.fromkeys(("quiet", "parsable", "test-only"), _ANSWER),
    "wait": "would keep sbatch, and so `sweep`, until the jobs have ended",
    **dict.fromkeys(("clusters", "cluster-constraint"), _CLUSTER),
}
# Further long options of SLURM 22.05 to 24.11, from its manual page sbatch(1).
FURTHER = """
    acctg-freq batch bb bbf begin chdir comment container container-id contiguous core-spec
    cores-per-socket cpu-freq cpus-per-gpu deadline delay-boot dependency exclude exclusive export export-file
    extra-node-info get-user-env gid gpu-bind gpu-freq gpus-per-socket gpus-per-task gres gres-flags hint hold
    ignore-pbs input kill-on-invalid-dep licenses mail-type mail-user mcs-label mem-bind mem-per-cpu mem-per-gpu mincpus
    network nice no-kill no-requeue nodefile nodelist ntasks-per-core ntasks-per-gpu ntasks-per-socket
    overcommit oversubscribe power prefer priority profile propagate reboot requeue reservation resv-ports
    segment sockets-per-node spread-job switches thread-spec threads-per-core time-min tmp tres-bind tres-per-task uid
    use-min-nodes verbose wait-all-nodes wckey
""".split()
# Short name of an option without a key of its own -> its long name.
LONG = {
    "a": "array", "b": "begin", "B": "extra-node-info", "d": "dependency", "D": "chdir", "e": "error",
    "F": "nodefile", "H": "hold", "i": "input", "J": "job-name", "k": "no-kill", "L": "licenses", "m": "distribution",
    "M": "clusters", "o": "output", "O": "overcommit", "Q": "quiet", "s": "oversubscribe", "S": "core-spec",
    "v": "verbose", "w": "nodelist", "W": "wait", "x": "exclude",
}  # fmt: skip
# What people call the keys of `resources`, besides the options of sbatch.
_HABITS = {
    "cpus": "resources.cpus_per_task", "gpu": "resources.gpus_per_node", "memory": "resources.mem_gb",
    "ntasks-per-node": "resources.tasks_per_node", "walltime": "resources.time_minutes",
}  # fmt: skip
_LEAST_ALIKE = 0.85  # from which an unknown name is a misspelt one rather than a site's own


def key_of(name: str) -> str:
    """Return where a profile states what is no key at its place, or nothing: ``state it as `resources.mem_gb` ``."""
    option = name.replace("_", "-")
    if key := KEYS.get(option) or _HABITS.get(option):
        return f"state it as `{key}`"
    return f"state it under `sbatch`: {option}" if option in FURTHER else ""


def minutes(value: Any) -> Any:
    """Return a time limit as it is, unless it is written as for sbatch.

    Raises:
        ValueError: hours and minutes, with the number of minutes that they are.
    """
    found = re.fullmatch(r"(?:([0-9]{1,4})-)?([0-9]{1,4}):([0-9]{2})(?::([0-9]{2}))?", str(value))
    if not found:
        return value
    days, first, second, third = (int(part or 0) for part in found.groups())
    whole = 60 * first + second + (third > 0) if found[4] or found[1] else first + (second > 0)
    raise ValueError(f"{expected('a number of minutes', value)}; write {24 * 60 * days + whole}")


def partitions(value: Any) -> Any:
    """Return several partitions as sbatch takes them, in a text with commas between; any other value as it is.

    Raises:
        ValueError: a name is empty or has a space in it.
    """
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return value
    if not names or any(name.split() != [name] for name in names):
        raise ValueError(expected("the names of partitions, without spaces, as in a,b or [a, b]", value))
    return ",".join(names)


def gigabytes(value: Any) -> Any:
    """Return an amount of memory as it is, unless it has a unit.

    Raises:
        ValueError: a number with a unit; the message has the number of gigabytes.
    """
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([KMGT])i?B?", str(value), re.IGNORECASE)
    if not found:
        return value
    amount = float(found[1]) * 1024.0 ** ("KMGT".index(found[2].upper()) - 2)
    raise ValueError(f"{expected('a number of gigabytes', value)}; write {amount:g}")


def value(value: Any) -> Any:
    """Return an option's value.

    Raises:
        ValueError: it is none, a number that is not an integer, a list or a mapping.
    """
    what = "text, an integer, or true for an option without a value"
    if value is None:
        raise ValueError(f"{expected(what, value)}; quote a text with commas, braces or brackets")
    if isinstance(value, list) and all(isinstance(part, str | int) for part in value):
        raise ValueError(f"{expected(what, value)}; write '{','.join(map(str, value))}'")
    if not isinstance(value, str | int):
        raise ValueError(expected(what, value) + "; put it in quotes" * isinstance(value, float))
    return value


def check_option(name: str, options: dict[str, Any], resources: dict[str, Any]) -> None:
    """Check one of the options that a profile adds. ``resources``: the profile's.

    Raises:
        ValueError: a key of the profile sets it, the harness needs it, or its name is misspelt.
    """
    stated = name.lstrip("-").replace("_", "-")
    option = LONG.get(stated, stated)
    if key := KEYS.get(option):
        raise ValueError(f"repeats a key of the profile; state it as `{key}`")
    if option in OWN:
        raise ValueError(f"{OWN[option]}; remove it")
    if name.startswith("-") or stated in LONG:
        raise ValueError(f"options are named by their long names, without dashes in front; write {option}")
    if option not in FURTHER:
        near = difflib.get_close_matches(option, [*KEYS, *OWN, *FURTHER], n=1, cutoff=_LEAST_ALIKE)
        if near:
            use = f"state it as `{KEYS[near[0]]}`" if near[0] in KEYS else f"did you mean {near[0]!r}?"
            raise ValueError(f"unknown option of sbatch; {use}")
    if option == "no-requeue" and options[name] is not False and options.get("requeue") is not False:
        raise ValueError("has no effect beside `requeue`, which jobs are submitted with; add `requeue: false`")
    if option == "gres":
        _check_gres(str(options[name]), resources["gpus_per_node"])
    if option in ("mem-per-cpu", "mem-per-gpu") and resources["mem_gb"]:
        raise ValueError("and `resources.mem_gb` exclude each other; remove one of them")


def _check_gres(value: str, gpus: int) -> None:
    """Check that GPUs are asked for in one place. Only ``gres`` can name their type: ``gpu:a100:1``."""
    for entry in value.split(","):
        kind, *rest = entry.strip().split(":")
        count = rest[-1] if rest and rest[-1].isdecimal() else "1"
        typed = len(rest) - rest[-1].isdecimal() > 0 if rest else False
        if kind != "gpu":
            continue
        if not typed:
            raise ValueError(f"repeats a key of the profile; state it as `resources.gpus_per_node`: {count}")
        if gpus and gpus != int(count):
            raise ValueError(
                f"asks for {plural(int(count), 'GPU')} and `resources.gpus_per_node` for {gpus}; state one number"
            )
