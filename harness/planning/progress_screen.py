"""The screen of a sweep in progress: a line for each run in training, what the others wait for, and the whole."""

from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from harness.console.short_labels import short_labels
from harness.console.terminal import duration, rough_duration
from harness.errors import printable
from harness.planning.sweep_progress import IN_SLURM, SweepProgress

MOST_REASONS = 3  # lines for what runs wait for
_LEAST_LABEL = 30  # columns that a label gets before the other columns get theirs
_GAP = "  "


def screen(progress: SweepProgress, elapsed: float, part: str, width: int, height: int) -> Text:
    """Return at most ``height`` lines, none wider than ``width``; ``part``: what of a longer work this is, if any."""
    reasons = [f"{count} {reason}" for reason, count in progress.waiting.most_common()]
    shown = reasons if len(reasons) <= MOST_REASONS else reasons[: MOST_REASONS - 1]
    if rest := len(reasons) - len(shown):
        shown.append(f"{sum(n for _, n in progress.waiting.most_common()[-rest:])} for {rest} other reasons")
    waiting = [Text(f"{'waiting' if i == 0 else '':{9}}{printable(text)}", "dim") for i, text in enumerate(shown)]
    lines = _running(progress, width, max(1, height - 1 - len(waiting)))
    lines += [*waiting, _whole(progress, elapsed, part, width)]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines[-height:])


def _running(progress: SweepProgress, width: int, height: int) -> list[Text]:
    """Return a head and a line for each run in training; where these are more than ``height``, the rest as a number."""
    runs = sorted(progress.training, key=progress.labels.__getitem__)
    if not runs or height < 2:
        return []
    shown = runs if len(runs) < height else runs[: height - 2]
    cells = [("epoch", progress.task.shown, "left"), *(_cells(progress, progress.running[k]) for k in shown)]
    columns = [[cell[i] for cell in cells] for i in range(3)]
    widths = [max(map(cell_len, column)) for column in columns]
    kept = [2, 0, 1]  # the columns in the order of what they are worth
    while kept and width - sum(widths[i] + len(_GAP) for i in kept) < _LEAST_LABEL:
        kept.pop()
    label_width = width - sum(widths[i] + len(_GAP) for i in kept)
    labels = short_labels([f"running ({len(runs)})"], label_width)
    labels += short_labels([printable(progress.labels[k]) for k in shown], label_width)
    label_width = min(label_width, max(map(cell_len, labels)))
    lines = []
    for label, row in zip(labels, cells, strict=True):
        padded = label + " " * (label_width - cell_len(label))
        rest = (" " * (widths[i] - cell_len(row[i])) + row[i] for i in sorted(kept))
        lines.append(Text(_GAP.join((padded, *rest)), "dim" if row is cells[0] else ""))
    if rest_count := len(runs) - len(shown):
        lines.append(Text(f"and {rest_count:,} more", "dim"))
    return lines


def _cells(progress: SweepProgress, of_run: dict[str, Any]) -> tuple[str, str, str]:
    """Return a run's epoch, score and time left."""
    if not of_run:
        return "starting", "", ""
    stage = "first " if of_run.get("stage") == "first" else ""
    score = of_run.get(progress.task.score)
    epoch = f"{stage}{min(of_run['epoch'] + 1, of_run['epochs']):.0f}/{of_run['epochs']:.0f}"
    return epoch, "" if score is None else f"{score:.2f}", duration(of_run.get("seconds_left"))


def whole_text(progress: SweepProgress, elapsed: float, part: str) -> Iterable[str]:
    """Yield how far the sweep is, as text of shorter and shorter length."""
    counts = progress.counts
    total = sum(counts.values())
    head = f"{counts['done']}/{total} done" + (f", {counts['failed']} failed" if counts["failed"] else "")
    training = len(progress.training)
    waiting = len(progress.open) - training
    states = f"{head}, {training} running" + (f", {waiting} waiting" if waiting else "")
    left = f"about {rough_duration(progress.left)} left" if progress.left is not None else ""
    if not progress.running and any(reason.startswith(IN_SLURM) for reason in progress.waiting):
        left = left.replace(" left", " once started")
    of_part = f" of {part}" if part and left else ""
    yield ", ".join(filter(None, (states, f"{duration(elapsed)} elapsed", left + of_part)))
    yield ", ".join(filter(None, (states, left)))
    yield ", ".join(filter(None, (head, left)))
    yield head


def _whole(progress: SweepProgress, elapsed: float, part: str, width: int) -> Text:
    """Return the last line: a bar, and how far the sweep is."""
    texts = list(whole_text(progress, elapsed, part))
    text = next((text for text in texts if cell_len(text) <= width), texts[-1])
    room = min(30, width - cell_len(text) - len(_GAP))
    if room < 6:
        return Text(text)
    counts = progress.counts
    trained = counts["done"] + counts["failed"] + sum(p.get("fraction", 0.0) for p in progress.running.values())
    full = int(room * trained / max(1, sum(counts.values())))
    return Text.assemble(("━" * full, "green"), ("━" * (room - full), "dim"), _GAP, text)
