"""``python -m harness.merge STORE... --into STORE``: copy what other stores have trained into one."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.console.terminal import at_words, say
from harness.errors import EXIT_OK, EXIT_RUN_FAILED, UserError
from harness.phrases import plural, some

if TYPE_CHECKING:
    from harness.store.store import Store
    from harness.store.store_merge import SourceMerge, StoreMerge


def merge(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Stores to read; they are never changed.")],
    into: Annotated[Path, typer.Option("--into", metavar="STORE", help="The store that takes what they have.")],
    plan: Annotated[bool, typer.Option("--plan", help="Print what would be taken; write nothing.")] = False,
) -> None:
    """Copy what other stores have trained into one: records, weights, and the logs of tunings.

    Example: python -m harness merge /scratch/results-of-b --into results

    A run has the same id wherever it is trained, so each is there once. If two stores have different results of a run,
    both are shown and nothing is written. If only the host, the time or the commit differs, the record in --into stays.
    Records and weights are compared with their checksums; a link, or a file outside of a store, is refused.

    Safe at any time, while jobs write and others read. Repeated, it takes what is new since then. Tables, failures,
    logs and checkpoints are not taken: `report FILE` writes tables of all records.

    Exit code: 0 all is there, 1 a run of --into is in training or copied by another process, 2 wrong input.
    """
    from harness.console.progress import FilesProgress
    from harness.store import compaction, ownership
    from harness.store.store import Store
    from harness.store.store_merge import carry_out, plan_merge

    target = Store.at(into)
    sources = [_source(path, target) for path in dict.fromkeys(stores)]
    planned = plan_merge(sources, target)
    if not plan:
        ownership.check_writable([target.root, target.records, target.run("any").parent, target.all_tunings])
        with FilesProgress("runs") as progress:
            carry_out(planned, progress.tell)
        compaction.compact_if_many(target)
    for line in _lines(planned, plan):
        print(at_words(line, sys.stdout))
    busy = {run_id for source in planned.sources for run_id in source.busy}
    if busy:
        them, are = ("it", "it is") if len(busy) == 1 else ("them", "they are")
        say(
            f"{plural(len(busy), 'run')} not taken, as another process trains or copies {them}: {some(sorted(busy))}; "
            f"merge again when {are} done"
        )
    raise typer.Exit(EXIT_RUN_FAILED if busy else EXIT_OK)


def _source(path: Path, into: "Store") -> "Store":
    from harness.store.store import Store

    store = Store.existing(path)
    if store.root == into.root:
        raise UserError(f"{path}: is the store of --into; name others")
    if not any(folder.is_dir() for folder in (store.records, store.compact, store.run("any").parent)):
        raise UserError(f"{path}: no store: it has no folder records, compact or runs")
    return store


def _lines(merge: "StoreMerge", plan: bool) -> list[str]:
    lines = [line for source in merge.sources for line in _source_lines(source, plan)]
    missing = merge.missing_teachers(plan)
    for run_id, record in missing.items():
        without = some([str(s.source.root) for s in merge.sources if run_id in s.records])
        lines.append(
            f"teacher {record.student} (run {run_id}): weights not in {without}: its students that are left to train "
            "need them"
        )
    taken = sum(len(source.new) if plan else len(source.taken) for source in merge.sources)
    there = sum(source.there for source in merge.sources)
    return [
        *lines,
        f"{merge.into.root}: {plural(taken, 'record')} {'to take' if plan else 'taken'}, {there:,} already there, "
        f"0 conflicts, weights of {plural(len(missing), 'teacher')} missing",
    ]


def _source_lines(source: "SourceMerge", plan: bool) -> list[str]:
    root, verb = source.source.root, "to take" if plan else "taken"
    without = source.without_weights()
    count = len(source.new) if plan else len(source.taken)
    lines = [f"{root}: {plural(count, 'record')} {verb}, {source.there:,} already there"]
    if source.other_provenance:
        lines[0] += f" ({source.other_provenance:,} with another host, time or commit: the record in --into stays)"
    if source.weights:
        lines.append(f"{root}: weights of {plural(len(source.weights), 'run')} {verb} whose record was there")
    if without:
        lines.append(f"{root}: weights of {plural(len(without), 'run')} are not there: {some(without)}")
    if source.running:
        lines.append(f"{root}: {plural(source.running, 'run')} in training, whose records are not there yet")
    for tuning in source.tunings:
        if not tuning.is_same:
            lines.append(f"{root}: tuning of {tuning.sweep} not taken: --into has another one, which stays")
        elif tuning.is_new:
            lines.append(f"{root}: tuning of {tuning.sweep} {verb}")
    return lines


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(merge)
