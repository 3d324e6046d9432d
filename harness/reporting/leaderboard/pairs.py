"""The leaderboard's groups: the entries of one pair under one protocol, their teachers, and what tells rows apart."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from harness.reporting.comparison import BASELINE
from harness.reporting.leaderboard.entries import LeaderboardEntry, Protocol, pair_of, student_of
from harness.spec.lines import grouped

DIGITS = 6  # of an id, where nothing else tells two rows apart


@dataclass(frozen=True)
class PairGroup:
    """The entries of one pair under one protocol, and those of the student trained alone."""

    protocol: Protocol
    teacher: str  # empty: none
    student: str
    entries: tuple[LeaderboardEntry, ...]
    baseline: LeaderboardEntry | None  # the student trained alone, with its default settings
    teacher_score: float | None
    teacher_runs: tuple[str, ...]  # those with a record
    settings: Mapping[str, "RowSettings"]  # by entry


@dataclass(frozen=True)
class RowSettings:
    """The settings that a row states next to its method."""

    differing: Mapping[str, str]  # from another row of the method in the group
    changed: Mapping[str, str] = field(default_factory=dict)  # further ones that are not the method's defaults


def pair_groups(entries: Sequence[LeaderboardEntry], ambiguous: Set[tuple[str, str, str]]) -> list[PairGroup]:
    """Return the groups by protocol and pair. A student trained alone is in the group of each of its pairs.

    Args:
        ambiguous: as ``ambiguous_names`` returns.
    """
    of_teacher = {run_id: line for line in entries if line.teaches for run_id in line.run_ids}
    rows = [line for line in entries if not line.teaches]
    alone = grouped((line for line in rows if line.science.method.use == BASELINE), student_of)
    pairs = grouped((line for line in rows if line.science.method.use != BASELINE), pair_of)
    groups = [_group(own, alone.get(student_of(own[0]), []), of_teacher, ambiguous) for own in pairs.values()]
    paired = {student_of(own[0]) for own in pairs.values()}
    groups += [_group([], own, of_teacher, ambiguous) for student, own in alone.items() if student not in paired]
    used = {run_id for group in groups for run_id in group.teacher_runs}
    unpaired = [line for line in entries if line.teaches and not used.intersection(line.run_ids)]
    groups += [_group([], [line], of_teacher, ambiguous) for line in unpaired]
    rows_of = Counter(line.protocol.id for line in rows)
    return sorted(
        groups, key=lambda g: (*_order(g.protocol, rows_of[g.protocol.id]), g.teacher, g.student, g.entries[0].id)
    )


def _order(protocol: Protocol, rows: int) -> tuple[Any, ...]:
    """Return where a protocol comes: those of few rows come last, such as one of a method with a recipe of its own."""
    return protocol.dataset, protocol.held_out, -rows, protocol.label, protocol.id


def _group(
    distilled: Sequence[LeaderboardEntry],
    alone: Sequence[LeaderboardEntry],
    of_teacher: Mapping[str, LeaderboardEntry],
    ambiguous: Set[tuple[str, str, str]],
) -> PairGroup:
    entries = (*distilled, *alone)
    first = entries[0]
    scores = (line.teacher_score for line in distilled)
    return PairGroup(
        protocol=first.protocol,
        teacher=teacher_name(first, ambiguous) if distilled else "",
        student=student_name(first, ambiguous),
        entries=entries,
        baseline=next((line for line in alone if not (line.settings or line.teaches)), None),
        teacher_score=next((score for score in scores if score is not None), None),
        teacher_runs=tuple(run for run in first.science.teacher_runs if run in of_teacher) if distilled else (),
        settings=_row_settings(entries),
    )


def teacher_name(line: LeaderboardEntry, ambiguous: Set[tuple[str, str, str]]) -> str:
    """Return a teacher's name, with digits of its key where several teachers have it; empty without a teacher."""
    name = line.science.teacher_model or ""
    return f"{name} ({line.teacher_key[:DIGITS]})" if (line.protocol.id, "teacher", name) in ambiguous else name


def student_name(line: LeaderboardEntry, ambiguous: Set[tuple[str, str, str]]) -> str:
    """Return a student's name, with digits of its code's hash where several states of the code have it."""
    name, source = line.science.student, line.science.student_source
    return f"{name} ({source[:DIGITS]})" if source and (line.protocol.id, "student", name) in ambiguous else name


def _row_settings(entries: Iterable[LeaderboardEntry]) -> dict[str, RowSettings]:
    settings = {}
    for rows in grouped(entries, lambda line: line.science.method.use).values():
        values = [_values(line) for line in rows]
        names = dict.fromkeys(name for own in values for name in own)
        differing = [name for name in names if len({own.get(name) for own in values}) > 1]
        alike = Counter(tuple(own.get(name) for name in differing) for own in values)
        for line, own in zip(rows, values, strict=True):
            shown = {name: own[name] for name in differing if name in own}
            if alike[tuple(own.get(name) for name in differing)] > 1:
                shown["row"] = line.id[:DIGITS]
            changed = {name: _text(value) for name, value in line.settings.items() if name not in shown}
            settings[line.id] = RowSettings(shown, changed)
    return settings


def _values(line: LeaderboardEntry) -> dict[str, str]:
    """Return what may tell an entry from another one of its method and pair, as texts."""
    science = line.science
    own = {name: _text(value) for name, value in {**science.method.weights, **science.method.params}.items()}
    backbone = {"backbone": science.backbone[:DIGITS]} if science.backbone else {}
    return {**own, "version": _text(science.method.version), **backbone}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def recipe_differences(entries: Iterable[LeaderboardEntry]) -> dict[str, list[tuple[str, str]]]:
    """Return for each protocol the keys of its recipe by which it differs from others of its dataset."""
    recipes: dict[str, dict[str, str]] = {}
    protocols: dict[str, Protocol] = {}
    for line in entries:
        if line.protocol.id not in protocols:
            protocols[line.protocol.id] = line.protocol
            recipe = line.science.recipe.model_dump(mode="json")
            recipes[line.protocol.id] = {key: _text(value) for key, value in recipe.items()}
    differences: dict[str, list[tuple[str, str]]] = {}
    for alike in grouped(protocols.values(), lambda p: (p.dataset, p.held_out)).values():
        own = {p.id: recipes[p.id] for p in alike}
        keys = dict.fromkeys(key for recipe in own.values() for key in recipe)
        differing = [key for key in keys if len({recipe.get(key) for recipe in own.values()}) > 1]
        for name, recipe in own.items():
            differences[name] = [(key, recipe[key]) for key in differing if recipe.get(key, "null") != "null"]
    return differences
