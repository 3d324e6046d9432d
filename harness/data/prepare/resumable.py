"""An unfinished .beton file that the next process can continue after this one was killed.

A chunk's images are on the disk before its line is in the journal. The line names the chunk by a hash of all that
decides its bytes: a chunk is kept only if it is what would be written now.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from harness.data import beton
from harness.store import files


class Sample(NamedTuple):
    label: int
    height: int  # pixels
    width: int
    size: int  # bytes of the JPEG, or of the pixels
    sha256: str  # of the JPEG; of pixels, with their height and width
    mode: int = beton.JPEG
    rank: int = 0  # among the images of its label: samples are listed by label and rank, wherever their bytes are


@dataclass(frozen=True)
class Chunk:
    """The result of a few source files that follow one another."""

    samples: list[Sample]
    counts: dict[str, int]  # by harness.data.manifest.KINDS
    unreadable: list[tuple[str, str]]  # (file, why)


def journal(path: Path) -> Path:
    """Return the journal of an unfinished file. It stays until the dataset is complete."""
    return path.with_suffix(".journal")


class Unfinished:
    """An unfinished file that is resumed or begun. It holds the file and its journal open until it is closed."""

    def __init__(self, path: Path, capacity: int, keys: Sequence[str]):
        """Resume or begin a file of at most ``capacity`` samples; ``keys`` are those of all its chunks, in order."""
        self.path, self._keys = path, keys
        self._writer = beton.Writer(_open(path), capacity)
        self._start = self._writer.end  # depends on the capacity: of a chunk, the same bytes may be elsewhere
        self._journal = _open(journal(path))
        self.chunks = 0
        self.counts: Counter[str] = Counter()
        self.per_class: Counter[int] = Counter()
        self.unreadable: list[tuple[str, str]] = []
        self.digest = hashlib.sha256()  # of every sample's label and sha256, as they are listed in the finished file
        self._ranks = np.zeros(capacity, np.int64)
        self._hashes = np.zeros(capacity, "S64")  # sha256 of each sample's JPEG
        self._resume()

    def close(self) -> None:
        for file in (self._writer.file, self._journal):
            with suppress(OSError):  # the error was reported when the write failed
                file.close()

    def _resume(self) -> None:
        """Keep the chunks that are complete and still the expected ones, up to the first that is not."""
        size, valid_bytes = os.fstat(self._writer.file.fileno()).st_size, 0
        for line in self._journal:
            try:
                entry = json.loads(line)
            except ValueError:  # torn
                break
            same_place = entry.get("start") == self._start and entry["end"] <= size
            if self.chunks == len(self._keys) or entry["key"] != self._keys[self.chunks] or not same_place:
                break
            samples = [Sample(*sample) for sample in entry["samples"]]
            for s in samples:
                self._writer.place(s.label, s.height, s.width, s.size, s.mode)
            self._count(Chunk(samples, entry["counts"], [(name, why) for name, why in entry["unreadable"]]))
            valid_bytes += len(line)
        self._journal.seek(valid_bytes)
        self._journal.truncate()
        self._writer.file.truncate(self._writer.end)

    def add(self, chunk: Chunk, jpegs: Sequence[bytes]) -> None:
        """Add the next chunk; when this returns, the chunk is safely on the disk.

        Raises:
            DiskFull: it is not, and a later attempt resumes before it.
        """
        with files.full_disk_as_error(self.path):
            for s, jpeg in zip(chunk.samples, jpegs, strict=True):
                self._writer.add(s.label, s.height, s.width, jpeg, s.mode)
            _sync(self._writer.file)
            line = {"key": self._keys[self.chunks], "start": self._start, "end": self._writer.end, **asdict(chunk)}
            self._journal.write(json.dumps(line).encode() + b"\n")
            _sync(self._journal)
        self._count(chunk)

    def finish(self) -> None:
        """Complete the file, its samples listed by label and rank."""
        order = np.lexsort((self._ranks[: self._writer.count], self._writer.labels))
        with files.full_disk_as_error(self.path):
            self._writer.finish(order)
            _sync(self._writer.file)
        for label, sha256 in zip(self._writer.labels[order], self._hashes[order], strict=True):
            self.digest.update(f"{label} {sha256.decode()}\n".encode())

    def _count(self, chunk: Chunk) -> None:
        self.chunks += 1
        self.counts.update(chunk.counts)
        self.per_class.update(s.label for s in chunk.samples)
        self.unreadable += chunk.unreadable
        added = slice(self._writer.count - len(chunk.samples), self._writer.count)
        self._ranks[added] = [s.rank for s in chunk.samples]
        self._hashes[added] = [s.sha256.encode() for s in chunk.samples]


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
