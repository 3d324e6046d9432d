"""The gain of each method over the baseline, a panel per pair: from the smallest capacity gap to the largest."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from harness.reporting.comparison import Comparison, Row
from harness.reporting.figures.style import COLUMN, LETTER, PAGE, Drawing, Figure, lines, text, wrapped
from harness.spec import models
from harness.spec.lines import PairNames

NAME = "gap"
MOST_PAIRS = 6  # side by side; more would be too narrow to read
LINE, MORE, ENDS = 0.17, 0.13, 0.75  # inches: a method's line, a further line of text, title and axis of a panel


def gains_by_pair(comparison: Comparison) -> dict[PairNames, list[Row]]:
    """Return the rows with a difference to the baseline, the largest gain first; pairs without one are left out.

    Pairs stand in the order of the teacher's size over the student's, where all sizes are known.
    """
    rows = {
        pair: sorted((row for row in of_pair if row.to_baseline), key=lambda row: -_gain(row))
        for pair, of_pair in comparison.pairs().items()
    }
    rows = {pair: of_pair for pair, of_pair in rows.items() if of_pair}
    if not all(models.has_model_facts(name) for pair in rows for name in pair):
        return rows
    return dict(sorted(rows.items(), key=lambda item: _size_ratio(item[0])))


def drawings(comparison: Comparison) -> Iterator[Drawing]:
    """Yield one figure, of the first pairs where there are many."""
    if rows := dict(list(gains_by_pair(comparison).items())[:MOST_PAIRS]):
        contents, width = comparison.contents, PAGE if len(rows) > 1 else COLUMN
        panel = 0.9 * width / len(rows)
        names = {row.method: wrapped(row.method, panel / 2) for of_pair in rows.values() for row in of_pair}
        beside = panel - LETTER * max(len(line) for name in names.values() for line in name.splitlines())
        titles = {pair: wrapped(str(pair), beside) for pair in rows}
        height = MORE * (lines(*titles.values()) - 1)
        height += (LINE + MORE * (lines(*names.values()) - 1)) * max(map(len, rows.values()))
        yield Drawing(
            NAME,
            f"{contents.name}: gain over {contents.baseline} in points of last-epoch {contents.task.shown}, paired by "
            "seed; bars: 95 % intervals of the mean over seeds, by Student's t.",
            (width, ENDS + height),
            partial(
                _draw,
                rows,
                names,
                titles,
                f"gain over {contents.baseline} (points of {contents.task.shown} on {text(contents.shown_dataset)})",
            ),
        )


def _gain(row: Row) -> float:
    return row.to_baseline.mean if row.to_baseline else 0.0


def _size_ratio(pair: PairNames) -> float:
    teacher, student = (models.model_facts(name).params for name in pair)
    return teacher / student


def _draw(
    rows: Mapping[PairNames, Sequence[Row]], names: Mapping[str, str], titles: Mapping[PairNames, str], label: str,
    figure: Figure,
) -> None:  # fmt: skip
    for axes, (pair, of_pair) in zip(
        figure.subplots(1, len(rows), squeeze=False, sharex=True)[0], rows.items(), strict=True
    ):
        axes.axvline(0, color="0.4", linestyle=":")
        for place, row in enumerate(of_pair):
            mean, ends = _gain(row), row.tested.interval if row.tested else None
            bar = [[mean - ends.low], [ends.high - mean]] if ends else None
            axes.errorbar(mean, place, xerr=bar, color="#0072B2", marker="o", capsize=2, elinewidth=0.8)
        axes.set_yticks(range(len(of_pair)), [names[row.method] for row in of_pair])
        axes.invert_yaxis()
        axes.set_title(titles[pair])
    figure.supxlabel(label, fontsize=8)
