"""Curves over epochs, with bands over seeds: the score, loss terms and a method's diagnostics."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from harness.phrases import file_name
from harness.reporting.comparison import Comparison
from harness.reporting.curves import Curve, Curves, mean_and_std
from harness.reporting.figures.style import COLUMN, PAGE, Drawing, Figure, look, text
from harness.spec.lines import PairNames
from harness.spec.science import MethodSettings
from harness.spec.tasks import TaskInfo

BAND = "band: one sample standard deviation over seeds"
Lines = Mapping[str, Sequence[Curve]]  # label -> a curve per seed
_TOTAL = "total"


@dataclass(frozen=True)
class Panel:
    title: str
    lines: Lines
    log: bool = False


def drawings(comparison: Comparison, curves: Mapping[str, Curves]) -> Iterator[Drawing]:
    """Yield the figures of each pair. ``curves``: of the comparison's runs; runs without any are left out."""
    task = comparison.contents.task
    for pair, rows in comparison.pairs().items():
        runs = {row.method: seeds for row in rows if (seeds := [curves[k] for k in row.run_ids if curves.get(k)])}
        methods = {row.method: science.method for row in rows if (science := comparison.science(row))}
        yield from _pair(pair, runs, methods, task)


def _pair(
    pair: PairNames, runs: Mapping[str, list[Curves]], methods: Mapping[str, MethodSettings], task: TaskInfo
) -> Iterator[Drawing]:
    evaluated = {
        f"test_{task.score}": f"test {task.shown} (%)",
        f"validation_{task.score}": f"validation {task.shown} (%)",
        f"train_{task.score}": f"{task.shown} on the training images (%)",
    }
    curves = _by_name(runs)
    panels = [Panel(evaluated[name], lines) for name, lines in curves.items() if name in evaluated]
    panels += [Panel(f"{task.loss} in training", curves["train_ce"])] if "train_ce" in curves else []
    yield from _drawing(("curves", *pair), f"{pair}: training curves of every method; {BAND}.", panels)

    terms = [
        Panel(method, lines, log=True)
        for method, seeds in runs.items()
        if len(lines := _terms(seeds, {*methods[method].weights, _TOTAL})) > 2  # else the total is its only term
    ]
    caption = f"{pair}: loss terms before their weights, and the weighted total; {BAND}."
    yield from _drawing(("losses", *pair), caption, terms)

    for use in dict.fromkeys(m.use for m in methods.values()):
        mine = {m: seeds for m, seeds in runs.items() if methods[m].use == use}
        others = {f"train_{t}" for m in mine for t in (*methods[m].weights, _TOTAL, *task.metrics)}
        panels = [
            Panel(name.removeprefix("train_"), lines)
            for name, lines in _by_name(mine).items()
            if name.startswith("train_") and name not in others
        ]
        yield from _drawing(("diagnostics", use, *pair), f"{pair}: diagnostics of {use}; {BAND}.", panels)


def _by_name(runs: Mapping[str, list[Curves]]) -> dict[str, Lines]:
    """Return curve's name -> method -> a curve per seed."""
    names = dict.fromkeys(name for seeds in runs.values() for run in seeds for name in run)
    return {
        name: {m: drawn for m, seeds in runs.items() if (drawn := [run[name] for run in seeds if name in run])}
        for name in names
    }


def _terms(runs: Iterable[Curves], terms: set[str]) -> Lines:
    lines: dict[str, list[Curve]] = {}
    for run in runs:
        for name, curve in run.items():
            if name.startswith("train_") and (term := name.removeprefix("train_")) in terms:
                lines.setdefault(term, []).append(curve)
    return lines


def _drawing(name: tuple[str, ...], caption: str, panels: Sequence[Panel]) -> Iterator[Drawing]:
    panels = [p for p in panels if any(len(mean_and_std(line)[0].epochs) > 1 for line in p.lines.values())]
    if panels:
        columns = min(len(panels), 3)
        rows = math.ceil(len(panels) / columns)
        size = (COLUMN if columns == 1 else PAGE, 1.9 * rows)
        yield Drawing(file_name(*name), caption, size, partial(_draw, panels, columns, rows))


def _draw(panels: Sequence[Panel], columns: int, rows: int, figure: Figure) -> None:
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    looks = {label: look(i) for i, label in enumerate(dict.fromkeys(label for p in panels for label in p.lines))}
    for axes, panel in zip(grid, panels, strict=False):
        for label, curves in panel.lines.items():
            mean, std = mean_and_std(curves)
            style = {**looks[label], "markevery": max(1, len(mean.epochs) // 6), "markersize": 3}
            axes.plot(mean.epochs, mean.values, label=text(label), **style)
            if len(curves) > 1:
                low, high = mean.values - std, mean.values + std
                axes.fill_between(mean.epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)
        if panel.log and all((c.values > 0).all() for line in panel.lines.values() for c in line):
            axes.set_yscale("log")
            axes.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        axes.set_title(text(panel.title))
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
