"""``python -m harness.compact``: put a store's small record files into a few Parquet files."""

import time
from pathlib import Path
from typing import Annotated

import typer

from harness.console import options
from harness.console.terminal import say
from harness.phrases import plural


def compact(
    results: options.Results = Path("results"),
    grace: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Wait this long before removing replaced files, for readers on other machines that see changes late. "
            "Use 0 where no other machine reads the store.",
        ),
    ] = 90,
) -> None:
    """Move the records of finished runs, one small file each, into a few Parquet files partitioned by dataset.

    Safe at any time, while jobs write and others read. `sweep` does it by itself when there are many record files.

    Example: python -m harness compact --results results
    """
    from harness.store import compaction, leftovers
    from harness.store.store import Store

    store = Store.existing(results)
    leftovers.remove_leftovers(store)
    count = compaction.compact(store, grace)
    if count is None:
        say(f"{results}: another process is compacting it")
        return
    generation = store.record_index().generation
    runs, parts = (len(generation.run_ids), len(generation.parts)) if generation else (0, 0)
    say(f"{plural(count, 'record')} compacted; {runs:,} in {plural(parts, 'file')}")
    if grace and generation and not store.loose_ids().isdisjoint(generation.run_ids):
        say(f"removing the replaced files in {grace:g} s; ctrl-C leaves that to the next compaction")
        time.sleep(grace)
        compaction.remove_replaced(store, grace)
    if generation:
        print(store.all_runs)


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(compact)
