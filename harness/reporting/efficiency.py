"""The efficiency of jobs: resources that those of a kind asked for and used, and those to ask for next time."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean, median
from typing import Any, NamedTuple

from harness.spec.lines import grouped

LEAST_JOBS = 3  # finished, for advice
MOST_OF = 0.9  # of the jobs: the share whose use the advice covers with a margin
MARGIN = 1.25
SIGNAL_MINUTES = 3  # before its time limit a job is signalled to checkpoint: 90 s, which SLURM may do a minute early
STEP_MINUTES = 5
GB = 1024**3
OUT_OF_MEMORY = "OUT_OF_MEMORY"


class Asked(NamedTuple):
    """The resources that a job asked for. None: not known, or, on this machine, without a limit."""

    minutes: int | None
    memory: int | None  # bytes on each node
    nodes: int | None
    processes: int  # on all nodes
    cores: int | None  # of each process
    gpus: int  # of all nodes


@dataclass(frozen=True)
class JobUse:
    """The resources that one job asked for and used, in all its starts together. None: not known."""

    student: str
    teacher: str | None
    packs: int  # of different seeds
    asked: Asked
    finished: bool  # all its runs have records
    seconds: float
    memory: int | None  # bytes on a node, at most
    cores: float | None  # of each process, on average
    gpu_percent: float | None
    starts: int
    ends: Counter[str]  # SLURM's state -> number of its starts that ended so; without COMPLETED
    source: str  # accounting or records
    waiting: float | None  # the share of its training in which it waited for images that were not yet decoded
    retry: str = ""  # what it was tried again with, and why


class Advice(NamedTuple):
    """The resources to ask for next time; None: not known."""

    time_minutes: int | None
    mem_gb: int | None
    cpus_per_task: int | None

    def resources(self) -> dict[str, int]:
        """Return what is known, by the keys of a profile."""
        return {key: value for key, value in self._asdict().items() if value is not None}

    def most(self, other: "Advice") -> "Advice":
        """Return the larger of each."""
        pairs = zip(self, other, strict=True)
        return Advice(*(max((x for x in pair if x is not None), default=None) for pair in pairs))


@dataclass(frozen=True)
class JobClass:
    """Jobs of one kind: of the same models and number of seeds, that asked for the same."""

    jobs: Sequence[JobUse]

    @property
    def student(self) -> str:
        return self.jobs[0].student

    @property
    def teacher(self) -> str | None:
        return self.jobs[0].teacher

    @property
    def packs(self) -> int:
        return self.jobs[0].packs

    @property
    def asked(self) -> Asked:
        return self.jobs[0].asked

    @property
    def finished(self) -> list[JobUse]:
        return [job for job in self.jobs if job.finished]

    @property
    def starts(self) -> int:
        return sum(job.starts for job in self.jobs)

    @property
    def ends(self) -> Counter[str]:
        return sum((job.ends for job in self.jobs), Counter())

    @property
    def retries(self) -> Counter[str]:
        """The retries with more memory, and the number of jobs."""
        return Counter(job.retry for job in self.jobs if job.retry)

    @property
    def minutes(self) -> list[float]:
        """The minutes of each finished job, in all its starts, the shortest first."""
        return sorted(job.seconds / 60 for job in self.finished)

    @property
    def median_minutes(self) -> float | None:
        return median(self.minutes) if self.minutes else None

    @property
    def memory(self) -> int | None:
        """The most memory of a job. One that ran out of it counts as having used what it asked for."""
        ran_out = [job.asked.memory for job in self.jobs if job.ends[OUT_OF_MEMORY]]
        return max((x for x in (*ran_out, *(job.memory for job in self.jobs)) if x is not None), default=None)

    @property
    def cores(self) -> list[float]:
        """The cores that each process of a job kept busy, the fewest first."""
        return sorted(job.cores for job in self.jobs if job.cores is not None)

    @property
    def gpu_percent(self) -> float | None:
        return _mean((job.gpu_percent, job.seconds) for job in self.jobs)

    @property
    def waiting(self) -> float | None:
        """The share of training in which jobs waited for images."""
        return _mean((job.waiting, job.seconds) for job in self.jobs)

    @property
    def advice(self) -> Advice | None:
        """The resources to ask for next time; None: too few jobs have finished."""
        if len(self.finished) < LEAST_JOBS:
            return None
        minutes = max(MARGIN * _covering(self.minutes), self.minutes[-1] + SIGNAL_MINUTES)
        cores = ceil(MARGIN * self.cores[-1]) if self.cores else None
        return Advice(
            time_minutes=STEP_MINUTES * ceil(minutes / STEP_MINUTES),
            mem_gb=ceil(MARGIN * self.memory / GB) if self.memory else None,
            cpus_per_task=min(cores, self.asked.cores or cores) if cores else None,
        )


def _mean(values: Iterable[tuple[float | None, float]]) -> float | None:
    """Return the mean of the values that are known, with their weights."""
    known = [(value, weight) for value, weight in values if value is not None]
    return fmean([value for value, _ in known], [weight for _, weight in known]) if known else None


def _covering(values: Sequence[float]) -> float:
    """Return the least of these values, the smallest first, that ``MOST_OF`` of them do not exceed."""
    return values[ceil(MOST_OF * len(values)) - 1]


def classes(jobs: Iterable[JobUse]) -> list[JobClass]:
    """Return the classes of jobs, those that train a teacher or have none first."""
    groups = grouped(jobs, key=lambda job: (job.student, job.teacher, job.packs, job.asked, job.source))
    return sorted(map(JobClass, groups.values()), key=lambda each: (each.teacher or "", each.student, each.packs))


def by_models(classes: Iterable[JobClass]) -> dict[tuple[str, str | None], Advice]:
    """Return the advice by student and teacher: where classes differ in what they asked for, the larger of each."""
    advice: dict[tuple[str, str | None], Advice] = {}
    for each in classes:
        if (own := each.advice) is not None:
            models = (each.student, each.teacher)
            advice[models] = own.most(advice.get(models, own))
    return advice


def efficiency_dict(classes: Sequence[JobClass]) -> dict[str, Any]:
    """Return classes and the advice by models as plain data, for ``--json``."""
    by_size = [
        {"student": student, "teacher": teacher or "", "resources": advice.resources()}
        for (student, teacher), advice in by_models(classes).items()
    ]
    return {"classes": list(map(_class_dict, classes)), "by_size": by_size}


def _class_dict(job_class: JobClass) -> dict[str, Any]:
    asked, advice = job_class.asked, job_class.advice
    return {
        "student": job_class.student,
        "teacher": job_class.teacher,
        "packs": job_class.packs,
        "source": job_class.jobs[0].source,
        "jobs": len(job_class.jobs),
        "finished": len(job_class.finished),
        "starts": job_class.starts,
        "ends": dict(job_class.ends),
        "retries": dict(job_class.retries),
        "asked": {
            "time_minutes": asked.minutes,
            "mem_gb": asked.memory and asked.memory / GB,
            "nodes": asked.nodes,
            "processes": asked.processes,
            "cpus_per_task": asked.cores,
            "gpus": asked.gpus,
        },
        "used": {
            "median_minutes": job_class.median_minutes,
            "most_minutes": max(job_class.minutes, default=None),
            "most_gb": job_class.memory and job_class.memory / GB,
            "mean_cores": fmean(job_class.cores) if job_class.cores else None,
            "gpu_percent": job_class.gpu_percent,
            "waiting_percent": None if job_class.waiting is None else 100 * job_class.waiting,
        },
        "advice": advice and advice.resources(),
    }
