"""The sciences of finished runs, and of the runs that trained their teachers."""

from collections.abc import Iterable

from harness.spec.science import Science
from harness.store import records
from harness.store.store import Store


def read_sciences(store: Store, run_ids: Iterable[str]) -> dict[str, Science]:
    """Return the sciences of those runs that have a record, with their teachers' runs and those of their teachers.

    Raises:
        UserError: a damaged record, or one of a later version of the harness.
    """
    sciences: dict[str, Science] = {}
    asked: set[str] = set()
    wanted = set(run_ids)
    while wanted:
        table = records.read_records(store, wanted, ("run_id", "science"))
        ids, texts = (table.column(name).to_pylist() for name in ("run_id", "science"))
        read = {run_id: Science.from_text(text) for run_id, text in zip(ids, texts, strict=True)}
        sciences |= read
        asked |= wanted
        wanted = {teacher for science in read.values() for teacher in science.teacher_runs} - asked
    return sciences
