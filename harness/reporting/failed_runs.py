"""The failed runs of a comparison, by cause. Tables are rebuilt from records, so that causes stand beside them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.errors import one_line
from harness.reporting.comparison import Comparison
from harness.reporting.tables.absences import counted_runs
from harness.spec.lines import Line, grouped
from harness.store.failure_causes import signature
from harness.store.store import Failure, Store


@dataclass(frozen=True)
class FailedRuns:
    """The failures of the runs without a record, by run."""

    failures: Mapping[str, Failure]

    @classmethod
    def of(cls, comparison: Comparison, store: Store) -> "FailedRuns":
        lines = [row for row in comparison.rows if row.missing]
        failed = store.failed_ids() - store.done_ids() if lines else set()
        run_ids = (run_id for row in lines for run_id in row.run_ids if run_id in failed)
        return cls({run_id: failure for run_id in run_ids if (failure := store.failure(run_id))})

    def counts(self, comparison: Comparison) -> dict[Line, int]:
        """Return the number of failed runs of each line that has some."""
        counts = {row.line: sum(run_id in self.failures for run_id in row.run_ids) for row in comparison.rows}
        return {line: count for line, count in counts.items() if count}

    def notes(self, comparison: Comparison) -> Iterator[str]:
        """Yield a note on each cause, with the runs that it ended."""
        for failures in grouped(self.failures.values(), signature).values():
            run_ids = {failure.run_id for failure in failures}
            counts = {row.line: len(run_ids.intersection(row.run_ids)) for row in comparison.rows}
            shown = counted_runs(comparison, {line: count for line, count in counts.items() if count})
            yield f"failed: {one_line(failures[0].cause)} ({shown})"


def failure_notes(comparison: Comparison, store: Store) -> list[str]:
    """Return the causes of a comparison's failed runs, to be said on stderr beside a table that cannot hold them."""
    return list(FailedRuns.of(comparison, store).notes(comparison))
