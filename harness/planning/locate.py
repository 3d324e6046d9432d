"""Where data lies: below the data root (``--data``, else KD_DATA), never in a run's identity."""

import os
from pathlib import Path

from harness.data import manifest
from harness.errors import UserError
from harness.spec import datasets
from harness.spec.schema import Dataset
from harness.spec.tasks import DATASETS, DatasetInfo

ADVICE = "name the folder that holds it with --data DIR or the environment variable KD_DATA"


def data_root(option: Path | None) -> Path | None:
    """The folder of ``--data``, else of KD_DATA, else None.

    Raises:
        UserError: it is named but does not exist.
    """
    named = option or (Path(os.environ["KD_DATA"]) if os.environ.get("KD_DATA") else None)
    if named is not None and not named.is_dir():
        raise UserError(f"data root {named}: no such folder; {ADVICE}")
    return named.resolve() if named else None


def dataset_folder(dataset: Dataset, root: Path | None) -> Path | None:
    """The folder of a dataset, in its official layout or as harness.prepare wrote it; None for one that comes with a
    package.

    Raises:
        UserError: it is not there.
    """
    name, info = dataset.name, DATASETS[dataset.name]
    if info.embedded:
        return None
    named = Path(dataset.folder or info.folder or name).expanduser()
    if root is None and not named.is_absolute():
        raise UserError(f"dataset {name!r} needs data: {ADVICE}")
    folder = named if root is None else root / named
    if not folder.is_dir():
        made = f"; python -m harness.prepare {name} --source SOURCE --out {folder} makes it" if info.preparation else ""
        raise UserError(f"dataset {name!r}: no folder {folder}; {ADVICE}{made}")
    return folder


def dataset_info(dataset: Dataset, root: Path | None) -> DatasetInfo:
    """What is known of a dataset; of one in a prepared folder, what its manifest says.

    Raises:
        UserError: the folder is needed and not there, or holds another dataset.
    """
    if DATASETS[dataset.name].preparation is None:
        return DATASETS[dataset.name]
    folder = dataset_folder(dataset, root)
    assert folder is not None
    found = manifest.read_manifest(folder, dataset.name)
    if found.dataset != dataset.name:
        raise UserError(f"{folder}: was prepared as {found.dataset!r}; expected {dataset.name!r}")
    test_size = found.parts[found.evaluated_on].images
    return datasets.prepared_dataset(
        dataset.name, found.version, found.class_count, found.train_size, test_size, found.train_per_class
    )


def prepared_folder(version: str, root: Path | None) -> Path:
    """The prepared folder whose content has this version: the data root, or one directly in it.

    Raises:
        UserError: there is none.
    """
    places = [root, *sorted(root.iterdir())] if root is not None else []
    for folder in places:
        if (folder / manifest.FILE).is_file() and manifest.read_manifest(folder, "imagenet").version == version:
            return folder
    raise UserError(f"no prepared folder with content {version}: {ADVICE}")
