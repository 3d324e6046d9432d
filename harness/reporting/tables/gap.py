"""The capacity gap as text: gains by teacher, their slopes, and a sentence on each of the own method's advantages."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

from harness.reporting.comparison import Comparison
from harness.reporting.escape import escape_markdown
from harness.reporting.gap_slopes import OWN, GapLine, StudentGap, student_gaps
from harness.reporting.statistics import ERROR, MOST_SEEDS, POWER, Difference
from harness.reporting.tables import columns
from harness.reporting.tables.columns import Column, Lines, interval_text, spread_text, stars, table_lines
from harness.reporting.tables.formats import markdown_table

PER_DOUBLING = "per doubling"  # the column of the slopes
FILE = "gap.md"  # in a folder of tables, where it was asked for


def gap_markdown(comparison: Comparison) -> str:
    """Return the tables and verdicts of each student; "" where no student has teachers enough."""
    return markdown(gap_tables(comparison))


def markdown(tables: Iterable["GapTable"]) -> str:
    """Return tables and verdicts as Markdown; "" for no table."""
    return "\n".join(map(_markdown, tables))


def gap_dict(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the same as plain data, for ``--json``."""
    return [
        {**asdict(gap), **{key: [_line_dict(line) for line in getattr(gap, key)] for key in ("gains", "advantages")}}
        for gap in student_gaps(comparison)
    ]


def _line_dict(line: GapLine) -> dict[str, Any]:
    return {**asdict(line), "verdict": line.verdict}


class GapTable(NamedTuple):
    """A table of slopes, with what has to be said of it."""

    title: str
    lines: Lines
    notes: list[str]
    verdicts: list[str]


def gap_tables(comparison: Comparison) -> Iterator[GapTable]:
    """Yield the gains of each student with teachers enough, and the own method's advantages."""
    contents = comparison.contents
    for gap in student_gaps(comparison):
        title = f"Gains of {gap.student} over the same student undistilled"
        notes = list(_notes(gap, f"{contents.name}: {contents.shown_dataset}, {contents.task.shown}"))
        yield GapTable(title, table_lines(_columns(gap), gap.gains), notes, [])
        if gap.advantages:
            title = f"Advantage of {OWN} over each other method, for {gap.student}"
            verdicts = [_sentence(line) + _missing(line, gap) for line in gap.advantages]
            yield GapTable(title, table_lines(_columns(gap), gap.advantages), [], verdicts)


def _markdown(table: GapTable) -> str:
    lines = markdown_table([tuple(map(escape_markdown, line)) for line in table.lines], names=1)
    notes = [*map(escape_markdown, table.notes), *(f"- {escape_markdown(verdict)}" for verdict in table.verdicts)]
    return "\n".join([f"{escape_markdown(table.title)}:", "", lines, *notes]) + "\n"


def _columns(gap: StudentGap) -> list[Column[GapLine]]:
    of_teachers = [_teacher_column(teacher, size) for teacher, size in gap.teachers.items()]
    return [
        Column("method", lambda line: f"{line.method} - {line.other}"),
        *of_teachers,
        Column(PER_DOUBLING, lambda line: spread_text(line.slope, signed=True)),
        Column("95 % CI, seeds", lambda line: _test_text(line.over_seeds)),
        Column("95 % CI, teachers", lambda line: _test_text(line.over_teachers)),
        Column("seeds", lambda line: str(len(line.seeds)) if line.slope else ""),
    ]


def _teacher_column(teacher: str, size: int) -> Column[GapLine]:
    shown = f"{size / 1e6:.2f} M" if size >= 1e5 else f"{size / 1e3:.1f} k"
    return Column(f"{teacher} ({shown})", lambda line: spread_text(line.gains.get(teacher), signed=True))


def _test_text(test: Difference | None) -> str:
    return f"{interval_text(test.interval, signed=True)} {stars(test)}".strip() if test else ""


def _notes(gap: StudentGap, what: str) -> Iterator[str]:
    legend = ", ".join(f"{star} p < {p:g}" for p, star in reversed(columns.STARS))
    yield (
        f"{what} after the last epoch. Gains in points, paired by seed, mean ± sample std over seeds; teachers with "
        "their parameters. Per doubling: the least-squares slope over log2 of the teacher's parameters, mean ± std of "
        "the seeds' slopes."
    )
    yield (
        "95 % CI, seeds: of the mean slope, by Student's t; it covers other seeds under these same teachers. "
        f"95 % CI, teachers: of the same slope, from the scatter of the {len(gap.teachers)} teachers' mean gains about "
        "the line; it covers other teachers of such sizes too. "
        f"Marks: two-sided t-test of the slope against 0, Holm-corrected over the table's lines: {legend}."
    )
    for line in gap.gains:
        if missing := [t for t in gap.teachers if t not in line.teachers]:
            yield f"{line.method}: no result yet under {', '.join(missing)}."
        if line.left_out:
            seeds = ", ".join(map(str, line.left_out))
            yield f"{line.method}: without a result under some teacher and so not in the slope: seed {seeds}."
    if undecided := [f"{line.method} ({_needed(line)})" for line in gap.gains if _is_undecided_over_seeds(line)]:
        yield (
            f"Slope not told apart from 0 over seeds (in brackets the seeds in all that would do so with "
            f"{100 * POWER:.0f} % probability, were its mean and std those seen here): {', '.join(undecided)}."
        )


def _is_undecided_over_seeds(line: GapLine) -> bool:
    return line.over_seeds is not None and line.over_seeds.p_holm >= ERROR


def _needed(line: GapLine) -> str:
    return str(line.seeds_needed or f"over {MOST_SEEDS:,}")


def _sentence(line: GapLine) -> str:
    """Return the verdict on the own method's advantage over another, with the reason."""
    who = f"{line.method}'s advantage over {line.other}"
    if line.slope is None:
        return f"{who}: no slope yet, which needs a seed with results under three teachers of different sizes."
    slope = f"{line.slope.mean:+.2f} points per doubling of the teacher's parameters"
    if line.over_seeds is None or line.over_teachers is None:
        return f"{who}: not told apart from a constant one: {slope}, with nothing to test over {_untested(line)}."
    ps = f"{slope}, p {line.over_seeds.p_holm:.2g} over seeds and {line.over_teachers.p_holm:.2g} over teachers"
    if line.verdict != "not told apart":
        shrinks = " but shrinks" if line.verdict == "does not grow" else ""
        return f"{who} {line.verdict}{shrinks} with the teacher: {ps}."
    if _is_undecided_over_seeds(line):
        return f"{who}: not told apart from a constant one: {ps}; {_needed(line)} seeds would decide the first."
    return f"{who}: not told apart from a constant one: {ps}; it would take more teachers, not more seeds."


def _missing(line: GapLine, gap: StudentGap) -> str:
    return " Runs are missing." if line.left_out or len(line.teachers) < len(gap.teachers) else ""


def _untested(line: GapLine) -> str:
    named = {"seeds": line.over_seeds, "teachers": line.over_teachers}
    return " or ".join(name for name, test in named.items() if test is None)
