"""Queue files: reading returns what was written, and files of earlier versions are read too."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.planning.plan import Planned, plan_sweep
from harness.store import files
from harness.store.locks import Lock
from harness.training.job_order import JobOrder, WeightsFile
from slurm.local import MAX_STARTS, Dispatcher, Local, _Running
from slurm.queue import Queue, QueuedJob, QueuedRun, cancelled_file

SWEEP = """
dataset: digits
recipe: digits_quick
pairs: [{teacher: digits_net_w8, student: digits_net_w4}]
methods: {student: {}, kd: {recipe: {accumulate: 2}}}
seeds: 1
"""
WEIGHTS = {"ab": WeightsFile("/weights/t.pth", 71.5)}


@pytest.fixture
def planned(tmp_path: Path) -> Planned:
    sweep = tmp_path / "s.yaml"
    sweep.write_text(SWEEP)
    planned = plan_sweep(sweep, tmp_path / "results")
    for run_id, run in planned.plan.runs.items():
        planned.store.write_science(run_id, run.science)
    return planned


def queue_of(planned: Planned) -> Queue:
    packs = tuple(
        QueuedJob.from_sciences({k: planned.plan.runs[k].science for k in pack.run_ids}, pack.needs)
        for pack in planned.plan.packs
    )
    return Queue(str(planned.store.root), packs, 2, 1, None, WEIGHTS, None)


def old_json(queue: Queue) -> dict[str, Any]:
    """Return the queue as earlier versions wrote it, with only the run ids of each pack."""
    return {
        "cluster": None,
        "data": None,
        "max_parallel": 2,
        "packs": [{"needs": pack.needs, "run_ids": list(pack.run_ids)} for pack in queue.jobs],
        "store": queue.store,
        "threads": 1,
        "weights": {"ab": {"file": "/weights/t.pth", "score": 71.5}},
    }


@pytest.mark.parametrize(
    "content, problem",
    [
        ("", "not JSON"),
        ("[]", "expected a dictionary, found \\[\\]"),
        ("{}", "store: missing"),
        ('{"store": "x", "packs": 3}', "packs: expected a list, found 3"),
        ('{"store": "x", "packs": [{"runs": [{}]}]}', "packs.0.runs.0.run_id: missing"),
        ('{"store": "x", "packs": [{"run_ids": 3}]}', "packs.0.run_ids: expected a list, found 3"),
    ],
)
def test_a_damaged_file_is_reported(planned: Planned, content: str, problem: str) -> None:
    path = planned.store.queue("s-00000000")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    with pytest.raises(UserError, match=rf"s-00000000\.json: damaged: {problem}"):
        Queue.read(path)
    path.unlink()
    with pytest.raises(UserError, match=r"s-00000000\.json: missing; run the sweep again"):
        Queue.read(path)


def test_the_queue_started_last_is_at_the_end(planned: Planned) -> None:
    paths = [planned.store.queue(f"s-0000000{i}") for i in (1, 0, 2)]
    for second, path in enumerate(paths):
        queue_of(planned).write(path)
        os.utime(path, (second, second))
    assert planned.store.queues("s") == paths


def test_reading_returns_what_was_written(planned: Planned) -> None:
    path = planned.store.queue("s-00000000")
    queue = queue_of(planned)
    files.replace_json(cancelled_file(path), True)
    queue.write(path)
    assert Queue.read(path) == queue and not cancelled_file(path).exists()
    teacher, students = queue.jobs
    (teacher_run,), (student, kd) = teacher.run_ids, students.run_ids
    assert teacher == QueuedJob((QueuedRun(teacher_run, "student", False, 1),), None, "digits_net_w8", None, 1442, 64)
    assert students == QueuedJob(
        (QueuedRun(student, "student", False, 1), QueuedRun(kd, "kd", True, 2)),
        teacher_run, "digits_net_w4", "digits_net_w8", 1442, 64,
    )  # fmt: skip


def test_the_file_has_what_an_earlier_harness_reads(planned: Planned) -> None:
    path = planned.store.queue("s-00000000")
    queue = queue_of(planned)
    queue.write(path)
    value = json.loads(path.read_text())
    packs = [{name: pack[name] for name in ("needs", "run_ids")} for pack in value["packs"]]
    assert {**value, "packs": packs} == old_json(queue)


def test_a_queue_of_an_earlier_harness_is_read(planned: Planned) -> None:
    """Models, methods and sizes of its packs come from the store; runs that have ended are left out."""
    path = planned.store.queue("s-00000000")
    queue = queue_of(planned)
    files.replace_json(path, old_json(queue))
    assert Queue.read(path) == queue
    teacher, students = queue.jobs
    student, kd = students.run_ids
    planned.store.write_failure(teacher.run_ids[0], "code", "a bug", "", "")
    planned.store.write_failure(student, "code", "a bug", "", "")
    assert Queue.read(path).jobs == (students.only({kd}),)


def test_a_part_of_a_pack_without_learners_waits_for_no_teacher(planned: Planned) -> None:
    _, students = queue_of(planned).jobs
    student, kd = students.run_ids
    assert (students.only({kd}).needs, students.only({kd}).teacher) == (students.needs, "digits_net_w8")
    assert (students.only({student}).needs, students.only({student}).teacher) == (None, None)


def test_runs_in_training_elsewhere_count_as_jobs_of_this_machine(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dispatcher whose predecessor's job still trains a run starts one job less."""
    _, students = queue_of(planned).jobs
    packs = tuple(replace(pack, needs=None) for pack in (students.only({k}) for k in students.run_ids))
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(Dispatcher, "_start", lambda self, pack, run_ids: started.append(tuple(run_ids)))
    for most, expected in ((1, []), (2, [packs[1].run_ids])):
        path = planned.store.queue(f"s-0000000{most}")
        replace(queue_of(planned), jobs=packs, max_parallel=most).write(path)
        dispatcher = Dispatcher(path)
        dispatcher.read_queue()
        lock = Lock(planned.store.run_lock(packs[0].run_ids[0]))
        assert lock.acquire()
        dispatcher._collect([])
        dispatcher._start_ready()
        lock.release()
        assert started == expected and packs[0] in dispatcher.waiting
        assert (packs[1] in dispatcher.waiting) == (not expected)


def two_seeds(planned: Planned) -> Queue:
    """Return a queue of one job that trains two packs."""
    sciences = {}
    for run_id in planned.plan.packs[1].run_ids:
        science = planned.plan.runs[run_id].science
        sciences |= {s.run_id: s for s in (science, science.with_seed(1))}
    for run_id, science in sciences.items():
        planned.store.write_science(run_id, science)
    in_order = dict(sorted(sciences.items(), key=lambda item: item[1].seed))
    return replace(queue_of(planned), jobs=(QueuedJob.from_sciences(in_order, None),))


def test_an_earlier_harness_refuses_a_job_of_several_packs(planned: Planned) -> None:
    """It would train the second seed on the data of the first. It needs `run_ids`, and knows no other keys."""
    path, queue = planned.store.queue("s-00000000"), two_seeds(planned)
    queue.write(path)
    assert Queue.read(path) == queue and queue.jobs[0].packs == 2
    (job,) = json.loads(path.read_text())["packs"]
    assert "run_ids" not in job and job["packs"] == 2


def test_runs_that_a_dead_job_had_not_come_to_are_not_given_up(planned: Planned, tmp_path: Path) -> None:
    path = planned.store.queue("s-00000000")
    two_seeds(planned).write(path)
    dispatcher = Dispatcher(path)
    dispatcher.read_queue()
    (job,) = dispatcher.waiting
    first, second = job.run_ids[:2], job.run_ids[2:]
    for start in range(MAX_STARTS):
        dispatcher.waiting.clear()
        running = _Running(job, None, tmp_path / f"log-{start}", 0)  # type: ignore[arg-type]
        dispatcher.running.append(running)
        for run_id in first:
            planned.store.add_attempt(run_id, log=str(running.log))
        dispatcher._collect([running])
        assert dispatcher.waiting == [job]
    assert planned.store.failed_ids() == set(first)
    dispatcher._start = lambda job, run_ids: started.append(run_ids)  # type: ignore[method-assign, assignment, func-returns-value]
    started: list[object] = []
    dispatcher._start_ready()
    assert started == [second]


@pytest.mark.parametrize(
    "log_end, is_full, kind, cause",
    [
        ("epoch 1/3", False, "killed", "the process died without a result 3 times: killed, or out of memory?"),
        ("OSError: [Errno 28] No space left on device", False, "disk", "{store}: no space left on the disk"),
        ("", True, "disk", "{store}: no space left on the disk"),
        ("Traceback (most recent call last):\n  ...\nOSError: [Errno 5] x", False, "code", "OSError: [Errno 5] x"),
    ],
)  # fmt: skip
def test_a_dead_jobs_cause_is_what_its_log_says(
    planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_end: str, is_full: bool, kind: str,
    cause: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(files, "is_disk_full", lambda folder: is_full)
    path = planned.store.queue("s-00000000")
    queue_of(planned).write(path)
    dispatcher = Dispatcher(path)
    dispatcher.read_queue()
    job = dispatcher.waiting[0]
    (log := tmp_path / "log").write_text(log_end)
    dispatcher.starts.update({run_id: MAX_STARTS - 1 for run_id in job.run_ids})
    dispatcher.running.append(running := _Running(job, None, log, 0))  # type: ignore[arg-type]
    dispatcher._collect([running])
    failure = planned.store.failure(job.run_ids[0])
    assert failure and (failure.kind, failure.cause) == (kind, cause.format(store=planned.store.root))


def test_a_dispatcher_that_ends_at_once_is_told(tmp_path: Path) -> None:
    (path := tmp_path / "damaged.json").write_text("{")
    with pytest.raises(UserError, match=rf"nothing is started: .*{path}: damaged: not JSON"):
        Local(path).start()


def test_a_job_order_is_read_as_written(planned: Planned) -> None:
    queue = queue_of(planned)
    order = queue.order(queue.jobs[0].run_ids)
    assert JobOrder.from_json(json.loads(json.dumps(order.to_json()))) == order


def test_a_damaged_queue_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text("{")
    with pytest.raises(UserError, match="s.json: damaged: not JSON"):
        Queue.read(path)


def with_started(path: Path) -> tuple[Dispatcher, list[object]]:
    """Return a dispatcher of a queue and the list that its starts are added to."""
    dispatcher, started = Dispatcher(path), list[object]()
    dispatcher._start = lambda job, run_ids: started.append(run_ids)  # type: ignore[method-assign, assignment, func-returns-value]
    dispatcher.read_queue()
    return dispatcher, started


def test_a_run_whose_record_vanished_is_trained_again(planned: Planned) -> None:
    path, queue = planned.store.queue("s-00000000"), queue_of(planned)
    queue.write(path)
    planned.store.records.mkdir()
    for run_id in queue.run_ids:
        planned.store.record(run_id).touch()
    dispatcher, started = with_started(path)
    dispatcher._collect([])
    dispatcher._start_ready()
    assert not dispatcher.waiting
    teacher, students = queue.jobs
    for run_id in (teacher.run_ids[0], students.run_ids[1]):
        planned.store.record(run_id).unlink()
    dispatcher._collect([])
    dispatcher._start_ready()
    assert started == [teacher.run_ids] and [job.run_ids for job in dispatcher.waiting] == [students.run_ids[1:]]


def test_learners_whose_teachers_record_vanished_fail_and_others_are_trained(planned: Planned) -> None:
    path, (teacher, students) = planned.store.queue("s-00000000"), queue_of(planned).jobs
    replace(queue_of(planned), jobs=(students,)).write(path)
    dispatcher, started = with_started(path)
    with Lock(planned.store.run_lock(teacher.run_ids[0])):
        dispatcher._collect([])
        dispatcher._start_ready()
        assert not started and not planned.store.failed_ids(), "it may be in training elsewhere"
    for _ in range(2):
        dispatcher._collect([])
        dispatcher._start_ready()
    student, kd = students.run_ids
    assert started == [(student,)] and planned.store.failed_ids() == {kd}
    failure = planned.store.failure(kd)
    assert failure and failure.kind == "teacher" and f"run {teacher.run_ids[0]} has no record any more" in failure.cause


@pytest.mark.parametrize("whole_store", [False, True])
def test_a_dispatcher_ends_when_its_queue_is_removed(
    planned: Planned, whole_store: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = planned.store.queue("s-00000000")
    queue_of(planned).write(path)
    dispatcher, started = with_started(path)
    shutil.rmtree(planned.store.root) if whole_store else path.unlink()
    dispatcher.run()
    assert not started and f"{path}: removed; no further job is started" in capsys.readouterr().out


def test_a_run_whose_name_leads_out_of_the_store_is_refused(planned: Planned, tmp_path: Path) -> None:
    file = tmp_path / "queue.json"
    queue_of(planned).write(file)
    content = json.loads(file.read_text())
    content["packs"][0]["runs"][0]["run_id"] = "../../../home"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"queue.json: damaged: .*run_id"):
        Queue.read(file)
