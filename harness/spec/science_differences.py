"""Differences between the sciences of two runs, by key as ``recipe.epochs`` or ``teacher.recipe.epochs``."""

import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel

from harness.errors import printable
from harness.spec.science import Given, Science, Several, Trained

_LONGEST = 60  # characters of a value that is shown; of a hash its first 12
_HASH = frozenset("0123456789abcdef")


class Difference(NamedTuple):
    """A key whose values differ. None stands where one side does not have it."""

    key: str
    first: Any
    second: Any

    def __str__(self) -> str:
        return f"{self.key} {shown(self.first)} -> {shown(self.second)}"


class Differences(NamedTuple):
    """All keys that differ, sorted, and the number of those that are equal."""

    keys: tuple[Difference, ...]
    equal: int


class ScienceDifferences:
    """Differences between sciences, computed once for runs that differ in their seeds only.

    Args:
        science_of: returns the science of a run that trains a teacher; None where it is not known.
    """

    def __init__(self, science_of: Callable[[str], Science | None]):
        self._science_of = science_of
        self._computed: dict[tuple[Hashable, Hashable], tuple[Differences, Science, Science]] = {}

    def between(self, first: Science, second: Science) -> Differences:
        """Return the differences of two runs."""
        parts = (parts_but_seed(first), parts_but_seed(second))
        if parts not in self._computed:
            # The sciences are kept, as their parts are known by identity.
            self._computed[parts] = self._but_seed(first, second), first, second
        differences = self._computed[parts][0]
        if first.seed == second.seed:
            return Differences(differences.keys, differences.equal + 1)
        seed = Difference("seed", first.seed, second.seed)
        return Differences(tuple(sorted((*differences.keys, seed), key=_key)), differences.equal)

    def _but_seed(self, first: Science, second: Science) -> Differences:
        own = flat_differences(_keys(first), _keys(second))
        teacher = self._of_teachers("teacher", first.teacher, second.teacher)
        # A teacher's data are those of its student.
        repeated = {f"teacher.{d.key}": d for d in own.keys if d.key.startswith(("dataset.", "protocol"))}
        of_teacher = [d for d in teacher.keys if d.key not in repeated]
        return Differences(tuple(sorted((*own.keys, *of_teacher), key=_key)), own.equal + teacher.equal)

    def _of_teachers(
        self, at: str, first: Trained | Given | Several | None, second: Trained | Given | Several | None
    ) -> Differences:
        if isinstance(first, Several) and isinstance(second, Several) and len(first.teachers) == len(second.teachers):
            pairs = enumerate(zip(first.teachers, second.teachers, strict=True))
            each = [self._of_teachers(f"{at}.{i}", *pair) for i, pair in pairs]
            return Differences(tuple(d for one in each for d in one.keys), sum(one.equal for one in each))
        if isinstance(first, Trained) and isinstance(second, Trained) and first.run != second.run:
            sciences = self._science_of(first.run), self._science_of(second.run)
            if sciences[0] is not None and sciences[1] is not None:
                trained = self.between(sciences[0], sciences[1])
                named = ((d.key if d.key != "student" else "model", d) for d in trained.keys)
                return Differences(tuple(d._replace(key=f"{at}.{key}") for key, d in named), trained.equal)
        return flat_differences(dict(_flat(at, first)), dict(_flat(at, second)))


def parts_but_seed(science: Science) -> Hashable:
    """Return what tells the runs of a plan apart that differ in more than the seed: they share their other parts.

    It holds as long as the science is in memory.
    """
    parts = (science.dataset, science.teacher, science.method, science.recipe)
    return (*map(id, parts), science.protocol, science.student, science.student_source, science.initial_weights)


def flat_differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Differences:
    """Return the differences of two mappings. A key that one of them lacks counts as None."""
    keys = sorted(k for k in first.keys() | second.keys() if not first.get(k) is second.get(k) is None)
    pairs = [Difference(key, first.get(key), second.get(key)) for key in keys]
    differ = tuple(d for d in pairs if d.first != d.second)
    return Differences(differ, len(pairs) - len(differ))


def shown(value: Any) -> str:
    """Return a value as text for people, short and on one line; ``none`` for None."""
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value)
    if len(text) >= 32 and _HASH.issuperset(text):
        return f"{text[:12]}..."
    text = printable(text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def as_dicts(differences: Iterable[Difference], first: str, second: str) -> list[dict[str, Any]]:
    """Return differences as plain data; ``first`` and ``second`` name the two sides."""
    return [{"key": d.key, first: d.first, second: d.second} for d in differences]


def _keys(science: Science) -> dict[str, Any]:
    """Return the values of a science by key, without the teacher and the seed."""
    parts = ((f.name, getattr(science, f.name)) for f in fields(science) if f.name not in ("teacher", "seed"))
    return {key: value for name, part in parts for key, value in _flat(name, part)}


def _flat(at: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    elif is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{at}.{key}", inner)
    elif isinstance(value, tuple):
        if any(map(is_dataclass, value)):  # several teachers
            for i, inner in enumerate(value):
                yield from _flat(f"{at}.{i}", inner)
        else:
            yield at, list(value)
    else:
        yield at, value


def _key(difference: Difference) -> str:
    return difference.key
