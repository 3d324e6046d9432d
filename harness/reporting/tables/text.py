"""The lines and remarks of a comparison's tables, the same in every format."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.errors import is_visible
from harness.phrases import plural
from harness.reporting.comparison import Comparison, Contents, Row
from harness.reporting.protocol_guard import RecipeChange
from harness.reporting.published.table import PublishedTable
from harness.reporting.ranking import REPEATS, Ranking
from harness.reporting.settings import all_settings, line_settings
from harness.reporting.statistics import POWER
from harness.reporting.tables import columns
from harness.reporting.tables.absences import absence_notes
from harness.reporting.tables.columns import Lines, run_ids, table_lines
from harness.spec.lines import grouped
from harness.spec.science import Science

RANKS = "Methods over the pairs"
PUBLISHED = "Published numbers for these pairs"


@dataclass(frozen=True)
class Section:
    """A table and the remarks under it."""

    title: str  # "" for the first
    lines: Lines  # the header first; the first two columns are names
    remarks: list[str]
    run_ids: list[str]  # behind each line except the header; "" where a line sums up many


def sections(comparison: Comparison, published: PublishedTable | None) -> Iterator[Section]:
    """Yield the tables of a comparison: its rows, the methods' ranks over its pairs, published numbers."""
    contents, rows = comparison.contents, comparison.rows
    lines = table_lines(columns.comparison_columns(comparison), rows)
    yield Section("", lines, list(notes(comparison, lines[0])), [run_ids(row) for row in rows])
    if ranking := comparison.ranking:
        lines = table_lines(columns.rank_columns(ranking, contents.baseline), ranking.ranks)
        yield Section(RANKS, lines, list(_rank_notes(ranking, contents)), [""] * len(ranking.ranks))
    if published:
        lines = table_lines(columns.published_columns(published), published.rows)
        title = f"{PUBLISHED}, {contents.task.shown} in %"
        yield Section(title, lines, _published_notes(published), [run_ids(row) for row in published.rows])


def fidelity_section(comparison: Comparison) -> Section:
    """Return the table of the fidelity to the teacher."""
    rows, on = comparison.rows, comparison.evaluated_on or "test"
    remarks = [
        f"After the last epoch, mean ± sample std over seeds, on the {on} images; 'train': on as many training images "
        "without augmentation. Agreement: share of the images with the teacher's class, in %; KL: divergence of the "
        "student's probabilities from the teacher's at temperature T, in nats; ECE: expected calibration error over 15 "
        "bins, in %. Without a fixed teacher there are no agreement and KL."
    ]
    if without := [str(row.line) for row in rows if row.last and not row.fidelity]:
        remarks.append(f"Not measured, in runs of an earlier harness and of detectors: {'; '.join(without)}.")
    lines = table_lines(columns.fidelity_columns(comparison), rows)
    return Section("", lines, remarks, [run_ids(row) for row in rows])


def epochs(contents: Contents) -> str:
    """Return ``20 epochs``, or ``1 or 20 epochs``."""
    *others, last = contents.epochs
    return " or ".join([*map(str, others), plural(last, "epoch")])


def settings_section(comparison: Comparison) -> Section:
    """Return the settings of each line that has a record; without pairs where they are the same on all."""
    texts = {line: all_settings(method) for line, method in line_settings(comparison).items()}
    of_method = dict.fromkeys((line.method, text) for line, text in texts.items())
    lines: Lines = [("method", "settings"), *of_method]
    if len(of_method) > len({line.method for line in texts}):
        lines = [(columns.PAIR, "method", "settings"), *((str(line.pair), line.method, texts[line]) for line in texts)]
    return Section("Settings", lines, [], [""] * (len(lines) - 1))


_EVALUATED_ON = {
    "test": "test images",
    "validation": "held-out training images for validation, NOT the test set",
    "train": "training images that are evaluated on, NOT a test set",
}


def images(comparison: Comparison) -> str:
    """Return ``, 50,000 training images, 10,000 test images``; "" without a record."""
    sizes = f", {comparison.train_size:,} training images" if comparison.train_size else ""
    if comparison.evaluated_size:
        sizes += f", {comparison.evaluated_size:,} {_EVALUATED_ON[comparison.evaluated_on or 'test']}"
    return sizes


def notes(comparison: Comparison, head: Sequence[str]) -> Iterator[str]:
    """Yield the facts that a reader must know to compare these numbers with others. ``head``: the columns' names."""
    contents = comparison.contents
    evaluated_on = comparison.evaluated_on or "test"
    differences = " 'vs' is a difference to another line, of the last epoch, paired by seed."
    yield (
        f"{contents.shown_dataset}{images(comparison)}, {epochs(contents)}. {capitalised(contents.task.shown)} in %, "
        f"mean ± sample std over seeds; 'last' is the last epoch's, 'best' the best {evaluated_on} epoch's."
        f"{differences * any(name.startswith('vs ') for name in head)}"
    )
    yield from _test_notes(comparison, head)
    yield from training_notes(comparison)
    yield from absence_notes(comparison, {})


def training_notes(comparison: Comparison) -> Iterator[str]:
    """Yield how the lines were trained, where that is not as a reader would expect."""
    yield from sweep_notes(comparison.contents)
    yield from teacher_notes(comparison)
    yield from usual_recipe_notes(comparison)
    yield from reading_notes(comparison)
    for row in comparison.rows:
        yield from method_notes(row)
    if comparison.retries:
        each = (f"{text.removeprefix('retried ')} ({plural(n, 'run')})" for text, n in comparison.retries.items())
        yield f"Retried: {_one_line(', '.join(each))}."


def sweep_notes(contents: Contents) -> Iterator[str]:
    """Yield the sweep's own note, and how its lines differ."""
    if note := _one_line(contents.note):
        yield f"Note: {note}"
    if contents.idle_settings:
        yield f"Without effect: {_one_line('; '.join(contents.idle_settings))}."
    if contents.tuning:
        yield f"Tuning: {_one_line(' '.join(contents.tuning))}"
    marks = columns.protocol_marks(contents)
    if others := [c for c in contents.recipe_changes if c.line not in marks]:
        yield f"Trained with another recipe than the rest: {'; '.join(_by_pair(contents, others))}."
    if marks:
        legend = dict.fromkeys(f"{marks[c.line]} {c.change}" for c in contents.recipe_changes if c.line in marks)
        yield f"Unlike protocols in one column, as asked; not comparable with the rest: {'; '.join(legend)}."
    if contents.added:
        yield (
            f"Seeds that --until-decided added: {'; '.join(contents.added)}. They were added because of the results of "
            "the seeds before, which p values do not account for: its own decisions are corrected for that, the marks "
            "here are not."
        )


def teacher_notes(comparison: Comparison) -> Iterator[str]:
    """Yield how the images of each given teacher are normalised, where it is not as those of the students are."""
    texts = (text for text in comparison.sciences.values() if '"std":' in text)  # few: the others need no parsing
    teachers = (teacher for text in texts for teacher in Science.from_text(text).given_teachers)
    own = [(t.model, t.normalisation.text) for t in teachers if t.normalisation]
    if names := dict.fromkeys(f"{model} ({text})" for model, text in own):
        dataset = comparison.contents.shown_dataset
        yield f"Teachers that see images by another normalisation than the students' ({dataset}'s): {'; '.join(names)}."


def usual_recipe_notes(comparison: Comparison) -> Iterator[str]:
    """Yield the optimiser, unless it is SGD, and the views of the recipe that most lines have."""
    changed = {change.line for change in comparison.contents.recipe_changes}
    text = next((text for line, text in comparison.sciences.items() if line not in changed), "")
    if '"optimizer":' in text or '"views":' in text:  # few: the others need no parsing
        recipe = Science.from_text(text).recipe
        parts = [f"optimizer {recipe.optimizer}"] * (recipe.optimizer != "sgd")
        parts += [f"a further view {view!r} of each image" for view in recipe.views or ()]
        others = "; lines with other recipes are named above" * bool(changed)
        if parts:
            yield f"Trained with {' and '.join(parts)}{others}."


def reading_notes(comparison: Comparison) -> Iterator[str]:
    """Yield which lines follow a paper and which its authors' code, for the methods where the two differ."""
    lines: dict[str, list[str]] = {}
    for line, text in comparison.sciences.items():
        if '"reading":' in text:  # few: the others need no parsing
            lines.setdefault(Science.from_text(text).method.params["reading"], []).append(line.method)
    if lines:
        readings = (f"{', '.join(dict.fromkeys(lines[reading]))} as in the {reading}" for reading in sorted(lines))
        yield f"Where a paper and its authors' code differ: {'; '.join(readings)}."


def _by_pair(contents: Contents, changes: list[RecipeChange]) -> list[str]:
    """Return ``teacher > student, kd, crd: lr 0.01``; without methods where all of the pair's have the change.

    Where all of several pairs have it with the same methods, ``kd, crd on every pair: lr 0.01``.
    """
    methods = Counter(line.pair for line in contents.lines())
    pairs: dict[tuple[str, str], list[str]] = {}
    for (pair, change), part in grouped(changes, lambda c: (c.pair, c.change)).items():
        names = "" if len(part) == methods[pair] else ", ".join(c.method for c in part)
        pairs.setdefault((names, change), []).append(str(pair))
    texts = []
    for (names, change), of_change in pairs.items():
        if names and len(of_change) == len(methods) > 1:
            texts.append(f"{names} on every pair: {change}")
        else:
            texts += [f"{pair}{', ' if names else ''}{names}: {change}" for pair in of_change]
    return texts


def method_notes(row: Row) -> Iterator[str]:
    """Yield the facts about a method's students that a reader must know."""
    student, evaluated = row.parameters or (0, 0)
    if student != evaluated:
        yield f"{row.line}: the method stays in the model: {evaluated:,} parameters, the student has {student:,}."
    for text, count in row.warnings:
        yield f"{row.line}: {_one_line(text)} ({count} of {plural(len(row.run_ids), 'run')})."


def _test_notes(comparison: Comparison, head: Sequence[str]) -> Iterator[str]:
    """Explain intervals, marks and the seeds that would tell."""
    baseline, shown = comparison.contents.baseline, comparison.contents.task.shown
    if columns.INTERVAL in head:
        yield f"95 % CI: of the mean {shown} over seeds, by Student's t, within 0 and 100."
    if f"vs {baseline}" in head and any(row.tested for row in comparison.rows):
        daggers = f" A method that is worse has daggers ({columns.DAGGER}) in place of stars."
        yield stars_note(baseline) + daggers * any(map(columns.has_daggers, comparison.rows))
    if columns.SEEDS_TO_TELL in head:
        yield (
            f"Seeds to tell: a difference without a mark would get one with so many seeds in all, in {100 * POWER:.0f} "
            "of 100 cases, if its mean and std stay as they are here."
        )


def stars_note(baseline: str) -> str:
    """Explain the stars."""
    legend = ", ".join(f"{star} p < {p:g}" for p, star in reversed(columns.STARS))
    return f"Paired t-test against {baseline}, Holm-corrected over a pair's methods: {legend}."


def capitalised(text: str) -> str:
    """Return the text with a capital first letter; ``str.capitalize`` would turn AP50 into Ap50."""
    return text[:1].upper() + text[1:]


def _one_line(text: str) -> str:
    """Return the text on one line: an empty line would end a LaTeX caption."""
    return " ".join("".join(c if is_visible(text, i) else " " for i, c in enumerate(text)).split())


def _rank_notes(ranking: Ranking, contents: Contents) -> Iterator[str]:
    baseline = contents.baseline
    yield (
        f"Average rank of the mean last-epoch {contents.task.shown}, 1 is the best; P(better than {baseline}): "
        f"probability that a run of the method beats one of {baseline}, averaged over pairs."
    )
    if any(rank.rank_interval for rank in ranking.ranks):
        yield (
            "In brackets: 95 % intervals by stratified bootstrap, "
            f"seeds resampled {REPEATS:,} times within each pair and method (Agarwal et al. 2021)."
        )
    if ranking.left_out:
        yield f"Not ranked, as some pair has no result of it: {', '.join(ranking.left_out)}."


def _published_notes(published: PublishedTable) -> list[str]:
    remarks = (f"[{i}] {text}" for i, text in enumerate([published.ours, *(c.remark for c in published.columns)]))
    return [*remarks, *([published.rest] if published.rest else [])]
