"""Cluster profiles: where jobs run and what they may use. Never part of a run's identity."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from harness.errors import UserError, collected, expected, raise_mistakes, unknown
from harness.spec import yamlfile
from harness.spec.recipe import Closed, Finite
from harness.spec.validation import validate_model
from slurm import sbatch_options
from slurm.containers import Container
from slurm.node_paths import node_path
from slurm.notify_command import command_problem
from slurm.retry import Retry

FOLDER = Path(__file__).resolve().parent / "profiles"


class Resources(Closed):
    """The resources that one job asks for."""

    time_minutes: Annotated[int, BeforeValidator(sbatch_options.minutes)] = Field(
        60, ge=1, description="time limit; a run that needs longer is requeued and resumes"
    )
    mem_gb: Annotated[Finite | None, BeforeValidator(sbatch_options.gigabytes)] = Field(
        None, gt=0, description="memory per node"
    )
    nodes: int = Field(1, ge=1, description="nodes of a job; its pack trains data-parallel on all of them")
    tasks_per_node: int = Field(1, ge=1, description="processes of a job on each of its nodes, which share the work")
    cpus_per_task: int = Field(1, ge=1, description="cores, and so threads, of each process")
    gpus_per_node: int = Field(0, ge=0, description="GPUs of a job on each of its nodes; a process uses one")
    jobs_per_node: int = Field(
        1, ge=1, description="jobs that [share a node](#whole-nodes): one job of SLURM runs them at once"
    )
    engine: Literal["native", "deepspeed"] = Field(
        "native", description="what combines the gradients of several processes and steps the optimiser"
    )
    zero_stage: int = Field(
        0, ge=0, le=2, description="for engine `deepspeed`: 1 divides momenta among the processes, 2 gradients as well"
    )

    packs_per_job: int | None = Field(
        None, ge=1, description="packs of one pair, of different seeds, that a job trains at most"
    )

    @classmethod
    def owner_of(cls, key: str) -> str:
        return sbatch_options.key_of(key)

    @property
    def processes(self) -> int:
        """The number of a job's processes."""
        return self.nodes * self.tasks_per_node

    @property
    def cores_per_task(self) -> int:
        """The cores that a task of SLURM asks for: one process, or all that share its node."""
        return self.cpus_per_task * self.jobs_per_node

    @model_validator(mode="after")
    def _consistent(self) -> "Resources":
        if self.jobs_per_node > 1 and self.processes > 1:
            raise ValueError(
                f"jobs_per_node is {self.jobs_per_node}, and a job has {self.processes} processes (nodes x "
                "tasks_per_node): jobs that share a node have one each"
            )
        gpus, jobs = self.gpus_per_node, self.jobs_per_node
        if gpus and gpus % jobs and jobs % gpus:
            raise ValueError(f"jobs_per_node is {jobs} for {gpus} GPUs: expected a multiple of {gpus}, or a divisor")
        if 0 < self.gpus_per_node < self.tasks_per_node:
            raise ValueError(f"tasks_per_node is {self.tasks_per_node} for {self.gpus_per_node} GPUs: each needs one")
        if self.engine == "native" and self.zero_stage:
            raise ValueError(f"zero_stage {self.zero_stage} belongs to engine deepspeed, and the engine is native")
        if self.engine == "deepspeed" and self.processes == 1:
            raise ValueError(
                "engine deepspeed is for several processes (nodes x tasks_per_node), and this is one: use native"
            )
        return self


class BySize(Closed):
    """Other resources for some models."""

    student: str = Field("*", description="pattern of student names, e.g. `wrn_*`")
    teacher: str = Field("*", description="pattern of teacher names; a teacher in training counts as a student")
    resources: dict[str, Any] = Field(description="keys of `resources` to change")


class Stage(Closed):
    """Folders on a node for copies of what its jobs read."""

    data: Annotated[str, AfterValidator(node_path)] = Field(
        description="folder on the node's own disk for a copy of the dataset, e.g. `/scratch/$USER/kd`"
    )


def _lines(value: Any) -> Any:
    return [line for line in value.splitlines() if line.strip()] if isinstance(value, str) else value


class Profile(Closed):
    """A cluster, and the options that its jobs are submitted with."""

    partition: Annotated[str | None, BeforeValidator(sbatch_options.partitions)] = Field(
        None, description="sbatch --partition"
    )
    account: str | None = Field(None, description="sbatch --account")
    qos: str | None = Field(None, description="sbatch --qos")
    constraint: str | None = Field(None, description="sbatch --constraint")
    resources: Resources = Field(Resources(), description="resources of every job")
    by_size: tuple[BySize, ...] = Field(
        (), description="changes by model; all entries that match are applied, in order"
    )
    setup: Annotated[tuple[str, ...], BeforeValidator(_lines)] = Field(
        (), description="shell lines before Python starts: modules, variables"
    )
    python: str | None = Field(None, description="the command that starts Python on a node, or inside the `container`")
    container: Container | None = Field(None, description="[the container](#containers) that Python runs in")
    stage: Stage | None = Field(None, description="[a copy of the data](#data-on-the-nodes-own-disk) on each node")
    sbatch: dict[str, Annotated[str | int | bool, BeforeValidator(sbatch_options.value)]] = Field(
        {}, description="further sbatch options by their long names"
    )
    notify: str | None = Field(None, description="a command that [tells how a sweep ends](#told-when-it-ends)")
    signal_seconds: int = Field(
        90, ge=1, description="seconds before the time limit at which a job is signalled to checkpoint"
    )
    max_attempts: int = Field(
        20, ge=1, description="starts of a run in a row without a new checkpoint, before it counts as failed"
    )
    retry: Retry | None = Field(
        None, description="what jobs that had too little [ask for next](#retries-that-ask-for-more)"
    )
    poll_seconds: Finite = Field(20.0, ge=0.5, description="least time between two looks at the queue")

    @classmethod
    def owner_of(cls, key: str) -> str:
        return sbatch_options.key_of(key)

    def asks_for_gpus(self, resources: Resources) -> bool:
        """Return whether a job with these resources asks for GPUs, by them or by options of sbatch."""
        return resources.gpus_per_node > 0 or any("gpu" in f"{name} {value}" for name, value in self.sbatch.items())

    def resources_for(self, student: str, teacher: str | None) -> Resources:
        """Return what a job asks for that trains this student, with this teacher if any.

        Raises:
            UserError: the rules that match contradict each other.
        """
        resources = self.resources
        for rule in self.by_size:
            if fnmatchcase(student, rule.student) and fnmatchcase(teacher or "", rule.teacher):
                try:
                    resources = Resources.model_validate({**resources.model_dump(), **rule.resources})
                except ValueError as e:  # each rule is valid, but not what several that match make together
                    reason = str(e).split("Value error, ")[-1].split(" [type")[0]
                    raise UserError(f"profile, by_size, rules for {student} taken together: {reason}") from None
        return resources


def profile_names() -> list[str]:
    """Return the names of the profiles in ``slurm/profiles/``."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def load_profile(name: str) -> Profile:
    """Load a profile by its name in ``slurm/profiles/``, or by the path of its file (``my/cluster.yaml``).

    Raises:
        UserError: there is no profile of that name, or it has an unknown key or a wrong value.
    """
    is_path = name.endswith((".yaml", ".yml"))
    if not is_path and name not in profile_names():
        names = unknown("cluster", name, ["local", *profile_names()])
        raise UserError(f"--cluster: {names}; profiles are in slurm/profiles/, or named by a path that ends in .yaml")
    document = yamlfile.read_yaml(Path(name) if is_path else FOLDER / f"{name}.yaml")
    profile = validate_model(Profile, document.data, document)
    mistakes: list[UserError] = []
    rules: list[Resources] = []
    for i, rule in enumerate(profile.by_size):
        changed = {**profile.resources.model_dump(), **rule.resources}
        with collected(mistakes):
            rules.append(validate_model(Resources, changed, document, ("by_size", i, "resources")))
    if profile.notify is not None and (problem := command_problem(profile.notify)):
        mistakes.append(document.mistake(("notify",), problem))
    if profile.container and profile.python and profile.python.split() != [profile.python]:
        text = (
            f"{expected('the Python inside the container, without spaces', profile.python)}; it starts by `container`"
        )
        mistakes.append(document.mistake(("python",), text))
    for option in profile.sbatch:
        with collected(mistakes), document.place(("sbatch", option)):
            sbatch_options.check_option(option, profile.sbatch, profile.resources.model_dump())
    shortest = min(resources.time_minutes for resources in (profile.resources, *rules))
    if profile.signal_seconds >= 60 * shortest:
        text = (
            f"{profile.signal_seconds} s before the time limit is before the start of a job of {shortest} min; "
            f"expected less than {60 * shortest}"
        )
        mistakes.append(document.mistake(("signal_seconds",), text))
    if profile.retry is not None:
        asked = [(resources.time_minutes, resources.mem_gb) for resources in (profile.resources, *rules)]
        for key, problem in profile.retry.problems(asked):
            mistakes.append(document.mistake(("retry", key), problem))
    raise_mistakes(mistakes)
    return profile
