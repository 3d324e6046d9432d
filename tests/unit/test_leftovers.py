"""Leftovers of killed processes are removed, and nothing else; the notes of attempts survive torn lines and clocks."""

import json
import os
import threading
from pathlib import Path

import pytest

from harness.store import leftovers
from harness.store.locks import Lock
from harness.store.store import Store
from tests.support.comparisons import invented_id

DONE, OPEN = invented_id(1), invented_id(2)
TEMPORARY = "0a1b2c3d.tmp"
# What a kill may leave, and whether it is removed at any age, once it is old, or never.
PLACES = {
    f"runs/{DONE}/checkpoints/epoch-000001-step-000002.safetensors": "now",
    f"runs/{DONE}/.student.safetensors.{TEMPORARY}": "now",
    f"runs/{OPEN}/.predictions.json.{TEMPORARY}": "by its next job",
    f"runs/{OPEN}/checkpoints/epoch-000001-step-000002.safetensors": "never",
    f"runs/{OPEN}/.science.json.{TEMPORARY}": "never",
    f"records/.{OPEN}.parquet.{TEMPORARY}": "now",
    f"records/.{OPEN}.parquet.tmp": "never",
    f"failures/.{OPEN}.json.{TEMPORARY}": "old",
    f"queues/.tiny-00000000.json.{TEMPORARY}": "old",
    f"queues/submissions/.kd-1.json.{TEMPORARY}": "old",
    f"estimates/.tiny.json.{TEMPORARY}": "old",
    f"code/.0123456789ab.{TEMPORARY}/harness/api.py": "old",
    f"logits/key/.epoch-000001.safetensors.{TEMPORARY}": "old",
    f"tables/tiny/.table.md.{TEMPORARY}": "old",
    f"images/tiny/.1.webp.{TEMPORARY}": "old",
    f"weights/sha256/.0123.{TEMPORARY}": "old",
    f"checks/.key.json.{TEMPORARY}": "old",
    f".leaderboard.html.{TEMPORARY}": "old",
    f"compact/.000001.{TEMPORARY}/_runs.json": "now",
    "compact/.000001.0a1b2c3d.gone/_runs.json": "now",
    "queues/.mine.tmp": "never",
    f"queues/mine.{TEMPORARY}": "never",
    f"tables/tiny/.table.md.{TEMPORARY}.txt": "never",
    f"runs/{DONE}/notes.txt": "never",
}


@pytest.mark.parametrize("age", ["now", "old"])
def test_what_is_surely_dead_is_removed(tmp_path: Path, age: str) -> None:
    store = Store(tmp_path)
    for name in PLACES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for path in tmp_path.rglob("*") if age == "old" else ():
        os.utime(path, (1e9, 1e9))
    store.record(DONE).touch()
    store.write_failure(DONE, "code", "of an attempt before", "", "")
    leftovers.remove_leftovers(store)
    leftovers.remove_partial_files(store, OPEN)
    gone = {"now", "by its next job", age}
    assert [name for name in PLACES if (tmp_path / name).exists()] == [
        n for n, when in PLACES.items() if when not in gone
    ]
    assert not store.checkpoints(DONE).exists() and not store.failed_ids()


def test_a_run_in_training_and_strange_files_keep_checkpoints(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.records.mkdir()
    store.record(DONE).touch()
    store.checkpoints(DONE).mkdir(parents=True)
    checkpoint = store.checkpoints(DONE) / "epoch-000001-step-000002.safetensors"
    strange = store.checkpoints(DONE) / "epoch-best.safetensors"
    for path in (checkpoint, strange, unfinished := store.records / f".{OPEN}.parquet.{TEMPORARY}"):
        path.touch()
    with Lock(store.run_lock(DONE)), Lock(store.run_lock(OPEN)):
        leftovers.remove_leftovers(store)
        assert checkpoint.exists() and unfinished.exists()
    elsewhere = store.checkpoints(DONE).rename(tmp_path / "elsewhere")
    store.checkpoints(DONE).symlink_to(elsewhere)
    leftovers.remove_leftovers(store)
    assert (elsewhere / checkpoint.name).exists(), "a link may lead anywhere"
    store.checkpoints(DONE).unlink()
    elsewhere.rename(store.checkpoints(DONE))
    leftovers.remove_leftovers(store)
    assert strange.exists() and not checkpoint.exists() and not unfinished.exists()


def attempt(pid: int) -> str:
    return json.dumps({"log": "log.out", "host": "h", "at": 1.0, "pid": pid})


@pytest.mark.parametrize(
    "damaged",
    [
        f'{attempt(1)}\n{{"log": "l\n{attempt(2)}\n',
        f"{attempt(1)}\n\0\0\0\0\n{attempt(2)}\n",
        f"{attempt(1)}\n\0\0\0\0{attempt(2)}\n",
        f"{attempt(1)}\0\0\0\n\n{attempt(2)}\n\0\0",
        f"{attempt(1)}\n{attempt(2)}\n{attempt(9)[:-3]}",
    ],
)
def test_a_torn_line_of_attempts_loses_itself_alone(tmp_path: Path, damaged: str) -> None:
    store = Store(tmp_path)
    store.run(OPEN).mkdir(parents=True)
    (store.run(OPEN) / "attempts.jsonl").write_text(damaged)
    assert store.add_attempt(OPEN, log="log.out", pid=3) == 3
    assert [a["pid"] for a in store.attempts(OPEN)] == [1, 2, 3]


def test_two_writers_of_attempts_lose_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.run(OPEN).mkdir(parents=True)
    (store.run(OPEN) / "attempts.jsonl").write_text(attempt(0)[:-3])
    writers = [
        threading.Thread(target=lambda i=i: [store.add_attempt(OPEN, log="l", pid=100 * i + j) for j in range(20)])
        for i in range(1, 4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(a["pid"] for a in store.attempts(OPEN)) == [100 * i + j for i in range(1, 4) for j in range(20)]


def test_archived_failures_of_an_earlier_harness_count(tmp_path: Path) -> None:
    """Their names say when, and no number of attempts; those of now come after them."""
    store = Store(tmp_path)
    store.run(OPEN).mkdir(parents=True)
    (store.run(OPEN) / "attempts.jsonl").write_text(f"{attempt(1)}\n{attempt(2).replace('1.0', '3.0')}\n")
    store.write_failure(OPEN, "code", "cause", "", "")
    failure = json.loads(store.failure_file(OPEN).read_text())
    del failure["checksum"]
    (store.run(OPEN) / "failure-2.json").write_text(json.dumps({**failure, "at": 2.0}))
    assert [a["pid"] for a in store.attempts_since_failure(OPEN)] == [2]
    store.archive_failure(OPEN)
    assert store.attempts_since_failure(OPEN) == []
