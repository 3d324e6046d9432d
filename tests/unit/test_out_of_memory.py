"""Jobs that had too little ask for more next time: the amounts, and the lines of a script that ask for memory."""

import subprocess
from pathlib import Path

import pytest

from harness.store.run_notes import last_retry, retry_texts, without_nodes
from harness.store.store import Store
from slurm import commands, out_of_memory
from slurm.array_jobs import ArrayJob
from slurm.attempt_notes import asked_at_start, asked_at_submission
from slurm.earlier_starts import EarlierStarts
from slurm.profiles import Resources
from slurm.retry import Retry

KILLED = "slurmstepd: error: StepId=7.0 exceeded memory limit (300 > 200), being killed\n"


@pytest.mark.parametrize(
    ("factor", "most", "first", "amounts"),
    [
        ("2x", 128, 16, [16, 32, 64, 128]),
        ("2x", 100, 16, [16, 32, 64, 100]),
        ("1.5x", 8, 4, [4, 6, 8]),
        ("10x", 16, 16, [16]),
        ("2x", 8, 16, [16]),
    ],
)
def test_memory_grows_up_to_its_limit(factor: str, most: float, first: float, amounts: list[float]) -> None:
    retry = Retry.model_validate({"mem_gb": factor, "max_mem_gb": most})
    assert retry.memory_steps(first) == amounts
    assert Retry().memory_steps(first) == [first]


@pytest.mark.parametrize(
    ("asked", "said_before", "said_now", "answer", "asks_for"),
    [
        (200, "", KILLED, 0, 400),
        (400, KILLED, KILLED, 0, 500),
        (450, "", "srun: error: node1: task 0: Out Of Memory\n", 0, 500),
        (500, "", KILLED, 0, None),
        (200, KILLED, "Killed\n", 0, None),
        (200, "", KILLED, 1, 400),
    ],
    ids=["first", "second", "cgroups", "at the limit", "killed for another reason", "refused"],
)
def test_a_jobs_script_asks_for_more(
    tmp_path: Path, asked: int, said_before: str, said_now: str, answer: int, asks_for: int | None
) -> None:
    folder = tmp_path / "it's 50%"
    folder.mkdir()
    (log := folder / "7_3_0_log.out").write_text(said_before)
    (folder / "7_30_0_log.out").write_text(KILLED)  # another task's
    further = [step / 1024 for step in (400, 500)]
    lines = [
        f"kd_job=7_3; scontrol() {{ echo $* > {tmp_path}/asked; return {answer}; }}",
        *out_of_memory.count_in_shell(folder),
        'printf "%s" "$SAID" >> "$LOG"',
        out_of_memory.raise_in_shell(folder, further),
    ]
    environment = {"PATH": "/usr/bin:/bin", "SLURM_MEM_PER_NODE": str(asked), "SAID": said_now, "LOG": str(log)}
    done = subprocess.run(["bash", "-c", "\n".join(lines)], env=environment, capture_output=True, text=True, timeout=60)
    assert not done.stderr, done.stderr
    request = tmp_path / "asked"
    assert (request.read_text() if request.exists() else None) == (
        f"update jobid=7_3 MinMemoryNode={asks_for}\n" if asks_for else None
    )
    says = f"{asked} MB were too little: the next start asks for {asks_for} MB\n"
    assert done.stdout == (says if asks_for and not answer else "")
    note = folder / "7_3_short_of_memory"
    assert (note.read_text() if note.exists() else "") == ("" if said_now == "Killed\n" else f"{asked}\n")


def test_a_start_notes_what_it_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = str(tmp_path / "7_3_0_log.out")
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    assert out_of_memory.asked_memory(log) == {}
    submitted = {"minutes": 60, "too_few_minutes": 30, "too_little_mb": 50}
    assert asked_at_start(submitted, log) == submitted
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "400")
    assert out_of_memory.asked_memory(log) == {"memory_mb": 400}
    (tmp_path / "7_3_short_of_memory").write_text("100\n200\n")
    assert out_of_memory.asked_memory(log) == {"memory_mb": 400, "too_little_mb": 200}
    by_itself = {"memory_mb": 400, "too_little_mb": 200}
    assert asked_at_start(submitted, log) == submitted | by_itself and asked_at_start({}, log) == by_itself


def test_retries_are_told_once_and_in_order() -> None:
    first = {"memory_mb": 460, "minutes": 10}
    larger = {"memory_mb": 1126, "too_little_mb": 460, "minutes": 10, "too_few_minutes": 10}
    longer = {**larger, "minutes": 480, "too_few_minutes": 240}
    elsewhere = {"memory_mb": 1100 * 1024, "too_little_mb": 1126, "avoided_nodes": ["node1", "node2"]}
    more, time = (
        "retried with 1.1 GB after running out of memory with 0.45",
        "retried with 480 minutes after 240 were too few",
    )
    most = ["retried with 1100 GB after running out of memory with 1.1", "retried on another node than node1, node2"]
    attempts = [first, larger, larger, longer, elsewhere, first]
    assert retry_texts(attempts) == [more, time, *most] and not retry_texts([{}, first])
    assert last_retry(attempts) == "; ".join(most) and last_retry(attempts[:4]) == f"{more}; {time}"
    assert last_retry([first]) == ""
    assert list(map(without_nodes, most)) == [most[0], "retried on another node"]


def test_a_run_is_submitted_again_with_what_it_had_too_little_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(job: str, state: str, minutes: int) -> str:
        return f"{job}|{state}|60|{minutes}|1|1|1|8G||mem=8G|||" + "|kd-1"

    lines = [start("7_0", "TIMEOUT", 60), start("7_1", "OUT_OF_MEMORY", 60), start("7_2", "CANCELLED", 60)]
    monkeypatch.setattr(commands, "sacct_lines", lambda *options: lines)
    store, runs = Store(tmp_path), ["aaaa", "bbbb", "cccc", "dddd"]
    array_job = ArrayJob("kd-1", "", [[run] for run in runs], [], "7")
    retry = Retry.model_validate({"time_minutes": "2x", "max_time_minutes": 100, "mem_gb": "2x", "max_mem_gb": 64})
    store.run("dddd").mkdir(parents=True)
    store.add_attempt("dddd", log="log", pid=1, memory_mb=32 * 1024, too_little_mb=16 * 1024)

    def asked(asks: Resources, *run_ids: str, retry: Retry | None = retry) -> tuple[int, float | None]:
        raised = EarlierStarts.of(store, retry, [array_job], set(runs)).raised(run_ids, asks)
        return raised.time_minutes, raised.mem_gb

    def noted(asks: Resources, *run_ids: str, retry: Retry | None = retry) -> dict[str, int]:
        starts = EarlierStarts.of(store, retry, [array_job], set(runs))
        asked = asked_at_submission(starts.raised(run_ids, asks), starts, run_ids)
        assert asked.pop("minutes") == starts.raised(run_ids, asks).time_minutes
        return asked

    small, large = Resources(time_minutes=60, mem_gb=8), Resources(time_minutes=600, mem_gb=128)
    assert [asked(small, run) for run in runs] == [(100, 8), (60, 16), (60, 8), (60, 32)]
    assert asked(small, *runs) == (100, 32) and asked(large, *runs) == (600, 128), "the profile asks for more now"
    assert asked(small, *runs, retry=None) == asked(small, *runs, retry=Retry()) == (60, 8)
    assert asked(Resources(), *runs) == (100, None)
    short, little, less = {"too_few_minutes": 60}, {"too_little_mb": 8192}, {"too_little_mb": 16384}
    assert [noted(small, run) for run in runs] == [short, little, {}, less]
    assert noted(small, *runs) == short | less and noted(small, *runs, retry=None) == {}
    assert noted(Resources(time_minutes=50, mem_gb=8), "bbbb") == little, "what it asked for was enough"
    assert noted(small, "aaaa", "bbbb", retry=Retry()) == {}, "asked for again"
