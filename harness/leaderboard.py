"""``python -m harness.leaderboard``: every record of a store as one HTML page."""

import time
from collections.abc import Iterable, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from harness.console.terminal import say
from harness.errors import UserError
from harness.phrases import plural
from harness.store import files

if TYPE_CHECKING:
    from harness.store.store import Store

POLL_SECONDS = 2.0
REST = 4.0  # times the last page's writing time, as records of a large sweep come every second


def leaderboard(
    results: Annotated[
        list[Path],
        typer.Option("--results", help="The store. Repeatable: the page then has the records of all."),
    ] = [Path("results")],  # noqa: B006 (typer reads it, nothing changes it)
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="The HTML file to write (default: leaderboard.html in the store, of several the first).",
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page again whenever records arrive, until Ctrl-C.")
    ] = False,
) -> None:
    """Write the leaderboard: one HTML file with all records of a store, readable offline.

    Example: python -m harness leaderboard --out leaderboard.html

    With several stores, a run that more than one has is there once. If they have different results of it, both are
    shown and no page is written.
    """
    from harness.store import arrow
    from harness.store.store import Store

    arrow.without_pandas()
    stores = list({s.root: s for s in map(Store.at if watch else Store.existing, results)}.values())
    page, names = out or stores[0].leaderboard, ", ".join(map(str, results))
    sources = _sources(stores)
    if not (sources.done or sources.failed or watch):
        raise UserError(f"{names}: no record yet; run a sweep first")
    took = _write(stores, page)
    print(page)
    if not watch:
        return
    say(f"following {names}; reload an open page to see new results")
    while True:
        time.sleep(max(POLL_SECONDS, REST * took))
        if (now := _sources(stores)) != sources:
            took = _write(stores, page)
            say(f"{page}: {plural(len(now.done), 'record')}, {plural(len(now.failed), 'failure')}")
            sources = now


class _Sources(NamedTuple):
    """The sources of a page. The page is written again when they change."""

    done: Set[str]
    failed: Set[str]
    tables: Set[tuple[Path, int]]
    images: Set[tuple[Path, int]]


def _sources(stores: Sequence["Store"]) -> _Sources:
    from harness.store.store import CONTENTS

    done = frozenset[str]().union(*(store.done_ids() for store in stores))
    failed = set[str]().union(*(store.failed_ids() for store in stores))
    folders = [folder for store in stores for folder in files.entries(store.all_images) if folder.is_dir()]
    tables = [folder / CONTENTS for store in stores for folder in store.tables()]
    tunings = [path for store in stores for path in files.entries(store.all_tunings, "*.json")]
    images = (image for folder in folders for image in files.entries(folder, "*.png"))
    return _Sources(done, failed, _dated([*tables, *tunings]), _dated(images))


def _dated(paths: Iterable[Path]) -> set[tuple[Path, int]]:
    """Return files with the times at which they were changed last, without those that are gone by now."""
    dated = set()
    for path in paths:
        with suppress(FileNotFoundError):
            dated.add((path, path.stat().st_mtime_ns))
    return dated


def _write(stores: Sequence["Store"], page: Path) -> float:
    """Write the page and return the seconds that this took."""
    from harness.reporting.leaderboard.board import build_board
    from harness.reporting.leaderboard.joined_store import joined_store
    from harness.reporting.leaderboard.page import html
    from harness.store import files

    began = time.monotonic()
    with joined_store(stores) as store:
        files.replace_text(page, html(build_board(store)))
    return time.monotonic() - began


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(leaderboard)
