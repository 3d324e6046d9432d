"""The process that reads a dataset once: ``python -m harness.data.load.reading ORDER``, where ORDER is a file.

It checks the dataset, hashes its content, and writes its arrays and a note on them to the cache.
"""

import importlib
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from harness.data import official_files
from harness.data.load import arrays
from harness.data.load.arrays import ArrayDataset, WrongData
from harness.data.load.own_data import read_own
from harness.data.reading_order import ReadingOrder, ReadingResult
from harness.errors import UserError, system_error
from harness.spec import datasets
from harness.spec.source_code import add_current_folder_to_path
from harness.spec.tasks import DATASETS
from harness.store import files
from harness.store.data_cache import DataCache, ReadData, stamp, state_of

_PAUSE_S = 0.25  # between two notes on the progress


class Progress:
    """A file with a part, how many of its images are read, and how many there are."""

    def __init__(self, path: Path):
        self._path, self._last = path, 0.0

    def tell(self, part: str, done: int, total: int) -> None:
        """Note the progress, if the last note is old enough."""
        if time.monotonic() - self._last > _PAUSE_S:
            files.replace_json(self._path, [part, done, total], durable=False)
            self._last = time.monotonic()


def read(order: ReadingOrder) -> str:
    """Carry out an order; return a note for people.

    Raises:
        WrongData: the dataset is not as it should be.
    """
    cache = DataCache(Path(order.cache))
    if (known := cache.noted(order.key)) and _is_whole(cache.folder(known.version), known.version):
        stamp(cache.folder(known.version))
        return ""
    if datasets.is_own(order.dataset["name"]):
        data, raw, note = _read_own(order)
    else:
        data, raw, note = _read_known(order)
    folder = cache.folder(data.version)
    if not _is_whole(folder, data.version):
        arrays.write_cached(folder, raw)
    cache.note(order.key, data)
    return note


def _is_whole(folder: Path, version: str) -> bool:
    try:
        arrays.read_cached(folder, version)
    except WrongData:
        return False
    return True


def _read_own(order: ReadingOrder) -> tuple[ReadData, ArrayDataset, str]:
    add_current_folder_to_path()
    name, params = order.dataset["name"], order.dataset["params"]
    root = Path(order.root) if order.root else None
    own = read_own(name, params, root, Progress(Path(order.progress)).tell)
    facts = _facts(own.arrays, own.classes, own.files)
    if facts["state"] != own.state:
        raise WrongData(f"dataset {name!r}: its files have changed while they were read")
    return ReadData(mean=own.normalisation.mean, std=own.normalisation.std, **facts), own.arrays, ""


def _read_known(order: ReadingOrder) -> tuple[ReadData, ArrayDataset, str]:
    info = DATASETS[order.dataset["name"]]
    place, reader = Path(order.place or ""), importlib.import_module(info.module)
    files = reader.sources(place)
    before = state_of(files)
    raw: ArrayDataset = reader.read_arrays(place, Progress(Path(order.progress)).tell)
    for images, targets in ((raw.train_images, raw.train_targets), (raw.test_images, raw.test_targets)):
        if not len(images) or targets.min() < 0 or targets.max() >= info.classes:
            raise WrongData(f"{place}: expected images of classes 0 to {info.classes - 1} in both parts, found others")
    facts = _facts(raw, int(raw.train_targets.max()) + 1, files)  # people train on samples of a few classes
    if facts["state"] != before:
        raise WrongData(f"{place}: has changed while it was read")
    note = official_files.note(info.name, place)
    return ReadData(mean=info.mean, std=info.std, **facts), raw, note


def _facts(raw: ArrayDataset, classes: int, files: Iterable[Path]) -> dict[str, Any]:
    counts = np.bincount(raw.train_targets, minlength=classes)
    return {
        "version": raw.version(),
        "classes": classes,
        "train_size": len(raw.train_images),
        "test_size": len(raw.test_images),
        "train_per_class": int(counts.min()),
        "image_shape": raw.train_images.shape[1:],
        "files": tuple(map(str, files)),
        "state": state_of(files),
    }


def main() -> None:
    order = ReadingOrder.read(Path(sys.argv[1]))
    try:
        result = ReadingResult(note=read(order))
    except (WrongData, UserError, files.DiskFull) as e:
        result = ReadingResult(error=str(e))
    except OSError as e:
        result = ReadingResult(error=system_error(e))
    result.write(Path(order.result))
    sys.stdout.flush()
    os._exit(0)  # threads of a user's dataset may go on


if __name__ == "__main__":
    main()
