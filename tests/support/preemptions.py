"""Preempt the jobs of a sweep at random moments, in every mode of SLURM, and compare with an undisturbed sweep.

    python -m tests.support.preemptions [N] [SEED]

Prints a line for each preemption and a summary. The exit code is 1 unless every run has one record, with the weights
of the undisturbed sweep, and no more starts than the preemptions explain.
"""

import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from slurm.loopback import Loopback
from tests.support.bench import SWEEP, Bench, until
from tests.support.cluster_bench import SLOW, ClusterBench, small

NODES = 3  # of one core: each has one job
GRACE_SECONDS = 5
USER_SIGNAL = "preempt_send_user_signal"


class Mode(NamedTuple):
    """A way in which SLURM preempts a job: the partition's PreemptMode, and how it warns the job."""

    preempt_mode: str
    warning: str = ""  # "signal": by the signal that the job asks for; "TERM"; "": none

    def __str__(self) -> str:
        return f"{self.preempt_mode} {f'after {self.warning}' if self.warning else 'without warning'}"


MODES = (
    *(Mode(mode, warning) for warning in ("signal", "TERM", "") for mode in ("REQUEUE", "CANCEL")), Mode("SUSPEND"),
)  # fmt: skip
# When a job is preempted: at its start, before a run is noted; in training; when its runs are about to end; again
# within its grace time; the array's last task, whose SLURM_JOB_ID is the array's.
MOMENTS = ("start", "training", "training", "end", "twice", "last task")


class RunningJob(NamedTuple):
    job_id: str  # 12 or 12_3
    node: str
    run_ids: tuple[str, ...]


def set_mode(cluster: Loopback, mode: Mode, partition: str = "low") -> None:
    """Preempt jobs of a partition in this mode from now on.

    GANG, which a suspension needs, makes SLURM kill jobs of other modes at the start of their grace time.
    """
    in_force = {"SlurmctldParameters": USER_SIGNAL, "PreemptMode": "REQUEUE", **cluster.settings.extra}
    wanted = {"PreemptMode": "REQUEUE,GANG" if mode.preempt_mode == "SUSPEND" else "REQUEUE"}
    if mode.warning:
        wanted["SlurmctldParameters"] = USER_SIGNAL if mode.warning == "signal" else ""
    if changed := {k: v for k, v in wanted.items() if in_force[k] != v}:
        cluster.configure(**changed)
        if "PreemptMode" in changed:
            cluster.restart_controller()
    grace = f"gracetime={GRACE_SECONDS if mode.warning else 0}"
    cluster.client("scontrol", "update", f"partitionname={partition}", f"preemptmode={mode.preempt_mode}", grace)


def preempt(cluster: Loopback, node: str, seconds: float = 0, wait: bool = True) -> str:
    """Preempt a node's jobs for a job of some seconds, and return its number once it has ended.

    It asks for little memory: that of a suspended job stays taken.
    """
    options = ("--partition=high", f"--nodelist={node}", "--exclusive", "--mem=100", "--output=/dev/null")
    job = cluster.client("sbatch", "--parsable", *options, f"--wrap=sleep {seconds}").strip()
    if wait:
        until(lambda: not is_in_queue(cluster, job))
    return job


def is_in_queue(cluster: Loopback, job: str) -> bool:
    return job in cluster.client("squeue", "--noheader", "--format=%i").split()


@dataclass
class Preemptions:
    """A sweep on a cluster whose jobs are preempted."""

    bench: ClusterBench
    random: random.Random
    done: list[tuple[RunningJob, Mode, str, str]] = field(default_factory=list)  # with the moment and the outcome

    def submit_missing(self) -> bool:
        """Run the sweep again if a run has neither record nor job; return whether it was necessary."""
        bench = self.bench
        live = set(bench.jobs_left())
        with_job = {k for job in self._submitted() if job.job_id in live for k in job.run_ids}
        missing = set(bench.plan().plan.runs) - bench.store.done_ids() - bench.store.failed_ids() - with_job
        if missing:
            result = bench.run("sweep", "--detach")
            assert result.returncode == 0, result.stderr
        return bool(missing)

    def _submitted(self) -> list[RunningJob]:
        return [
            RunningJob(f"{note['job_id']}_{i}" if len(note["packs"]) > 1 else note["job_id"], "", tuple(pack))
            for note in self.bench.submissions().values()
            for i, pack in enumerate(note["packs"])
        ]

    def running(self) -> list[RunningJob]:
        states = {job: (state, node) for job, state, node in self.bench.jobs("%i|%T|%N")}
        jobs = [job._replace(node=states[job.job_id][1]) for job in self._submitted() if job.job_id in states]
        return [job for job in jobs if states[job.job_id][0] == "RUNNING"]

    def _is_at(self, job: RunningJob, moment: str) -> bool:
        bench, run_ids = self.bench, job.run_ids
        training = any(bench.store.is_running(k) and bench.attempts(k) for k in run_ids)
        fraction = max(bench.store.progress(k).get("fraction", 0.0) for k in run_ids)
        if moment == "start":
            return not training
        if moment == "end":
            return training and fraction > 0.85
        if moment == "last task":
            return training and any(job.job_id == self._submitted_of(note)[-1] for note in self._arrays())
        return training

    def _arrays(self) -> list[dict[str, object]]:
        return [note for note in self.bench.submissions().values() if len(note["packs"]) > 1]

    def _submitted_of(self, note: dict[str, object]) -> list[str]:
        return [f"{note['job_id']}_{i}" for i in range(len(note["packs"]))]  # type: ignore[arg-type]

    def _choose(self, moment: str) -> tuple[RunningJob, str] | None:
        """Return a running job at such a moment, and after a while any; None when all runs have ended."""
        end = time.monotonic() + (40 if moment == "end" else 20)
        while set(self.bench.plan().plan.runs) - self.bench.store.done_ids() - self.bench.store.failed_ids():
            jobs = self.running()
            if fitting := [job for job in jobs if self._is_at(job, moment)]:
                return self.random.choice(fitting), moment
            if jobs and time.monotonic() > end:
                job = self.random.choice(jobs)
                return job, "training" if self._is_at(job, "training") else "start"
            self.submit_missing()
            time.sleep(0.2)
        return None

    def once(self, mode: Mode, moment: str) -> bool:
        """Preempt a job and print how it went; False when all runs have ended."""
        bench, cluster = self.bench, self.bench.cluster
        if (choice := self._choose(moment)) is None:
            return False
        job, moment = choice
        set_mode(cluster, mode)
        time.sleep(self.random.uniform(0, 1.5 if moment != "start" else 0.3))
        attempts = [bench.attempts(k) for k in job.run_ids]
        began = time.monotonic()
        if mode.preempt_mode == "SUSPEND":
            outcome = self._suspend(job, attempts)
        else:
            first = preempt(cluster, job.node, wait=False)
            if moment == "twice":
                time.sleep(1)
                with suppress(Exception):
                    cluster.client("scancel", first)
                first = preempt(cluster, job.node, wait=False)
            until(lambda: not is_in_queue(cluster, first))
            outcome = self._outcome(job)
        self.done.append((job, mode, moment, outcome))
        runs = ", ".join(k[:6] for k in job.run_ids)
        starts, seconds = "/".join(map(str, attempts)), time.monotonic() - began
        head = f"{len(self.done)}: {mode}, {moment}: job {job.job_id} on {job.node} ({runs}, start {starts})"
        print(f"{head}: {outcome}, {seconds:.1f} s; its log: {self._log_end(job)}", flush=True)
        return True

    def _log_end(self, job: RunningJob) -> str:
        """Return the last lines that a job has written by itself."""
        lines = [line for path in self.bench.store.jobs.glob(f"*/{job.job_id}_0_log.out") for line in _lines(path)]
        return " | ".join(lines[-2:])

    def _suspend(self, job: RunningJob, attempts: list[int]) -> str:
        bench = self.bench
        high = preempt(bench.cluster, job.node, seconds=self.random.uniform(2, 6), wait=False)
        seen = set[str]()

        def over() -> bool:
            seen.update(state for name, state in bench.jobs("%i|%T") if name == job.job_id)
            return not is_in_queue(bench.cluster, high)

        until(over)
        if "SUSPENDED" not in seen:
            return self._outcome(job)
        return "suspended" if attempts == [bench.attempts(k) for k in job.run_ids] else "suspended, and started again"

    def _outcome(self, job: RunningJob) -> str:
        until(lambda: self._state_of(job) != "COMPLETING")
        if set(job.run_ids) <= self.bench.store.done_ids():
            return "ended with its records"
        state = self._state_of(job)
        if not state:
            return f"gone{'; submitted again' if self.submit_missing() else ''}"
        return {"PENDING": "requeued", "RUNNING": "requeued and running"}.get(state, state)

    def _state_of(self, job: RunningJob) -> str:
        return next((state for name, state in self.bench.jobs("%i|%T") if name == job.job_id), "")

    def starts_without_teacher(self, run_id: str) -> int:
        """Return how often a run's job found that the teacher's job had been cancelled before its end."""
        logs = {attempt["log"] for attempt in self.bench.store.attempts(run_id)}
        return sum(Path(log).read_text().count("not trained now") for log in logs)

    def finish(self) -> None:
        """Wait until every run has ended."""
        while set(self.bench.plan().plan.runs) - self.bench.store.done_ids() - self.bench.store.failed_ids():
            self.submit_missing()
            time.sleep(0.5)


def _lines(log: Path) -> list[str]:
    return [line[:100] for line in log.read_text().splitlines() if line and not line.startswith(("srun", "slurmstepd"))]


def faults(bench: ClusterBench, undisturbed: Bench, preempted: Counter[str]) -> list[str]:
    """Return what is wrong with a sweep; ``preempted``: how often each run's job was ended, or had no teacher."""
    faults = [f"{k} failed: {failure.cause}" for k in bench.store.failed_ids() if (failure := bench.store.failure(k))]
    labels = {run_id: run.label for run_id, run in bench.plan().plan.runs.items()}
    names = Counter(path.stem for path in bench.store.records.iterdir())
    faults += [f"{label}: {names[k]} records" for k, label in labels.items() if names[k] != 1]
    for k in labels.keys() & names.keys():
        if bench.weights(k) != undisturbed.weights(k):
            faults.append(f"{labels[k]}: other weights than undisturbed")
        row, expected = bench.row(k), undisturbed.row(k)
        faults += [f"{labels[k]}: other {c}" for c in ("status", "curves", "last_top1") if row[c] != expected[c]]
        if not bench.attempts(k) == row["attempts"] <= 1 + preempted[k]:
            faults.append(f"{labels[k]}: {row['attempts']} starts, explained: {1 + preempted[k]}")
    return faults


def main(count: int = 40, seed: int = 0) -> int:
    """Preempt so many jobs and return the exit code."""
    chance, began = random.Random(seed), time.monotonic()
    # SLURM is configured anew for TERM, and started anew for a suspension: modes that need it follow each other.
    modes = sorted((MODES[i % len(MODES)] for i in range(count)), key=lambda m: (m[0] == "SUSPEND", m[1] == "TERM"))
    moments = [MOMENTS[i % len(MOMENTS)] for i in range(count)]
    chance.shuffle(moments)
    sweep = small(*range(max(2, count // 6)), **SLOW)
    sweep["recipe"] = {**SWEEP["recipe"], "epochs": 12}
    with tempfile.TemporaryDirectory(prefix="kd-") as folder, Loopback.up(f"{folder}/c", NODES, cpus=1) as cluster:
        for name in ("local", "cluster"):
            Path(folder, name).mkdir()
        undisturbed = Bench(Path(folder, "local"), sweep)
        result = undisturbed.run("sweep")
        assert result.returncode == 0, result.stderr
        print(f"undisturbed: {len(undisturbed.plan().plan.runs)} runs, {time.monotonic() - began:.0f} s", flush=True)
        bench = ClusterBench(Path(folder, "cluster"), sweep, cluster=cluster, profile={"partition": "low"})
        preemptions = Preemptions(bench, chance)
        try:
            bench.slow(1)
            preemptions.submit_missing()
            for mode, moment in zip(modes, moments, strict=True):
                if not preemptions.once(mode, moment):
                    break
            bench.quick()
            preemptions.finish()
            preempted = Counter(
                k for job, _, _, outcome in preemptions.done if outcome != "suspended" for k in job.run_ids
            )
            for k in bench.plan().plan.runs:
                preempted[k] += preemptions.starts_without_teacher(k)
            wrong = faults(bench, undisturbed, preempted)
            attempts = sum(bench.attempts(k) for k in bench.plan().plan.runs)
        finally:
            bench.clean_up()
    outcomes = Counter(outcome for *_, outcome in preemptions.done)
    print(
        f"{len(preemptions.done)} preemptions in {time.monotonic() - began:.0f} s, {attempts} starts: "
        + ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())
    )
    print("\n".join(wrong) or "nothing lost: one record for each run, weights as undisturbed")
    return bool(wrong) or len(preemptions.done) < count


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
