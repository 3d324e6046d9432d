"""Compacted records: numbered folders of Parquet files that never change. Imports no pyarrow.

A generation holds every row that was compacted by then; the newest one counts. It appears whole, by one rename to a
number that nobody else has: of two that compact at once one is too late, whatever became of their lock.
"""

import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from harness.errors import UserError

INDEX = "_runs.json"  # readers of a folder of Parquet files leave out names that begin so


@dataclass(frozen=True)
class Generation:
    folder: Path
    schema_version: int  # of all its parts
    parts: Mapping[str, tuple[str, ...]]  # file's name in the folder -> run ids in the order of its rows

    @property
    def number(self) -> int:
        return int(self.folder.name)

    @cached_property
    def run_ids(self) -> frozenset[str]:
        return frozenset(run_id for run_ids in self.parts.values() for run_id in run_ids)

    def files(self, run_ids: Set[str]) -> set[Path]:
        """The parts that hold any of the runs."""
        return {self.folder / name for name, held in self.parts.items() if not run_ids.isdisjoint(held)}


@dataclass(frozen=True)
class View:
    """Where the records of a store lay at one moment; each row in one place."""

    generation: Generation | None
    loose: frozenset[str]  # runs whose record is a file of its own

    @property
    def run_ids(self) -> frozenset[str]:
        return self.loose | self.generation.run_ids if self.generation else self.loose


def newest_generation(home: Path) -> Generation | None:
    """The generation that counts, of those in ``home``; None before the first.

    Raises:
        UserError: its index is missing or damaged.
    """
    tried = None
    while folder := max(numbered(home), default=None, key=lambda path: int(path.name)):
        try:
            return _read(folder)
        except FileNotFoundError:  # removed since: then there is a newer one
            if folder == tried:
                raise UserError(f"{folder / INDEX}: missing; put it back from a copy") from None
            tried = folder
    return None


def numbered(home: Path) -> Iterator[Path]:
    """The folders of generations, in no order."""
    try:
        yield from (path for path in home.iterdir() if path.name.isdecimal())
    except FileNotFoundError:
        return


def _read(folder: Path) -> Generation:
    index = folder / INDEX
    try:
        found = _listed(index, index.stat().st_mtime_ns)
        # A part that the user deleted, as it was damaged: its runs are to do again.
        there = {name: run_ids for name, run_ids in found.parts.items() if (folder / name).exists()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index}: damaged; put it back from a copy") from None
    index.stat()  # still there: no part was missed because the whole folder was on its way out
    return found if len(there) == len(found.parts) else replace(found, parts=there)


@lru_cache(maxsize=1)  # a command asks several times where the records are, one that follows a sweep twice a second
def _listed(index: Path, mtime_ns: int) -> Generation:
    """The generation as its index, last changed at that time, has it."""
    value = json.loads(index.read_text())
    parts = {name: tuple(run_ids) for name, run_ids in value["parts"].items()}
    return Generation(index.parent, value["schema_version"], parts)
