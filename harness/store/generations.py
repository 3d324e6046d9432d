"""Compacted records: numbered folders of Parquet files that never change. Imports no pyarrow.

A generation holds every row that was compacted before it, and the newest generation is the valid one. It appears in one
step, by a rename to a number that nobody else has: of two processes that compact at once one comes too late, even where
their lock failed.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from harness.errors import Unreadable, UserError
from harness.store import checksums, files, json_files

# As ``parts.PartWriter`` names them; other names could lead out of the folder.
_PartName = Annotated[str, Field(pattern=r"^dataset=[^/]+/part-[0-9a-f]{16}\.parquet$")]
INDEX = "_runs.json"  # readers of a folder of Parquet files skip names that start with an underscore


@dataclass(frozen=True)
class PartDigests:
    """Digests of a part's bytes: of its footer, and of each column of each row group."""

    footer: str
    chunks: tuple[tuple[str, ...], ...]


class Part(NamedTuple):
    """A part as the index lists it: its run ids in the order of its rows, and its digests."""

    run_ids: Sequence[str]
    digests: PartDigests


@dataclass(frozen=True)
class Generation:
    """A folder of compacted records and the runs that each of its files holds."""

    folder: Path
    schema_version: int  # of all its parts
    parts: Mapping[str, tuple[str, ...]]  # a file's name in the folder -> run ids in the order of its rows
    digests: Mapping[str, PartDigests] | None = None  # by the same names; None: an earlier harness wrote it

    @property
    def number(self) -> int:
        return int(self.folder.name)

    @cached_property
    def run_ids(self) -> frozenset[str]:
        return frozenset(run_id for run_ids in self.parts.values() for run_id in run_ids)

    def files(self, run_ids: Set[str]) -> set[Path]:
        """Return the parts that hold any of the runs."""
        return {self.folder / name for name, in_part in self.parts.items() if not run_ids.isdisjoint(in_part)}


@dataclass(frozen=True)
class _Index:
    """The content of an index."""

    schema_version: int
    parts: dict[_PartName, tuple[str, ...]]
    digests: dict[_PartName, PartDigests] | None = None


@dataclass(frozen=True)
class RecordIndex:
    """The places of a store's records at one moment; each row is in one place."""

    generation: Generation | None
    loose: frozenset[str]  # runs whose record is a file of its own

    @property
    def run_ids(self) -> frozenset[str]:
        return self.loose | self.generation.run_ids if self.generation else self.loose


def write_index(folder: Path, schema_version: int, parts: Mapping[str, Part]) -> None:
    """Write the index of the parts, by their names, that ``folder`` holds."""
    index = {
        "schema_version": schema_version,
        "parts": {name: part.run_ids for name, part in parts.items()},
        "digests": {name: asdict(part.digests) for name, part in parts.items()},
    }
    (folder / INDEX).write_text(json.dumps(checksums.seal_value(index)))


def newest_generation(folder: Path) -> Generation | None:
    """Return the valid generation in ``folder``; None before the first.

    Raises:
        UserError: its index is missing or damaged.
    """
    unreadable = None
    while newest := max(numbered_folders(folder), default=None, key=lambda path: int(path.name)):
        try:
            return _read_generation(newest)
        except FileNotFoundError:  # removed in the meantime: then there is a newer one
            if newest == unreadable:
                raise UserError(f"{newest / INDEX}: missing; restore it from a copy") from None
            unreadable = newest
    return None


def numbered_folders(folder: Path) -> Iterator[Path]:
    """Yield the generations' folders, in no order. Folders of other names are the user's own."""
    try:
        yield from (path for path in folder.iterdir() if re.fullmatch(r"[0-9]{6,}", path.name))
    except FileNotFoundError:
        return


def _read_generation(folder: Path) -> Generation:
    index = folder / INDEX
    try:
        generation = _parse_index(index, index.stat().st_mtime_ns)
        # The user may have moved a damaged part away: its runs have to be trained again.
        present = {name: run_ids for name, run_ids in generation.parts.items() if files.is_there(folder / name)}
    except Unreadable:
        raise
    except UserError as e:
        raise UserError(f"{e}; restore it from a copy") from None
    index.stat()  # raises if the whole folder is being removed, so that its parts only seemed to be missing
    return generation if len(present) == len(generation.parts) else replace(generation, parts=present)


@lru_cache(maxsize=1)  # a command asks several times for the index, a command that follows a sweep twice a second
def _parse_index(index: Path, mtime_ns: int) -> Generation:
    """Return the generation that an index lists; ``mtime_ns`` makes the cache read a changed file again."""
    content = json_files.read_checked(_Index, index)
    if content.schema_version >= checksums.SINCE and (content.digests or {}).keys() != content.parts.keys():
        raise UserError(f"{index}: damaged: expected digests of all its parts")
    return Generation(index.parent, content.schema_version, content.parts, content.digests)
