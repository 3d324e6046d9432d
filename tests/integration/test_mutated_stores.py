"""Mutated files of a store give no traceback, no hang, a documented exit code, and a message that names the file."""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from harness.planning.cost import submissions
from harness.planning.cost.estimate import Estimate
from harness.planning.cost.interval import Interval
from harness.planning.cost.probe_results import ProbeResult
from harness.planning.plan import Planned, plan_sweep
from harness.reporting.comparison import Contents
from harness.reporting.tables import table_folder
from harness.store import compaction, files, records
from harness.store.generations import INDEX
from harness.store.locks import Lock
from harness.store.store import Store
from slurm import commands
from slurm.array_jobs import ArrayJob
from slurm.queue import Queue, QueuedJob
from tests.support.cli import CommandResult, run_command
from tests.support.comparisons import row
from tests.support.mutated_inputs import check_mutants, is_json, mutated_json, mutated_lines, write_mutated_table

pytestmark = pytest.mark.timeout(600)  # a command that hangs

SWEEP: dict[str, Any] = {
    "name": "small",
    "dataset": "digits",
    "recipe": "digits_quick",
    "methods": ["student", "kd"],
    "pairs": [{"teacher": "digits_net_w8", "student": "digits_net_w4"}],
    "seeds": 3,
}
DONE, FAILED, RUNNING = 3, 3, 4  # runs with a record; positions of others


@dataclass
class Stored:
    """A store with three records, a failed run and a running one, a queue and a table."""

    home: Path
    planned: Planned

    @property
    def store(self) -> Store:
        return self.planned.store

    @property
    def run_ids(self) -> list[str]:
        return list(self.planned.plan.runs)

    def call(self, name: str, *args: object) -> Callable[[], CommandResult]:
        file = [self.home / "small.yaml"] if name in ("sweep", "status") else []
        return lambda: run_command(name, *file, "--results", self.store.root, *args)


def make_store(home: Path) -> Stored:
    file = home / "small.yaml"
    file.write_text(yaml.safe_dump(SWEEP, sort_keys=False))
    planned = plan_sweep(file, home / "results")
    stored, runs = Stored(home, planned), list(planned.plan.runs.values())
    for i, run in enumerate(runs):
        planned.store.write_science(run.run_id, run.science)
        if i < DONE:
            science = run.science
            facts = {"science": science.text, "seed": science.seed, "versions": '{"python": "3.11"}', "processes": 1}
            facts |= {"dataset": "digits", "method": science.method.use, "student": science.student, "attempts": 1}
            curves = [{"epoch": e, "name": "test_top1", "value": 50.0} for e in range(1, 4)]
            records.write_record(planned.store, row(run.run_id, 60.0 + i, 61.0, curves=curves, **facts))
    where = 'File "a.py", line 1, in f'
    planned.store.write_failure(runs[FAILED].run_id, "code", "ValueError: no", where, "log.out")
    for i in (FAILED, RUNNING):
        planned.store.add_attempt(runs[i].run_id, log=str(home / "log.out"), pid=1)
    (home / "log.out").write_text("a log\n")
    progress = {"epoch": 1, "epochs": 20, "fraction": 0.1, "seconds_left": 9.5, "top1": 44.0}
    planned.store.write_progress(runs[RUNNING].run_id, **progress)
    jobs = tuple(QueuedJob.from_sciences({run.run_id: run.science}, None) for run in runs[FAILED:])
    Queue(str(planned.store.root), jobs, 2, 1, None, {}, None).write(planned.store.queue("small-00000000"))
    span = Interval(1.0, 2.0, 3.0)
    estimate = Estimate(span, span, "core", span, 5.0, (), (), ())
    submissions.note_submission(planned.store, "small", stored.run_ids, estimate)
    table_folder.write_tables(Contents.of("small", planned.plan), planned.store, planned.store.table_folder("small"))
    return stored


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    stored = make_store(tmp_path_factory.mktemp("mutated"))
    lock = Lock(stored.store.run_lock(stored.run_ids[RUNNING]))
    assert lock.acquire()
    yield stored
    lock.release()


def write_json(value: Any) -> Callable[[Path, random.Random], object]:
    return lambda path, rng: path.write_bytes(mutated_json(value, rng))


def check(stored: Stored, path: Path, count: int, *commands: tuple[object, ...], **more: Any) -> None:
    value = json.loads(re.sub(r'"(at|submitted_at)": [0-9.]+', r'"\1": 1.8e9', path.read_text()))
    called = [stored.call(*map(str, command)) for command in commands]
    check_mutants(path, write_json(value), called, count, folder=stored.home, **more)


def test_queue_files(stored: Stored) -> None:
    path = stored.store.queue("small-00000000")
    check(stored, path, 110, ("status",), ("status", "--json"))


def test_failures(stored: Stored) -> None:
    path = stored.store.failure_file(stored.run_ids[FAILED])
    check(stored, path, 60, ("status",), ("status", "--failures"), ("status", "--failures", "--json"))


def test_progress(stored: Stored) -> None:
    path = stored.store.run(stored.run_ids[RUNNING]) / "progress.json"
    check(stored, path, 50, ("status",))


def test_attempts(stored: Stored) -> None:
    run_id = stored.run_ids[RUNNING]
    path = stored.store.run(run_id) / "attempts.jsonl"
    values = [{"log": "log.out", "pid": 1, "host": "h", "at": 1e9}] * 3
    called = [stored.call("status"), stored.call("status", "--logs", run_id)]

    def write(path: Path, rng: random.Random) -> None:
        path.write_bytes(mutated_lines(values, rng))

    check_mutants(path, write, called, 50, folder=stored.home, names=("--logs",), readable=lambda path: True)


def test_estimates(stored: Stored) -> None:
    path = stored.store.estimates("small")
    check(stored, path, 50, ("report",))


def test_contents_of_tables(stored: Stored) -> None:
    path = stored.store.table_folder("small") / "contents.json"
    path.with_name("digests.json").unlink()  # which would tell of every change, but not of its key
    check(stored, path, 110, ("report", "--format", "csv"), ("verify",))


def test_records(stored: Stored) -> None:
    path = stored.store.record(stored.run_ids[1])
    table = pq.read_table(path)
    called = [stored.call(*command) for command in (("report",), ("sweep", "--plan"), ("leaderboard",), ("verify",))]

    def write(path: Path, rng: random.Random) -> None:
        write_mutated_table(table, path, rng)

    check_mutants(path, write, called, 120, folder=stored.home, readable=Path.is_file)


def test_compacted_records(tmp_path: Path) -> None:
    stored = make_store(tmp_path)
    assert compaction.compact(stored.store, 0) == DONE
    generation = stored.store.record_index().generation
    assert generation
    (part,) = generation.files(generation.run_ids)
    table = pq.read_table(part, partitioning=None)
    called = [stored.call(*command) for command in (("report",), ("sweep", "--plan"))]

    def write(path: Path, rng: random.Random) -> None:
        write_mutated_table(table, path, rng)

    check_mutants(part, write, called, 60, folder=stored.home, readable=Path.is_file)
    index = generation.folder / INDEX
    check_mutants(index, write_json(json.loads(index.read_text())), called, 60, folder=stored.home, names=(part.name,))


def test_probes(stored: Stored) -> None:
    ProbeResult(["x"], "cpu", 1, 1, [0.1, 0.2], 1.0, 5).write(stored.store)
    (path,) = stored.store.probes.iterdir()
    check(stored, path, 40, ("sweep", "--plan"))


def test_added_seeds(stored: Stored) -> None:
    path = stored.store.added_seeds("small")
    files.replace_json(path, [asdict(cell) for cell in stored.planned.plan.cells])
    check(stored, path, 40, ("status",), ("sweep", "--plan"))
    path.unlink()


def test_queue_files_of_earlier_harnesses(stored: Stored) -> None:
    path, science = stored.store.queue("small-11111111"), stored.store.run(stored.run_ids[-1]) / "science.json"
    value = {"cluster": None, "data": None, "max_parallel": 1, "threads": 1, "weights": {}}
    packs = [{"needs": None, "run_ids": stored.run_ids[RUNNING:]}]
    files.replace_json(path, {**value, "store": str(stored.store.root), "packs": packs})
    check(stored, path, 40, ("status",), names=("science.json", "File name too long"))
    check(stored, science, 30, ("status",))
    path.unlink()


def test_notes_of_array_jobs(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "squeue", lambda users: [])
    monkeypatch.setattr(commands, "sacct", lambda job_ids: [])
    profile, path = stored.home / "cluster.yaml", stored.store.submission("kd-small")
    profile.write_text("resources: {}\n")
    queue_file = stored.store.queue("small-22222222")
    queue = Queue.read(stored.store.queue("small-00000000"))
    replace(queue, cluster=str(profile)).write(queue_file)
    files.replace_json(path, asdict(ArrayJob("kd-small", "x", [stored.run_ids[FAILED:]], [{}], "7", "me")))
    check(stored, path, 40, ("status",), readable=lambda path: is_json(path) or path.is_symlink())
    path.unlink()
    queue_file.unlink()
