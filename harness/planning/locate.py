"""The folders of datasets, below the data root (``--data``, else KD_DATA). They are never part of a run's identity."""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from harness.data import manifest
from harness.errors import UserError
from harness.planning import readings
from harness.spec import datasets
from harness.spec.schema import Dataset
from harness.spec.tasks import DatasetInfo, import_object
from harness.store.data_cache import DataCache
from harness.store.store import Store

ADVICE = "name the folder that holds it with --data DIR or the environment variable KD_DATA"


def data_root(option: Path | None) -> Path | None:
    """Return the folder of ``--data``, else of KD_DATA, else None.

    Raises:
        UserError: that folder does not exist.
    """
    named = option or (Path(os.environ["KD_DATA"]) if os.environ.get("KD_DATA") else None)
    if named is not None and not named.is_dir():
        raise UserError(f"data root {named}: no such folder; {ADVICE}")
    return named.resolve() if named else None


def dataset_folder(dataset: Dataset, root: Path | None) -> Path | None:
    """Return the folder of a dataset, in its official layout or as harness.prepare wrote it; or the file that has all.

    None for a dataset that comes with a package, and for a class of a user's own.

    Raises:
        UserError: there is no such folder.
    """
    name, info = dataset.name, datasets.info_of(dataset.name)
    if info.embedded or datasets.is_own(name):
        return None
    named = Path(dataset.folder or info.folder or name).expanduser()
    if root is None and not named.is_absolute():
        raise UserError(f"dataset {name!r} needs data: {ADVICE}")
    folder = named if root is None else root / named
    if info.finder and root is not None:
        found: Path | str = import_object(info.finder)(root)
        if isinstance(found, str):
            raise UserError(f"dataset {name!r}: no folder {folder}; {ADVICE}; {found}")
        return found
    if not folder.is_dir():
        command = f"python -m harness.prepare {name} --source SOURCE --out {folder}"
        hint = f"; make it with: {command}" if info.preparation else ""
        raise UserError(f"dataset {name!r}: no folder {folder}; {ADVICE}{hint}")
    return folder


def dataset_info(dataset: Dataset, root: Path | None, store: Store) -> DatasetInfo:
    """Return the facts of a dataset; those of a prepared folder come from its manifest, others may have to be read.

    Raises:
        UserError: the folder is needed but missing, or holds another dataset.
    """
    info = datasets.info_of(dataset.name)
    if info.preparation is None and not info.read_once:
        return info
    folder = dataset_folder(dataset, root)
    if info.read_once:
        return readings.read_once(dataset, root, folder, DataCache.for_store(store), store.root)
    assert folder is not None
    prepared = manifest.read_manifest(folder, dataset.name)
    if prepared.dataset != dataset.name:
        raise UserError(f"{folder}: was prepared as {prepared.dataset!r}; expected {dataset.name!r}")
    test_size = prepared.parts[prepared.evaluated_on].images
    counts = prepared.class_count, prepared.train_size, test_size, prepared.train_per_class
    info = datasets.prepared_dataset(dataset.name, prepared.version, *counts)
    return replace(info, untrainable=prepared.untrainable, label=prepared.name or "")


def data_folder(dataset: Dataset, info: DatasetInfo, root: Path | None, store: Store) -> Path | None:
    """Return the folder that jobs read a dataset from: its arrays' where it is read once, else ``dataset_folder``.

    Raises:
        UserError: there is no such folder.
    """
    if info.read_once:
        return DataCache.for_store(store).folder(info.version)
    return dataset_folder(dataset, root)


def prepared_folder(name: str, version: str, root: Path | None) -> Path:
    """Return the prepared folder of a dataset with this version of content: the data root, or a folder directly in it.

    Raises:
        UserError: there is none.
    """
    folders = [root, *sorted(root.iterdir())] if root is not None else []
    for folder in folders:
        with suppress(UserError, OSError):  # another folder may be private, or its manifest damaged
            if (folder / manifest.FILE).is_file() and manifest.read_manifest(folder, name).version == version:
                return folder
    raise UserError(f"no folder in {root or 'a data root'} holds {name} with content {version}: {ADVICE}")
