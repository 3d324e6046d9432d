"""The notes under a paper's table: the protocol, the meaning of marks, the sources of published numbers."""

from collections.abc import Iterator, Sequence
from itertools import chain

from harness.reporting.comparison import Comparison
from harness.reporting.published.table import recipe_name
from harness.reporting.tables.columns import DAGGER
from harness.reporting.tables.text import (
    capitalised,
    epochs,
    images,
    method_notes,
    reading_notes,
    stars_note,
    sweep_notes,
    teacher_notes,
    usual_recipe_notes,
)
from harness.spec.science import Science
from harness.spec.teacher_reference import TeacherReference

VERDICTS = {"reproduced": "≈", "not reproduced": "≠", "undecided": "?"}


def notes(comparison: Comparison, metrics: Sequence[str], seeds: int | None, published: Sequence[str]) -> Iterator[str]:
    """Yield the notes. ``seeds``: of most cells. ``published``: a remark per source."""
    contents = comparison.contents
    yield _protocol(comparison, metrics, seeds)
    yield _teachers(comparison)
    yield from teacher_notes(comparison)
    yield (
        "Bold: the best distilled student of a column; underlined: the second best. Numbers are compared as they are "
        "printed, and equal ones are marked alike."
    )
    if any(row.tested for row in comparison.rows):
        tested = f"{capitalised(metrics[0])} is the only metric tested; stars" if len(metrics) > 1 else "Stars"
        yield (
            f"{stars_note(contents.baseline)} {tested} mark a better method; {DAGGER}, {2 * DAGGER} and {3 * DAGGER} "
            "in their place a worse one."
        )
    yield from _missing(comparison)
    yield from sweep_notes(contents)
    yield from usual_recipe_notes(comparison)
    yield from reading_notes(comparison)
    yield from chain.from_iterable(map(method_notes, comparison.rows))
    if published:
        yield (
            "Numbers with [1], [2], ... are published, each by the protocol of its mark; those of unlike marks are not "
            "comparable with each other. After them, where ours is comparable: "
            f"{VERDICTS['reproduced']} reproduced (within {contents.margin:g} points by two one-sided t-tests at 5 %), "
            f"{VERDICTS['not reproduced']} not reproduced, {VERDICTS['undecided']} undecided."
        )
        yield from (f"[{i}] {remark}" for i, remark in enumerate(published, 1))


def _protocol(comparison: Comparison, metrics: Sequence[str], seeds: int | None) -> str:
    contents = comparison.contents
    changed = {change.line for change in contents.recipe_changes}  # which have a note of their own
    usual = next((text for line, text in comparison.sciences.items() if line not in changed), None)
    recipe = "" if usual is None else f", recipe {recipe_name(Science.from_text(usual).recipe.model_dump(mode='json'))}"
    over = "no result yet"
    if seeds is not None:
        over = "of one seed" if seeds == 1 else f"mean ± sample std over {seeds} seeds"
        over += "; another number of seeds stands in brackets"
    what = capitalised(", ".join(metrics[:-1]) + " and " * (len(metrics) > 1) + metrics[-1])
    return (
        f"{contents.name}: {contents.shown_dataset}{images(comparison)}, {epochs(contents)}{recipe}. "
        f"{what} in % after the last epoch, {over}."
    )


def _teachers(comparison: Comparison) -> str:
    cells = comparison.contents.cells
    texts = dict.fromkeys(cell.teacher for cell in cells)
    several = [text for text in texts if len(TeacherReference.parse(text).teachers) > 1]
    trained = dict.fromkeys(cell.teacher for cell in cells if cell.teacher_run)
    given = dict.fromkeys(c.teacher for c in cells if not c.teacher_run and c.teacher not in several)
    sources = [f"Trained here, one for all seeds: {', '.join(trained)}"] if trained else []
    sources += [f"From given weights: {', '.join(given)}"] if given else []
    sources += [f"Several teachers, whose logits are averaged: {', '.join(several)}"] if several else []
    return f"The teachers are measured here; nothing about them is taken from papers. {'. '.join(sources)}."


def _missing(comparison: Comparison) -> Iterator[str]:
    numbers = sum(len(row.run_ids) for row in comparison.rows)
    missing, diverged = (sum(getattr(row, key) for row in comparison.rows) for key in ("missing", "diverged"))
    if missing or diverged:
        yield (
            f"–: no result. Of {numbers:,} numbers (pair, method, seed) {missing:,} have no record, as they are not "
            f"trained yet or failed, and {diverged:,} diverged; these are in no mean."
        )
