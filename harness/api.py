"""What runs have left, as tables: for programs. Start with ``harness.open_store``."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import UserError, unknown
from harness.reporting.comparison import Contents, cell_table, wanted_runs
from harness.store import records
from harness.store.schema import SCHEMA
from harness.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

_NO_CURVES = tuple(name for name in SCHEMA.names if name != "curves")


class Results:
    """Reads a store, compacted or not, while others write to it. Each call sees what is there when it is made.

    Every method that reads records raises ``UserError`` for a damaged one.
    """

    def __init__(self, path: Path):
        """Raises:
        UserError: there is no such folder.
        """
        if not path.is_dir():
            raise UserError(f"{path}: no such store")
        self._store = Store(path.resolve())

    def runs(self, columns: Sequence[str] = _NO_CURVES) -> pa.Table:
        """One row per finished run, ordered by ``run_id``; columns of the record's, without the curves unless named.

        Raises:
            UserError: there is no such column.
        """
        if wrong := [name for name in columns if name not in SCHEMA.names]:
            raise UserError(unknown("column", wrong[0], SCHEMA.names))
        return records.read_records(self._store, self._store.done_ids(), columns)

    def to_pandas(self, columns: Sequence[str] = _NO_CURVES) -> "pd.DataFrame":
        """``runs`` as a DataFrame; needs pandas."""
        return self.runs(columns).to_pandas()

    def curves(self, run_ids: Iterable[str] | None = None) -> pa.Table:
        """One row per run, epoch and name (``train_ce``, ``test_top1`` or ``test_AP``, ...): ``run_id, epoch, name,
        value``.

        Of all runs unless some are named; those without a record are left out.
        """
        wanted = self._store.done_ids() if run_ids is None else run_ids
        table = records.read_records(self._store, wanted, ["run_id", "curves"]).combine_chunks()
        lists = table.column("curves").combine_chunks()
        of = table.column("run_id").take(pc.list_parent_indices(lists))
        points = pa.Table.from_struct_array(pc.list_flatten(lists))
        return points.add_column(0, "run_id", of)

    def sweeps(self) -> list[str]:
        """Names of the sweeps that have tables."""
        return [folder.name for folder in self._store.tables()]

    def cells(self, sweep: str) -> pa.Table:
        """The runs of a sweep's comparison, a row per cell that has a record.

        The record's columns without the curves, after ``sweep``, ``pair_teacher``, ``pair_student`` and ``entry``: the
        names that the sweep file has for them.

        Raises:
            UserError: the store has no table of that sweep.
        """
        if sweep not in (known := self.sweeps()):
            raise UserError(unknown("sweep", sweep, known))
        contents = Contents.read(self._store.table_folder(sweep))
        return cell_table(contents, records.read_records(self._store, wanted_runs(contents), _NO_CURVES))
