"""A stopped job puts itself back into the queue. SLURM is a stand-in here; the cluster tests have a real one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.store.store import Store
from slurm import commands, entry
from slurm.containers import REQUEUE_CODE


def answers(*values: str | UserError) -> Callable[[str], str]:
    """Return a command that answers these values in turn, errors by raising them."""
    left: Iterator[str | UserError] = iter(values)

    def command(job_id: str) -> str:
        assert job_id == "12"
        if isinstance(value := next(left), UserError):
            raise value
        return value

    return command


SILENT = UserError("squeue: SLURM did not answer within 120 s")


@pytest.mark.parametrize(
    ("states", "requeues", "calls"),
    [
        (["RUNNING"], [""], 1),
        (["CANCELLED"], [], 0),
        (["COMPLETING"], [], 0),
        ([SILENT, SILENT, "RUNNING"], [""], 1),
        (["RUNNING", "RUNNING"], [SILENT, ""], 2),
        ([SILENT, "COMPLETING"], [], 0),
        (["SUSPENDED", "SUSPENDED", "RUNNING"], [""], 1),
        (["SUSPENDED", "CANCELLED"], [], 0),
    ],
)
def test_only_a_running_job_is_requeued_and_silence_and_a_suspension_are_waited_out(
    states: list[str | UserError], requeues: list[str | UserError], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    called, state, requeue = [], answers(*states), answers(*requeues)
    monkeypatch.setattr(commands, "state_of", state)
    monkeypatch.setattr(commands, "requeue", lambda job_id: (called.append(job_id), requeue(job_id)))
    monkeypatch.setattr(entry, "REQUEUE_PAUSE", 0)
    monkeypatch.setattr(entry, "which", lambda name: name)
    assert entry.requeue("12") == 0
    assert len(called) == calls
    monkeypatch.setattr(entry, "which", lambda name: None)
    assert entry.requeue("12") == REQUEUE_CODE, "the job's script, which runs outside of its container, does it"
    assert len(called) == calls


def test_a_job_that_slurm_does_not_take_back_ends_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "state_of", answers("RUNNING"))
    monkeypatch.setattr(commands, "requeue", answers(UserError("scontrol: Requested operation is presently disabled")))
    monkeypatch.setattr(entry, "REQUEUE_TRIES", 1)
    monkeypatch.setattr(entry, "which", lambda name: name)
    with pytest.raises(UserError, match="presently disabled"):
        entry.requeue("12")


def test_only_starts_without_a_new_checkpoint_count_against_the_limit(tmp_path: Path) -> None:
    store, log = Store(tmp_path), str(tmp_path / "7_0_log.out")
    Path(log).write_text("preempted")
    store.checkpoints("aaaa").mkdir(parents=True)

    def start(step: int) -> None:
        store.add_attempt("aaaa", log=log, pid=step)

    for step in range(40):  # each preemption leaves a checkpoint
        start(step)
        (store.checkpoints("aaaa") / f"epoch-000003-step-{step:06d}.safetensors").touch()
    entry.fail_after_max_attempts(store, ["aaaa"], 3, log)
    assert not store.failed_ids()
    for missing in (2, 1):
        start(100 + missing)
        entry.fail_after_max_attempts(store, ["aaaa"], 3, log)
        assert not store.failed_ids(), missing
    start(99)
    entry.fail_after_max_attempts(store, ["aaaa"], 3, log)
    failure = store.failure("aaaa")
    assert failure and failure.cause == "no progress in 3 attempts"


def test_only_starts_that_end_out_of_memory_count_against_their_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log tells of all starts, and each is judged by what it has added. With more memory none of them counts."""
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "460")
    store, log = Store(tmp_path), tmp_path / "7_0_log.out"
    log.touch()
    killed, requeued = "slurmstepd: error: StepId=7.0 exceeded memory limit\n", "stopped by a signal\n"
    for number, (run, end) in enumerate(
        [("bbbb", killed), ("aaaa", requeued), ("aaaa", killed), ("aaaa", requeued), ("aaaa", killed), ("aaaa", killed)]
    ):
        entry.fail_after_max_attempts(store, ["aaaa", "bbbb"], 20, str(log))
        assert not store.failed_ids(), number
        store.checkpoints(run).mkdir(parents=True, exist_ok=True)
        (store.checkpoints(run) / f"epoch-000003-step-{number:06d}.safetensors").touch()
        store.add_attempt(run, log=str(log), log_bytes=log.stat().st_size, pid=number, memory_mb=460)
        with log.open("a") as file:
            file.write(f"training\n{end}")
    for memory, failed in (("920", set[str]()), ("460", {"aaaa"})):
        monkeypatch.setenv("SLURM_MEM_PER_NODE", memory)
        entry.fail_after_max_attempts(store, ["aaaa", "bbbb"], 20, str(log))
        assert store.failed_ids() == failed
    failure = store.failure("aaaa")
    assert failure and failure.cause.startswith("no result after 5 attempts, 3 of them out of memory: raise `mem_gb`")
