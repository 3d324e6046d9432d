"""A paper's table: its cells, their marks and the notes under them, the same in every format.

A pure function of the comparison and the published numbers, so that the same records give the same tables.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.reporting.comparison import BASELINE, Comparison, Row
from harness.reporting.paper.commands import RerunCommand, RerunCommands
from harness.reporting.paper.notes import notes
from harness.reporting.paper.published_cells import PublishedCell, PublishedCells
from harness.reporting.published.numbers import PublishedNumbers
from harness.reporting.published.table import ProtocolColumn, PublishedTable
from harness.reporting.statistics import Difference, Spread
from harness.reporting.tables.columns import protocol_marks
from harness.spec import datasets, models
from harness.spec.lines import Line, PairNames, grouped
from harness.spec.tasks import shown

TEACHER = "teacher"  # the line of the teachers' own accuracies

Place = Literal["", "best", "second"]


@dataclass(frozen=True)
class Column:
    """One metric of one pair."""

    pair: PairNames
    metric: str


@dataclass(frozen=True)
class Entry:
    """One cell."""

    spread: Spread | None = None  # over seeds, after the last epoch, in %
    place: Place = ""  # among the distilled students of its column
    tested: Difference | None = None  # from the baseline, by the score only
    is_worse: bool = False  # than the baseline, by the score
    unlike: str = ""  # the mark of another protocol than the column's
    published: PublishedCell | None = None
    rerun: RerunCommand | None = None


@dataclass(frozen=True)
class PaperLine:
    """The teachers, the undistilled students or one method, over all columns."""

    label: str
    seeds: int | None  # of most of its cells; a cell with another number prints it
    entries: tuple[Entry, ...]  # one per column


@dataclass(frozen=True)
class Paper:
    """A table: the teachers' line, the undistilled students', and one per method in the sweep's order."""

    comparison: Comparison
    metrics: tuple[str, ...]
    columns: tuple[Column, ...]  # a pair's metrics stand together
    lines: tuple[PaperLine, ...]
    sizes: Mapping[str, int]  # the teachers' parameters, where a student has teachers of several sizes
    sources: tuple[ProtocolColumn, ...]  # of published numbers, [1] first
    notes: tuple[str, ...]


def paper(comparison: Comparison, published: PublishedTable | None, numbers: PublishedNumbers | None) -> Paper:
    """Lay a comparison out as papers do. ``published``: the ``numbers`` that belong to it."""
    contents = comparison.contents
    pairs = {pair: {row.method: row for row in rows} for pair, rows in comparison.pairs().items()}
    metrics = contents.task.printed if datasets.info_of(contents.dataset).all_published else (contents.task.score,)
    methods = sorted(dict.fromkeys(row.method for row in comparison.rows), key=lambda method: method != BASELINE)
    cells, commands = PublishedCells(published, numbers.numbers if numbers else {}), RerunCommands(contents)
    marks = protocol_marks(contents)
    columns = tuple(Column(pair, metric) for pair in pairs for metric in metrics)
    score = contents.task.score
    by_column = [_entries(pairs[c.pair], methods, c.metric, c.metric == score, marks, cells, commands) for c in columns]
    of_teachers, *of_methods = zip(*by_column, strict=True)
    counts = Counter(entry.spread.n for entries in of_methods for entry in entries if entry.spread)
    seeds = max(counts, key=lambda n: counts[n], default=None)
    lines = [PaperLine(TEACHER, 1, of_teachers), *map(PaperLine, methods, [seeds] * len(methods), of_methods)]
    remarks = [source.remark for source in cells.sources]
    under = tuple(notes(comparison, [shown(m) for m in metrics], seeds, remarks))
    return Paper(comparison, metrics, columns, tuple(lines), _sizes(pairs), cells.sources, under)


def _entries(
    rows: Mapping[str, Row], methods: Sequence[str], metric: str, is_score: bool,
    marks: Mapping[Line, str], cells: PublishedCells, commands: RerunCommands,
) -> list[Entry]:  # fmt: skip
    """Return a column: its pair's teacher, then the methods. The rows' tests are of the score."""
    of_pair = list(rows.values())
    teacher = of_pair[0].teacher_metrics[metric]
    measured = None if teacher is None else Spread(teacher, None, 1)
    of_teacher = Entry(measured, published=cells.teacher(of_pair, metric), rerun=commands.teacher(of_pair))
    spreads = {m: row.last_metrics[metric] for m, row in rows.items()}
    # Lines of another protocol take no place: they are not comparable with the rest.
    ranked = {m: spread.mean for m, spread in spreads.items() if spread and m != BASELINE and rows[m].line not in marks}
    placed = dict(zip(ranked, places(list(ranked.values())), strict=True))
    of_methods = {
        m: Entry(
            spreads[m],
            placed.get(m, ""),
            row.tested if is_score else None,
            row.to_baseline is not None and row.to_baseline.mean < 0,
            marks.get(row.line, ""),
            cells.method(row, metric),
            commands.method(row),
        )
        for m, row in rows.items()
    }
    return [of_teacher, *(of_methods.get(m, Entry()) for m in methods)]


def places(means: Sequence[float]) -> list[Place]:
    """Return which means are best and second, as printed. Equal ones share a place; a single one has none."""
    printed = [float(f"{mean:.2f}") for mean in means]
    names: tuple[Place, ...] = ("best", "second") if len(means) > 1 else ()
    named = dict(zip(sorted(set(printed), reverse=True), names, strict=False))
    return [named.get(value, "") for value in printed]


def _sizes(pairs: Iterable[PairNames]) -> dict[str, int]:
    known = {pair: models.model_facts(pair.teacher).params for pair in pairs if models.has_model_facts(pair.teacher)}
    of_students = grouped(known, lambda pair: pair.student).values()
    varied = any(len({known[pair] for pair in of_student}) > 1 for of_student in of_students)
    return {pair.teacher: size for pair, size in known.items()} if varied else {}
