"""Results of a store as tables and as models, for programs: ``harness.open_store`` and ``harness.load_model``."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import UserError, unknown
from harness.reporting.comparison import Contents, cell_table
from harness.store import records
from harness.store.schema import SCHEMA
from harness.store.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from harness.training.classifier import Classifier

_NO_CURVES = tuple(name for name in SCHEMA.names if name != "curves")


class Results:
    """Reader of a store, compacted or not, while others write to it. Each call sees the records of its moment.

    Every method that reads records raises ``UserError`` for a damaged one.

    Raises:
        UserError: there is no such folder.
    """

    def __init__(self, path: Path):
        self._store = Store.existing(path)

    def runs(self, columns: Sequence[str] = _NO_CURVES) -> pa.Table:
        """Return a row per finished run, ordered by ``run_id``, with the columns of its record except the curves.

        Raises:
            UserError: there is no such column.
        """
        if wrong := [name for name in columns if name not in SCHEMA.names]:
            raise UserError(unknown("column", wrong[0], SCHEMA.names))
        return records.read_records(self._store, self._store.done_ids(), columns)

    def to_pandas(self, columns: Sequence[str] = _NO_CURVES) -> "pd.DataFrame":
        """Return ``runs`` as a DataFrame; needs pandas."""
        return self.runs(columns).to_pandas()

    def curves(self, run_ids: Iterable[str] | None = None) -> pa.Table:
        """Return a row per run, epoch and name (``train_ce``, ``test_top1``, ...): ``run_id, epoch, name, value``.

        Without ``run_ids`` the table has all runs. Runs without a record are left out.
        """
        ids = self._store.done_ids() if run_ids is None else run_ids
        table = records.read_records(self._store, ids, ["run_id", "curves"]).combine_chunks()
        curves = table.column("curves").combine_chunks()
        points = pa.Table.from_struct_array(pc.list_flatten(curves))
        return points.add_column(0, "run_id", table.column("run_id").take(pc.list_parent_indices(curves)))

    def sweeps(self) -> list[str]:
        """Return the names of the sweeps that have tables."""
        return [folder.name for folder in self._store.tables()]

    def cells(self, sweep: str) -> pa.Table:
        """Return the runs of a sweep's comparison, a row per cell that has a record.

        The columns are ``sweep``, ``pair_teacher``, ``pair_student`` and ``entry``, with the names in the sweep file,
        then those of the record except the curves.

        Raises:
            UserError: the store has no table of that sweep.
        """
        if sweep not in (known := self.sweeps()):
            raise UserError(unknown("sweep", sweep, known))
        contents = Contents.read(self._store.table_folder(sweep))
        return cell_table(contents, records.read_records(self._store, contents.run_ids(), _NO_CURVES))


def load_model(
    run: str, results: Path, epoch: str, own_method: str | None, own_models: tuple[str, ...]
) -> "Classifier":
    """Load a finished run's classifier, see ``harness.load_model``.

    Raises:
        UserError: there is no such store, run, epoch or file, or it is no classifier.
    """
    from harness.models.checkpoints import WeightsError  # torch, which tables do not need
    from harness.store.saved_run import find_saved_run
    from harness.training.classifier import load_classifier

    store = Store.existing(results)
    try:
        return load_classifier(find_saved_run(store, run, epoch, "run"), own_method, own_models)
    except WeightsError as e:
        raise UserError(str(e)) from None
