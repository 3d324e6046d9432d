"""Preparation of one part of a dataset, training or test images, in its .beton file."""

import errno
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from PIL import Image, features

from harness.data import manifest
from harness.data.manifest import Images, Settings
from harness.data.prepare import layouts
from harness.data.prepare.pool import Workers
from harness.data.prepare.resumable import Chunk, Unfinished, journal
from harness.errors import UserError

CHUNK = 256  # source files that a process takes at once
# Of the disk or the network, not of the file: what is kept for the next call must not depend on them.
DISK_ERRORS = {os.strerror(number) for number in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)}

# Called with a part's name, how many of its source files are done, and how many it has.
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Request:
    """One call of ``harness.prepare``."""

    dataset: str
    source: Path
    out: Path
    settings: Settings
    workers: int
    skip_unreadable: bool
    tell: Tell
    name: str | None = None  # of the dataset, for tables
    say: Callable[[str], object] = lambda _remark: None


@dataclass(frozen=True)
class BuiltPart:
    """The facts about a part whose file is complete."""

    stored: Images
    per_class: Counter[int]  # images of each label
    digest: str  # of its labels and JPEGs, in order
    unreadable: tuple[manifest.Unreadable, ...]


@dataclass(frozen=True)
class PartBuild:
    """A part in preparation: ``unfinished`` is renamed to ``finished`` once the other part is complete too."""

    name: layouts.PartName
    tree: layouts.Part
    request: Request

    @property
    def unfinished(self) -> Path:
        return scratch(self.request.out) / manifest.FILES[self.name]

    @property
    def finished(self) -> Path:
        return self.request.out / manifest.FILES[self.name]

    def take_back(self) -> None:
        """Give a file back its unfinished name, which a call that was killed between its last steps had replaced.

        Raises:
            UserError: there is a file of that name that no such call has left.
        """
        if self.finished.exists():
            if not journal(self.unfinished).exists():
                raise in_the_way(self.finished)
            os.replace(self.finished, self.unfinished)

    def fill(self, workers: Workers) -> BuiltPart:
        """Fill the file, going on from where the last call stopped.

        Raises:
            UserError: the disk failed to read a file, which it may not do the next time.
        """
        sources, settings, tell = self.tree.files, self.request.settings, self.request.tell
        chunks = list(_chunks(sources))
        with closing(Unfinished(self.unfinished, len(sources), self._keys(chunks))) as file:
            read = sum(map(len, chunks[: file.chunks]))
            tell(self.name, read, len(sources))
            remaining = chunks[file.chunks :]
            results = workers.encoded(self.tree.folder, remaining, settings)
            for sent, result in zip(remaining, results, strict=True):
                self._check_disk(result[0])
                file.add(*result)
                read += len(sent)
                tell(self.name, read, len(sources))
            file.finish()
        folder = "" if sources and sources[0].archive else f"{self.tree.folder.name}/"
        left_out = (manifest.Unreadable(file=printable(folder + name), why=why) for name, why in file.unreadable)
        stored = Images(
            file=manifest.FILES[self.name],
            images=file.per_class.total(),
            bytes=self.unfinished.stat().st_size,
            counts={**file.counts, "ignored": self.tree.ignored},
        )
        return BuiltPart(stored, file.per_class, file.digest.hexdigest(), tuple(left_out))

    def _check_disk(self, chunk: Chunk) -> None:
        for name, why in chunk.unreadable:
            if why in DISK_ERRORS and not self.request.skip_unreadable:
                raise UserError(
                    f"{printable(str(self.tree.folder / name))}: {why}; the same command reads it again and continues; "
                    "--skip-unreadable leaves it out"
                )

    def _keys(self, chunks: list[list[layouts.File]]) -> list[str]:
        """Return a hash for each chunk, of all that decides what is stored of it except its bytes."""
        common = repr((self.request.settings, made_with())).encode()
        keys = []
        for chunk in chunks:
            digest = hashlib.sha256(common)
            for file in chunk:
                digest.update(os.fsencode(file.name) + f"\0{file.label} {file.size} {file.modified}\0".encode())
                if file.archive:
                    digest.update(f"{file.archive.path.name} {file.position} {file.rank}\0".encode())
            keys.append(digest.hexdigest())
        return keys


def _chunks(sources: list[layouts.File]) -> Iterator[list[layouts.File]]:
    """Cut a part into chunks of at most CHUNK files; rows that a shard stores together stay together if they fit."""
    chunk: list[layouts.File] = []
    for _, group in groupby(sources, key=lambda file: file.archive):
        together = list(group)
        if chunk and len(chunk) + len(together) > CHUNK:
            yield chunk
            chunk = []
        chunk += together
        while len(chunk) > CHUNK:
            yield chunk[:CHUNK]
            chunk = chunk[CHUNK:]
    if chunk:
        yield chunk


def scratch(out: Path) -> Path:
    """Return the folder of unfinished files."""
    return out / ".prepare"


def in_the_way(file: Path) -> UserError:
    return UserError(f"{file}: exists already, without a {manifest.FILE}; choose another --out")


def made_with() -> dict[str, str]:
    """Return the versions of what decodes and encodes: another version may write other bytes."""
    return {"pillow": Image.__version__, "libjpeg_turbo": str(features.version("libjpeg_turbo"))}


def printable(name: str) -> str:
    """Return a file's name as text, whatever its bytes are."""
    return os.fsencode(name).decode(errors="backslashreplace")
