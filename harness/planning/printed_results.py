"""The results of a command that has trained a sweep: its tables, written into the store and printed."""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

from harness.console.terminal import say
from harness.planning.plan import Planned

if TYPE_CHECKING:
    from harness.reporting.comparison import Contents


def print_results(planned: Planned, contents: "Contents", json_: bool, more: dict[str, Any]) -> None:
    """Write the tables of a sweep, and print one of them; with ``json_``, print them as JSON, with ``more`` keys.

    Raises:
        UserError: a record is damaged.
    """
    from harness.planning import next_steps
    from harness.planning.cost import submissions
    from harness.reporting import comparison, failed_runs
    from harness.reporting.published import table
    from harness.reporting.tables import printed_table, table_folder
    from harness.store.compaction import compact_if_many
    from harness.store.leftovers import remove_leftovers

    remove_leftovers(planned.store)
    compact_if_many(planned.store)  # before the table, which is current as long as its rows stay in the same files
    folder = planned.store.table_folder(planned.name)
    if json_:
        results = table_folder.write_tables(contents, planned.store, folder)
        value = {
            "sweep": planned.name,
            **comparison.comparison_dict(results),
            "published": table.published_dicts(table_folder.published_for(results)),
            "folder": str(folder),
            "submissions": submissions.submission_dicts(planned.store, planned.name),
            **more,
        }
        print(json.dumps(value))
        return
    text = table_folder.current_table(contents, planned.store, folder)
    written = table_folder.write_tables(contents, planned.store, folder) if text is None else None
    if sys.stdout.isatty() or planned.store.failed_ids() & contents.run_ids():
        written = written or next(comparison.load_comparisons([contents], planned.store))
    # The text is not read back: another sweep of this name may write the folder.
    if written and sys.stdout.isatty():
        printed_table.print_comparison(written, planned.store, with_ranks=False)  # the drawing takes their place
        next_steps.print_chart(written)
    else:
        notes = failed_runs.failure_notes(written, planned.store) if written else []  # read before anything is printed
        print(text or (written and table_folder.table_text(written, table_folder.TABLE)))
        for note in notes:
            say(note)
    submissions.say_submissions(planned.store, planned.name, contents.run_ids())
    say(f"Tables (.md, .tex, .csv, .html) and records.parquet: {os.path.relpath(folder)}/")
    if sys.stdout.isatty():
        next_steps.say_next_steps(planned, contents, bool(written and written.ranking))
