"""``python -m harness.sweep FILE``: plan, train what is missing, watch, report."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.console import options
from harness.console.terminal import at_words, say
from harness.errors import EXIT_OK, EXIT_RUN_FAILED, UserError, one_line


def sweep(
    file: options.SweepFile,
    results: options.Results = Path("results"),
    data: options.Data = None,
    cluster: options.Cluster = "local",
    set_: options.Set = [],  # noqa: B006 (typer reads it, nothing changes it)
    only: options.Only = [],  # noqa: B006
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would run, with estimated time and disk space; start nothing.")
    ] = False,
    script: Annotated[
        bool,
        typer.Option(
            "--script",
            help="With --plan and --cluster: print on stdout, in place of the plan, the scripts that sbatch would be "
            "given, one for each array. `sbatch --test-only` accepts each.",
        ),
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Start the jobs and return; `status FILE --watch` follows them.")
    ] = False,
    max_parallel: options.MaxParallel = None,
    packs_per_job: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most packs of one pair, of different seeds, to train in one job (default: the profile's number; "
            "without one, as many as is known to be cheaper).",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Train failed runs again (default: leave them).")
    ] = False,
    keep_best: Annotated[
        bool,
        typer.Option(
            "--keep-best",
            help="Keep the weights of each run's best epoch beside those of its last; this changes no number.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Before anything starts, let each method take a first step on random images, on this machine's CPU "
            "(seconds, and only what is new), and load given weights; with --plan, only load them.",
        ),
    ] = True,
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided",
            help="When the file's seeds are done, train more until statistical tests decide whether each method "
            "differs from the next in rank (with --baseline: from that method).",
        ),
    ] = False,
    max_seeds: Annotated[
        int | None,
        typer.Option(
            min=2, max=10_000, help="With --until-decided: most seeds in total, including the file's (default: 10)."
        ),
    ] = None,
    baseline: options.Baseline = None,
    margin: options.Margin = None,
    mix_protocols: options.MixProtocols = False,
    notify: options.Notify = None,
    track: options.Track = [],  # noqa: B006
    tensorboard: options.EventFiles = None,
    probe: Annotated[
        bool,
        typer.Option(
            "--probe",
            help="Time a few steps on this machine to estimate packs that resemble no run in the store. "
            "Takes seconds for each kind of pack. Not with --cluster.",
        ),
    ] = False,
    json_: options.Json = False,
) -> None:
    """Train every student of a sweep file that has no record yet, and print the comparison.

    Example: python -m harness sweep benchmarks/digits_pairs.yaml --plan

    Records, logs and tables go into the store (--results). The same command run again trains only what is missing.
    Ctrl-C leaves the jobs running, and the same command watches them again.

    A run is one model trained once, a student or a teacher. A cell is one result: of a pair, a method and a seed.
    A job trains a pack (the runs of one pair and seed, which share data and teacher) or packs of several seeds.

    Exit code: 0 all done, 1 some run failed, 2 wrong input.
    """
    from harness.planning.printed_results import print_results
    from harness.planning.submit import LOCAL, Request, check_writable, scripts, submit, work_of
    from harness.planning.tracking_process import Tracking
    from harness.reporting import protocol_guard
    from harness.store import ownership
    from harness.store.leftovers import remove_leftovers
    from slurm import early_ends
    from slurm.excluded_nodes import excluded_nodes_text

    if cluster != LOCAL:
        if probe:
            raise UserError("--probe measures this machine: give it in a job on a node with --plan, without --cluster")
        from slurm import profiles, submission

        profile = profiles.load_profile(cluster)
        notify = profile.notify if notify is None else notify
        submission.check_path(results)
    if script and not (plan and cluster != LOCAL):
        raise UserError("--script goes with --plan and --cluster: it shows what sbatch would be given")
    if notify is not None:
        from slurm.notify_command import check_command

        check_command(notify)
    places = (file, results, data, set_, only, cluster)
    tracking = Tracking.of(track, tensorboard, detach)
    request = Request(*places, max_parallel, packs_per_job, baseline, margin, keep_best, tracking, notify)
    planned = request.plan(fetch=not plan)
    cells, changes = planned.plan.cells, protocol_guard.recipe_changes(planned.plan)
    protocol_guard.refuse_mixed(planned.document.source, cells, changes, mix_protocols)
    if baseline is not None:  # a wrong name is reported before anything is trained
        request.contents(planned)
    if until_decided:
        from harness.planning import adaptive_seeds

        if detach:
            raise UserError("--until-decided waits for the runs it decides by: give it without --detach")
        limit = max_seeds or adaptive_seeds.MAX_SEEDS
        adaptive_seeds.check_seed_limit(planned, limit, only)
    elif max_seeds is not None:
        raise UserError("--max-seeds goes with --until-decided")
    if not plan:
        early_ends.write_failures(planned.store)
    work = work_of(request, planned, retry_failed, probe, why_again=True)
    if work.to_do and not plan:
        check_writable(work)
    if check and work.to_do:
        from harness.planning.check import check_first_steps, check_given_weights

        if plan:
            check_given_weights(planned, work.to_do)
        else:
            check_first_steps(planned, work.to_do, cluster)
    if not json_:
        if plan and not script:
            print(at_words(work.text(), sys.stdout))
        else:
            say(work.text())
    if work.to_do and not only:
        from harness.planning.store_sweeps import note_of_other_runs

        if note := note_of_other_runs(planned, options.command_for("status", None, results)):
            say(note)
    if plan:
        shown = scripts(work) if script else []
        if notify is not None and not json_ and not script:
            print(f"when it is done, at the first failure and when it is stuck, this runs: {one_line(notify)}")
        if json_:
            print(
                json.dumps(
                    {**work.summary(), "run_ids": list(planned.plan.runs)} | ({"scripts": shown} if script else {})
                )
            )
        elif script:
            print("\n\n".join(shown))
        return
    if note := ownership.writers_note(planned.store.root):
        say(note)
    remove_leftovers(planned.store)
    queue_file, undecided = submit(work) if work.to_do else None, None
    if queue_file and detach:
        say(f"detached; watch with: {options.command_for('status', file, results, set_, only)} --watch")
        return
    try:
        with tracking.running(planned.store):
            request.track(planned)
            if queue_file:
                from harness.planning.queues import Queues
                from harness.planning.watch import watch

                watch(planned, Queues.of(queue_file), restart=True, table_follows=not json_)
            if until_decided:
                planned, undecided = adaptive_seeds.until_decided(request, planned, limit)
    except KeyboardInterrupt:
        say(
            "stopped watching; the jobs continue. Run the same command to watch again, or `status --cancel` to end "
            "them."
        )
        raise typer.Exit(130) from None
    states = set(planned.states().values())  # before the table: what is said after it cannot fail
    if queue_file and (note := excluded_nodes_text([queue_file])):
        say(note)
    more = {} if undecided is None else {"undecided": [asdict(test) for test in undecided]}
    print_results(planned, request.contents(planned), json_, more)
    raise typer.Exit(EXIT_OK if states == {"done"} else EXIT_RUN_FAILED)


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(sweep)
