"""``python -m harness.sweep FILE``: plan, train what is missing, watch, report."""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.console import options
from harness.errors import EXIT_OK, EXIT_RUN_FAILED, UserError

if TYPE_CHECKING:
    from harness.planning.cost.estimate import Estimate
    from harness.planning.plan import Planned
    from harness.reporting.comparison import Contents
    from harness.reporting.pairwise import PairwiseTest


def sweep(
    file: options.SweepFile,
    results: options.Results = Path("results"),
    data: options.Data = None,
    cluster: Annotated[
        str,
        typer.Option(help="Where jobs run: local (processes here), a profile in slurm/profiles/, or a profile's file."),
    ] = "local",
    set_: options.Set = [],  # noqa: B006 (typer reads it, nothing changes it)
    only: options.Only = [],  # noqa: B006
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would run, the time and disk it takes, and stop.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the jobs and return; `status` shows them.")] = False,
    max_parallel: Annotated[
        int | None,
        typer.Option(
            min=1, help="Jobs at once (default here: one per GPU, else per core, at most 8; on a cluster: all)."
        ),
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train failed runs again.")] = False,
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided",
            help="When the file's seeds are done, add seeds where methods of neighbouring rank are not told apart "
            "(with --baseline: each method and that one).",
        ),
    ] = False,
    max_seeds: Annotated[
        int | None,
        typer.Option(min=2, max=10_000, help="With --until-decided: seeds in all, at most (default: 10)."),
    ] = None,
    baseline: options.Baseline = None,
    margin: options.Margin = None,
    mix_protocols: options.MixProtocols = False,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Time a few steps on this machine of what no past run is like (seconds for each kind of pack).",
        ),
    ] = False,
    json_: options.Json = False,
) -> None:
    """Train every student of a sweep file that has no record yet, and print the comparison.

    Running it again does only what is missing. Ctrl-C leaves the jobs running; the same command takes them up again.
    Exit code: 0 all done, 1 some run failed, 2 wrong input.
    """
    from harness.console.terminal import say
    from harness.planning.plan import plan_sweep
    from harness.reporting import protocol_guard

    if cluster != "local":
        if probe:
            raise UserError("--probe measures this machine: give it in a job on a node with --plan, without --cluster")
        from slurm import profiles

        profiles.load_profile(cluster)
    planned = plan_sweep(file, results, data, set_, only, fetch=not plan)
    cells, changes = planned.plan.cells, protocol_guard.recipe_changes(planned.plan)
    protocol_guard.refuse_mixed(planned.document.source, cells, changes, mix_protocols)
    if baseline is not None:  # a slip of the pen is told before anything is trained
        _contents(planned, baseline, margin)
    if until_decided:
        from harness.planning import adaptive_seeds

        if detach:
            raise UserError("--until-decided waits for the runs it decides by: give it without --detach")
        limit = max_seeds or adaptive_seeds.MAX_SEEDS
        adaptive_seeds.check_seed_limit(planned, limit, only)
    elif max_seeds is not None:
        raise UserError("--max-seeds goes with --until-decided")
    work = _work(planned, cluster, retry_failed, max_parallel, probe)
    if not json_:
        (print if plan else say)(_summary_text(planned, work))
    if plan:
        if json_:
            print(json.dumps({**_summary(planned, work), "run_ids": list(planned.plan.runs)}))
        return
    if work.to_do:
        queue_file = _submit(planned, cluster, work)
        if detach:
            say(f"detached; watch with: python -m harness.status {file} --results {results} --watch")
            return
        _watch(planned, queue_file)
    undecided = None
    if until_decided:

        def further() -> "Planned":
            planned = plan_sweep(file, results, data, set_, only, fetch=True)
            work = _work(planned, cluster, False, max_parallel, probe=False)
            say(_summary_text(planned, work))
            _watch(planned, _submit(planned, cluster, work))
            return planned

        planned, undecided = adaptive_seeds.until_decided(
            planned, lambda planned: _contents(planned, baseline, margin), further, baseline, limit
        )
    _report(planned, _contents(planned, baseline, margin), undecided, json_)
    states = set(planned.states().values())
    raise typer.Exit(EXIT_OK if states == {"done"} else EXIT_RUN_FAILED)


def _contents(planned: "Planned", baseline: str | None, margin: float | None) -> "Contents":
    from harness.reporting.comparison import Contents

    return Contents.of(planned.name, planned.plan).asked(baseline, margin)


@dataclass(frozen=True)
class Work:
    """What is left of a sweep."""

    states: dict[str, str]
    to_do: frozenset[str]
    packs: int
    at_once: int  # jobs
    estimate: "Estimate | None"  # None: there is nothing to do


def _work(planned: "Planned", cluster: str, retry_failed: bool, max_parallel: int | None, probe: bool) -> Work:
    from harness import hardware
    from harness.planning.cost import devices, estimate

    states = planned.states()
    to_do = {k for k, s in states.items() if s == "to do" or (retry_failed and s == "failed")}
    packs = sum(not to_do.isdisjoint(p.run_ids) for p in planned.plan.packs)
    at_once = max_parallel or (packs if cluster != "local" else len(hardware.gpus()) or min(8, hardware.cores()))
    at_once = max(1, min(at_once, packs))
    if not to_do:
        return Work(states, frozenset(), packs, at_once, None)
    device = devices.devices(cluster, devices.threads_of_a_job(at_once))
    known = estimate.pack_costs(planned)
    if probe:
        from harness.planning import locate
        from harness.planning.cost import probe_results
        from harness.planning.cost.probe import probe as measure

        measure(planned, to_do, device, known, locate.dataset_folder(planned.plan.sweep.dataset, planned.data_root))
        known = replace(known, found=probe_results.read_probe_results(planned.store))
    return Work(states, frozenset(to_do), packs, at_once, estimate.estimate(planned, to_do, at_once, device, known))


def _summary(planned: "Planned", work: Work) -> dict[str, Any]:
    done = sum(s == "done" for s in work.states.values())
    return {
        "sweep": planned.name,
        "runs": len(work.states),
        "cells": len(planned.plan.cells),
        "to_do": len(work.to_do),
        "done": done,
        "failed": len(work.states) - len(work.to_do) - done,
        "packs": work.packs,
        "jobs_at_once": work.at_once,
        "estimate": asdict(work.estimate) if work.estimate else None,
    }


def _summary_text(planned: "Planned", work: Work) -> str:
    from harness.planning.cost import text

    s = _summary(planned, work)
    lines = [
        f"{s['sweep']}: {s['runs']} runs for {s['cells']} cells: "
        f"{s['to_do']} to do, {s['done']} done, {s['failed']} failed"
    ]
    if work.estimate:
        lines.append(f"{work.packs} packs, {work.at_once} at once")
        lines += text.estimate_lines(work.estimate)
    if s["failed"]:
        lines.append("failed runs stay as they are unless --retry-failed is given")
    return "\n".join(lines)


def _submit(planned: "Planned", cluster: str, work: Work) -> Path:
    """Writes what jobs read, and starts them. Changes no run when data or weights are missing."""
    from harness.console.terminal import say
    from harness.planning import locate
    from harness.planning.cost import devices, submissions
    from slurm import backend
    from slurm.queue import Queue, QueuedPack

    folder = locate.dataset_folder(planned.plan.sweep.dataset, planned.data_root)
    store, to_do = planned.store, work.to_do
    weights = planned.weights_files(to_do)
    for run_id in (k for k in to_do if work.states[k] == "failed"):
        store.forget_failure(run_id)
    packs = []
    for pack in planned.plan.packs:
        sciences = {k: planned.plan.runs[k].science for k in pack.run_ids if k in to_do}
        for run_id, science in sciences.items():
            store.write_science(run_id, science)
        if sciences:
            packs.append(QueuedPack.from_sciences(sciences, pack.needs))
    mark = hashlib.sha256("".join(sorted(planned.plan.runs)).encode()).hexdigest()[:8]
    queue_file = store.queue(f"{planned.name}-{mark}")
    Queue(
        store=str(store.root),
        packs=tuple(packs),
        max_parallel=work.at_once,
        threads=devices.threads_of_a_job(work.at_once),
        data=str(folder) if folder else None,
        weights=weights,
        cluster=None if cluster == "local" else str(Path(cluster).resolve()) if cluster.endswith(".yaml") else cluster,
    ).write(queue_file)
    assert work.estimate
    submissions.note_submission(store, planned.name, to_do, work.estimate)
    if later := backend.backend_of(queue_file).start():
        say(f"{later} runs wait for room under SLURM's limit on submitted jobs: keep watching, or run the sweep again")
    return queue_file


def _watch(planned: "Planned", queue_file: Path) -> None:
    from harness.console.terminal import say
    from harness.planning.watch import watch

    try:
        watch(planned, queue_file, restart=True)
    except KeyboardInterrupt:
        say("left; the jobs go on. The same command takes them up again; `status --cancel` ends them.")
        raise typer.Exit(130) from None


def _report(planned: "Planned", contents: "Contents", undecided: "list[PairwiseTest] | None", json_: bool) -> None:
    from harness.console.terminal import say
    from harness.planning.cost import submissions
    from harness.reporting import comparison
    from harness.reporting.published import table
    from harness.reporting.tables import table_folder
    from harness.store.compaction import compact_if_many

    compact_if_many(planned.store)  # before the table, which is to be younger than what it is made of
    folder = planned.store.table_folder(planned.name)
    if json_:
        found = table_folder.write_tables(contents, planned.store, folder)
        published = table.published_dicts(table_folder.published_for(found))
        said = {
            "sweep": planned.name,
            **comparison.comparison_dict(found),
            "published": published,
            "folder": str(folder),
        }
        said["submissions"] = submissions.submission_dicts(planned.store, planned.name)
        if undecided is not None:
            said["undecided"] = [asdict(contest) for contest in undecided]
        print(json.dumps(said))
        return
    if not table_folder.tables_are_current(contents, planned.store, folder):
        table_folder.write_tables(contents, planned.store, folder)
    print((folder / "table.md").read_text(encoding="utf-8"))
    say("\n".join(submissions.submission_lines(planned.store, planned.name)))
    say(f"Parquet: {folder / 'records.parquet'}")
    say(f"LaTeX:   {folder / 'table.tex'}, {folder / 'paper.tex'} (methods by pairs); also .md, .csv, .html")


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(sweep)
