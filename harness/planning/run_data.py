"""The data of a finished run, found by the content that its record states. Imports no torch."""

from pathlib import Path

from harness.errors import UserError
from harness.planning import locate
from harness.spec.schema import Dataset
from harness.spec.tasks import DatasetInfo
from harness.store.data_cache import DataCache, is_untouched
from harness.store.store import Store


def data_folder(info: DatasetInfo, root: Path | None, store: Store) -> Path | None:
    """Return the folder that holds a run's dataset; None where it comes with a package.

    Raises:
        UserError: there is no such folder.
    """
    if info.preparation:
        return locate.prepared_folder(info.name, info.version, root)
    if info.read_once:
        return _arrays_folder(info, store)
    return locate.dataset_folder(Dataset(name=info.name), root)


def _arrays_folder(info: DatasetInfo, store: Store) -> Path:
    """Return the folder of the arrays of a run's dataset. No code that its record names is run to read them anew."""
    folder = DataCache.for_store(store).folder(info.version)
    if not is_untouched(folder):
        raise UserError(
            f"dataset {info.name!r}: content {info.version} is not in {folder.parent}: plan a sweep on it with "
            "python -m harness.sweep FILE --plan, which reads it"
        )
    return folder
