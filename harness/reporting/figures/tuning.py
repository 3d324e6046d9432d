"""The figures of a tuning: the best score so far against the images trained on, and the score against each setting."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from harness.phrases import file_name
from harness.reporting.comparison import Comparison
from harness.reporting.figures.style import (
    COLUMN,
    PAGE,
    Drawing,
    Figure,
    look,
    method_looks,
    pair_title,
    set_log_ticks,
    text,
)
from harness.reporting.setting_values import value_text
from harness.reporting.tuning import is_number, scale_of
from harness.spec.lines import grouped
from harness.spec.tasks import shown
from harness.store.tuning_log import Trial, TuningLog


def drawings(log: TuningLog, comparison: Comparison) -> Iterator[Drawing]:
    """Yield the figure of all methods, then one of each method's settings."""
    done = grouped((t for t in log.trials if t.state == "done" and t.value is not None), lambda trial: trial.method)
    score = f"validation {shown(log.score)}"
    pairs = list(comparison.pairs())
    title = pair_title(comparison, pairs[0] if len(pairs) == 1 else f"mean of {len(pairs)} pairs")
    if done:
        caption = f"Best {score} of a method's trials so far against the images that they were trained on."
        yield Drawing("tuning", caption, (COLUMN, 2.2), partial(_draw_progress, log, method_looks(comparison)), title)
    for method, trials in done.items():
        if keys := _varied(trials):
            columns = min(len(keys), 3)
            size = (COLUMN if columns == 1 else PAGE, 1.9 * math.ceil(len(keys) / columns))
            caption = f"{method}: {score} of each trial against its settings; the filled point won."
            draw = partial(_draw_settings, log, trials, keys, columns)
            yield Drawing(file_name("tuning", method), caption, size, draw, f"{title}, {method}")


def _varied(trials: Sequence[Trial]) -> list[str]:
    """Return the keys of settings that differ between trials."""
    keys = sorted(trials[0].settings)
    return [key for key in keys if len({value_text(trial.settings.get(key)) for trial in trials}) > 1]


def best_so_far(trials: Sequence[Trial]) -> tuple[list[int], list[float]]:
    """Return the images trained on after each trial, and the best score until then, from the first score on."""
    images = accumulate(trial.images for trial in trials)
    scores = (trial.value if trial.state == "done" and trial.value is not None else -math.inf for trial in trials)
    points = [(x, y) for x, y in zip(images, accumulate(scores, max), strict=True) if y > -math.inf]
    return [x for x, _ in points], [y for _, y in points]


def _draw_progress(log: TuningLog, looks: Mapping[str, dict[str, Any]], figure: Figure) -> None:
    axes = figure.subplots()
    for method, trials in grouped(log.trials, lambda trial: trial.method).items():
        axes.plot(*best_so_far(trials), label=text(method), drawstyle="steps-post", **looks[method])
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("images trained on")
    axes.set_ylabel(f"best validation {shown(log.score)} (%)")


def _draw_settings(log: TuningLog, trials: Sequence[Trial], keys: Sequence[str], columns: int, figure: Figure) -> None:
    method, colour = trials[0].method, look(0)["color"]
    grid = list(figure.subplots(math.ceil(len(keys) / columns), columns, squeeze=False, sharey=True).flat)
    for axes, key in zip(grid, keys, strict=False):
        values: list[Any] = [trial.settings.get(key) for trial in trials]
        numbers = all(map(is_number, values))
        for trial, value in zip(trials, values, strict=True):
            face = colour if trial == log.winner(method) else "none"
            axes.plot(value if numbers else text(value_text(value)), trial.value, "o", color=colour, mfc=face)
        if numbers and scale_of(log.search.get(method, {}).get(key)) == "log" and min(values) > 0:
            axes.set_xscale("log")
            set_log_ticks(axes.xaxis, (1, 3))
            axes.minorticks_off()
        axes.set_xlabel(text(key))
    for axes in grid[len(keys) :]:
        axes.set_axis_off()
    grid[0].set_ylabel(f"validation {shown(log.score)} (%)")
