"""Sweeps on a SLURM cluster: jobs as tasks of job arrays, submitted through submitit, with no driver to keep alive."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from harness.errors import UserError
from harness.spec.own_code import all_own_code
from harness.spec.science import Science
from harness.store import files, json_files, ownership
from harness.store.store import Store
from slurm import (
    commands,
    containers,
    dry_run,
    early_ends,
    excluded_nodes,
    job_checks,
    missing_teachers,
    profiles,
    snapshot,
    submission,
)
from slurm.array_jobs import ArrayJob, ArrayJobs, new_name, squeue
from slurm.earlier_starts import EarlierStarts
from slurm.job_groups import SlurmJob, job_groups
from slurm.known_jobs import KnownJobs
from slurm.node_order import function_of
from slurm.queue import Queue, QueuedJob
from slurm.refusals import Refusal

# SLURM's final state of a job that left a run without a result -> (the run's state, its meaning).
_ENDS = {
    "TIMEOUT": ("timed out", "the time limit came before it could checkpoint"),
    "PREEMPTED": ("preempted", "preempted for another job"),
    "NODE_FAIL": ("node failed", "its node failed"),
    "BOOT_FAIL": ("node failed", "its node failed to boot"),
    "OUT_OF_MEMORY": ("out of memory", "raise `mem_gb` in the profile"),
    "CANCELLED": ("cancelled", "cancelled"),
}


@dataclass
class Cluster:
    """The backend of queues on a SLURM cluster."""

    queue_file: Path
    unwritten: Queue | None = None  # what the file would hold, where nothing is to be submitted
    known: KnownJobs = field(default_factory=KnownJobs)  # which other queues of the store may share
    queue: Queue = field(init=False)
    store: Store = field(init=False)
    _array_jobs: ArrayJobs = field(init=False)
    _most_array_tasks: int | None = None
    _array_tasks: int = 0  # to submit at once: fewer after SLURM has refused more
    _postponed: int = 0  # runs that the last start could not submit under SLURM's limits,
    _postponed_at: float = 0.0  # when that was
    _earlier: EarlierStarts | None = None  # of the runs to submit

    def __post_init__(self) -> None:
        self.queue = self.unwritten or Queue.read(self.queue_file)
        self.store = Store(Path(self.queue.store))
        self._array_jobs = ArrayJobs(self.store)
        self.known.add_queue(self.queue.run_ids)

    @cached_property
    def profile(self) -> profiles.Profile:
        """The profile of the queue's jobs. To look at them needs none: it may be private to another user.

        Raises:
            UserError: it is missing, unreadable or wrong.
        """
        assert self.queue.cluster is not None
        try:
            return profiles.load_profile(self.queue.cluster)
        except UserError as e:
            raise UserError(f"{self.queue_file}: {e}") from None

    # states ------------------------------------------------------------------------------------------------------

    def runs_without_job(self) -> set[str]:
        """Return the open runs without a pending or running job; SLURM is asked once per ``poll_seconds``.

        While SLURM does not answer (its controller restarts, say) jobs are assumed to continue.
        """
        open_runs = set(self._open_runs())
        return open_runs - self.known.live.keys() if self._is_answered() else set()

    def live(self) -> dict[str, commands.JobState]:
        """Return run_id -> its pending or running job, from one squeue call.

        Raises:
            UserError: SLURM does not answer.
        """
        self.known.update(self._array_jobs, self._poll_seconds)
        return self.known.live

    def scheduled(self, run_id: str) -> tuple[str, str]:
        """Return an open run's state and SLURM's remark on it; empty when SLURM knows no job of it."""
        if not self._is_answered():
            return "", ""
        if (job := self.known.live.get(run_id)) is not None:
            if job.state in ("RUNNING", "COMPLETING"):
                return "running", f"job {job.job_id}"
            if job.state == "SUSPENDED":
                return "suspended", f"job {job.job_id}"
            return "pending", f"{job.reason}, job {job.job_id}"
        self.known.update_ends(self._array_jobs)
        if (job := self.known.ends.get(run_id)) is None:
            return "", ""
        state, meaning = _ENDS.get(job.state, ("lost", f"ended as {job.state} without a result"))
        last = self.store.attempts(run_id)[-1:]
        if state == "lost" and last and files.names_full_disk(files.tail(Path(last[0]["log"]))):
            meaning += ", no space left on the disk"
        return state, f"job {job.job_id}: {meaning}; run the sweep again"

    def cancel(self) -> bool:
        """End this queue's jobs; False when there is none."""
        open_runs, live = set(self._open_runs()), self.live()
        jobs = sorted({job.job_id for run_id, job in live.items() if run_id in open_runs})
        commands.cancel(jobs)
        self.known.forget()
        return bool(jobs)

    def _is_answered(self) -> bool:
        return self.known.update_if_answered(self._array_jobs, self._poll_seconds)

    @property
    def _poll_seconds(self) -> float:
        with suppress(UserError):
            return self.profile.poll_seconds
        return profiles.Profile().poll_seconds

    def _open_runs(self) -> list[str]:
        settled = self.store.done_ids() | self.store.failed_ids()
        return [k for job in self.queue.jobs for k in job.run_ids if k not in settled]

    # submission --------------------------------------------------------------------------------------------------

    def start(self) -> int:
        """Submit every open run that has no job, within SLURM's limits. Two callers at once submit once.

        Returns:
            The number of runs that did not fit the limits on jobs of the user, the account or the QOS.

        Raises:
            UserError: SLURM refuses or does not answer, a run has too few images in a batch for its processes, its
                engine is not installed, or jobs cannot use the store's path.
        """
        self.queue = Queue.read_own(self.queue_file)  # whose profile says what jobs run
        if self._postponed and time.monotonic() - self._postponed_at < self.profile.poll_seconds:
            return self._postponed
        with self._array_jobs.submit_lock():
            self._adopt()
            self.known.forget()
            early_ends.write_failures(self.store)
            to_submit = set(self._open_runs()) - set(self.live())
            to_submit -= self._fail_without_teacher(to_submit)
            self._earlier = EarlierStarts.of(self.store, self.profile.retry, self._array_jobs.read(), to_submit)
            jobs = self._checked_jobs(to_submit, {})
            self._postponed, self._postponed_at = self._submit_what_fits(jobs), time.monotonic()
            return self._postponed

    def _submit_what_fits(self, jobs: list[QueuedJob]) -> int:
        """Submit jobs in arrays that SLURM takes, until it takes no more, and return the number of runs left.

        The limits lie on the user, the account and its parents, the QOS of the job and of the partition, and count
        others' jobs: SLURM alone knows what fits. An array that it refuses is halved.
        """
        left = sum(len(job.runs) for job in jobs)
        if jobs and self._most_array_tasks is None:
            self._most_array_tasks = self._array_tasks = commands.most_array_tasks()
        self._array_tasks = min(self._most_array_tasks or 1, 2 * self._array_tasks)
        for members, teacher_runs in self._groups(jobs):
            while members:
                array = members[: self._array_tasks]
                try:
                    self._submit(array, teacher_runs)
                except Refusal as limit:
                    if len(array) == 1:
                        json_files.print_note(f"SLURM takes no more jobs now: {limit}")
                        return left
                    self._array_tasks = len(array) // 2
                    continue
                members = members[len(array) :]
                left -= sum(len(job.runs) for job in array)
        return left

    def scripts(self, sciences: Mapping[str, Science]) -> list[str]:
        """Return the scripts that sbatch would be given now to train runs; nothing is submitted or written.

        Raises:
            UserError: as ``start``.
        """
        jobs = self._checked_jobs(sciences.keys() - self.live().keys(), sciences)
        most, array_of = commands.most_array_tasks(), dict[str, str]()
        arrays = [
            (members[at : at + most], teacher_runs)
            for members, teacher_runs in self._groups(jobs)
            for at in range(0, len(members), most)
        ]
        scripts = []
        for number, (array, teacher_runs) in enumerate(arrays, 1):
            name = f"kd-{self.queue_file.stem}-dryrun{number:02}"
            own_files = _own_files(self._sciences(array, sciences))
            code = snapshot.snapshot_folder(self.store.code, own_files)
            script = self._submission(name, array, code, bool(own_files), teacher_runs).script()
            waits = dict.fromkeys(array_of[k] for k in teacher_runs if k in array_of)
            tasks = [[job.run_ids for job in slurm_job.jobs] for slurm_job in array]
            scripts.append(dry_run.explained(script, f"{number} of {len(arrays)}", tasks, waits))
            for i, job in enumerate(array):
                array_of |= dict.fromkeys(job.run_ids, f"task {i} of script {number}")
        return scripts

    def _checked_jobs(self, run_ids: Set[str], sciences: Mapping[str, Science]) -> list[QueuedJob]:
        submission.check_path(self.store.root)
        if self.profile.container:
            containers.check_mountable([str(self.store.root), *self.queue.read_paths])
        jobs = [job for job in (job.only(run_ids) for job in self.queue.jobs) if job.runs]
        for job in jobs:
            resources = self._resources(job)
            job_checks.check_batches(job, resources.processes, f"--cluster {self.queue.cluster}")
            if resources.engine == "deepspeed":
                of_job = [sciences.get(run.run_id) or self.store.read_science(run.run_id) for run in job.runs]
                optimizers = (science.recipe.optimizer for science in of_job)
                job_checks.check_optimizers(optimizers, resources.zero_stage)
                if not (self.profile.python or self.profile.container):
                    job_checks.check_installed(f"--cluster {self.queue.cluster}")
        return jobs

    def _sciences(self, array: Iterable[SlurmJob], sciences: Mapping[str, Science]) -> list[Science]:
        """Return a run's science for each student, teacher and method of jobs."""
        jobs = (job for slurm_job in array for job in slurm_job.jobs)
        runs = {(job.student, job.teacher, run.method): run.run_id for job in jobs for run in job.runs}
        found: list[Science] = []
        for run_id in runs.values():
            with suppress(UserError):  # damaged: its job says so
                found.append(sciences.get(run_id) or self.store.read_science(run_id))
        return found

    def _fail_without_teacher(self, run_ids: set[str]) -> set[str]:
        """Write a failure for those of these runs whose teacher nobody will train, and return them."""
        jobs = [job.only(run_ids) for job in self.queue.jobs]
        needs = {k for job in jobs for k in job.all_needs} - set(self.known.live)
        missing = {k for k in needs if missing_teachers.is_missing(self.store, self.queue.run_ids, k)}
        failed: set[str] = set()
        for job in jobs:
            if teacher_run := next((k for k in job.all_needs if k in missing), None):
                failed |= missing_teachers.fail_learners(self.store, job, teacher_run)
        return failed

    def _groups(self, jobs: list[QueuedJob]) -> Iterator[tuple[list[SlurmJob], tuple[str, ...]]]:
        """Yield jobs that can go into one array, and the teachers' runs that they wait for.

        They ask for the same resources. Teachers come first, so that their job ids are known when their students are
        submitted.
        """
        return job_groups(jobs, self.store.done_ids(), self._resources)

    def _submit(self, jobs: list[SlurmJob], teacher_runs: tuple[str, ...]) -> None:
        name = new_name(self.queue_file)
        folder = self.store.jobs / name
        self.store.jobs.mkdir(parents=True, exist_ok=True)
        with ownership.writable_by_owner_alone():
            folder.mkdir()  # for the pickles, which are code
        stage = self.profile.stage.data if self.profile.stage else None
        orders = [job.order(self.queue, stage, self._earlier) for job in jobs]
        array_job = ArrayJob(name, str(folder), [list(job.run_ids) for job in jobs], orders)
        self._array_jobs.write(array_job)
        own_files = _own_files(self._sciences(jobs, {}))
        code = snapshot.take_snapshot(self.store.code, own_files)
        array = self._submission(name, jobs, code, bool(own_files), teacher_runs)
        try:
            function = partial(function_of(orders[0]), max_attempts=self.profile.max_attempts)
            array_job.job_id = array.submit(function, orders)
        except Refusal as refusal:
            if refusal.is_job_limit:
                self._array_jobs.remove(array_job)
                shutil.rmtree(folder)
                if len(jobs) > 1 or self.known.of_user or refusal.is_shared:  # else waiting does not help
                    raise
            # The note stays: if only sbatch's answer was lost, the next start adopts the jobs.
            avoided = f"; {note}" if (note := excluded_nodes.excluded_nodes_text([self.queue_file])) else ""
            raise UserError(f"--cluster {self.queue.cluster}: sbatch refused: {refusal}{avoided}") from None
        self._array_jobs.write(array_job)
        for i, job in enumerate(jobs):
            self.known.live |= {k: commands.JobState(array_job.task(i), name, "PENDING", "None") for k in job.run_ids}
        self.known.of_user += len(jobs)

    def _submission(
        self, name: str, jobs: list[SlurmJob], code: Path, has_own_code: bool, teacher_runs: tuple[str, ...]
    ) -> submission.Submission:
        # What a user's code reads besides modules is not in the copy, but where it was at submission. Without such
        # code, nothing of the current folder is imported, and a container has all other modules.
        search = [str(code), *([os.getcwd()] if has_own_code else [])]
        if has_own_code or self.profile.container is None:
            search += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
        # afterany, not afterok: a student whose teacher failed starts, records that as its failure, and ends.
        teachers = dict.fromkeys(self.known.live[k].job_id for k in teacher_runs if k in self.known.live)
        return submission.Submission(
            name=name,
            folder=self.store.jobs / name,
            tasks=len(jobs),
            profile=self.profile,
            resources=jobs[0].resources,
            search=search,
            read=[str(self.store.root), *self.queue.read_paths],
            dependency=":".join(("afterany", *teachers)) if teachers else "",
            max_parallel=self.queue.max_parallel,
            restarts=self.profile.max_attempts * max(job.packs for job in jobs),
            excluded_nodes=self._excluded_nodes(),
        )

    def _excluded_nodes(self) -> list[str]:
        """Return the nodes that jobs avoid; none where there is no other."""
        nodes = [each.node for each in excluded_nodes.excluded_nodes(self.queue_file)]
        return nodes if nodes and commands.usable_nodes() - set(nodes) else []

    def _resources(self, job: QueuedJob) -> profiles.Resources:
        resources = self.profile.resources_for(job.student, job.teacher)
        return self._earlier.raised(job.run_ids, resources) if self._earlier else resources

    def _adopt(self) -> None:
        """Settle array jobs without a job id: either sbatch was never reached, or its answer was lost."""
        from submitit.core import utils

        unanswered = [array_job for array_job in self._array_jobs.read() if array_job.job_id is None]
        if not unanswered:
            return
        by_name = {job.name: job.job_id for job in squeue(unanswered)}
        for array_job in unanswered:
            if array_job.name not in by_name:
                self._array_jobs.remove(array_job)
                continue
            array_job.job_id = by_name[array_job.name].split("_")[0]
            for i, order in enumerate(array_job.specs):  # submitit had no time to put these in place
                path = utils.JobPaths(array_job.folder, array_job.task(i)).submitted_pickle
                if not path.exists() and self._array_jobs.is_own(array_job):
                    delayed = utils.DelayedSubmission(function_of(order), order, self.profile.max_attempts)
                    delayed.set_timeout(self.profile.resources.time_minutes, 0)
                    with ownership.writable_by_owner_alone():
                        files.replace(path, delayed.dump)
            self._array_jobs.write(array_job)


def _own_files(sciences: Iterable[Science]) -> list[tuple[str, Path]]:
    """Return (module, file) of all code of runs that is the user's own."""
    return sorted({item for code in all_own_code(sciences) for item in code.modules().items()})
