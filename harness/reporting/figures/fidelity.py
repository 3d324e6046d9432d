"""The score against the agreement with the teacher: whether the better student is the more faithful one."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from harness.phrases import file_name
from harness.reporting.comparison import Comparison, Row
from harness.reporting.figures.style import Drawing, Figure, method_looks, pair_title, text, width_for


def drawings(comparison: Comparison) -> Iterator[Drawing]:
    """Yield a figure per pair with the agreement of two methods."""
    shown = comparison.contents.task.shown
    for pair, rows in comparison.pairs().items():
        if sum(row.fidelity.get("last_agreement") is not None for row in rows) > 1:
            yield Drawing(
                file_name("fidelity", *pair),
                f"{pair}: last-epoch {shown} against the share of {comparison.evaluated_on} images that the student "
                "assigns to the teacher's class; bars: one sample standard deviation over seeds.",
                (width_for(len(rows)), 2.2),
                partial(_draw, rows, shown, method_looks(comparison)),
                pair_title(comparison, pair),
            )


def _draw(rows: Sequence[Row], shown: str, looks: Mapping[str, dict[str, Any]], figure: Figure) -> None:
    axes = figure.subplots()
    for row in rows:
        if (last := row.last) and (agreement := row.fidelity.get("last_agreement")):
            bars: dict[str, Any] = {
                "xerr": agreement.std or 0.0,
                "yerr": last.std or 0.0,
                "capsize": 2,
                "elinewidth": 0.8,
            }
            style = {**looks[row.method], "linestyle": "none"}
            axes.errorbar(agreement.mean, last.mean, label=text(row.method), **bars, **style)
    axes.set_xlabel(f"agreement with {text(rows[0].teacher)} (%)")
    axes.set_ylabel(f"{shown} of {text(rows[0].student)} (%)")
