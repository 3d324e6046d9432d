"""The text under a table on a terminal: the gains as a drawing, and the commands that show more."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from harness.console.terminal import say
from harness.planning.plan import Planned

if TYPE_CHECKING:
    from harness.reporting.comparison import Comparison, Contents

LONGEST_CHART = 40  # lines; a longer one would push the table off the screen
WIDTH = 80  # columns


def print_chart(comparison: "Comparison") -> None:
    """Print the drawing, unless it is long."""
    from harness.reporting.figures.gain_chart import fitted_chart

    chart = fitted_chart(comparison)
    if 0 < chart.count("\n") <= LONGEST_CHART:
        print(f"\n{chart}", flush=True)
    elif chart:
        say("`report FILE --draw` draws the gains\n")


def say_next_steps(planned: Planned, contents: "Contents", has_ranks: bool) -> None:
    """Say which commands show more, and mend what failed. ``has_ranks``: there are pairs to rank the methods over."""
    root = planned.store.root
    store = [] if root == Path("results").resolve() else ["--results", os.path.relpath(root)]
    sweep = [contents.file, *(word for change in contents.sets for word in ("--set", change)), *store]
    say("Look next:")
    ranks = "the methods' ranks and " if has_ranks else ""
    say(_step(f"the table with {ranks}all settings", "report", *sweep, "--settings"))
    say(_step("figures for a paper", "report", *sweep, "--figures", "figures"))
    say(_step("all results of this store as a web page", "leaderboard", *store))
    if "failed" in planned.states().values():
        say(_step("why runs failed, with the ends of their logs", "status", *sweep, "--failures"))
        say(_step("train the failed runs again, when the cause is mended", "sweep", *sweep, "--retry-failed"))
    else:
        say(_step("the state of each run", "status", *sweep))
    say("  what each number means: docs/statistics.md")


def _step(what: str, command: str, *arguments: str) -> str:
    text = shlex.join(["python", "-m", f"harness.{command}", *arguments])
    line = f"  {what}: {text}"
    return line if len(line) <= WIDTH else f"  {what}:\n    {text}"
