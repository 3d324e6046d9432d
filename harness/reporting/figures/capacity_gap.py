"""The capacity gap: a student's score against the size of its teacher, a line per method."""

from collections.abc import Iterator
from functools import partial

from harness.phrases import file_name
from harness.reporting.comparison import BASELINE, Comparison
from harness.reporting.figures.style import COLUMN, Drawing, Figure, look, text
from harness.spec import models

Point = tuple[int, float, float]  # a teacher's parameters, mean and sample standard deviation of the score in %


def drawings(comparison: Comparison) -> Iterator[Drawing]:
    """Yield a figure per student that has two teachers of different size."""
    shown = comparison.contents.task.shown
    for student in dict.fromkeys(row.student for row in comparison.rows):
        if lines := points(comparison, student):
            yield Drawing(
                file_name("capacity_gap", student),
                f"Last-epoch {shown} of {student} against the size of its teacher; bars: one sample standard deviation "
                "over seeds.",
                (COLUMN, 2.2),
                partial(_draw, comparison, student, lines),
            )


def points(comparison: Comparison, student: str) -> dict[str, list[Point]]:
    """Return method -> points, from the smallest teacher to the largest; {} when all teachers have one size.

    The size of a timm or torchvision model is not known without building it; such teachers are left out.
    """
    lines: dict[str, list[Point]] = {}
    for row in comparison.rows:
        if row.student == student and row.method != BASELINE and row.last and models.has_model_facts(row.teacher):
            point = (models.model_facts(row.teacher).params, row.last.mean, row.last.std or 0.0)
            lines.setdefault(row.method, []).append(point)
    sizes = {size for line in lines.values() for size, _, _ in line}
    return {method: sorted(line) for method, line in lines.items()} if len(sizes) > 1 else {}


def _draw(comparison: Comparison, student: str, lines: dict[str, list[Point]], figure: Figure) -> None:
    rows = [row for row in comparison.rows if row.student == student and models.has_model_facts(row.teacher)]
    teachers = {models.model_facts(row.teacher).params: row.teacher for row in rows}
    axes = figure.subplots()
    for i, (method, line) in enumerate(lines.items()):
        size, mean, std = zip(*line, strict=True)
        axes.errorbar(size, mean, std, label=text(method), capsize=2, elinewidth=0.8, **look(i))
    if (undistilled := rows[0].student_score) is not None:
        axes.axhline(undistilled, color="0.4", linestyle=":", label=text(f"{student} alone"))
    axes.set_xscale("log")
    axes.set_xticks(list(teachers), list(map(text, teachers.values())), rotation=45, ha="right")
    axes.minorticks_off()
    axes.set_xlabel("teacher, by number of parameters (log scale)")
    axes.set_ylabel(f"{comparison.contents.task.shown} of {text(student)} (%)")
