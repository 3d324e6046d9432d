"""Live progress of a sweep, read from the store: watching can stop and start again at any time."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.live import Live
from rich.text import Text

from harness.console.short_labels import short_labels
from harness.console.terminal import console, escape_output, say
from harness.errors import printable, printable_lines
from harness.phrases import plural
from harness.planning.plan import Planned
from harness.planning.progress_screen import screen, whole_text
from harness.planning.progress_summary import summary_lines
from harness.planning.queues import OpenQueue, Queues
from harness.planning.sweep_progress import SweepProgress
from harness.store import files
from harness.store.failure_causes import signature
from slurm import notification
from slurm.blocked_runs import why_blocked
from slurm.queue import cancelled_file

REFRESH_SECONDS = 0.5
LINE_SECONDS = 60  # between lines about the whole where nothing can be drawn
ROUND_SECONDS = 20  # that a tuning may take between two rounds
RESTARTS = 3
Tell = Callable[[str], None]  # tells of failures and ends, and why nothing goes on if that is so
MOST_LINES = 20  # runs up to which a terminal keeps a line for each; of more, for those without a result
_RESULT = 18  # columns of a result after its label
_CAUSE_ABOVE = "the cause above"
_ECHO = 2  # columns of the ^C that a terminal writes after the last line


def watch(
    planned: Planned,
    queues: Queues,
    restart: bool,
    part: str = "",
    table_follows: bool = False,
    tell: Tell | None = None,
) -> None:
    """Show progress until every run is done or failed, or until no queue trains the rest any more; then sum up.

    ``part`` is what of a longer work is watched, if any. ``table_follows``: with the causes of failures under it.
    With ``restart``, runs whose jobs were lost (killed, preempted, their node gone) are started again by the last
    queue, up to RESTARTS times in a row without any run ending. Runs that a cluster could not take yet are started as
    others end. ``tell`` tells the user what has become of the runs, in place of the last queue.

    Raises:
        KeyboardInterrupt: ctrl-C; the jobs continue.
    """
    stderr = console()
    progress = SweepProgress(planned)
    restarts, last_work, next_line = 0, 0.0, time.monotonic() + LINE_SECONDS
    # Live shows nothing where stderr is no terminal.
    with notification.watching() as say_watched, Live(console=stderr, transient=True, auto_refresh=False) as live:
        escape_output()  # rich reads commands in what is printed from here on
        while True:
            begin = time.monotonic()
            queues.update()
            if restart:
                say_watched(queues.opened[-1].path)
            progress.update(queues)
            for line in news(progress, stderr.width if stderr.is_terminal else None):
                stderr.print(encodable(line, stderr.encoding), soft_wrap=not stderr.is_terminal)
            restarts = 0 if progress.settled else restarts
            if restart:
                tell_news(progress, queues.opened[-1], tell)
            elapsed = max(0.0, time.time() - progress.began)
            drawn = screen(progress, elapsed, part, stderr.width - _ECHO, stderr.height - 1)
            live.update(encodable(drawn, stderr.encoding), refresh=True)
            now = time.monotonic()
            if queues.with_job & progress.open:
                last_work = now
            is_between_rounds = planned.plan.sweep.tune and last_work and now - last_work < ROUND_SECONDS
            lost = progress.open - queues.with_job - set(progress.running)
            if not progress.open and not is_between_rounds:
                if restart:
                    (tell or _teller(queues.opened[-1]))("")
                break
            if lost and restart and restarts < RESTARTS and not cancelled_file(queues.opened[-1].path).exists():
                restarts += queues.opened[-1].jobs.start() < len(lost)  # not counted when the cluster takes none now
                time.sleep(1)
            elif lost == progress.open and not is_between_rounds:
                stderr.print(
                    Text(why := _why_nothing_trains(planned, queues.opened, len(lost), restart)), soft_wrap=True
                )
                if restart:
                    (tell or _teller(queues.opened[-1]))(why)
                break
            if now >= next_line and (not stderr.is_terminal or stderr.is_dumb_terminal):
                next_line = now + LINE_SECONDS
                say(f"{time.strftime('%H:%M:%S')} {next(iter(whole_text(progress, elapsed, part)))}")
            time.sleep(max(REFRESH_SECONDS, 4 * (time.monotonic() - begin)))  # of a large sweep, seldom
    for text in summary_lines(progress, part, with_causes=not table_follows):
        stderr.print(Text(printable(text)), soft_wrap=not stderr.is_terminal)


def news(progress: SweepProgress, width: int | None) -> list[Text]:
    """Return a line for each run that ended since the last update, with the cause where it failed.

    The log's end follows the first failure of each cause. On a terminal, many runs have a line only where there is no
    result, so that the table stays in sight. Labels are shortened to fit ``width``; None: they are not.
    """
    lines = []
    finished = len(progress.watched) - len(progress.open) - len(progress.settled)
    for number, run_id in enumerate(progress.settled, finished + 1):
        label = printable(progress.labels[run_id])
        head = f"[{number}/{len(progress.watched)}] "
        is_failed = progress.states[run_id] == "failed"
        after = len(f": FAILED: {_CAUSE_ABOVE}") if is_failed else _RESULT
        head += short_labels([label], width - len(head) - after)[0] if width else label
        if is_failed:
            failure = progress.store.failure(run_id)
            cause = signature(failure) if failure else ()
            shown = _CAUSE_ABOVE if cause in progress.told_causes else failure.cause if failure else "?"
            lines.append(Text(f"{head}: FAILED: {printable(shown)}", style="red"))
            if failure and failure.details and cause not in progress.told_causes:
                progress.told_causes.add(cause)
                details = printable_lines(failure.details).strip().split("\n")[-5:]
                lines.append(Text("    " + "\n    ".join(details), style="dim"))
        else:
            score = progress.store.progress(run_id).get(progress.task.score)
            if width and len(progress.watched) > MOST_LINES and score is not None:
                continue  # the table has it
            result = "diverged" if score is None else f"{progress.task.shown} {score:.2f} %"
            lines.append(Text(f"{head}: {result}"))
    return lines


def tell_news(progress: SweepProgress, opened: OpenQueue, tell: Tell | None = None) -> None:
    """Tell the user of a failure, or that SLURM holds all that could start."""
    if not (tell or opened.queue.notify):
        return
    held = "" if progress.running else why_blocked(opened.queue, opened.jobs, restarts=True)
    if held or any(progress.states[run_id] == "failed" for run_id in progress.settled):
        (tell or _teller(opened))(held)


def _teller(opened: OpenQueue) -> Tell:
    """Return what tells by the command of a queue."""
    return lambda why_stuck: notification.tell(opened.path, lambda _: why_stuck)


def encodable(text: Text, encoding: str) -> Text:
    """Return a text whose drawing a stream of this encoding can show."""
    if not encoding.startswith("utf"):
        text.plain = text.plain.translate(str.maketrans("━…", "-~"))
    return text


def _why_nothing_trains(planned: Planned, opened: Sequence[OpenQueue], runs: int, restart: bool) -> str:
    root = planned.store.root
    is_full = restart and files.is_disk_full(root)  # who only looks writes nothing
    full = f"{root}: no space left on the disk; " if is_full else ""
    end = _last_line(opened[-1].path.with_suffix(".log")) if opened else ""
    return f"{full}nothing trains the remaining {plural(runs, 'run')}; run the sweep again{end}"


def _last_line(log: Path) -> str:
    """Return what a queue's log ends with, which may say why nothing trains; empty where it says nothing."""
    lines = files.tail(log).splitlines() if log.is_file() else []
    return f"; the end of {log}: {printable(lines[-1])}" if lines else ""
