"""Submissions of a sweep: what each was estimated to take, and what its runs have taken."""

import os
import time
from collections.abc import Collection, Set
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.console.terminal import duration, say
from harness.errors import UserError, system_error
from harness.hardware import is_gpu
from harness.phrases import plural
from harness.planning.cost import text
from harness.planning.cost.devices import unit_of
from harness.planning.cost.estimate import Estimate
from harness.planning.cost.history import JOB_COLUMNS, jobs
from harness.planning.cost.interval import Interval
from harness.store import checksums, files, json_files, records
from harness.store.store import Store


@dataclass(frozen=True)
class Submission:
    """Runs that were submitted together, and their estimate at that time."""

    __pydantic_config__ = json_files.CLOSED
    submitted_at: json_files.Timestamp
    run_ids: tuple[str, ...]
    elapsed_s: Interval | None
    device_s: Interval | None
    unit: str
    left_bytes: Interval | None
    unknown: int  # runs of unknown time


@dataclass(frozen=True)
class MeasuredCost:
    """The cost so far of the runs that have a record."""

    records: int
    elapsed_s: float | None  # from the submission to the last record
    device_s: dict[str, float]  # unit -> seconds that jobs held devices, times their number
    left_bytes: int


def note_submission(store: Store, sweep: str, run_ids: Collection[str], estimate: Estimate) -> None:
    """Note a submission. Runs that were submitted before keep their first estimate. A file that cannot be read or
    replaced is left as it is.
    """
    known = read_submissions(store, sweep)
    if not known and files.is_there(store.estimates(sweep)):
        return
    if any(set(run_ids) <= set(submission.run_ids) for submission in known):
        return
    new = Submission(
        time.time(), tuple(sorted(run_ids)), estimate.elapsed_s, estimate.device_s, estimate.unit, estimate.left_bytes,
        len(estimate.runs_of_unknown_time),
    )  # fmt: skip
    try:
        files.replace_json(store.estimates(sweep), checksums.seal_value([asdict(s) for s in (*known, new)]))
    except OSError as e:
        say(f"note: the estimate is not kept: {system_error(e)}")


def read_submissions(store: Store, sweep: str) -> list[Submission]:
    """Return a sweep's submissions, oldest first; none where their file is damaged, as nothing depends on it."""
    return json_files.read_if_valid(list[Submission], store.estimates(sweep)) or []


def measured_cost(store: Store, submission: Submission) -> MeasuredCost:
    """Return what the runs of a submission have taken.

    Raises:
        UserError: a damaged record.
    """
    columns = (*JOB_COLUMNS, "hardware", "threads", "processes")
    table = records.read_records(store, submission.run_ids, columns)
    of_jobs, used = jobs(table), dict[str, float]()
    first: dict[int, dict[str, Any]] = {}
    for job, row in zip(of_jobs.index.tolist(), table.to_pylist(), strict=True):
        first.setdefault(job, row)
    for job, row in first.items():
        gpu = is_gpu(row["hardware"])
        devices = row["processes"] * (1 if gpu else row["threads"])
        used[unit_of(gpu)] = used.get(unit_of(gpu), 0.0) + float(of_jobs.seconds[job]) * devices
    ended: list[datetime] = table.column("finished_at").to_pylist()
    return MeasuredCost(
        records=len(table),
        elapsed_s=max(0.0, max(ended).timestamp() - submission.submitted_at) if ended else None,
        device_s=used,
        left_bytes=sum(_bytes(store, run_id) for run_id in table.column("run_id").to_pylist()),
    )


def _bytes(store: Store, run_id: str) -> int:
    """Return the bytes of a run, without a compacted record and without logits that other runs share."""
    folder, record = store.run(run_id), store.record(run_id)
    paths = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    return _size(record) + sum(_size(path) for path in paths)


def _size(path: str | Path) -> int:
    """Return a file's bytes; 0 of one that is gone, as checkpoints go while others look."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def submission_dicts(store: Store, sweep: str) -> list[dict[str, Any]]:
    """Return submissions and what they have taken, as plain data.

    Raises:
        UserError: a damaged record.
    """
    return [{**asdict(s), "taken": asdict(measured_cost(store, s))} for s in read_submissions(store, sweep)]


def submission_lines(store: Store, sweep: str, run_ids: Set[str]) -> list[str]:
    """Return a line for each submission of a sweep with one of these runs: its estimate, and what it took.

    The others are of the sweep's file before a change.

    Raises:
        UserError: a damaged record.
    """
    own = (s for s in read_submissions(store, sweep) if not run_ids.isdisjoint(s.run_ids))
    return [_line(sweep, submission, measured_cost(store, submission)) for submission in own]


def say_submissions(store: Store, sweep: str, run_ids: Set[str]) -> None:
    """Say ``submission_lines`` on stderr. They follow a good table, so that an error is only said, too."""
    try:
        for line in submission_lines(store, sweep, run_ids):
            say(line)
    except UserError as e:
        say(f"note: the time that {sweep} took is not known: {e}")
    except OSError as e:
        say(f"note: the time that {sweep} took is not known: {system_error(e)}")


def _line(sweep: str, submission: Submission, took: MeasuredCost) -> str:
    when = datetime.fromtimestamp(submission.submitted_at).strftime("%Y-%m-%d %H:%M")
    runs = plural(len(submission.run_ids), "run")
    if not took.records or took.elapsed_s is None:
        return f"{sweep}: {runs} submitted {when}: estimated {_estimated(submission)}; none has a record yet"
    so_far = "" if took.records == len(submission.run_ids) else f" for {took.records} of them so far"
    used = [f"{text.format_hours(seconds)} {unit}-hours" for unit, seconds in sorted(took.device_s.items())]
    parts = ", ".join([duration(took.elapsed_s), *used, text.format_bytes(took.left_bytes)])
    return f"{sweep}: {runs} submitted {when}: estimated {_estimated(submission)}; took {parts}{so_far}"


def _estimated(submission: Submission) -> str:
    parts = ["time unknown"]
    if submission.elapsed_s and submission.device_s:
        parts = [text.duration_range(submission.elapsed_s, submission.device_s, submission.unit)]
        if submission.unknown:
            parts[-1] += f" and {plural(submission.unknown, 'run')} of unknown time"
    if submission.left_bytes:
        parts.append(text.format_interval(submission.left_bytes, text.format_bytes))
    return ", ".join(parts)
