"""Invariant 5: a record is written once, whole, by the first writer. Locks show which runs are in training."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UserError
from harness.store import files, records
from harness.store.locks import Lock, is_locked
from harness.store.store import Store
from tests.support.bench import Bench, forkserver
from tests.support.comparisons import TEXTS, invented_id

RUNS = sorted(invented_id(i) for i in range(30))


def write_all(root: str, row: dict[str, Any], writer: int, start: Any) -> None:
    start.wait()
    rows = ({**row, "run_id": k, "science": TEXTS[k], "host": f"writer {writer}"} for k in RUNS)
    won = [row["run_id"] for row in rows if records.write_record(Store(Path(root)), row)]
    (Path(root) / f"won-{writer}.json").write_text(json.dumps(won))


def read_all(root: str, seen: Any, stop: Any) -> None:
    """Count the rows read while other processes write; an incomplete row ends the process with an error."""
    store = Store(Path(root))
    while not stop.is_set():
        for row in records.read_records(store, RUNS).to_pylist():
            assert row["host"].startswith("writer ") and row["curves"]
            seen.value += 1


def test_one_of_many_writers_wins_and_no_reader_sees_half_a_record(finished: Bench, tmp_path: Path) -> None:
    row = finished.row(finished.cells()["kd", 0].run_id)
    start, stop, seen = forkserver.Event(), forkserver.Event(), forkserver.Value("l", 0)
    reader = forkserver.Process(target=read_all, args=(str(tmp_path), seen, stop))
    writers = [forkserver.Process(target=write_all, args=(str(tmp_path), row, i, start)) for i in range(5)]
    for process in (reader, *writers):
        process.start()
    start.set()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    time.sleep(0.2)
    stop.set()
    reader.join()
    assert reader.exitcode == 0 and seen.value > 0

    won = {i: json.loads((tmp_path / f"won-{i}.json").read_text()) for i in range(5)}
    assert sorted(k for runs in won.values() for k in runs) == RUNS, "each run has one winner"
    for i, runs in won.items():
        for stored in records.read_records(Store(tmp_path), runs).to_pylist():
            assert stored["host"] == f"writer {i}", "the winner's row is the one that stays"
    assert not list(tmp_path.rglob("*.tmp"))


def test_an_incomplete_record_does_not_exist(finished: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = finished.row(finished.cells()["kd", 0].run_id)
    store = Store(tmp_path)

    def torn(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", torn)
        with pytest.raises(files.DiskFull):
            records.write_record(store, row)
    assert store.done_ids() == set() and not list(store.records.iterdir())
    assert records.write_record(store, row) and not records.write_record(store, row)


def test_is_locked_keeps_nobody_from_acquiring_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``is_locked`` holds the lock for a moment, which this test prolongs before the release."""
    path = tmp_path / "lock"
    path.touch()
    is_asking, answered = threading.Event(), []
    close = os.close

    def close_late(fd: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            is_asking.set()
            time.sleep(0.05)
        close(fd)

    monkeypatch.setattr(files.os, "close", close_late)
    asker = threading.Thread(target=lambda: answered.append(is_locked(path)))
    asker.start()
    assert is_asking.wait(60)
    assert not is_locked(path), "a concurrent call of is_locked is not a holder"
    lock = Lock(path)
    assert lock.acquire()
    asker.join()
    assert answered == [False]
    assert is_locked(path) and not Lock(path).acquire()
    lock.release()
    assert not is_locked(path)


def test_a_run_is_found_by_the_start_of_its_id(tmp_path: Path) -> None:
    store, run_ids = Store(tmp_path), ("01ab", "01cd", "23ef")
    assert store.find("2", "--run", run_ids) == "23ef" and store.find("01c", "--run", run_ids) == "01cd"
    for prefix, message in (
        ("01", "--run '01': 2 runs start with it: 01ab, 01cd"),
        ("23ee", "--run: unknown run '23ee'; did you mean '23ef'? Valid: 01ab, 01cd, 23ef"),
        ("", "--run: unknown run ''. Valid: 01ab, 01cd, 23ef"),
    ):
        with pytest.raises(UserError) as e:
            store.find(prefix, "--run", run_ids)
        assert str(e.value) == message
    with pytest.raises(UserError, match="--run: unknown finished run '2'"):
        store.find("2", "--run")
