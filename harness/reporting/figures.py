"""Figures of a comparison, by matplotlib: legible in one column of a two-column paper, with and without colours."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.reporting.comparison import BASELINE, Comparison
from harness.spec import models
from harness.store import files

SIZE_INCHES = (3.3, 2.4)  # as wide as a column of a two-column page
# Okabe and Ito 2008, "Color Universal Design": told apart with any of the usual colour deficiencies.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "svg.hashsalt": "kd",  # and no date in the file: the same records give the same bytes
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
FORMATS: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}

Point = tuple[int, float, float]  # a teacher's parameters, mean and sample standard deviation of the top-1 in %


def capacity_gap(comparison: Comparison, folder: Path) -> list[Path]:
    """The students' accuracy against their teachers' size: a file per student and format, a line per method.

    Last-epoch top-1, bars of one sample standard deviation over seeds; the undistilled student is a horizontal line.
    Students without two teachers of different size are left out.

    Raises:
        UserError: that leaves none, or matplotlib is missing.
    """
    students = dict.fromkeys(row.student for row in comparison.rows)
    lines = {student: found for student in students if (found := points(comparison, student))}
    if not lines:
        raise UserError(
            f"{comparison.contents.name}: a figure of the capacity gap needs a student with records under two teachers "
            "of different size, models of the harness's own"
        )
    return [path for student in lines for path in _draw(comparison, student, lines[student], folder)]


def points(comparison: Comparison, student: str) -> dict[str, list[Point]]:
    """Method -> its points from the smallest teacher to the largest; {} when all teachers there are of one size.

    The size of a timm or torchvision model is not known without building it; such teachers are left out.
    """
    found: dict[str, list[Point]] = {}
    for row in comparison.rows:
        if row.student == student and row.method != BASELINE and row.last and row.teacher in models.CATALOG:
            point = (models.facts(row.teacher).params, row.last.mean, row.last.std or 0.0)
            found.setdefault(row.method, []).append(point)
    sizes = {size for line in found.values() for size, _, _ in line}
    return {method: sorted(line) for method, line in found.items()} if len(sizes) > 1 else {}


def _draw(comparison: Comparison, student: str, lines: dict[str, list[Point]], folder: Path) -> Iterable[Path]:
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise UserError("figures need matplotlib: pip install 'kd-harness[figures]'") from None

    rows = [row for row in comparison.rows if row.student == student and row.teacher in models.CATALOG]
    teachers = {models.facts(row.teacher).params: row.teacher for row in rows}
    with rc_context(STYLE):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        for i, (method, line) in enumerate(lines.items()):
            size, mean, std = zip(*line, strict=True)
            look: Any = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
            axes.errorbar(size, mean, std, label=method, capsize=2, elinewidth=0.8, **look)
        if (alone := rows[0].student_top1) is not None:
            axes.axhline(alone, color="0.4", linestyle=":", label=f"{student} alone")
        axes.set_xscale("log")
        axes.set_xticks(list(teachers), list(teachers.values()), rotation=45, ha="right")
        axes.minorticks_off()
        axes.set_xlabel("teacher, by number of parameters (log scale)")
        axes.set_ylabel(f"top-1 of {student} (%)")
        axes.legend(ncols=2)
        for suffix, metadata in FORMATS.items():
            path = folder / f"capacity_gap_{student}.{suffix}"
            files.replace(path, partial(figure.savefig, format=suffix, metadata=metadata), durable=False)
            yield path
