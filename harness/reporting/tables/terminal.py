"""A comparison on a terminal: tables that fit its width, colours beside signs, and the notes that matter there."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from rich.text import Text

from harness.errors import printable
from harness.phrases import plural
from harness.reporting import tuning
from harness.reporting.comparison import Comparison, Row
from harness.reporting.failed_runs import FailedRuns
from harness.reporting.published.table import PublishedTable
from harness.reporting.statistics import ERROR, POWER
from harness.reporting.tables import columns, text
from harness.reporting.tables.absences import absence_notes
from harness.reporting.tables.columns import PAIR, Lines, table_lines
from harness.reporting.tables.fitted_table import FittedColumn, fitted_table, wrapped
from harness.reporting.tables.gap import PER_DOUBLING, GapTable
from harness.spec.lines import PairNames
from harness.store.tuning_log import TuningLog

BEST = "▸"
TIED = "\u00a0"  # a space at which no line ends
MORE = "report --format md"
MOST_NOTES = 6
Style = Callable[[str, int], str]  # of a column's name and a row's position


@dataclass(frozen=True)
class _Layout:
    """The columns of a table: those that stand on the left, and the others from the least important one on."""

    left: frozenset[str] = frozenset()
    optional: Sequence[str] = ()
    below: frozenset[str] = frozenset()


def comparison_lines(
    comparison: Comparison, published: PublishedTable | None, failed: FailedRuns, width: int, with_ranks: bool = True
) -> Iterator[Text]:
    """Yield the tables of a comparison, with the published numbers for its pairs and the causes of failed runs."""
    yield from title_lines(comparison, width)
    yield Text()
    yield from _main_table(comparison, failed, width)
    yield from _legend(comparison, width)
    yield from _notes(comparison, failed, width)
    for section in islice(text.sections(comparison, published), 1, None):
        ranks = section.title == text.RANKS
        if ranks and not with_ranks:
            continue
        yield Text()
        pairs = f" ({section.lines[1][0]})" if ranks else ""
        yield Text(printable(section.title + pairs), style="bold")
        note = _rank_note(comparison) if ranks else _PUBLISHED_NOTE
        header = tuple(name.removesuffix(_OURS) for name in section.lines[0])
        yield from section_lines([header, *section.lines[1:]], [note], width)


_OURS = " [0]"  # the mark of a note that is not on terminals
_PUBLISHED_NOTE = f"Sources, settings, and why a number is not comparable with ours: {MORE}."


def _rank_note(comparison: Comparison) -> str:
    ranking, baseline = comparison.ranking, comparison.contents.baseline
    left_out = ranking.left_out if ranking else ()
    intervals = "; in brackets: 95 % intervals" * bool(ranking and any(rank.rank_interval for rank in ranking.ranks))
    others = f"; not ranked, without a result on some pair: {', '.join(left_out)}" if left_out else ""
    return (
        f"Average rank: 1 is the best; P(better than {baseline}): how probably one of its runs beats one of "
        f"{baseline}{intervals}{others}."
    )


def title_lines(comparison: Comparison, width: int) -> Iterator[Text]:
    """Yield the sweep's name and what its numbers are of."""
    contents = comparison.contents
    numbers = "one seed" if comparison.is_of_one_seed else "mean ± std over seeds"
    scores = f"{text.capitalised(contents.task.shown)} in %, {numbers}"
    facts = f"{contents.shown_dataset}{text.images(comparison)}, {text.epochs(contents)}. {scores}."
    name = printable(contents.name)
    for i, line in enumerate(wrapped(f"{name}: {printable(facts)}", width)):
        if i == 0:
            line.stylize("bold", 0, len(name))
        yield line


def _main_table(comparison: Comparison, failed: FailedRuns, width: int) -> Iterator[Text]:
    contents, rows = comparison.contents, comparison.rows
    difference, best = f"vs {contents.baseline}", _best(rows)
    teacher = f"teacher's {contents.task.shown}"
    last = f"{contents.task.shown} last"
    header, *body = table_lines(columns.comparison_columns(comparison), rows)
    lines: list[tuple[str, ...]] = [header]
    failures = failed.counts(comparison)
    for row, line in zip(rows, body, strict=True):
        cells = dict(zip(header, line, strict=True))
        cells["method"] = f"{BEST if row.line in best else ' '} {cells['method']}"
        cells[last] = cells[last] or _state(row, failures.get(row.line, 0))
        cells[columns.SEEDS_TO_TELL] = cells.get(columns.SEEDS_TO_TELL, "").replace("over ", ">")
        lines.append(tuple(cells[name] for name in header))

    def style(name: str, i: int) -> str:
        row = rows[i]
        if name == difference and row.to_baseline:
            return _difference_style(row)
        return "bold" if row.line in best and name in ("method", last) else ""

    reference = [name for name in header if name.startswith("vs ") and name != difference]
    optional = [f"{contents.task.shown} best", *reference, "seconds per run", columns.INTERVAL, "settings", "seeds"]
    layout = _Layout(frozenset({"settings"}), [*optional, columns.SEEDS_TO_TELL], frozenset({"settings"}))
    yield from _fitted(lines, layout, style, width, without=teacher, head=lambda i: _pair_head(rows[i], teacher))


def _tied(settings: str) -> str:
    """Return settings between which a line may end, but not inside one."""
    return ", ".join(setting.replace(" ", TIED) for setting in settings.split(", "))


def _pair_head(row: Row, teacher: str) -> str:
    score = "" if row.teacher_score is None else f" ({teacher} {row.teacher_score:.2f})"
    return f"{row.pair}{score}"


def _state(row: Row, failed: int) -> str:
    return "diverged" if row.diverged else "failed" if failed else "no result yet"


def _best(rows: Sequence[Row]) -> set[tuple[str, str, str]]:
    """Return the lines with the best mean of their pair, as printed."""
    means: dict[PairNames, float] = {}
    for row in rows:
        if row.last:
            means[row.pair] = max(round(row.last.mean, 2), means.get(row.pair, -1.0))
    return {row.line for row in rows if row.last and round(row.last.mean, 2) == means[row.pair]}


def _difference_style(row: Row) -> str:
    mean = row.to_baseline.mean if row.to_baseline else 0.0
    bold = "bold " if row.tested and row.tested.p_holm < ERROR else ""
    return f"{bold}green" if mean > 0 else f"{bold}red" if mean < 0 else ""


def section_lines(lines: Lines, remarks: Iterable[str], width: int) -> Iterator[Text]:
    """Yield a table of texts, the columns on its right being the first to go, and the remarks under it."""
    header = lines[0]
    if header[0] == PAIR:
        lines = [header, *((pair, f"  {name}", *others) for pair, name, *others in lines[1:])]
    names = ("settings", "settings that won")
    numbers_first = [name for name in reversed(header[2:]) if name not in names]
    layout = _Layout(frozenset(names), [*names, *numbers_first], frozenset(names))
    yield from _fitted(lines, layout, lambda name, i: "", width, without=columns.OVER)
    for remark in remarks:
        yield from wrapped(printable(remark), width, style="dim")


def _fitted(
    lines: Lines,
    layout: _Layout,
    style: Style,
    width: int,
    without: str = "",
    head: Callable[[int], str] | None = None,
) -> Iterator[Text]:
    """Yield a table, grouped by its first column where that is the pair."""
    header, *body = lines
    grouped = header[0] == PAIR
    heads: dict[int, list[Text]] = {}
    for i, line in enumerate(body):
        if grouped and (i == 0 or line[0] != body[i - 1][0]):
            heads[i] = list(wrapped(printable(head(i) if head else line[0]), width, style="bold"))
    shown = [i for i, name in enumerate(header) if name not in (PAIR, without)]
    importance: Mapping[str, int] = {name: i for i, name in enumerate(layout.optional)}

    def cell(name: str, text: str) -> str:
        return _tied(printable(text)) if name in layout.below else printable(text)

    fitted = fitted_table(
        [
            FittedColumn(
                printable(header[i]),
                [Text(cell(header[i], line[i]), style=style(header[i], row)) for row, line in enumerate(body)],
                i == shown[0] or header[i] in layout.left,
                importance.get(header[i]),
                header[i] in layout.below,
            )
            for i in shown
        ],
        heads,
        width,
    )
    yield from fitted.lines
    if fitted.left_out:
        yield from wrapped(f"No room for {'; '.join(fitted.left_out)} (see {MORE}).", width, style="dim")


def _legend(comparison: Comparison, width: int) -> Iterator[Text]:
    """Explain the marks in a few words; docs/statistics.md has more."""
    baseline = printable(comparison.contents.baseline)
    parts = [f"{BEST} the best of its pair"] if any(row.last for row in comparison.rows) else []
    if any(row.to_baseline for row in comparison.rows):
        mean, by_seed = ("", "") if comparison.is_of_one_seed else ("mean ", ", seed by seed")
        parts.append(f"vs {baseline}: {mean}difference to {baseline}{by_seed}")
    tested = [row.tested.p_holm for row in comparison.rows if row.tested]
    if tested and min(tested) >= ERROR:
        parts.append(f"no difference is significant (p < {ERROR:g})")
    elif tested:
        parts.append(", ".join(f"{star} p < {p:g}".replace(" ", TIED) for p, star in reversed(columns.STARS)))
        if any(map(columns.has_daggers, comparison.rows)):
            parts.append(f"{columns.DAGGER} for *: worse".replace(" ", TIED))
    if any(map(columns.seeds_to_tell_text, comparison.rows)):
        name = columns.SEEDS_TO_TELL.replace(" ", TIED)
        parts.append(f"{name}: with so many, {100 * POWER:.0f} of 100 tests would see the difference")
    if parts:
        yield from wrapped("; ".join(parts) + ".", width, style="dim")


def _notes(comparison: Comparison, failed: FailedRuns, width: int) -> Iterator[Text]:
    for note in failed.notes(comparison):
        yield from wrapped(printable(note), width, style="red")
    yield from chain.from_iterable(
        wrapped(printable(note), width) for note in absence_notes(comparison, failed.counts(comparison))
    )
    notes = list(text.training_notes(comparison))
    for note in notes[:MOST_NOTES]:
        yield from wrapped(printable(note), width)
    if (more := len(notes) - MOST_NOTES) > 0:
        yield from wrapped(f"{plural(more, 'more note')}: {MORE}.", width, style="dim")


def gap_lines(tables: Iterable[GapTable], width: int) -> Iterator[Text]:
    """Yield the gains by teacher, their slopes, and the verdicts on the own method's advantages."""
    for table in tables:
        yield from wrapped(printable(table.title), width, style="bold")
        slopes = table.lines[0].index(PER_DOUBLING)
        gains, tests = (
            [(line[0], *line[part]) for line in table.lines] for part in (slice(1, slopes), slice(slopes, None))
        )
        yield from section_lines(gains, [], width)
        yield Text()
        yield from section_lines(tests, table.notes, width)
        for verdict in table.verdicts:
            yield from wrapped(printable(verdict), width)
        yield Text()


def tuning_lines(log: TuningLog, folder: Path, width: int) -> Iterator[Text]:
    """Yield the methods of a tuning and what won. ``folder``: of the tables that have every trial."""
    yield from wrapped(f"{printable(tuning.title(log))}.", width)
    yield Text()
    every_trial = f"Every trial: {folder / 'tuning.md'}"
    yield from section_lines(tuning.method_lines(log), [], width)
    for note in (*tuning.method_notes(log, tuning.tuned_methods(log)), every_trial):
        yield from wrapped(printable(note), width)
