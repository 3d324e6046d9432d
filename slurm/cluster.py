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
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.spec import methods as method_sources
from harness.store import files
from harness.store.store import Store
from slurm import commands, profiles, snapshot
from slurm.queue import Queue, QueuedPack


@dataclass
class Submission:
    """One sbatch call: an array whose task i trains packs[i]."""

    name: str  # the SLURM job's name, which no other submission has
    folder: str
    packs: list[list[str]]  # run ids
    specs: list[dict[str, Any]]
    job_id: str | None = None  # None until sbatch has answered

    def task(self, i: int) -> str:
        return f"{self.job_id}_{i}" if len(self.packs) > 1 else str(self.job_id)


@dataclass(frozen=True)
class RunJob:
    """What SLURM says of a run."""

    job_id: str
    state: str
    reason: str


@dataclass
class Cluster:
    """The cluster side of one queue file."""

    queue_file: Path
    queue: Queue = field(init=False)
    store: Store = field(init=False)
    profile: profiles.Profile = field(init=False)
    _looked_at: float = 0.0
    _live: dict[str, RunJob] = field(default_factory=dict)
    _ended: dict[str, RunJob] | None = None

    def __post_init__(self) -> None:
        self.queue = Queue.read(self.queue_file)
        self.store = Store(Path(self.queue.store))
        assert self.queue.cluster is not None
        self.profile = profiles.load(self.queue.cluster)

    # what sweep, watch and status ask ----------------------------------------------------------------------------

    def is_alive(self) -> bool:
        """Whether a job of this queue's open runs is pending or running; asked of SLURM once per ``poll_seconds``."""
        wanted = set(self._open_runs())
        return bool(wanted & set(self.live()))

    def live(self) -> dict[str, RunJob]:
        """run_id -> its pending or running job, from one squeue call."""
        if time.monotonic() - self._looked_at >= self.profile.poll_seconds or not self._looked_at:
            jobs = {job.job_id: job for job in commands.squeue()}
            self._live = {
                run_id: RunJob(job.job_id, job.state, job.reason)
                for submission in self._submissions()
                for i, pack in enumerate(submission.packs)
                if submission.job_id and (job := jobs.get(submission.task(i)))
                for run_id in pack
            }
            self._looked_at = time.monotonic()
        return self._live

    def ended(self) -> dict[str, RunJob]:
        """run_id -> how the last job of a run that is still open ended, from one sacct call."""
        still_open, last = set(self._open_runs()) - set(self.live()), {}
        for submission in self._submissions():
            for i, pack in enumerate(submission.packs):
                last.update({run_id: submission.task(i) for run_id in pack if submission.job_id})
        states = {job.job_id: job for job in commands.sacct(sorted({last[k] for k in still_open if k in last}))}
        return {
            k: RunJob(job.job_id, job.state, job.reason) for k in still_open if (job := states.get(last.get(k, "")))
        }

    def remark(self, run_id: str) -> str:
        """PENDING with SLURM's reason, or how its last job ended."""
        if (job := self.live().get(run_id)) is not None:
            return (
                f"{job.state.lower()} ({job.reason}), job {job.job_id}" if job.reason != "None" else job.state.lower()
            )
        if self._ended is None:
            self._ended = self.ended()
        job = self._ended.get(run_id)
        return f"lost: job {job.job_id} ended as {job.state}; run the sweep again" if job else ""

    def start(self) -> None:
        """Submits every open run that has no job. Two callers at once submit once.

        Raises:
            UserError: SLURM refuses or does not answer.
        """
        with self._exclusive():
            self._adopt()
            self._looked_at = 0.0
            live = self.live()
            packs = [
                QueuedPack(left, pack.needs)
                for pack in self.queue.packs
                if (left := tuple(k for k in self._open_of(pack) if k not in live))
            ]
            for group, wait_for in self._groups(packs, live):
                self._submit(group, wait_for)
            self._looked_at = 0.0

    def cancel(self) -> bool:
        """Ends this queue's jobs; False when there is none."""
        wanted = set(self._open_runs())
        jobs = sorted({job.job_id for run_id, job in self.live().items() if run_id in wanted})
        commands.cancel(jobs)
        self._looked_at = 0.0
        return bool(jobs)

    # submission --------------------------------------------------------------------------------------------------

    def _groups(
        self, packs: list[QueuedPack], live: dict[str, RunJob]
    ) -> Iterator[tuple[list[QueuedPack], str | None]]:
        """Packs that go into one array: same resources, waiting for the same teacher job; cut to the cluster's limits.

        Teachers come first, so that their job ids are known when their students are submitted.
        """
        done = self.store.done_ids()
        array_limit, user_limit = commands.limits()
        room = user_limit - len({job.job_id for job in live.values()})
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
        shared = dict(store=q.store, data_root=q.data_root, weights=q.weights, threads=resources.cpus_per_task)
        specs = [{**shared, "run_ids": list(pack.run_ids)} for pack in packs]
        submission = Submission(name, str(folder), [list(p.run_ids) for p in packs], specs)
        files.replace_json(self._note(name), asdict(submission))
        code = snapshot.take(self.store.root / "code", self._method_files(packs))
        python = self.profile.python or shlex.quote(sys.executable)
        executor = submitit.SlurmExecutor(folder=folder, python=f"env PYTHONPATH={shlex.quote(str(code))} {python}")
        extra: dict[str, Any] = {"chdir": str(code), "requeue": True, **self.profile.sbatch}
        if wait_for is not None and (dependency := self._teacher_job(wait_for)):
            # afterany, not afterok: a student whose teacher failed starts, says so in its record of failure, and ends.
            extra["dependency"] = f"afterany:{dependency}"
        p = self.profile
        given = {"partition": p.partition, "account": p.account, "qos": p.qos, "constraint": p.constraint}
        executor.update_parameters(
            job_name=name,
            time=resources.time_minutes,
            cpus_per_task=resources.cpus_per_task,
            ntasks_per_node=1,
            array_parallelism=q.max_parallel,
            signal_delay_s=p.signal_seconds,
            stderr_to_stdout=True,
            setup=list(p.setup),
            additional_parameters=extra,
            **({"mem": f"{int(resources.mem_gb * 1024)}MB"} if resources.mem_gb else {}),
            **({"gpus_per_node": resources.gpus_per_node} if resources.gpus_per_node else {}),
            **{k: v for k, v in given.items() if v is not None},
        )
        from slurm.entry import run

        try:
            jobs = executor.map_array(partial(run, max_attempts=p.max_attempts), specs)
        except Exception as e:  # submitit wraps sbatch's refusal in several types
            self._note(name).unlink(missing_ok=True)
            raise UserError(f"sbatch refused: {str(e).strip().splitlines()[-1]}") from None
        submission.job_id = jobs[0].job_id.split("_")[0]
        files.replace_json(self._note(name), asdict(submission))

    def _resources(self, pack: QueuedPack) -> profiles.Resources:
        science = self.store.read_science(pack.run_ids[-1])  # the last is the method most likely to have a teacher
        return self.profile.resources_for(science["student"], (science["teacher"] or {}).get("model"))

    def _method_files(self, packs: list[QueuedPack]) -> list[tuple[str, Path]]:
        uses = {self.store.read_science(k)["method"]["use"] for pack in packs for k in pack.run_ids}
        return [(use.partition(":")[0], method_sources.source_file(use)) for use in sorted(uses) if ":" in use]

    def _teacher_job(self, teacher: str) -> str | None:
        for submission in reversed(self._submissions()):
            for i, pack in enumerate(submission.packs):
                if teacher in pack and submission.job_id:
                    return submission.task(i)
        return None

    # what crashes leave ------------------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Submissions without a job id: sbatch was never reached, or its answer was lost; SLURM knows which."""
        from submitit.core import utils

        from slurm.entry import run

        unknown = [s for s in self._submissions() if s.job_id is None]
        if not unknown:
            return
        by_name = {job.name: job.job_id for job in commands.squeue()}
        for submission in unknown:
            if submission.name not in by_name:
                self._note(submission.name).unlink(missing_ok=True)
                continue
            submission.job_id = by_name[submission.name].split("_")[0]
            for i, spec in enumerate(submission.specs):  # submitit had no time to put these in place
                path = utils.JobPaths(submission.folder, submission.task(i)).submitted_pickle
                if not path.exists():
                    delayed = utils.DelayedSubmission(run, spec, self.profile.max_attempts)
                    delayed.set_timeout(self.profile.resources.time_minutes, 0)
                    files.replace(path, delayed.dump)
            files.replace_json(self._note(submission.name), asdict(submission))

    # notes -------------------------------------------------------------------------------------------------------

    def _note(self, name: str) -> Path:
        return self.store.submission(name)

    def _submissions(self) -> list[Submission]:
        """Of the whole store, oldest first: a run may have been submitted by another sweep."""
        folder = self._note("x").parent
        notes = sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime) if folder.is_dir() else []
        return [Submission(**value) for p in notes if isinstance(value := files.read_json(p), dict)]

    def _open_of(self, pack: QueuedPack) -> tuple[str, ...]:
        settled = self.store.done_ids() | self.store.failed_ids()
        return tuple(k for k in pack.run_ids if k not in settled)

    def _open_runs(self) -> list[str]:
        settled = self.store.done_ids() | self.store.failed_ids()
        return [k for pack in self.queue.packs for k in pack.run_ids if k not in settled]

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """One submitter at a time on this store; the kernel lets go if it dies."""
        path = self._note("x").parent / "lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)
