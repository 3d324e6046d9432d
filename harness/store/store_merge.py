"""The merge of stores: what one takes from others, by the ids of runs. All is read and compared before it writes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import raise_mistakes
from harness.spec.science import distinct_sciences
from harness.store import files, ownership, record_agreement, record_stream, run_copy, tuning_copy
from harness.store.record_agreement import RunRecord
from harness.store.run_copy import Outcome
from harness.store.store import Store
from harness.store.tuning_copy import TuningCopy
from harness.store.tuning_log import TuningLog


@dataclass
class SourceMerge:
    """The part of a merge that comes from one store."""

    source: Store
    records: Mapping[str, RunRecord]
    new: frozenset[str]  # runs that are taken
    other_provenance: int  # of the others: with the same result from another host, time or commit
    weights: tuple[str, ...]  # runs that are there without weights, which this store has
    running: int
    tunings: Sequence[TuningCopy]
    taken: set[str] = field(default_factory=set)
    busy: set[str] = field(default_factory=set)  # in training, or copied by another process

    @property
    def there(self) -> int:
        """The number of its records that the other store had before, or has from another source."""
        return len(self.records) - len(self.new)

    def without_weights(self) -> list[str]:
        """Return the runs whose weights this store does not have."""
        return [run_id for run_id in self.records if not self.source.student_weights(run_id).exists()]


@dataclass
class StoreMerge:
    """A store and what it takes from others."""

    into: Store
    sources: Sequence[SourceMerge]

    def missing_teachers(self, planned: bool) -> dict[str, RunRecord]:
        """Return the teachers' runs whose record some source has, and whose weights the store does not get.

        ``planned``: before the merge is carried out.
        """
        known = {run_id: record for source in self.sources for run_id, record in source.records.items()}
        teachers = {run_id for record in known.values() for run_id in record.teacher_runs if run_id in known}
        stores = [self.into, *(source.source for source in self.sources if planned)]
        return {
            run_id: known[run_id]
            for run_id in sorted(teachers)
            if not any(store.student_weights(run_id).exists() for store in stores)
        }


def plan_merge(sources: Sequence[Store], into: Store) -> StoreMerge:
    """Read the stores and compare their records; nothing is written.

    Raises:
        UserError: two stores have different results of a run, a source's file is damaged, of a newer version, a link
            or outside of the store.
    """
    for source in sources:
        _check_record_files(source)
    listed = [into.done_ids(), *(source.done_ids() for source in sources)]
    several = record_agreement.in_several(listed)
    read = [
        record_agreement.read_run_records(store, run_ids & several if store is into else run_ids, several)
        for store, run_ids in zip((into, *sources), listed, strict=True)
    ]
    raise_mistakes(record_agreement.conflicts(list(zip((into, *sources), read, strict=True))))
    merges, first = list[SourceMerge](), dict(read[0])
    given, logs = set[str](), dict[str, TuningLog]()
    for source, of_source in zip(sources, read[1:], strict=True):
        new = frozenset(of_source.keys() - first.keys())
        _check_new(source, new)
        other = sum(first[k].provenance != record.provenance for k, record in of_source.items() if k in first)
        lacking = (k for k in sorted(of_source.keys() - new - given) if not into.student_weights(k).exists())
        weights = tuple(k for k in lacking if source.student_weights(k).exists())
        given |= {*weights, *(k for k in new if source.student_weights(k).exists())}
        tunings = tuning_copy.read_tunings(source, into, logs)
        merges.append(SourceMerge(source, of_source, new, other, weights, _running(source), tunings))
        first = of_source | first
    return StoreMerge(into, merges)


def carry_out(merge: StoreMerge, tell: Callable[[str, int, int], None]) -> None:
    """Write what a merge takes. Repeated after it was cut short, it goes on.

    ``tell`` is called after each run, with its store, the number of runs so far and the number of all.

    Raises:
        DiskFull: the disk is full; runs that are not whole have no record.
        UserError: another process has meanwhile written another result of a run.
    """
    into = merge.into
    for source in merge.sources:
        there = _take_runs(source, into, tell)
        for run_id in source.weights:
            run_copy.add_weights(source.source, into, run_id, source.records[run_id].weights_sha256)
        for tuning in source.tunings:
            if tuning.is_same:
                tuning_copy.copy_tuning(tuning, into)
        both = [(store, record_agreement.read_run_records(store, there, there)) for store in (into, source.source)]
        raise_mistakes(record_agreement.conflicts(both))


def _take_runs(source: SourceMerge, into: Store, tell: Callable[[str, int, int], None]) -> set[str]:
    """Copy the runs that are new, and return those of which another process has written the record meanwhile."""
    there, seen = set[str](), 0
    for table in record_stream.stream_records(source.source, source.new):
        done = into.done_ids()
        for i, run_id in enumerate(table.column("run_id").to_pylist()):
            outcome = Outcome.THERE
            if run_id not in done:
                outcome = run_copy.copy_run(source.source, into, table.slice(i, 1))
            {Outcome.TAKEN: source.taken, Outcome.THERE: there, Outcome.BUSY: source.busy}[outcome].add(run_id)
            seen += 1
            tell(str(source.source.root), seen, len(source.new))
    return there


def _check_record_files(store: Store) -> None:
    for folder in (store.records, store.compact, store.all_tunings, store.run("any").parent):
        ownership.check_inside(store.root, folder)
    index = store.record_index()
    for run_id in index.loose:
        ownership.check_inside(store.root, store.record(run_id))
    if index.generation:
        for path in (
            index.generation.folder,
            *index.generation.folder.glob("*"),
            *index.generation.files(index.run_ids),
        ):
            ownership.check_inside(store.root, path)


def _check_new(source: Store, new: Iterable[str]) -> None:
    """Check the settings and the files of runs that are to be copied."""
    for run_id in new:
        run_copy.check_files(source, run_id)
    for table in record_stream.stream_records(source, new, ("science", "seed")):
        distinct_sciences(*(table.column(name).to_pylist() for name in ("science", "seed")))


def _running(store: Store) -> int:
    """Return the number of runs in training: their records are not there yet."""
    folders = {path.name for path in files.entries(store.run("any").parent)} - store.done_ids()
    return sum(store.is_running(run_id) for run_id in folders if store.run_lock(run_id).is_file())
