"""Live view of all that runs or waits in a store, read from it: watching can stop and start again at any time."""

import time
from collections.abc import Iterator

from rich.live import Live
from rich.text import Text

from harness.console.terminal import console, escape_output, say
from harness.errors import printable
from harness.phrases import percent
from harness.planning.run_states import counts_text
from harness.planning.store_sweeps import StoreSweep, StoreSweeps, overview
from harness.store.store import Store

LOOK_SECONDS = 2.0
LINE_SECONDS = 60  # between lines about each sweep where nothing can be drawn


def watch_store(store: Store) -> None:
    """Show what runs or waits in a store until nothing does, with a line for each run that ends.

    Raises:
        KeyboardInterrupt: ctrl-C; the jobs continue.
    """
    stderr, sweeps, next_line = console(), StoreSweeps(store), 0.0
    seen = sweeps.look()
    with Live(console=stderr, transient=True, auto_refresh=False) as live:  # shows nothing where stderr is no terminal
        escape_output()  # rich reads commands in what is printed from here on
        while any(sweep.active for sweep in seen):
            begin = time.monotonic()
            lines = [text for text, _ in overview(seen)]
            if (rest := len(lines) - stderr.height + 2) > 1:
                lines = [*lines[:-rest], f"and {rest:,} more lines"]
            drawn = Text("\n".join(map(printable, lines)), no_wrap=True, overflow="ellipsis")
            live.update(drawn, refresh=True)
            if begin >= next_line and (not stderr.is_terminal or stderr.is_dumb_terminal):
                next_line = begin + LINE_SECONDS
                for sweep in seen:
                    if sweep.active:
                        say(f"{time.strftime('%H:%M:%S')} {sweep.name}: {counts_text(sweep.counts)}")
            time.sleep(max(LOOK_SECONDS, 4 * (time.monotonic() - begin)))  # of a large store, seldom
            before, seen = seen, sweeps.look()
            for line in _ended(store, before, seen):
                stderr.print(Text(printable(line)), soft_wrap=not stderr.is_terminal)
    for text, _ in overview(seen):
        say(text)


def _ended(store: Store, before: list[StoreSweep], now: list[StoreSweep]) -> Iterator[str]:
    """Yield a line for each run that has ended, or lost its job, since it was seen before."""
    active = {row["run_id"] for sweep in now for row in sweep.active}
    labels = {row["run_id"]: (row["label"], sweep) for sweep in before for row in sweep.active}
    done, failed = (store.done_ids(), store.failed_ids()) if labels.keys() - active else (set(), set())
    for run_id, (label, sweep) in labels.items():
        if run_id in active:
            continue
        result = "has no job any more"
        if run_id in done:
            score = store.progress(run_id).get(sweep.task.score)
            result = "diverged" if score is None else f"{sweep.task.shown} {percent(score)}"
        elif run_id in failed:
            failure = store.failure(run_id)
            result = f"FAILED: {failure.cause if failure else '?'}"
        yield f"{time.strftime('%H:%M:%S')} {sweep.name}: {label}: {result}"
