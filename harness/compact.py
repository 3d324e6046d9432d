"""``python -m harness.compact``: a store's small record files become a few Parquet files."""

import time
from pathlib import Path
from typing import Annotated

import typer

from harness.console import options


def compact(
    results: options.Results = Path("results"),
    grace: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Keep what was replaced so long, for readers on other machines that see changes late; wait for it. "
            "0 where no other machine reads.",
        ),
    ] = 90,
) -> None:
    """Put the records of finished runs, a file each, into Parquet files partitioned by dataset.

    Safe at any time, while jobs write and others read. `sweep` does it by itself when there are many.
    """
    from harness.console.terminal import say
    from harness.errors import UserError
    from harness.store import compaction
    from harness.store.store import Store

    store = Store(results.resolve())
    if not store.root.is_dir():
        raise UserError(f"{results}: no such store")
    count = compaction.compact(store, grace)
    if count is None:
        say(f"{results}: another process is compacting it")
        return
    held = store.view().generation
    say(f"{count} records compacted; {len(held.run_ids) if held else 0} in {len(held.parts) if held else 0} files")
    if grace and not store.loose_ids().isdisjoint(held.run_ids if held else ()):
        say(f"removing what was replaced in {grace:g} s; ctrl-C leaves that to the next compaction")
        time.sleep(grace)
        compaction.remove_replaced(store, grace)
    if held:
        print(store.all_runs)


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(compact)
