"""``python -m harness.verify``: check records and weights, rebuild every table and compare it byte for byte."""

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.console import options
from harness.console.terminal import at_words
from harness.errors import EXIT_RUN_FAILED, Unreadable, UserError, error_lines
from harness.phrases import plural
from harness.store import files

if TYPE_CHECKING:
    from harness.store.store import Store

BINARY = (".parquet", ".pdf")
BLOCK = 1 << 20  # bytes in memory at a time
SHOWN = 30  # bytes printed before and after a difference


def verify(
    results: options.Results = Path("results"),
    tables: Annotated[
        Path | None,
        typer.Option(help="Folder of the tables to check, one folder per sweep (default: tables/ in the store)."),
    ] = None,
) -> None:
    """Check that records, trained weights and tables are as they were written.

    Example: python -m harness verify --results results/published

    Every record is compared with its checksum, and trained weights with the checksum in their record. Records of
    earlier versions of the harness have no checksum; they are counted.

    Then every table and the figures beside it are built again from the records, the tables of a tuning from its log,
    and the logs and verdicts of the store's claims. All are compared byte for byte with the files.

    Exit code: 0 all is as it was written, 1 a byte differs or a file is damaged, 2 wrong input.
    """
    from harness.reporting.claims import claim_folders
    from harness.store import records
    from harness.store.store import Store
    from harness.store.verification import Verification, verify_records

    store = Store.existing(results)
    home = tables or store.all_tables
    folders = [p for p in files.entries(home) if p.is_dir() and files.entries(p)]
    claims = [] if tables else claim_folders(store.claims)
    verified = verify_records(store)
    if not (folders or claims) and (tables or verified == Verification()):
        raise UserError(f"{home}: no table to verify" + ("" if tables else f", and no record in {store.root}"))
    records.note_unsealed(store, verified.unsealed)
    for damage in verified.damage:
        print(at_words(f"DAMAGED {damage}", sys.stdout))
    without = f" ({verified.unsealed:,} without a checksum)" if verified.unsealed else ""
    checked = f"{plural(verified.records, 'record')}{without}, weights of {plural(verified.weights, 'run')}"
    print(at_words(f"checked {store.root}: {checked}", sys.stdout))
    different = len(verified.damage)
    for folder in [*folders, *claims]:
        differences, count = (_check_claim if folder in claims else _check_tables)(store, folder)
        different += len(differences)
        for text in differences:
            print(at_words(text, sys.stdout))
        if count:
            print(f"checked {folder}: {plural(count, 'file')}")
    if different:
        raise typer.Exit(EXIT_RUN_FAILED)


def _check_tables(store: "Store", folder: Path) -> tuple[list[str], int]:
    """Return a line for each difference between a folder's tables and rebuilt ones, and the number of its files.

    It is compared again where a process has written to it meanwhile.
    """
    from harness.reporting.tables import table_folder

    while True:
        version = table_folder.settled_version(folder)
        differences, count = _compare_tables(store, folder)
        if not differences or version == table_folder.settled_version(folder):
            return differences, count


def _compare_tables(store: "Store", folder: Path) -> tuple[list[str], int]:
    from harness.reporting import figures, tuning
    from harness.reporting.comparison import Contents
    from harness.reporting.tables import digests, gap, table_folder

    with tempfile.TemporaryDirectory() as scratch:
        rebuilt = Path(scratch) / folder.name
        names = {p.name for p in folder.iterdir() if p.is_file()}
        try:
            if not names or names - set(tuning.FILES):  # a tuning's tables stand alone until the final runs
                compared = table_folder.write_tables(Contents.read(folder), store, rebuilt)
                if names & {*table_folder.FIDELITY}:
                    table_folder.write_fidelity(compared, store, rebuilt)
                if any(Path(name).suffix[1:] in figures.FORMATS for name in names):
                    figures.write_figures(compared, store, rebuilt)
                if gap.FILE in names:
                    table_folder.write_gap(compared, store, rebuilt)
            if not names.isdisjoint(tuning.FILES):
                tuning.write_tuning(tuning.read_tuning(store, folder.name), rebuilt)
        except Unreadable:
            raise
        except UserError as e:
            return [f"DAMAGED {e}"], 0
        names = (names | {p.name for p in rebuilt.iterdir()}) - {digests.FILE}  # read with the contents
        found = ((name, _first_difference(folder / name, rebuilt / name)) for name in sorted(names))
        return [f"DIFFERENT {folder / name}: {difference}" for name, difference in found if difference], len(names)


def _check_claim(store: "Store", folder: Path) -> tuple[list[str], int]:
    """Return a line for each difference between a claim's log or verdict and the rebuilt one, and their number."""
    from harness.reporting.claim_files import write_claim
    from harness.reporting.claims import check_claim

    with tempfile.TemporaryDirectory() as scratch:
        try:
            rebuilt = write_claim(check_claim(folder, store), Path(scratch))
        except Unreadable:
            raise
        except UserError as e:
            return [f"DAMAGED {line}" for line in error_lines(e)], 0
        found = ((folder / path.name, _first_difference(folder / path.name, path)) for path in rebuilt)
        return [f"DIFFERENT {path}: {difference}" for path, difference in found if difference], len(rebuilt)


def _first_difference(old: Path, new: Path) -> str | None:
    """Describe the first difference; None where there is none."""
    if not old.exists():
        return "is missing"
    if not new.exists():
        return "is not among the files that the records give"
    with old.open("rb") as first, new.open("rb") as second, files.errors_named(old):
        at, before, after = 0, first.read(BLOCK), second.read(BLOCK)
        while before == after and before:
            at, before, after = at + len(before), first.read(BLOCK), second.read(BLOCK)
    if before == after:
        return None
    pairs = enumerate(zip(before, after, strict=False))
    at += next((i for i, (b, a) in pairs if b != a), min(len(before), len(after)))
    if old.suffix in BINARY:
        return f"differs at byte {at}"
    before, after = old.read_bytes(), new.read_bytes()
    line = before.count(b"\n", 0, at) + 1
    start = max(before.rfind(b"\n", 0, at) + 1, at - SHOWN)
    excerpt, rebuilt = (text[start : at + SHOWN].decode(errors="replace") for text in (before, after))
    return f"line {line}: {excerpt!r}, rebuilt {rebuilt!r}"


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(verify)
