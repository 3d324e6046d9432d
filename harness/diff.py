"""``python -m harness.diff``: what differs between two sweep files, two runs or two stores."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.console import options
from harness.console.terminal import at_words
from harness.errors import EXIT_RUN_FAILED, UserError

if TYPE_CHECKING:
    from harness.store.store import Store

FILE, STORE, RUN = "a sweep file", "a store", "a run"
A = Annotated[
    str,
    typer.Argument(
        metavar="A", help="A sweep file, a store's folder, or a finished run of --results: its id or the start."
    ),
]
B = Annotated[str, typer.Argument(metavar="B", help="Another one.")]


def diff(
    a: A,
    b: B,
    results: options.Results = Path("results"),
    data: options.Data = None,
    json_: options.Json = False,
) -> None:
    """Compare two sweep files, two runs, two stores, or a sweep file with a run, key by key.

    Examples:

    \b
    python -m harness diff benchmarks/digits_pairs.yaml mine.yaml
    python -m harness diff 5db340024a a5ed7ab4b1 --results results
    python -m harness diff results other_results

    Sweep files are compared by the runs that they train: two spellings of one sweep are equal. Runs with the same
    teacher, student, method and seed are compared with each other.

    Of two runs, the science is shown first (all that decides a run's id), then provenance, results and cost.

    Stores are equal if they have the same runs with the same results. Other commits and machines are shown, but make
    no difference.

    Exit code: 0 equal, 1 different, 2 wrong input.
    """
    from harness.planning import difference_reports as reports
    from harness.planning.plan import plan_sweep

    kinds = _kind(a), _kind(b)
    if kinds == (FILE, FILE):
        report = reports.of_sweeps(*(plan_sweep(Path(side), results, data) for side in (a, b)))
    elif kinds == (STORE, STORE):
        report = reports.of_stores(_store(Path(a)), _store(Path(b)))
    elif kinds == (RUN, RUN):
        store = _store(results)
        report = reports.of_runs(store, *(store.find(side, str(results)) for side in (a, b)))
    elif STORE not in kinds:
        file, prefix = (a, b) if kinds[0] == FILE else (b, a)
        store = _store(results)
        run = store.find(prefix, str(results))
        report = reports.of_sweep_and_run(plan_sweep(Path(file), results, data), store, run, run_first=file == b)
    else:
        raise UserError(f"{a} is {kinds[0]} and {b} {kinds[1]}; a store is compared with a store")
    print(json.dumps(report.facts) if json_ else at_words("\n".join(report.lines), sys.stdout))
    if report.is_different:
        raise typer.Exit(EXIT_RUN_FAILED)


def _kind(side: str) -> str:
    """Return what an argument names; anything that is no file or folder, nor like the name of one, is a run."""
    path = Path(side)
    if path.is_dir():
        return STORE
    if path.exists() or path.suffix in (".yaml", ".yml"):
        return FILE
    if path.name != side:
        raise UserError(f"{side}: no such file or folder; expected a sweep file, a store's folder or a run's id")
    return RUN


def _store(folder: Path) -> "Store":
    """Return the store in a folder.

    Raises:
        UserError: there is no such folder, or it is none of a store.
    """
    from harness.store.store import Store

    store = Store.existing(folder)
    if not (store.records.is_dir() or store.compact.is_dir()):
        raise UserError(f"{folder}: expected a store, but there is no record in this folder")
    return store


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(diff)
