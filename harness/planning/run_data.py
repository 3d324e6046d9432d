"""The data of a finished run, found by the content that its record states. Imports no torch."""

from pathlib import Path

from harness.planning import locate
from harness.spec.schema import Dataset
from harness.spec.tasks import DatasetInfo


def data_folder(info: DatasetInfo, root: Path | None) -> Path | None:
    """Return the folder that holds a run's dataset; None where it comes with a package.

    Raises:
        UserError: there is no such folder.
    """
    if info.preparation:
        return locate.prepared_folder(info.name, info.version, root)
    return locate.dataset_folder(Dataset(name=info.name), root)
