"""Lines of a comparison: a method on a pair of teacher and student."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
Key = TypeVar("Key")


class PairNames(NamedTuple):
    """The models of a pair."""

    teacher: str
    student: str

    def __str__(self) -> str:
        return f"{self.teacher} > {self.student}"


class Line(NamedTuple):
    """The names of a line: its pair's models, and the sweep file's name for the method."""

    teacher: str
    student: str
    method: str

    @property
    def pair(self) -> PairNames:
        return PairNames(self.teacher, self.student)

    def __str__(self) -> str:
        return f"{self.pair}, {self.method}"


@dataclass(frozen=True)
class LinePart:
    """Anything that belongs to one line: a cell, a row, a published number."""

    teacher: str
    student: str
    method: str

    @property
    def line(self) -> Line:
        return Line(self.teacher, self.student, self.method)

    @property
    def pair(self) -> PairNames:
        return PairNames(self.teacher, self.student)


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return the items by key, in the order in which each key first appears."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
