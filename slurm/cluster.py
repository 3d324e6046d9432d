"""Sweeps on a SLURM cluster: packs as tasks of job arrays, submitted through submitit, with no driver to keep alive.

What was asked of SLURM is written down before it is asked (a *submission*), so that a crash at any moment leaves
nothing unknown: the next start finds the jobs by the submission's name and adopts them.
"""

import fcntl
import os
import shlex
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.spec import datasets
from harness.spec import methods as method_sources
from harness.store import files
from harness.store.store import Store
from slurm import commands, profiles, snapshot
from slurm.queue import Queue, QueuedPack


@contextmanager
def _outside_jobs() -> Iterator[None]:
    """Hides what a job around us (an interactive one) has set: sbatch and srun would take it for our wishes."""
    kept = dict(os.environ)
    for name in kept:
        if name.startswith(("SLURM", "SBATCH", "SRUN")) and name != "SLURM_CONF":
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


@dataclass
class Submission:
    """One sbatch call: an array whose task i trains packs[i]."""

    name: str  # the SLURM job's name, which no other submission has
    folder: str
    packs: list[list[str]]  # run ids
    specs: list[dict[str, Any]]
    job_id: str | None = None  # None until sbatch has answered
    user: str = field(default_factory=commands.user)  # who submitted it: a store may be shared

    def task(self, i: int) -> str:
        return f"{self.job_id}_{i}" if len(self.packs) > 1 else str(self.job_id)


# SLURM's last word on a job that left a run without a result -> (the run's state, what it means).
_ENDS = {
    "TIMEOUT": ("timed out", "the time limit came before it could checkpoint"),
    "PREEMPTED": ("preempted", "preempted for another job"),
    "NODE_FAIL": ("node failed", "its node failed"),
    "BOOT_FAIL": ("node failed", "its node failed to boot"),
    "OUT_OF_MEMORY": ("out of memory", "raise `mem_gb` in the profile"),
    "CANCELLED": ("cancelled", "cancelled"),
}
# Around one task: a process that was killed (for its memory, say) has had no chance to put its job back into the
# queue. A job that is being cancelled is no longer RUNNING, and stays away.
_REQUEUE_KILLED = (
    'if [ $? -ge 128 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt %d ] '
    '&& [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%%T)" = RUNNING ]; '
    'then scontrol requeue "$SLURM_JOB_ID"; fi'
)


@dataclass
class Cluster:
    """The cluster side of one queue file."""

    queue_file: Path
    queue: Queue = field(init=False)
    store: Store = field(init=False)
    profile: profiles.Profile = field(init=False)
    _looked_at: float | None = None
    _live: dict[str, commands.JobState] = field(default_factory=dict)
    _queued: int = 0  # this user's jobs and array tasks, whatever they do
    _ended: dict[str, commands.JobState] | None = None
    _limits: tuple[int, int] | None = None
    _left: int = 0  # runs that the last start found no room for,
    _full_at: float = 0.0  # and when that was
    _silent: bool = False  # SLURM did not answer when it was last asked

    def __post_init__(self) -> None:
        self.queue = Queue.read(self.queue_file)
        self.store = Store(Path(self.queue.store))
        assert self.queue.cluster is not None
        self.profile = profiles.load_profile(self.queue.cluster)

    # what sweep, watch and status ask ----------------------------------------------------------------------------

    def neglected(self) -> set[str]:
        """Open runs without a pending or running job; SLURM is asked once per ``poll_seconds``.

        While SLURM does not answer (its controller is restarted, say) jobs are taken to go on.
        """
        still_open = self._open_runs()
        return set() if (live := self._live_if_answered()) is None else set(still_open) - set(live)

    def live(self) -> dict[str, commands.JobState]:
        """run_id -> its pending or running job, from one squeue call.

        Raises:
            UserError: SLURM does not answer.
        """
        if self._is_due():
            self._looked_at = time.monotonic()
            submissions = self._submissions()
            jobs = {(job.name, job.job_id): job for job in self._squeue(submissions)}
            self._queued = sum(job.user == commands.user() for job in jobs.values())
            self._live = {
                run_id: job
                for submission in submissions
                for i, pack in enumerate(submission.packs)
                if (job := jobs.get((submission.name, submission.task(i)))) is not None
                for run_id in pack
            }
        return self._live

    def scheduled(self, run_id: str) -> tuple[str, str]:
        """An open run's state and what SLURM says of it; empty when SLURM knows no job of it."""
        if (live := self._live_if_answered()) is None:
            return "", ""
        if (job := live.get(run_id)) is not None:
            if job.state in ("RUNNING", "COMPLETING"):
                return "running", f"job {job.job_id}"
            return "pending", f"{job.reason}, job {job.job_id}"
        if self._ended is None:
            self._ended = self._last_ends(live)
        if (job := self._ended.get(run_id)) is None:
            return "", ""
        state, meaning = _ENDS.get(job.state, ("lost", f"ended as {job.state} without a result"))
        return state, f"job {job.job_id}: {meaning}; run the sweep again"

    def start(self) -> int:
        """Submits every open run that has no job, as far as SLURM's limits leave room. Two callers at once submit once.

        Returns:
            How many runs were left for want of room.

        Raises:
            UserError: SLURM refuses or does not answer, a run has too few images in a batch for its processes, or its
                engine is not installed.
        """
        if self._left and time.monotonic() - self._full_at < self.profile.poll_seconds:
            return self._left
        with self._exclusive():
            self._adopt()
            self._looked_at = None
            to_do = set(self._open_runs()) - set(self.live())
            packs = [
                QueuedPack(left, pack.needs)
                for pack in self.queue.packs
                if (left := tuple(k for k in pack.run_ids if k in to_do))
            ]
            for pack in packs:
                self._check_batches(pack)
                self._check_engine(pack)
            wanted, submitted = sum(len(p.run_ids) for p in packs), 0
            for group, wait_for in self._groups(packs):
                self._submit(group, wait_for)
                submitted += sum(len(p.run_ids) for p in group)
            self._left, self._full_at = wanted - submitted, time.monotonic()
            return self._left

    def cancel(self) -> bool:
        """Ends this queue's jobs; False when there is none."""
        wanted, live = set(self._open_runs()), self.live()
        jobs = sorted({job.job_id for run_id, job in live.items() if run_id in wanted})
        commands.cancel(jobs)
        self._looked_at = None
        return bool(jobs)

    def _live_if_answered(self) -> dict[str, commands.JobState] | None:
        if self._silent and not self._is_due():
            return None
        try:
            live = self.live()
        except UserError as e:
            if not self._silent:
                print(f"note: {e}; asking again", file=sys.stderr, flush=True)
            self._silent = True
            return None
        self._silent = False
        return live

    def _is_due(self) -> bool:
        return self._looked_at is None or time.monotonic() - self._looked_at >= self.profile.poll_seconds

    def _squeue(self, submissions: list[Submission]) -> list[commands.JobState]:
        return commands.squeue({commands.user(), *(s.user for s in submissions)})

    def _last_ends(self, live: dict[str, commands.JobState]) -> dict[str, commands.JobState]:
        """run_id -> how the last job of a run that is still open ended, from one sacct call."""
        last: dict[str, tuple[str, str]] = {}
        for submission in self._submissions():
            for i, pack in enumerate(submission.packs):
                last.update({run_id: (submission.name, submission.task(i)) for run_id in pack})
        wanted = {k: last[k] for k in self._open_runs() if k in last and k not in live}
        states = {(job.name, job.job_id): job for job in commands.sacct(sorted({i for _, i in wanted.values()}))}
        return {k: job for k, named in wanted.items() if (job := states.get(named)) is not None}

    # submission --------------------------------------------------------------------------------------------------

    def _groups(self, packs: list[QueuedPack]) -> Iterator[tuple[list[QueuedPack], str | None]]:
        """Packs that go into one array: same resources, waiting for the same teacher job; cut to the cluster's limits.

        Teachers come first, so that their job ids are known when their students are submitted.
        """
        if not packs:
            return
        done = self.store.done_ids()
        if self._limits is None:
            self._limits = commands.limits()
        array_limit, user_limit = self._limits
        room = user_limit - self._queued
        groups: dict[tuple[profiles.Resources, str | None], list[QueuedPack]] = {}
        for pack in packs:
            wait_for = pack.needs if pack.needs and pack.needs not in done else None
            groups.setdefault((self._resources(pack), wait_for), []).append(pack)
        for (_, wait_for), members in sorted(groups.items(), key=lambda item: item[0][1] is not None):
            for at in range(0, len(members), array_limit):
                part = members[at : at + array_limit][: max(0, room)]
                room -= len(part)
                if part:
                    yield part, wait_for

    def _submit(self, packs: list[QueuedPack], wait_for: str | None) -> None:
        import submitit

        name = f"kd-{self.queue_file.stem}-{uuid.uuid4().hex[:8]}"
        folder = self.store.jobs / name
        q = self.queue
        resources = self._resources(packs[0])
        placed = dict(threads=resources.cpus_per_task, engine=resources.engine, zero_stage=resources.zero_stage)
        shared = dict(store=q.store, data=q.data, weights=q.weights, **placed)
        specs = [{**shared, "run_ids": list(pack.run_ids)} for pack in packs]
        submission = Submission(name, str(folder), [list(p.run_ids) for p in packs], specs)
        files.replace_json(self._note(name), asdict(submission))
        code = snapshot.take_snapshot(self.store.code, self._method_files(packs))
        python = self.profile.python or shlex.quote(sys.executable)
        # What a user's module imports beside itself is not in the copy; it is found where it was at submission.
        search = [str(code), os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        path = shlex.quote(os.pathsep.join(search))
        executor = submitit.SlurmExecutor(folder=folder, python=f"env PYTHONPATH={path} {python}")
        options: dict[str, Any] = {"chdir": str(code), "requeue": True, **self.profile.sbatch}
        extra = {k: v for k, v in options.items() if v is not False}
        if (teacher := self._live.get(wait_for or "")) is not None:
            # afterany, not afterok: a student whose teacher failed starts, says so in its record of failure, and ends.
            extra["dependency"] = f"afterany:{teacher.job_id}"
        p = self.profile
        given = {"partition": p.partition, "account": p.account, "qos": p.qos, "constraint": p.constraint}
        executor.update_parameters(
            job_name=name,
            time=resources.time_minutes,
            nodes=resources.nodes,
            ntasks_per_node=resources.tasks_per_node,
            cpus_per_task=resources.cpus_per_task,
            srun_args=[
                "--kill-on-bad-exit=1",  # one process lost ends the others, which would wait for it
                "--open-mode=append",  # a requeued job's log says why
                f"--cpus-per-task={resources.cpus_per_task}",
            ],
            array_parallelism=q.max_parallel,
            signal_delay_s=p.signal_seconds,
            stderr_to_stdout=True,
            setup=list(p.setup),
            teardown=[_REQUEUE_KILLED % p.max_attempts],
            additional_parameters=extra,
            **({"mem": f"{int(resources.mem_gb * 1024)}MB"} if resources.mem_gb else {}),
            **({"gpus_per_node": resources.gpus_per_node} if resources.gpus_per_node else {}),
            **{k: v for k, v in given.items() if v is not None},
        )
        from slurm.entry import run_job

        try:
            with _outside_jobs():
                jobs = executor.map_array(partial(run_job, max_attempts=p.max_attempts), specs)
        except Exception as e:  # submitit wraps sbatch's refusal in several types
            self._note(name).unlink(missing_ok=True)
            raise UserError(f"sbatch refused: {str(e).strip().splitlines()[-1]}") from None
        submission.job_id = jobs[0].job_id.split("_")[0]
        files.replace_json(self._note(name), asdict(submission))
        for i, pack in enumerate(packs):
            self._live |= {k: commands.JobState(submission.task(i), name, "PENDING", "None") for k in pack.run_ids}
        self._queued += len(packs)

    def _resources(self, pack: QueuedPack) -> profiles.Resources:
        science = self.store.read_science(pack.run_ids[-1])  # the last is the method most likely to have a teacher
        return self.profile.resources_for(science["student"], (science["teacher"] or {}).get("model"))

    def _check_batches(self, pack: QueuedPack) -> None:
        """Every process of a run needs an image of every batch, or micro-batch, the last and smallest batch of an epoch
        included.

        Raises:
            UserError: naming the numbers, before anything is submitted.
        """
        if (processes := self._resources(pack).processes) == 1:
            return
        sciences = [self.store.read_science(k) for k in pack.run_ids]
        dataset, batch = sciences[0]["dataset"], sciences[0]["recipe"]["batch_size"]
        images = datasets.dataset_of(dataset).trained_on(dataset["train_subset"], dataset.get("validation"))
        parts = max(science["recipe"].get("accumulate", 1) for science in sciences)
        if (least := images % batch or batch) // processes < parts:
            in_parts = f" and take batches in {parts} parts (`accumulate`)" if parts > 1 else ""
            raise UserError(
                f"--cluster {self.queue.cluster}: {processes} processes share a run (`nodes` x `tasks_per_node`)"
                f"{in_parts}, but the last batch of {images} images in batches of {batch} has {least}; take fewer "
                "processes, or another `batch_size` in the recipe (which makes it another run)"
            )

    def _check_engine(self, pack: QueuedPack) -> None:
        """Raises:
        UserError: the engine is not installed here, where the jobs' Python is.
        """
        wanted = self._resources(pack).engine == "deepspeed" and self.profile.python is None
        if wanted and find_spec("deepspeed") is None:
            raise UserError(
                f"--cluster {self.queue.cluster}: engine deepspeed is not installed here: pip install "
                "'kd-harness[deepspeed]', or take engine native"
            )

    def _method_files(self, packs: list[QueuedPack]) -> list[tuple[str, Path]]:
        uses = {self.store.read_science(k)["method"]["use"] for pack in packs for k in pack.run_ids}
        return [(use.partition(":")[0], method_sources.source_file(use)) for use in sorted(uses) if ":" in use]

    # what crashes leave ------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Submissions without a job id: sbatch was never reached, or its answer was lost; SLURM knows which."""
        from submitit.core import utils

        from slurm.entry import run_job

        unknown = [s for s in self._submissions() if s.job_id is None]
        if not unknown:
            return
        by_name = {job.name: job.job_id for job in self._squeue(unknown)}
        for submission in unknown:
            if submission.name not in by_name:
                self._note(submission.name).unlink(missing_ok=True)
                continue
            submission.job_id = by_name[submission.name].split("_")[0]
            for i, spec in enumerate(submission.specs):  # submitit had no time to put these in place
                path = utils.JobPaths(submission.folder, submission.task(i)).submitted_pickle
                if not path.exists():
                    delayed = utils.DelayedSubmission(run_job, spec, self.profile.max_attempts)
                    delayed.set_timeout(self.profile.resources.time_minutes, 0)
                    files.replace(path, delayed.dump)
            files.replace_json(self._note(submission.name), asdict(submission))

    # notes -------------------------------------------------------------------------------------------------------

    def _note(self, name: str) -> Path:
        return self.store.submission(name)

    def _submissions(self) -> list[Submission]:
        """Of the whole store, oldest first: a run may have been submitted by another sweep."""
        folder = self.store.submissions
        notes = sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime) if folder.is_dir() else []
        return [Submission(**value) for p in notes if isinstance(value := files.read_json(p), dict)]

    def _open_runs(self) -> list[str]:
        settled = self.store.done_ids() | self.store.failed_ids()
        return [k for pack in self.queue.packs for k in pack.run_ids if k not in settled]

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One submitter at a time on this store; the kernel lets go if it dies."""
        path = self.store.submissions / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
