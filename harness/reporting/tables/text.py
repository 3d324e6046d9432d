"""What a comparison's tables say, as text: lines and remarks, the same in every format."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from harness.reporting.comparison import REFERENCE, Comparison, Contents, Row, Spread
from harness.reporting.protocol_guard import RecipeChange
from harness.reporting.published.numbers import Protocol
from harness.reporting.published.table import Cell, PublishedTable
from harness.reporting.ranking import REPEATS, Ranking
from harness.reporting.statistics import ERROR, MOST_SEEDS, POWER, Difference, Interval, seeds_needed
from harness.spec.lines import Line, PairNames, grouped

RANKS = "Methods over the pairs"
PUBLISHED = "Published numbers for these pairs"
STARS = ((0.001, "***"), (0.01, "**"), (ERROR, "*"))
Lines = list[tuple[str, ...]]


@dataclass(frozen=True)
class Section:
    """A table and what stands under it."""

    title: str  # "" for the first
    lines: Lines  # the header first; the first two columns are names
    remarks: list[str]
    run_ids: list[str]  # behind each line but the header; "" where a line is of many


def sections(comparison: Comparison, beside: PublishedTable | None) -> list[Section]:
    """The tables of a comparison: its rows, the methods' ranks over its pairs, published numbers."""
    ids = [" ".join(row.run_ids) for row in comparison.rows]
    found = [Section("", _lines(comparison), notes(comparison), ids)]
    if ranking := comparison.ranking:
        baseline = comparison.contents.baseline
        ranks = _rank_lines(ranking, baseline)
        remarks = _rank_notes(ranking, comparison.contents)
        found.append(Section(RANKS, ranks, remarks, [""] * len(ranking.ranks)))
    if beside:
        ids = [" ".join(row.run_ids) for row in beside.lines]
        title = f"{PUBLISHED}, {comparison.contents.task.shown} in %"
        found.append(Section(title, _beside_lines(beside), _beside_notes(beside), ids))
    return found


# the comparison ------------------------------------------------------------------------------------------------------


def _lines(comparison: Comparison) -> Lines:
    """One line per row; what needs two seeds has a column when some row has it."""
    contents, marks = comparison.contents, protocol_marks(comparison.contents)
    shown = contents.task.shown
    intervals = any(row.last_interval for row in comparison.rows)
    tested = any(row.tested for row in comparison.rows)
    reference = contents.baseline != REFERENCE
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("teacher > student", lambda row: str(row.pair)),
        ("method", lambda row: " ".join(filter(None, (row.method, marks.get(row.line))))),
        (f"{shown} last", lambda row: _spread(row.last)),
        *([("95 % CI", lambda row: _interval(row.last_interval))] if intervals else []),
        (f"{shown} best", lambda row: _spread(row.best)),
        (f"- {contents.baseline}", lambda row: _spread(row.to_baseline, signed=True)),
        *([(f"95 % CI of - {contents.baseline}", _tested)] if tested else []),
        *([("- KD", lambda row: _spread(row.to_reference, signed=True))] if reference else []),
        ("teacher", lambda row: "" if row.teacher_score is None else f"{row.teacher_score:.2f}"),
        ("seeds", _seeds),
        ("s/run", lambda row: "" if row.cost_s is None else f"{row.cost_s:.1f}"),
    ]
    return [tuple(name for name, _ in columns), *(tuple(text(row) for _, text in columns) for row in comparison.rows)]


_EVALUATED_ON = {
    "test": "test images",
    "validation": "held-out training images for validation, NOT the test set",
    "train": "training images that are evaluated on, NOT a test set",
}


def images(comparison: Comparison) -> str:
    """ ", 50,000 training images, 10,000 test images"; "" without a record."""
    sizes = f", {comparison.train_size:,} training images" if comparison.train_size else ""
    if comparison.evaluated_size:
        sizes += f", {comparison.evaluated_size:,} {_EVALUATED_ON[comparison.evaluated_on or 'test']}"
    return sizes


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know to compare these numbers with others."""
    contents = comparison.contents
    epochs = " or ".join(str(e) for e in contents.epochs)
    evaluated_on = comparison.evaluated_on or "test"
    found = [
        f"{contents.dataset}{images(comparison)}, {epochs} epochs. {capitalised(contents.task.shown)} in %, mean ± "
        f"sample std over seeds; 'last' is the last epoch's, 'best' the best {evaluated_on} epoch's. "
        "Differences are of the last epoch, paired by seed."
    ]
    found += [*_test_notes(comparison), *sweep_notes(contents)]
    for row in comparison.rows:
        where = row.line
        found += method_notes(row)
        if row.missing:
            found.append(f"{where}: {row.missing} of {len(row.run_ids)} runs have no record.")
        if row.diverged:
            found.append(f"{where}: {row.diverged} of {len(row.run_ids)} runs diverged and are not in the mean.")
    return found


def sweep_notes(contents: Contents) -> list[str]:
    """What a sweep says of itself, and in what its lines are unlike."""
    found = []
    if note := _one_line(contents.note):
        found.append(f"Note: {note}")
    marks = protocol_marks(contents)
    if others := [c for c in contents.recipe_changes if c.line not in marks]:
        found.append(f"Trained with another recipe than the rest: {'; '.join(_by_pair(contents, others))}.")
    if marks:
        legend = dict.fromkeys(f"{marks[c.line]} {c.change}" for c in contents.recipe_changes if c.line in marks)
        found.append(f"Unlike protocols in one column, as asked; not comparable with the rest: {'; '.join(legend)}.")
    if contents.added:
        found.append(
            f"Seeds that --until-decided added: {'; '.join(contents.added)}. They were added for what the seeds before "
            "said, which p values do not know of: its own decisions are corrected for that, the marks here are not."
        )
    return found


def _by_pair(contents: Contents, changes: list[RecipeChange]) -> list[str]:
    """ "teacher > student, kd, crd: lr 0.01"; without methods where all of the pair's have the change."""
    methods = Counter(line.pair for line in contents.lines())
    return [
        f"{pair}{'' if len(of) == methods[pair] else ', ' + ', '.join(c.method for c in of)}: {change}"
        for (pair, change), of in grouped(changes, lambda c: (c.pair, c.change)).items()
    ]


def method_notes(row: Row) -> list[str]:
    """What a method makes of its students that a reader must know."""
    where = row.line
    found = []
    if row.parameters and row.parameters[0] != row.parameters[1]:
        student, evaluated = row.parameters
        found.append(f"{where}: the method stays in the model: {evaluated:,} parameters, the student has {student:,}.")
    for text, count in row.warnings:
        found.append(f"{where}: {_one_line(text)} ({count} of {len(row.run_ids)} runs).")
    return found


def _test_notes(comparison: Comparison) -> list[str]:
    """How intervals and marks come about, and what they leave open."""
    if not any(row.last_interval or row.tested for row in comparison.rows):
        return []
    baseline = comparison.contents.baseline
    found = ["95 % CI: of a mean over seeds, by Student's t."]
    if any(row.tested for row in comparison.rows):
        found = [f"{found[0]} {stars_note(baseline)}"]
    left: dict[PairNames, list[str]] = {}
    for row in comparison.rows:
        if row.tested and row.tested.p_holm >= ERROR:
            family = sum(r.tested is not None for r in comparison.rows if r.pair == row.pair)
            needed = seeds_needed(row.to_baseline, ERROR / family)
            left.setdefault(row.pair, []).append(f"{row.method} ({needed or f'over {MOST_SEEDS:,}'})")
        elif row.to_baseline and row.to_baseline.n > 1 and not row.tested:
            left.setdefault(row.pair, []).append(f"{row.method} (no test: equal differences)")
    if left:
        said = "; ".join(f"{pair}: {', '.join(methods)}" for pair, methods in left.items())
        found.append(
            f"Not told apart from {baseline} (in brackets the seeds in all that would do so with {100 * POWER:.0f} % "
            f"probability, were mean and std of the difference those seen here): {said}."
        )
    return found


def stars_note(baseline: str) -> str:
    """What the stars mean."""
    legend = ", ".join(f"{star} p < {p:g}" for p, star in reversed(STARS))
    return f"Paired t-test against {baseline}, Holm-corrected over a pair's methods: {legend}."


def protocol_marks(contents: Contents) -> dict[Line, str]:
    """(a), (b), ... for lines of another protocol than most: a letter per change."""
    unlike = [c for c in contents.recipe_changes if c.unlike]
    order = {change: f"({_letters(i)})" for i, change in enumerate(dict.fromkeys(c.change for c in unlike))}
    return {c.line: order[c.change] for c in unlike}


def _letters(i: int) -> str:
    """a, ..., z, aa, ab, ..."""
    return (_letters(i // 26 - 1) if i >= 26 else "") + chr(ord("a") + i % 26)


def capitalised(text: str) -> str:
    """For the start of a sentence; ``str.capitalize`` would make AP50 Ap50."""
    return text[:1].upper() + text[1:]


def _one_line(text: str) -> str:
    """An empty line would end a LaTeX caption."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _seeds(row: Row) -> str:
    n = row.last.n if row.last else 0
    return str(n) if n == len(row.run_ids) else f"{n}/{len(row.run_ids)}"


def _tested(row: Row) -> str:
    if row.tested is None:
        return ""
    return " ".join(filter(None, (_interval(row.tested.interval, signed=True), stars(row.tested))))


def stars(tested: Difference | None) -> str:
    """The mark of a difference that the test finds; "" for none."""
    return next((star for p, star in STARS if tested and tested.p_holm < p), "")


def _spread(spread: Spread | None, signed: bool = False) -> str:
    if spread is None:
        return ""
    mean = f"{spread.mean:+.2f}" if signed else f"{spread.mean:.2f}"
    return mean if spread.std is None else f"{mean} ± {spread.std:.2f}"


def _interval(interval: Interval | None, signed: bool = False) -> str:
    if interval is None:
        return ""
    return f"[{interval.low:+.2f}, {interval.high:+.2f}]" if signed else f"[{interval.low:.2f}, {interval.high:.2f}]"


# ranks ---------------------------------------------------------------------------------------------------------------


def _rank_lines(ranking: Ranking, baseline: str) -> Lines:
    better = any(r.better is not None for r in ranking.ranks)
    lines: Lines = [("over", "method", "average rank", "95 % CI", *([f"P(> {baseline})", "95 % CI"] if better else []))]
    for r in ranking.ranks:
        line = [f"{ranking.pairs} pairs", r.method, f"{r.rank:.2f}", _interval(r.rank_interval)]
        if better:
            line += ["" if r.better is None else f"{r.better:.2f}", _interval(r.better_interval)]
        lines.append(tuple(line))
    return lines


def _rank_notes(ranking: Ranking, contents: Contents) -> list[str]:
    baseline = contents.baseline
    found = [
        f"Average rank of the mean last-epoch {contents.task.shown}, 1 is the best; P(> {baseline}): probability that "
        f"a run of the method beats one of {baseline}, averaged over pairs. Intervals: stratified bootstrap, "
        f"seeds drawn anew {REPEATS:,} times within each pair and method (Agarwal et al. 2021)."
    ]
    if ranking.left_out:
        found.append(f"Not ranked, as some pair has no result of it: {', '.join(ranking.left_out)}.")
    return found


# published numbers ---------------------------------------------------------------------------------------------------

_EPOCH = {"last": "last", "best": "best", "unknown": "last or best?"}


def _beside_lines(beside: PublishedTable) -> Lines:
    headers = [f"{_head(c.protocol)}, {_EPOCH[c.protocol.epoch]} [{i}]" for i, c in enumerate(beside.columns, 1)]
    lines: Lines = [("teacher > student", "method", "ours, last [0]", *headers, "verdict [0]")]
    for i, row in enumerate(beside.lines):
        ours = f"{_spread(row.last)} ({row.last.n})" if row.last else ""
        theirs = (_cell(column.cells[i]) for column in beside.columns)
        lines.append((str(row.pair), row.method, ours, *theirs, _verdicts(beside, i)))
    return lines


def _head(protocol: Protocol) -> str:
    """``FGD, mmdetection 2x``."""
    return ", ".join(filter(None, (protocol.label, f"{protocol.framework} {protocol.schedule.split(' ')[0]}".strip())))


def _verdicts(beside: PublishedTable, line: int) -> str:
    cells = [column.cells[line] for column in beside.columns]
    said = [f"[{i}] {cell.verdict.text}" for i, cell in enumerate(cells, 1) if cell and cell.verdict]
    return ", ".join(said) or "not comparable"


def _beside_notes(beside: PublishedTable) -> list[str]:
    remarks = (f"[{i}] {text}" for i, text in enumerate([beside.ours, *(c.remark for c in beside.columns)]))
    return [*remarks, *([beside.rest] if beside.rest else [])]


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    numbers = " / ".join(f"{n.value} ± {n.std}" if n.std else n.value for n in cell.numbers)
    return numbers if cell.difference is None else f"{numbers} ({cell.difference:+.2f})"
