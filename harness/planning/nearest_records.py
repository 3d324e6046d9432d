"""Why runs are to do although the store has similar ones: what differs from the nearest records."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UserError
from harness.phrases import plural
from harness.planning.cost.past_run import PastRun
from harness.planning.cost.similar_runs import SimilarRuns
from harness.planning.plan import Planned
from harness.spec.lines import grouped
from harness.spec.science import Science
from harness.spec.science_differences import Difference, ScienceDifferences, as_dicts, parts_but_seed
from harness.spec.sweep_plan import Run

SHOWN_GROUPS, SHOWN_KEYS = 3, 4  # lines, and keys in each
MOST_COMPARED = 500  # sciences of a pair and method, as a tuning may leave thousands


@dataclass(frozen=True)
class NearRecords:
    """Runs to do that differ in the same way from their nearest records."""

    runs: int
    differences: tuple[Difference, ...]  # from the record to the run that is to do

    def to_json(self) -> dict[str, Any]:
        return {"runs": self.runs, "keys": as_dicts(self.differences, "record", "planned")}

    def __str__(self) -> str:
        more = len(self.differences) - SHOWN_KEYS
        keys = ", ".join(map(str, self.differences[:SHOWN_KEYS])) + (f" and {plural(more, 'more key')}" * (more > 0))
        have = "has a record that differs" if self.runs == 1 else "have records that differ"
        return f"{plural(self.runs, 'run')} {have} in {keys}"


def nearest_records(planned: Planned, to_do: Collection[str], past: SimilarRuns) -> tuple[NearRecords, ...]:
    """Return how runs to do differ from records of the same pair, method and seed; most runs first.

    Of several such records the one with the fewest differing keys counts; those of the plan's own runs do not. The work
    is bounded: records come from what the estimate has read, and of 100,000 runs that differ in their seeds only one
    is compared. Only the sciences of past teachers are read in addition.
    """
    runs = (run for run_id, run in planned.plan.runs.items() if run_id in to_do)
    lines = [
        (line, past.of_method_and_pair(line[0].science)[:MOST_COMPARED])
        for line in grouped(runs, lambda run: parts_but_seed(run.science)).values()
    ]
    try:
        stored = _teachers(planned, (group.science for _, groups in lines for group in groups))
    except UserError:  # of a damaged record, which whoever needs it reports
        stored = {}
    known = {run_id: run.science for run_id, run in planned.plan.runs.items()}
    compare = ScienceDifferences(lambda run_id: known.get(run_id) or stored.get(run_id))
    near = [keys for line, groups in lines for keys in _nearest(planned, line, groups, compare)]
    alike = [NearRecords(len(same), same[0]) for same in grouped(near, repr).values()]
    return tuple(sorted(alike, key=lambda records: (-records.runs, str(records))))


def reasons(near: Sequence[NearRecords]) -> list[str]:
    """Return a line for each of the commonest differences, and one that counts the others."""
    lines = [f"why again: {records}" for records in near[:SHOWN_GROUPS]]
    if rest := near[SHOWN_GROUPS:]:
        runs = plural(sum(records.runs for records in rest), "run")
        lines.append(f"why again: and {plural(len(rest), 'more difference')}, of {runs}")
    return lines


def _teachers(planned: Planned, sciences: Iterable[Science]) -> dict[str, Science]:
    """Return the sciences of past runs' teachers that are not in the plan.

    Raises:
        UserError: a damaged record.
    """
    needed = {run_id for science in sciences for run_id in science.teacher_runs} - planned.plan.runs.keys()
    if not needed:
        return {}
    from harness.store.stored_sciences import read_sciences

    return read_sciences(planned.store, needed)


def _nearest(
    planned: Planned, line: Sequence[Run], groups: Sequence[PastRun], compare: ScienceDifferences
) -> Iterator[tuple[Difference, ...]]:
    """Yield the differences of each run that has a near record. The runs of a line differ in their seeds only."""
    science = line[0].science
    candidates = []
    for group in groups:
        keys = compare.between(group.science.with_seed(science.seed), science).keys
        candidates.append((keys, group.seeds, group.science.run_id_by_seed()))
    candidates.sort(key=lambda candidate: len(candidate[0]))  # equal ones stay in the order of the store
    for run in line:
        seed = run.science.seed
        near = (keys for keys, seeds, run_id in candidates if seed in seeds and run_id(seed) not in planned.plan.runs)
        if keys := next(near, ()):
            yield keys
