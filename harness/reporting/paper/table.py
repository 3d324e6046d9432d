"""What a paper's table holds: cells, their marks and what stands under them, the same in every format.

A pure function of the comparison and the published numbers, so that the same records give the same tables.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.reporting.comparison import BASELINE, Comparison, Row
from harness.reporting.paper.commands import RerunCommand, RerunCommands
from harness.reporting.paper.notes import notes
from harness.reporting.paper.published_cells import PublishedCell, PublishedCells
from harness.reporting.published.numbers import PublishedNumbers
from harness.reporting.published.table import Column as Source
from harness.reporting.published.table import PublishedTable
from harness.reporting.statistics import Difference, Spread
from harness.reporting.tables.text import protocol_marks
from harness.spec import models
from harness.spec.tasks import DATASETS, shown

TEACHER = "teacher"  # the line of the teachers' own accuracies

Place = Literal["", "best", "second"]


@dataclass(frozen=True)
class Column:
    teacher: str
    student: str
    metric: str


@dataclass(frozen=True)
class Entry:
    """One cell."""

    spread: Spread | None = None  # over seeds, after the last epoch, in %
    place: Place = ""  # among the distilled students of its column
    tested: Difference | None = None  # to the baseline; of the score alone
    unlike: str = ""  # the mark of another protocol than the column's
    quote: PublishedCell | None = None
    rerun: RerunCommand | None = None


@dataclass(frozen=True)
class Line:
    label: str
    seeds: int | None  # that most of its cells have: the others say how many
    entries: tuple[Entry, ...]  # one per column


@dataclass(frozen=True)
class Paper:
    """A table: the teachers' line, the undistilled students', and one per method in the sweep's order."""

    comparison: Comparison
    metrics: tuple[str, ...]
    columns: tuple[Column, ...]  # a pair's metrics stand together
    lines: tuple[Line, ...]
    sizes: Mapping[str, int]  # the teachers' parameters, where a student has teachers of several sizes
    sources: tuple[Source, ...]  # of published numbers, [1] first
    notes: tuple[str, ...]


def paper(comparison: Comparison, beside: PublishedTable | None, published: PublishedNumbers | None) -> Paper:
    """``beside``: the published numbers of this comparison."""
    contents = comparison.contents
    pairs: dict[tuple[str, str], dict[str, Row]] = {}
    for row in comparison.rows:
        pairs.setdefault((row.teacher, row.student), {})[row.method] = row
    metrics = contents.task.printed if DATASETS[contents.dataset].all_published else (contents.task.score,)
    methods = sorted(dict.fromkeys(row.method for row in comparison.rows), key=lambda method: method != BASELINE)
    quotes, reruns = PublishedCells(beside, published.numbers if published else {}), RerunCommands(contents)
    unlike = protocol_marks(contents)
    columns = tuple(Column(*pair, metric) for pair in pairs for metric in metrics)
    score = contents.task.score
    filled = [
        _entries(pairs[c.teacher, c.student], methods, c.metric, c.metric == score, unlike, quotes, reruns)
        for c in columns
    ]
    of_teachers, *of_methods = zip(*filled, strict=True)
    counts = Counter(entry.spread.n for entries in of_methods for entry in entries if entry.spread)
    seeds = max(counts, key=lambda n: counts[n], default=None)
    lines = [Line(TEACHER, 1, of_teachers), *map(Line, methods, [seeds] * len(methods), of_methods)]
    remarks = tuple(source.remark for source in quotes.sources)
    said = notes(comparison, [shown(m) for m in metrics], seeds, remarks)
    return Paper(comparison, metrics, columns, tuple(lines), _sizes(pairs), quotes.sources, said)


def _entries(
    rows: Mapping[str, Row], methods: Sequence[str], metric: str, tests: bool,
    unlike: Mapping[tuple[str, str, str], str], quotes: PublishedCells, reruns: RerunCommands,
) -> list[Entry]:  # fmt: skip
    """A column: its pair's teacher, then the methods. ``tests``: the rows' tests are of this metric."""
    of_pair = list(rows.values())
    teacher = of_pair[0].teacher_of(metric)
    measured = None if teacher is None else Spread(teacher, None, 1)
    entries = [Entry(measured, quote=quotes.teacher(of_pair, metric), rerun=reruns.teacher(of_pair))]
    spreads = {m: row.last_of(metric) for m, row in rows.items()}
    marks = {m: unlike.get((row.teacher, row.student, m), "") for m, row in rows.items()}
    # Lines of another protocol take no place: they are not comparable with the rest.
    ranked = {m: s.mean for m, s in spreads.items() if s is not None and m != BASELINE and not marks[m]}
    placed = dict(zip(ranked, places(list(ranked.values())), strict=True))
    for m in methods:
        if (row := rows.get(m)) is None:
            entries.append(Entry())
            continue
        tested = row.tested if tests else None
        entries.append(
            Entry(spreads[m], placed.get(m, ""), tested, marks[m], quotes.line(row, metric), reruns.line(row))
        )
    return entries


def places(means: Sequence[float]) -> list[Place]:
    """Which are best and second, as printed: equal ones share a place. Of one alone there is none."""
    printed = [float(f"{mean:.2f}") for mean in means]
    names: tuple[Place, ...] = ("best", "second") if len(means) > 1 else ()
    named = dict(zip(sorted(set(printed), reverse=True), names, strict=False))
    return [named.get(value, "") for value in printed]


def _sizes(pairs: Mapping[tuple[str, str], object]) -> dict[str, int]:
    known = {teacher: models.model_facts(teacher).params for teacher, _ in pairs if models.has_model_facts(teacher)}
    of_student: dict[str, set[int]] = {}
    for teacher, student in pairs:
        if teacher in known:
            of_student.setdefault(student, set()).add(known[teacher])
    return known if any(len(sizes) > 1 for sizes in of_student.values()) else {}
