"""Curves over epochs, with bands over seeds: the score, loss terms and a method's diagnostics."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from harness.phrases import file_name
from harness.reporting.comparison import Comparison
from harness.reporting.curves import Curve, Curves, mean_and_std
from harness.reporting.figures.style import (
    PAGE,
    Drawing,
    Figure,
    look,
    method_looks,
    pair_title,
    set_log_ticks,
    text,
    width_for,
)
from harness.spec.lines import PairNames
from harness.spec.science import MethodSettings
from harness.spec.tasks import TaskInfo

BAND = "band: one sample standard deviation over seeds"
Lines = Mapping[str, Sequence[Curve]]  # label -> a curve per seed
Looks = Mapping[str, dict[str, Any]]  # label -> colour, line and marker
_TOTAL = "total"
_TOTAL_LOOK = {"color": "0.6", "linestyle": "-", "marker": "", "linewidth": 2.4, "zorder": 1}  # under its parts
_COLUMNS, _MOST = 3, 12  # panels side by side, and in one figure: four rows of them fill a page


@dataclass(frozen=True)
class Panel:
    title: str
    lines: Lines
    log: bool = False
    y_label: str = ""


def drawings(comparison: Comparison, curves: Mapping[str, Curves]) -> Iterator[Drawing]:
    """Yield the figures of each pair. ``curves``: of the comparison's runs; runs without any are left out."""
    task = comparison.contents.task
    for pair, rows in comparison.pairs().items():
        runs = {row.method: seeds for row in rows if (seeds := [curves[k] for k in row.run_ids if curves.get(k)])}
        methods = {row.method: science.method for row in rows if (science := comparison.science(row))}
        title, looks = pair_title(comparison, pair), method_looks(comparison)
        yield from _pair(pair, runs, methods, task, title, looks)


def _pair(
    pair: PairNames, runs: Mapping[str, list[Curves]], methods: Mapping[str, MethodSettings], task: TaskInfo,
    title: str, looks: Looks,
) -> Iterator[Drawing]:  # fmt: skip
    evaluated = {
        f"test_{task.score}": f"test {task.shown} (%)",
        f"validation_{task.score}": f"validation {task.shown} (%)",
        f"train_{task.score}": f"{task.shown} on the training images (%)",
    }
    curves = _by_name(runs)
    panels = [Panel(evaluated[name], lines) for name, lines in curves.items() if name in evaluated]
    panels += [Panel(f"{task.loss} in training", curves["train_ce"])] if "train_ce" in curves else []
    yield from _drawing(("curves", *pair), f"{pair}: training curves of every method; {BAND}.", panels, title, looks)

    terms = [
        Panel(method, lines, True, "loss term × its weight")
        for method, seeds in runs.items()
        if len(lines := _terms(seeds, methods[method].weights)) > 2  # else the total is its only term
    ]
    caption = f"{pair}: loss terms times their weights, and their total; {BAND}."
    names = dict.fromkeys(term for panel in terms for term in panel.lines if term != _TOTAL)
    of_terms = {_TOTAL: _TOTAL_LOOK, **{term: look(i) for i, term in enumerate(names)}}
    yield from _drawing(("losses", *pair), caption, terms, title, of_terms)

    for use in dict.fromkeys(m.use for m in methods.values()):
        mine = {m: seeds for m, seeds in runs.items() if methods[m].use == use}
        others = {f"train_{t}" for m in mine for t in (*methods[m].weights, _TOTAL, *task.metrics)}
        panels = [
            Panel(name.removeprefix("train_"), lines)
            for name, lines in _by_name(mine).items()
            if name.startswith("train_") and name not in others
        ]
        yield from _drawing(("diagnostics", use, *pair), f"{pair}: diagnostics of {use}; {BAND}.", panels, title, looks)


def _by_name(runs: Mapping[str, list[Curves]]) -> dict[str, Lines]:
    """Return curve's name -> method -> a curve per seed."""
    names = dict.fromkeys(name for seeds in runs.values() for run in seeds for name in run)
    return {
        name: {m: drawn for m, seeds in runs.items() if (drawn := [run[name] for run in seeds if name in run])}
        for name in names
    }


def _terms(runs: Iterable[Curves], weights: Mapping[str, float]) -> Lines:
    """Return the terms as they enter the total, which a record has beside the unweighted terms. Those of 0 do not."""
    lines: dict[str, list[Curve]] = {}
    for run in runs:
        for name, curve in run.items():
            term = name.removeprefix("train_")
            if name.startswith("train_") and (weight := {**weights, _TOTAL: 1.0}.get(term)):
                lines.setdefault(term, []).append(replace(curve, values=weight * curve.values))
    return lines


def _drawing(
    name: tuple[str, ...], caption: str, panels: Sequence[Panel], title: str, looks: Looks
) -> Iterator[Drawing]:
    """Yield a figure of the panels with curves, or as many as hold them."""
    panels = [
        p for p in panels if any(np.isfinite(mean_and_std(line)[0].values).sum() > 1 for line in p.lines.values())
    ]
    for start in range(0, len(panels), _MOST):
        shown = panels[start : start + _MOST]
        columns = min(len(shown), _COLUMNS)
        rows = math.ceil(len(shown) / columns)
        width = PAGE if columns > 1 else width_for(max(len(panel.lines) for panel in shown))
        size = (width, 1.9 * rows)
        part = () if start == 0 else (str(start // _MOST + 1),)
        yield Drawing(file_name(*name, *part), caption, size, partial(_draw, shown, looks, columns, rows), title)


def _draw(panels: Sequence[Panel], looks: Looks, columns: int, rows: int, figure: Figure) -> None:
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for i, (axes, panel) in enumerate(zip(grid, panels, strict=False)):
        for label, curves in panel.lines.items():
            mean, std = mean_and_std(curves)
            style = {**looks[label], "markevery": max(1, len(mean.epochs) // 6), "markersize": 3}
            axes.plot(mean.epochs, mean.values, label=text(label), **style)
            if len(curves) > 1:
                low, high = mean.values - std, mean.values + std
                axes.fill_between(mean.epochs, low, high, color=style["color"], alpha=0.15, linewidth=0)
        if panel.log and all((c.values > 0).all() for line in panel.lines.values() for c in line):
            axes.set_yscale("log")
            set_log_ticks(axes.yaxis, (1, 2, 5))
            axes.minorticks_off()
        axes.set_title(text(panel.title))
        axes.set_xlabel("epoch")
        axes.set_ylabel(panel.y_label if i % columns == 0 else "")
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
