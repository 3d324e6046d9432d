"""``python -m harness.verify``: rebuild every table from the records and compare byte for byte."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from harness import options
from harness.errors import EXIT_RUN_FAILED, UserError


def verify(
    results: options.Results = Path("results"),
    tables: Annotated[
        Path | None, typer.Option(help="Folder of the tables to check (default: the store's own).")
    ] = None,
) -> None:
    """Rebuild every table from the record files. Exit code 1 on any byte of difference and on damaged records."""
    from harness.reporting import comparison, publish
    from harness.store.store import Store

    store = Store(results.resolve())
    home = tables or store.table_folder("x").parent
    folders = sorted(p for p in home.glob("*") if p.is_dir() and any(p.iterdir()))
    if not folders:
        raise UserError(f"{home}: no table to verify")
    different = 0
    with tempfile.TemporaryDirectory() as scratch:
        for folder in folders:
            rebuilt = Path(scratch) / folder.name
            try:
                publish.publish(comparison.Contents.read(folder), store, rebuilt)
            except UserError as e:
                different += 1
                print(f"DAMAGED {e}")
                continue
            names = {p.name for p in folder.iterdir() if p.is_file()} | {p.name for p in rebuilt.iterdir()}
            for name in sorted(names):
                old, new = folder / name, rebuilt / name
                if not old.exists() or not new.exists() or old.read_bytes() != new.read_bytes():
                    different += 1
                    print(f"DIFFERENT {old}")
            print(f"checked {folder}: {len(names)} files")
    if different:
        raise typer.Exit(EXIT_RUN_FAILED)


if __name__ == "__main__":
    from harness.cli import run_one

    run_one(verify)
