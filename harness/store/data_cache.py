"""A cache of datasets that are read once: their arrays by content, and notes on what was read to get them.

``arrays/VERSION`` holds a dataset's arrays; ``sources/KEY.json`` says which version a source had, and what of it would
change if the source did. Any number of processes and stores may share the cache.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.errors import UserError
from harness.store import checksums, files, json_files
from harness.store.locks import Lock
from harness.store.store import Store

ARRAYS = ("train_images", "train_targets", "test_images", "test_targets")
_STAMP = "stamp.json"


@dataclass(frozen=True)
class ReadData:
    """The facts of a dataset that was read."""

    __pydantic_config__ = json_files.CLOSED
    version: str  # sha256 of the content, 16 hex digits
    classes: int
    train_size: int
    test_size: int
    train_per_class: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    files: tuple[str, ...]  # files and folders that it was read from, as far as they are known
    state: str  # theirs, as ``state_of`` gives it


class DataCache:
    """A folder of arrays by version, and of notes on their sources."""

    def __init__(self, root: Path):
        self.root = root
        self._sources = root / "sources"

    @classmethod
    def for_store(cls, store: Store) -> "DataCache":
        """Return the cache in the folder that KD_DATASETS names, else the store's own."""
        named = os.environ.get("KD_DATASETS")
        return cls(Path(os.path.realpath(Path(named).expanduser() if named else store.datasets)))

    def folder(self, version: str) -> Path:
        """Return the folder of a dataset's arrays, which may not be there."""
        return self.root / "arrays" / version

    def lock(self, key: str) -> Lock:
        """Return the lock of a source, which one process at a time reads."""
        return Lock(self._sources / f"{key}.lock")

    def noted(self, key: str) -> ReadData | None:
        """Return what was read from a source, if that is as it was then; None otherwise, or for a damaged note."""
        try:
            data = json_files.read_checked(ReadData, self._sources / f"{key}.json")
            return data if state_of(map(Path, data.files)) == data.state else None
        except (FileNotFoundError, UserError, OSError):
            return None

    def last_version(self, key: str) -> str | None:
        """Return the version that a source had when it was last read, whether or not it has changed since."""
        note = files.read_json(self._sources / f"{key}.json")
        return str(note.get("version")) if isinstance(note, dict) else None

    def find(self, key: str) -> ReadData | None:
        """Return what was read from a source, as ``noted``, if its arrays are there and untouched."""
        data = self.noted(key)
        return data if data and is_untouched(self.folder(data.version)) else None

    def note(self, key: str, data: ReadData) -> None:
        """Note what was read from a source."""
        files.replace_json(self._sources / f"{key}.json", checksums.seal_value(asdict(data)))


def is_untouched(folder: Path) -> bool:
    """Return whether a dataset's arrays are as they were when they were written or last checked, by size and time."""
    try:
        stamp = files.read_json(folder / _STAMP)
        return bool(stamp == _stamp(folder))
    except OSError:
        return False


def stamp(folder: Path) -> None:
    """Note that a dataset's arrays, as they are, have the content that they should."""
    files.replace_json(folder / _STAMP, _stamp(folder))


def replace_arrays(folder: Path, write: Callable[[Path], object]) -> None:
    """Replace a dataset's folder by the one that ``write(temporary_folder)`` fills.

    Raises:
        DiskFull: the disk is full; nothing is left behind.
    """
    temporary = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with files.full_disk_as_error(folder), files.errors_named(folder, temporary):
            temporary.mkdir(parents=True)
            write(temporary)
            for path in temporary.iterdir():
                files.sync(path)
        stamp(temporary)
        remove_arrays(folder)
        try:
            temporary.rename(folder)
        except OSError:
            if not is_untouched(folder):  # no other process has put the same there
                raise
        files.sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_arrays(folder: Path) -> None:
    """Remove a dataset's arrays, of which some are damaged. Processes that read them go on."""
    (folder / _STAMP).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def state_of(paths: Iterable[Path]) -> str:
    """Return a hash of the sizes and times of change of files, and of all in folders.

    Raises:
        OSError: one of them is not there, or cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        for file in sorted(_files(path)) if path.is_dir() else [str(path)]:
            status = os.stat(file)
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _files(folder: Path) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        yield from (os.path.join(place, name) for name in names if os.path.exists(os.path.join(place, name)))


def _stamp(folder: Path) -> dict[str, list[int]]:
    status = {name: (folder / f"{name}.npy").stat() for name in ARRAYS}
    return {name: [s.st_size, s.st_mtime_ns] for name, s in status.items()}
