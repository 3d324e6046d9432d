"""References to teachers: models, runs of the same sweep, or several of both, as one text."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from harness.errors import expected, shorten, unknown
from harness.spec.model_reference import ModelReference

FORMS = "a model's name, {name: NAME, params: {key: value}}, {run: {student: NAME, method: NAME}} or a list of these"
RUN_KEYS = ("student", "method", "teacher", "seed")
_RUN = re.compile(
    r"(?P<student>.+?) by (?P<method>\S+)(?: with seed (?P<seed>\d{1,10}))?(?: from (?P<teacher>.+))?", re.DOTALL
)
_AFTER = re.compile(r"(?P<teacher>.+) after epoch (?P<epoch>\d{1,6})", re.DOTALL)
# What ends a part of a list: a separator that is in no brackets and in no text between quotes.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[()]|.', re.DOTALL)


@dataclass(frozen=True)
class RunReference:
    """A run of the sweep as a teacher: the cell of a student and a method, and what tells it from others."""

    student: str
    method: str
    seed: int | None = None  # None: the teachers' seed
    teacher: str | None = None  # the text of its own teacher; None: there is one such pair

    @property
    def text(self) -> str:
        """Return ``STUDENT by METHOD``, with the seed and ``from TEACHER`` where they are stated."""
        seed = "" if self.seed is None else f" with seed {self.seed}"
        teacher = self.teacher or ""
        if _AFTER.fullmatch(teacher) or len(split_outside_brackets(teacher, " + ")) > 1:
            teacher = f"({teacher})"
        return f"{self.student} by {self.method}{seed}{f' from {teacher}' if teacher else ''}"


@dataclass(frozen=True)
class TeacherReference:
    """One teacher or several, and the epoch after which those that are trained for it stop."""

    teachers: tuple[str | RunReference, ...]  # a text is a model
    epoch: int | None = None  # None: the last

    @property
    def text(self) -> str:
        """Return the teachers with `` + `` between them, and ``after epoch N`` where they stop early."""
        texts = [teacher if isinstance(teacher, str) else teacher.text for teacher in self.teachers]
        text = " + ".join(texts)
        if self.epoch is None:
            return text
        return f"({text}) after epoch {self.epoch}" if len(texts) > 1 else f"{text} after epoch {self.epoch}"

    @property
    def models(self) -> tuple[str, ...]:
        """Return each teacher's model."""
        return tuple(teacher if isinstance(teacher, str) else teacher.student for teacher in self.teachers)

    @property
    def is_model(self) -> bool:
        """Return whether it is one model, trained to its last epoch or given."""
        return self.epoch is None and len(self.teachers) == 1 and isinstance(self.teachers[0], str)

    @classmethod
    def parse(cls, text: str) -> "TeacherReference":
        """Read what ``text`` returns."""
        return _parse(text)

    @classmethod
    def of(cls, value: Any) -> "TeacherReference":
        """Return the teachers that a sweep file states.

        Raises:
            ValueError: it is none of ``FORMS``.
        """
        if isinstance(value, str):
            return cls.parse(value)
        if not isinstance(value, list | tuple):
            return cls((_one(value),))
        if len(value) < 2:
            raise ValueError(expected("a list of at least two teachers", list(value)))
        return cls(tuple(_one(part) for part in value))

    def resolved(self, resolve: Callable[[str], str]) -> "TeacherReference":
        """Return the reference with each model's name as ``resolve`` returns it."""
        return replace(self, teachers=tuple(_resolved(teacher, resolve) for teacher in self.teachers))


@lru_cache(maxsize=10_000)  # a sweep asks for its pairs' teachers again and again
def _parse(text: str) -> TeacherReference:
    if match := _AFTER.fullmatch(text):
        return replace(_parse(_without_brackets(match["teacher"])), epoch=int(match["epoch"]))
    return TeacherReference(tuple(_part(part) for part in split_outside_brackets(text, " + ")))


def split_outside_brackets(text: str, separator: str) -> list[str]:
    """Return the parts of a text between separators that are in no brackets and in no text between quotes."""
    parts, depth, begin = [], 0, 0
    for token in _TOKEN.finditer(text):
        depth += {"(": 1, ")": -1}.get(token.group(), 0)
        if depth == 0 and token.start() >= begin and text.startswith(separator, token.start()):
            parts.append(text[begin : token.start()])
            begin = token.start() + len(separator)
    return [*parts, text[begin:]]


def _without_brackets(text: str) -> str:
    return text[1:-1] if text.startswith("(") and text.endswith(")") else text


def _part(text: str) -> str | RunReference:
    """Read one teacher of a text."""
    if not (match := _RUN.fullmatch(text)):
        return text
    seed, teacher = match["seed"], match["teacher"]
    return RunReference(
        match["student"], match["method"], int(seed) if seed else None, _without_brackets(teacher) if teacher else None
    )


def _one(value: Any) -> str | RunReference:
    """Return one teacher that a sweep file states."""
    if isinstance(value, dict) and "run" in value:
        if extra := [key for key in value if key != "run"]:
            raise ValueError(f"unknown key {shorten(extra[0])} beside run; its keys go under it: {', '.join(RUN_KEYS)}")
        return _run(value["run"])
    if isinstance(value, dict) and "name" in value:
        return ModelReference.of(value).text
    if not isinstance(value, str):
        raise ValueError(expected(FORMS, value))
    reference = TeacherReference.parse(value)
    if len(reference.teachers) > 1 or reference.epoch is not None:
        raise ValueError(expected("one teacher in each entry of a list, without an epoch", value))
    return reference.teachers[0]


def _run(value: Any) -> RunReference:
    if not isinstance(value, dict):
        raise ValueError(expected("run: {student: NAME, method: NAME}", value))
    for key in value:
        if key not in RUN_KEYS:
            raise ValueError(unknown("key of run", key, RUN_KEYS))
    for key in ("student", "method"):
        if key not in value:
            raise ValueError(f"run.{key} is required and missing")
    if not isinstance(value["method"], str):
        raise ValueError(f"run.method: {expected('a method of this sweep', value['method'])}")
    seed = value.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31):
        raise ValueError(f"run.seed: {expected('a seed', seed)}")
    teacher = value.get("teacher")
    of = None if teacher is None else TeacherReference.of(teacher).text
    return RunReference(ModelReference.of(value["student"]).text, value["method"], seed, of)


def _resolved(teacher: str | RunReference, resolve: Callable[[str], str]) -> str | RunReference:
    if isinstance(teacher, str):
        return resolve(teacher)
    of = None if teacher.teacher is None else TeacherReference.parse(teacher.teacher).resolved(resolve).text
    return replace(teacher, student=resolve(teacher.student), teacher=of)
