"""The screen of a sweep in progress, and what stays of it."""

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from harness.console.short_labels import short_labels
from harness.console.terminal import rough_duration
from harness.planning.cost import expected_jobs
from harness.planning.progress_screen import screen
from harness.planning.progress_summary import summary_lines
from harness.planning.queues import Queues
from harness.planning.sweep_progress import SweepProgress
from harness.planning.watch import encodable, news, tell_news, watch
from harness.store import files
from harness.store.locks import Lock
from slurm.queue import Notification, Queue, QueuedJob
from tests.support.planned_costs import plan, record, runs, teacher

LONG = "a_method_with_a_very_long_name_of_temperature_{}_and_weight"
TEMPERATURES = (2, 4, 8)
METHODS: dict[str, Any] = {
    "student": {},
    **{LONG.format(t): {"use": "kd", "params": {"temperature": t}} for t in TEMPERATURES},
}
PROGRESS = {"epoch": 11, "epochs": 240, "fraction": 0.05, "seconds_left": 4000.0, "top1": 71.25}


def progress_of(folder: Path, running: int) -> SweepProgress:
    """Return the progress of 40 runs and their teacher, of which the first ``running`` are in training."""
    progress = SweepProgress(plan(folder, methods=METHODS, seeds=10))
    ids = [k for k, label in progress.labels.items() if " > " in label]
    progress.running = {k: dict(PROGRESS) for k in ids[:running]}
    if running:
        progress.running[ids[0]] = {}
        progress.store.run(ids[0]).mkdir(parents=True, exist_ok=True)
        progress.store.add_attempt(ids[0], log="log")
    progress.waiting = Counter({"for teacher digits_net_w8 / seed 0": 30, "for a free place": 7, "to start": 1})
    progress.left = 1234.0
    return progress


@pytest.mark.parametrize("width", [30, 40, 79, 120])
@pytest.mark.parametrize("height", [1, 2, 5, 23])
@pytest.mark.parametrize("running", [0, 1, 5, 40])
def test_the_screen_fits_the_terminal(tmp_path: Path, width: int, height: int, running: int) -> None:
    lines = screen(progress_of(tmp_path, running), 75.0, "", width, height).plain.split("\n")
    assert len(lines) <= height and max(map(cell_len, lines)) <= width
    assert "0/41 done" in lines[-1], "the last line is about the whole"
    if running and height == 23:
        assert sum(" / s" in line for line in lines if "waiting" not in line) == min(running, 17)
        assert ("and 23 more" in lines) == (running == 40), "packs of many runs: the rest as a number"


def test_a_line_a_run_with_what_tells_it_from_others(tmp_path: Path) -> None:
    lines = screen(progress_of(tmp_path, 40), 75.0, "round 2 of 4", 79, 50).plain.split("\n")
    assert lines[0].split() == ["running", "(40)", "epoch", "top-1", "left"]
    of_runs = lines[1:41]
    labels = {line.split("  ")[0] for line in of_runs}
    assert len(labels) == 40, "shortened where they agree"
    assert all(any(f"{t}_and_weight" in label for t in TEMPERATURES) or "/ student /" in label for label in labels)
    assert sum("starting" in line for line in of_runs) == 1
    assert sum(line.endswith("12/240  71.25  1:06:40") for line in of_runs) == 39
    assert lines[41:44] == [
        "waiting  30 for teacher digits_net_w8 / seed 0", "         7 for a free place", "         1 to start"
    ]  # fmt: skip
    wide = screen(progress_of(tmp_path, 40), 75.0, "round 2 of 4", 120, 50).plain.split("\n")[-1]
    assert wide.endswith("0/41 done, 40 running, 1 waiting, 1:15 elapsed, about 21:00 left of round 2 of 4")


def test_a_run_whose_job_trains_others_first_waits(tmp_path: Path) -> None:
    progress = progress_of(tmp_path, 3)
    waits = [k for k in progress.labels if k not in progress.running][-1]
    progress.running[waits] = {}
    lines = screen(progress, 75.0, "", 79, 23).plain.split("\n")
    assert lines[0].startswith("running (3)") and "3 running, 38 waiting" in lines[-1]
    assert not any("waiting" not in line and progress.labels[waits] in line for line in lines)


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    drawn = screen(progress_of(tmp_path, 40), 75.0, "", 79, 23)
    assert not drawn.plain.isascii() and encodable(drawn, "utf-8") is drawn
    shown = encodable(drawn.copy(), "iso-8859-1")
    assert shown.plain.isascii() and len(shown) == len(drawn) and shown.spans == drawn.spans


def test_what_runs_wait_for_is_folded(tmp_path: Path) -> None:
    progress = progress_of(tmp_path, 0)
    progress.waiting = Counter({f"for teacher t{i} / seed 0": 10 - i for i in range(6)})
    lines = screen(progress, 1.0, "", 79, 23).plain.split("\n")
    assert lines[:-1] == [
        "waiting  10 for teacher t0 / seed 0", "         9 for teacher t1 / seed 0", "         26 for 4 other reasons"
    ]  # fmt: skip
    progress.waiting = Counter({"in SLURM's queue: Priority": 41})
    assert "about 21:00 once started" in screen(progress, 1.0, "", 79, 23).plain
    progress.left = None
    assert "about" not in screen(progress, 1.0, "", 79, 23).plain, "no number while nothing is known"


@pytest.mark.parametrize("width", [24, 30, 46])
def test_labels_keep_their_ends_and_their_differences(width: int) -> None:
    labels = [f"resnet32x4_teacher > resnet8x4_student / kd_temperature_{t} / seed {s}" for t in (4, 8) for s in (0, 1)]
    short = short_labels(labels, width)
    assert max(map(len, short)) <= width and len(set(short)) == 4, short
    assert [label[-1] for label in short] == ["0", "1"] * 2
    assert short_labels(labels, 80) == labels


def test_an_uncertain_time_is_not_shown_to_the_second() -> None:
    shown = [rough_duration(s) for s in (3.2, 47, 71, 191, 502, 1234, 5000, 40000)]
    assert shown == ["0:03", "0:47", "1:10", "3:10", "8:30", "21:00", "1:25:00", "11:00:00"]


# Queues and stores ---------------------------------------------------------------------------------------------------


def queued(folder: Path, **changes: Any) -> tuple[SweepProgress, Queues, Callable[[Queue], None]]:
    """Return the progress of a sweep whose teacher is to train first, its queue, and a function that rewrites that."""
    planned = plan(folder, **changes)
    jobs = tuple(
        QueuedJob.from_sciences({k: planned.plan.runs[k].science for k in pack.run_ids}, pack.needs)
        for pack in planned.plan.packs
    )
    queue_file = planned.store.queue("small-00000000")
    write = lambda queue: queue.write(queue_file)  # noqa: E731
    write(Queue(str(planned.store.root), jobs, 2, 1, None, {}, None))
    return SweepProgress(planned), Queues.of(queue_file), write


def test_what_waits_for_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected_jobs, "PATIENCE", 0)
    progress, queues, _ = queued(tmp_path, seeds=3)
    planned, store = progress.planned, progress.store
    dispatcher = Lock(store.queue("small-00000000").with_suffix(".lock"))
    dispatcher.acquire()
    queues.update()
    progress.update(queues)
    assert progress.waiting == {"to start": 1, "for teacher digits_net_w8 / seed 0": 6}

    record(planned, teacher(planned), own=5.0)
    student, kd = runs(planned)
    locks = [Lock(store.run_lock(k)) for k in (student, kd)]
    for k, lock in zip((student, kd), locks, strict=True):
        store.run(k).mkdir(parents=True)
        lock.acquire()
        store.add_attempt(k, log="log")
        store.write_progress(k, stage="main", epoch=0, epochs=2, fraction=0.25, seconds_left=30.0, top1=None)
    progress.update(queues)
    assert progress.waiting == {"to start": 2, "for a free place": 2} and len(progress.running) == 2
    assert progress.left and progress.left > 45, "two jobs of one pack each follow, of which nothing was known"
    for lock in locks:
        lock.release()
    dispatcher.release()
    queues.update()
    progress.update(queues)
    assert progress.waiting == {"without a job": 6}


def test_the_summary_says_what_has_become_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress, queues, _ = queued(tmp_path, seeds=3)
    planned, store = progress.planned, progress.store
    record(planned, teacher(planned), own=5.0)
    for seed in range(3):
        student, kd = runs(planned, seed)
        record(planned, student, own=30.0 + seed, job=seed, status="diverged" if seed else "done")
        store.write_failure(kd, "code", f"ValueError: no {seed}", "", "log")
    progress.update(queues)
    assert len(news(progress, None)) == 7
    lines = summary_lines(progress, "", with_causes=True)
    assert lines[0] == "small: 4 of 7 runs done, 2 of them diverged, 3 failed"
    assert lines[1].startswith("took ")
    assert lines[2] == "slowest: digits_net_w8 > digits_net_w4 / student / seed 2, 0:34"
    assert lines[3:] == ["3 failed: code: ValueError: no 0 (digits_net_w8 > digits_net_w4 / kd / seed 0 and 2 more)"]
    assert summary_lines(progress, "", with_causes=False) == lines[:3]
    begin = time.monotonic()
    watch(planned, queues, restart=True)
    at_once = lines[0].replace("small:", "small is finished:")
    assert time.monotonic() - begin < 10 and at_once in capsys.readouterr().err


def test_a_watcher_tells_a_failure_at_once_and_that_it_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, queues, write = queued(tmp_path)
    queues.update()
    notify = Notification("cat >> told", str(tmp_path), "small", 3, 0, 0, time.time_ns())
    write(replace(queues.opened[-1].queue, notify=notify))
    queues = Queues.of(queues.opened[-1].path)
    queues.update()
    progress.store.write_failure(runs(progress.planned)[1], "code", "ValueError: no", "", "log")
    progress.update(queues)
    tell_news(progress, queues.opened[-1])
    (failed,) = (tmp_path / "told").read_text().splitlines()
    assert "first failure: digits_net_w8 > digits_net_w4 / kd" in failed
    monkeypatch.setattr("harness.planning.watch.RESTARTS", 0)
    watch(progress.planned, queues, restart=False)
    assert (tmp_path / "told").read_text().count("\n") == 1, "who only looks tells nothing"
    watch(progress.planned, queues, restart=True)
    _, stuck = (tmp_path / "told").read_text().splitlines()
    assert "stuck: 0 of 3 runs done, 1 failed, 2 left: nothing trains the remaining 2 runs" in stuck


def test_the_screen_leaves_room_for_what_ctrl_c_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that ^C makes too long would take a second one, and the screen would not be erased as a whole."""
    _, queues, _ = queued(tmp_path, seeds=3)
    widths = []

    def interrupted(progress: SweepProgress, elapsed: float, part: str, width: int, height: int) -> None:
        widths.append(width)
        raise KeyboardInterrupt

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("harness.planning.watch.screen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        watch(plan(tmp_path, seeds=3), queues, restart=False)
    assert widths == [80 - len("^C")]


def test_a_cause_shows_its_log_once(tmp_path: Path) -> None:
    progress, queues, _ = queued(tmp_path, seeds=3)
    details = 'Traceback:\n  File "mine.py", line 1, in forward\nValueError: no'
    for seed in range(3):
        progress.store.write_failure(runs(progress.planned, seed)[1], "code", "ValueError: no", details, "log")
    progress.update(queues)
    lines = [line.plain for line in news(progress, None)]
    assert len(lines) == 4 and sum("Traceback" in line for line in lines) == 1
    assert sum(line.endswith("FAILED: the cause above") for line in lines) == 2
    lines = [line.plain for line in news(progress, 60) if line.plain.endswith("the cause above")]
    assert lines and max(map(len, lines)) <= 60


def test_the_time_taken_starts_with_the_queue_of_the_watched_runs(tmp_path: Path) -> None:
    progress, queues, _ = queued(tmp_path, seeds=3)
    (path,) = queues.find()
    earlier = path.with_name("small-11111111.json")
    (job,) = (job for job in Queue.read(path).jobs if teacher(progress.planned) in job.run_ids)
    replace(Queue.read(path), jobs=(job,)).write(earlier)
    os.utime(earlier, (1000.0, 1000.0))
    record(progress.planned, teacher(progress.planned), own=5.0)
    progress, queues = SweepProgress(progress.planned), Queues(lambda: [earlier, path])
    queues.update()
    progress.update(queues)
    assert progress.began == path.stat().st_mtime_ns / 1e9


def test_a_queue_that_is_rewritten_is_read_again(tmp_path: Path) -> None:
    _, queues, write = queued(tmp_path, seeds=2)
    queues.update()
    (opened,) = queues.opened
    write(replace(opened.queue, max_parallel=5))
    files.replace_json(tmp_path / "x", 1)
    queues.update()
    assert queues.at_once == 2, "looks are seldom"
    queues._next_look = 0.0
    queues.update()
    assert queues.at_once == 5


def test_of_many_runs_a_terminal_keeps_the_lines_without_a_result(tmp_path: Path) -> None:
    progress, queues, _ = queued(tmp_path, seeds=11)
    record(progress.planned, teacher(progress.planned), own=5.0)
    for seed in range(11):
        student, kd = runs(progress.planned, seed)
        record(progress.planned, student, own=30.0, job=seed)
        progress.store.run(student).mkdir(parents=True, exist_ok=True)
        progress.store.write_progress(student, stage="main", epoch=1, epochs=2, fraction=1.0, top1=70.0)
        progress.store.write_failure(kd, "code", "ValueError: no", "", "log")
    progress.update(queues)
    assert len(news(progress, None)) == 23 and any("top-1 70.00 %" in line.plain for line in news(progress, None))
    lines = [line.plain for line in news(progress, 80)]
    assert sum("FAILED" in line for line in lines) == 11 and not any("top-1" in line for line in lines)
