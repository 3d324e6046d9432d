"""The columns of a comparison's tables: each with its name and text for readers, and its fields for CSV."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from harness.reporting.comparison import Comparison, Contents, Row, Spread
from harness.reporting.published.numbers import Protocol
from harness.reporting.published.table import ProtocolCell, ProtocolColumn, PublishedTable, verdict_text
from harness.reporting.ranking import Rank, Ranking
from harness.reporting.settings import differing_settings
from harness.reporting.statistics import ERROR, MOST_SEEDS, Difference, Interval
from harness.spec.lines import Line
from harness.store.schema import FIDELITY_COLUMNS

PAIR, OVER, INTERVAL = "teacher > student", "over", "95 % CI"  # names of columns
DAGGER = "†"
SEEDS_TO_TELL = "seeds to tell"
STARS = ((0.001, "***"), (0.01, "**"), (ERROR, "*"))
_EPOCH = {"last": "last", "best": "best", "unknown": "last or best?"}
Item = TypeVar("Item")
Lines = list[tuple[str, ...]]


class Column(NamedTuple, Generic[Item]):
    """One column of a table whose rows are Items."""

    name: str  # "" where the column is in the CSV only
    text: Callable[[Item], str] = str
    csv: Mapping[str, Callable[[Item], object]] = {}  # field -> value
    group: int = 0  # the CSV's fields are ordered by it: younger ones stand on the right


def table_lines(columns: Sequence[Column[Item]], items: Sequence[Item]) -> Lines:
    """Return the names of the columns that readers see, then a line of texts per item."""
    shown = [column for column in columns if column.name]
    return [tuple(c.name for c in shown), *(tuple(c.text(item) for c in shown) for item in items)]


def comparison_columns(comparison: Comparison) -> list[Column[Row]]:
    """Return the columns; those that need several seeds are shown to readers if some row has them."""
    contents = comparison.contents
    baseline, reference, shown = contents.baseline, comparison.reference, contents.task.shown
    score, settings = contents.task.score, differing_settings(comparison)
    marks = protocol_marks(contents)
    changes = {change.line: change.change for change in contents.recipe_changes if change.unlike}
    intervals = any(row.last_interval for row in comparison.rows)
    untold = any(map(seeds_to_tell_text, comparison.rows))
    return [
        Column("", csv={"sweep": lambda _: contents.name, "dataset": lambda _: contents.shown_dataset}),
        Column(PAIR, _pair, {"teacher": lambda row: row.teacher, "student": lambda row: row.student}),
        Column(
            "method",
            lambda row: " ".join(filter(None, (row.method, marks.get(row.line)))),
            {"method": lambda row: row.method},
        ),
        Column("settings" if settings else "", lambda row: settings.get(row.line, "")),
        Column("", csv={"baseline": lambda _: baseline}),
        _spread_column(f"{shown} last", f"last_{score}", lambda row: row.last),
        _interval_column(INTERVAL if intervals else "", f"last_{score}", lambda row: row.last_interval, group=2),
        _spread_column(f"{shown} best", f"best_{score}", lambda row: row.best),
        Column(f"vs {baseline}", difference_text, _spread_fields(f"to_baseline_{score}", lambda row: row.to_baseline)),
        Column(
            "",
            csv={
                **_interval_fields("to_baseline", lambda row: _part(row.tested, "interval")),
                "p": lambda row: six_digits(_part(row.tested, "p")),
                "p_holm": lambda row: six_digits(_part(row.tested, "p_holm")),
            },
            group=2,
        ),
        _spread_column(
            f"vs {reference}" if reference not in (None, baseline) else "",
            f"to_reference_{score}",
            lambda row: row.to_reference,
            signed=True,
        ),
        Column(
            SEEDS_TO_TELL if untold else "",
            seeds_to_tell_text,
            {"seeds_to_tell": lambda row: row.seeds_to_tell},
            group=7,
        ),
        Column(
            f"teacher's {shown}",
            lambda row: _decimals(row.teacher_score, 2),
            {f"teacher_{score}": lambda r: r.teacher_score},
        ),
        Column("", csv={f"student_{score}": lambda row: row.student_score}),
        Column("seeds", _seeds, {"missing": lambda row: row.missing, "diverged": lambda row: row.diverged}, group=1),
        Column("seconds per run", lambda row: _decimals(row.cost_s, 1), {"cost_s": lambda row: row.cost_s}),
        Column("", csv={"run_ids": run_ids}, group=1),
        Column("", csv={"unlike_protocol": lambda row: changes.get(row.line)}, group=4),
        *(Column("", csv=column.csv, group=6) for column in fidelity_values() if comparison.has_fidelity),
    ]


def fidelity_columns(comparison: Comparison) -> list[Column[Row]]:
    """Return the columns of the fidelity to the teacher, beside the score."""
    task = comparison.contents.task
    return [
        Column("", csv={"sweep": lambda _: comparison.contents.name}),
        Column(PAIR, _pair, {"teacher": lambda row: row.teacher, "student": lambda row: row.student}),
        Column("method", lambda row: row.method, {"method": lambda row: row.method}),
        _spread_column(f"{task.shown} last", f"last_{task.score}", lambda row: row.last),
        *fidelity_values(),
        Column("seeds", _seeds, {"run_ids": run_ids}),
    ]


def fidelity_values() -> list[Column[Row]]:
    """Return the columns of the records' values, means over seeds."""
    shown = {"agreement": "agreement", "kl_t1": "KL, T = 1", "kl_t4": "KL, T = 4", "ece": "ECE", "top1": "top-1"}
    columns = []
    for name in FIDELITY_COLUMNS:
        part, _, value = name.partition("_")
        digits = 4 if value.startswith("kl") else 2
        title = shown[value] if part == "last" else f"train {shown[value]}"
        columns.append(_spread_column(title, name, partial(_fidelity, name=name), digits=digits))
    return columns


def _fidelity(row: Row, name: str) -> Spread | None:
    return row.fidelity.get(name)


def rank_columns(ranking: Ranking | None, baseline: str) -> list[Column[Rank]]:
    """Return the columns of the ranks. ``ranking``: None where there is none, and only a CSV has the columns."""
    better = ranking is not None and any(rank.better is not None for rank in ranking.ranks)
    return [
        Column(OVER, lambda _: f"{ranking.pairs if ranking else 0} pairs"),
        Column("method", lambda rank: rank.method),
        Column(
            "average rank",
            lambda rank: _with_interval(rank.rank, rank.rank_interval),
            {
                "average_rank": lambda rank: six_digits(rank.rank),
                **_interval_fields("average_rank", lambda rank: rank.rank_interval),
            },
            group=3,
        ),
        Column(
            f"P(better than {baseline})" if better else "",
            lambda rank: _with_interval(rank.better, rank.better_interval),
            {
                "p_better": lambda rank: six_digits(rank.better),
                **_interval_fields("p_better", lambda rank: rank.better_interval),
            },
            group=3,
        ),
    ]


def published_columns(published: PublishedTable) -> list[Column[Row]]:
    """Return ours, a column for each protocol, and the verdicts."""
    return [
        Column(PAIR, _pair),
        Column("method", lambda row: row.method),
        Column("ours, last [0]", lambda row: f"{spread_text(row.last)} ({row.last.n})" if row.last else ""),
        *(_protocol_column(i, column) for i, column in enumerate(published.columns, 1)),
        Column("verdict [0]", lambda row: _verdicts(published, row.line)),
    ]


def _protocol_column(i: int, column: ProtocolColumn) -> Column[Row]:
    protocol = column.protocol

    def cell(row: Row) -> ProtocolCell | None:
        return column.cells.get(row.line)

    return Column(
        f"{_protocol_name(protocol)}, {_EPOCH[protocol.epoch]} [{i}]",
        lambda row: _cell_text(cell(row)),
        {
            f"published_{protocol.id}": lambda row: (c := cell(row)) and " / ".join(n.value for n in c.numbers),
            f"difference_{protocol.id}": lambda row: _part(cell(row), "difference"),
            f"verdict_{protocol.id}": lambda row: (c := cell(row)) and verdict_text(c.verdict),
        },
        group=5,
    )


def run_ids(row: Row) -> str:
    return " ".join(row.run_ids)


def protocol_marks(contents: Contents) -> dict[Line, str]:
    """Return (a), (b), ... for the lines of another protocol than most: a letter per change of recipe."""
    unlike = [c for c in contents.recipe_changes if c.unlike]
    order = {change: f"({_letters(i)})" for i, change in enumerate(dict.fromkeys(c.change for c in unlike))}
    return {c.line: order[c.change] for c in unlike}


def _letters(i: int) -> str:
    """Return a, ..., z, aa, ab, ..."""
    return (_letters(i // 26 - 1) if i >= 26 else "") + chr(ord("a") + i % 26)


# texts ---------------------------------------------------------------------------------------------------------------


def _pair(row: Row) -> str:
    return str(row.pair)


def _seeds(row: Row) -> str:
    n = row.last.n if row.last else 0
    return str(n) if n == len(row.run_ids) else f"{n}/{len(row.run_ids)}"


def difference_text(row: Row) -> str:
    """Return the difference to the baseline with the mark of its test."""
    return f"{spread_text(row.to_baseline, signed=True)} {mark(row.tested, is_worse(row))}".strip()


def seeds_to_tell_text(row: Row) -> str:
    """Return the seeds that would tell a difference that these do not; of equal differences, that nothing tests it."""
    if row.tested is None:
        return "no test" if row.to_baseline and row.to_baseline.n > 1 else ""
    if row.tested.p_holm < ERROR:
        return ""
    return f"over {MOST_SEEDS:,}" if row.seeds_to_tell is None else f"{row.seeds_to_tell:,}"


def is_worse(row: Row) -> bool:
    """Return whether a method's mean is below the baseline's."""
    return row.to_baseline is not None and row.to_baseline.mean < 0


def has_daggers(row: Row) -> bool:
    """Return whether a method is marked as significantly worse than the baseline."""
    return DAGGER in difference_text(row)


def mark(tested: Difference | None, is_worse: bool) -> str:
    """Return the mark of a significant difference: stars, or as many daggers for a method that is worse."""
    return stars(tested).replace("*", DAGGER) if is_worse else stars(tested)


def stars(tested: Difference | None) -> str:
    """Return the mark of a significant difference, "" for any other."""
    return next((star for p, star in STARS if tested and tested.p_holm < p), "")


def spread_text(spread: Spread | None, signed: bool = False, digits: int = 2) -> str:
    if spread is None:
        return ""
    mean = f"{spread.mean:+.{digits}f}" if signed else f"{spread.mean:.{digits}f}"
    return mean if spread.std is None else f"{mean} ± {spread.std:.{digits}f}"


def interval_text(interval: Interval | None, signed: bool = False) -> str:
    if interval is None:
        return ""
    return f"[{interval.low:+.2f}, {interval.high:+.2f}]" if signed else f"[{interval.low:.2f}, {interval.high:.2f}]"


def _with_interval(value: float | None, interval: Interval | None) -> str:
    return f"{_decimals(value, 2)} {interval_text(interval)}".strip()


def _decimals(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _protocol_name(protocol: Protocol) -> str:
    """Return ``FGD, mmdetection 2x``."""
    return ", ".join(filter(None, (protocol.label, f"{protocol.framework} {protocol.schedule.split(' ')[0]}".strip())))


def _cell_text(cell: ProtocolCell | None) -> str:
    if cell is None:
        return ""
    numbers = " / ".join(f"{n.value} ± {n.std}" if n.std else n.value for n in cell.numbers)
    return numbers if cell.difference is None else f"{numbers} ({cell.difference:+.2f})"


def _verdicts(published: PublishedTable, line: Line) -> str:
    cells = [column.cells.get(line) for column in published.columns]
    verdicts = [f"[{i}] {cell.verdict.text}" for i, cell in enumerate(cells, 1) if cell and cell.verdict]
    return ", ".join(verdicts) or "not comparable"


# columns of spreads and intervals, with their fields of a CSV ---------------------------------------------------------


def _spread_column(
    name: str, field: str, spread_of: Callable[[Item], Spread | None], signed: bool = False, digits: int = 2
) -> Column[Item]:
    return Column(name, lambda item: spread_text(spread_of(item), signed, digits), _spread_fields(field, spread_of))


def _spread_fields(field: str, spread_of: Callable[[Item], Spread | None]) -> dict[str, Callable[[Item], object]]:
    return {
        f"{field}_mean": lambda item: _part(spread_of(item), "mean"),
        f"{field}_std": lambda item: _part(spread_of(item), "std"),
        f"{field}_n": lambda item: _part(spread_of(item), "n") or 0,
    }


def _interval_column(name: str, field: str, interval_of: Callable[[Item], Interval | None], group: int) -> Column[Item]:
    return Column(name, lambda item: interval_text(interval_of(item)), _interval_fields(field, interval_of), group)


def _interval_fields(field: str, interval_of: Callable[[Item], Interval | None]) -> dict[str, Callable[[Item], object]]:
    return {
        f"{field}_ci_low": lambda item: six_digits(_part(interval_of(item), "low")),
        f"{field}_ci_high": lambda item: six_digits(_part(interval_of(item), "high")),
    }


def _part(value: object, name: str) -> Any:
    """Return an attribute of a value, None where there is no value."""
    return getattr(value, name, None)


def six_digits(value: float | None) -> str | None:
    """Return six digits: the last ones of a computed probability differ between processors and versions of scipy."""
    return None if value is None else f"{value:.6g}"
