"""Preparation of one part of a data set, training or test images, in its .beton file."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image, features

from harness.data import manifest
from harness.data.manifest import Settings
from harness.data.prepare import layouts
from harness.data.prepare.pool import Workers
from harness.data.prepare.resumable import Unfinished, journal
from harness.errors import UserError

CHUNK = 256  # source files that a process takes at once

# Called with a part's name, how many of its source files are done, and how many it has.
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BuiltPart:
    """The facts about a part whose file is complete."""

    images: int
    bytes: int  # of the file
    counts: dict[str, int]  # by harness.data.manifest.KINDS
    per_class: Counter[int]  # images of each label
    digest: str  # of its labels and JPEGs, in order
    unreadable: tuple[manifest.Unreadable, ...]


@dataclass(frozen=True)
class PartBuild:
    """A part in preparation: ``unfinished`` is renamed to ``finished`` once the other part is complete too."""

    name: Literal["train", "test"]
    file: Literal["train.beton", "val.beton"]
    tree: layouts.Part
    settings: Settings
    out: Path

    @property
    def unfinished(self) -> Path:
        return scratch(self.out) / self.file

    @property
    def finished(self) -> Path:
        return self.out / self.file

    def take_back(self) -> None:
        """Give a file back its unfinished name, which a call that was killed between its last steps had replaced.

        Raises:
            UserError: there is a file of that name that no such call has left.
        """
        if self.finished.exists():
            if not journal(self.unfinished).exists():
                raise in_the_way(self.finished)
            os.replace(self.finished, self.unfinished)

    def fill(self, workers: Workers, tell: Tell) -> BuiltPart:
        """Fill the file, going on from where the last call stopped."""
        sources = self.tree.files
        chunks = [sources[i : i + CHUNK] for i in range(0, len(sources), CHUNK)]
        with Unfinished(self.unfinished, len(sources), self._keys(chunks)) as file:
            read = sum(map(len, chunks[: file.chunks]))
            tell(self.name, read, len(sources))
            remaining = chunks[file.chunks :]
            for sent, result in zip(
                remaining, workers.encoded(self.tree.folder, remaining, self.settings), strict=True
            ):
                file.add(*result)
                read += len(sent)
                tell(self.name, read, len(sources))
            file.finish()
        left_out = (
            manifest.Unreadable(file=printable(f"{self.tree.folder.name}/{name}"), why=why)
            for name, why in file.unreadable
        )
        return BuiltPart(
            images=file.images,
            bytes=self.unfinished.stat().st_size,
            counts={**file.counts, "ignored": self.tree.ignored},
            per_class=file.per_class,
            digest=file.digest.hexdigest(),
            unreadable=tuple(left_out),
        )

    def _keys(self, chunks: list[list[layouts.File]]) -> list[str]:
        """Return a hash for each chunk, of all that decides what is stored of it except its bytes."""
        common = repr((self.settings, made_with())).encode()
        keys = []
        for chunk in chunks:
            digest = hashlib.sha256(common)
            for file in chunk:
                digest.update(os.fsencode(file.name) + f"\0{file.label} {file.size} {file.modified}\0".encode())
            keys.append(digest.hexdigest())
        return keys


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
