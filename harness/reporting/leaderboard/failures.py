"""The failures on the leaderboard's page, grouped by cause, those that later results have superseded apart."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from harness.errors import UserError
from harness.reporting.comparison import Contents
from harness.reporting.leaderboard.entries import LeaderboardEntry
from harness.spec.lines import grouped
from harness.spec.science import Science
from harness.store import files, json_files
from harness.store.store import Failure, Store

MOST_FAILURES = 1000  # that the page lists, the newest
LOG_LINES = 12
Data = dict[str, Any]


class _Failed(NamedTuple):
    """A failure, the science of its run where that is known, and whether a later result stands in its place."""

    failure: Failure
    science: Science | None
    superseded: bool

    @property
    def failure_id(self) -> tuple[str, float]:
        """A run's failures differ in their time."""
        return self.failure.run_id, self.failure.at


def causes(
    store: Store, contents: Sequence[Contents], entries: Iterable[LeaderboardEntry], retried: Iterable[str]
) -> list[Data]:
    """Return the causes of a store's failures, each with its runs; those with the most failures come first.

    A failure is superseded if its run has a record by now; or if no table asks for the run any longer, and a table
    has a later result of the same pair, method and seed.

    Args:
        retried: runs with a record that took more than one attempt.
    """
    unfinished = store.failed_ids()
    done, latest = store.done_ids(), _latest(entries) if unfinished else {}
    asked = {run_id for table in contents for cell in table.cells for run_id in (cell.run_id, *cell.needed_runs)}
    failed = [_Failed(failure, _science(store, failure.run_id), True) for failure in _archived(store, retried)]
    for run_id in unfinished:
        if failure := store.failure(run_id):
            science = _science(store, run_id)
            later = run_id not in asked and science is not None and latest.get(_key(science), 0) > failure.at
            failed.append(_Failed(failure, science, later or run_id in done))
    failed.sort(key=lambda f: (-f.failure.at, f.failure.run_id))
    listed = {f.failure_id for f in failed[:MOST_FAILURES]}
    groups = grouped(failed, lambda f: (f.superseded, f.failure.kind, f.failure.cause))
    return [
        {
            "superseded": superseded,
            "kind": kind,
            "cause": cause,
            "count": len(own),
            "runs": [_run(f) for f in own if f.failure_id in listed],
        }
        for (superseded, kind, cause), own in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]


def _archived(store: Store, run_ids: Iterable[str]) -> Iterable[Failure]:
    """Yield the failures of earlier attempts of runs."""
    folders = {path.name for path in files.entries(store.run("any").parent)}
    for run_id in folders.intersection(run_ids):
        for path in files.entries(store.run(run_id), "failure-*.json"):
            failure = json_files.read_if_valid(Failure, path)
            if failure and failure.run_id == run_id:
                yield failure


def _latest(entries: Iterable[LeaderboardEntry]) -> dict[Any, float]:
    """Return when a run of each pair, method and seed in a table has finished last, in seconds since 1970."""
    latest: dict[Any, float] = {}
    for line in entries:
        for seed in line.by_seed if line.sweeps else ():
            key = (*_key(line.science)[:-1], seed)
            latest[key] = max(latest.get(key, 0), line.newest / 1e6)
    return latest


def _key(science: Science) -> tuple[Any, ...]:
    return science.dataset.name, science.teacher_model, science.student, science.method.use, science.seed


def _science(store: Store, run_id: str) -> Science | None:
    try:
        return store.read_science(run_id)
    except UserError:
        return None


def _run(failed: _Failed) -> Data:
    failure = failed.failure
    return {
        "run": failure.run_id,
        "of": _describe(failed.science) if failed.science else "",
        "details": "\n".join(failure.details.strip().splitlines()[-LOG_LINES:]),
        "log": failure.log,
        "host": failure.host,
        "at": datetime.fromtimestamp(failure.at).astimezone().isoformat(" ", "minutes"),
    }


def _describe(science: Science) -> str:
    teacher = f"{science.teacher.model} > " if science.teacher else ""
    return f"{science.dataset.name}, {teacher}{science.student}, {science.method.use}, seed {science.seed}"
