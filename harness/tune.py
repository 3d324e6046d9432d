"""``python -m harness.tune FILE``: try settings on held-out images, then train the sweep with those that won."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.console import options
from harness.console.terminal import at_words, say
from harness.errors import EXIT_OK, EXIT_RUN_FAILED, UserError, one_line
from harness.phrases import plural

if TYPE_CHECKING:
    from harness.planning.tuning import Tuning
    from harness.store.tuning_log import TuningLog


def tune(
    file: options.SweepFile,
    results: options.Results = Path("results"),
    data: options.Data = None,
    cluster: options.Cluster = "local",
    set_: options.Set = [],  # noqa: B006 (typer reads it, nothing changes it)
    only: options.Only = [],  # noqa: B006
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="Print each method's trials and images, and the estimates for the next round and the final runs; "
            "start nothing.",
        ),
    ] = False,
    no_final: Annotated[
        bool,
        typer.Option(
            "--no-final", help="Tune, write the sweep file with the winning settings, and train no final run."
        ),
    ] = False,
    max_parallel: options.MaxParallel = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Train failed runs again (default: leave them; a failed trial loses). New trials are proposed in "
            "place of those after the first failed one.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Before anything starts, let each method take a first step on random images: with its own settings, "
            "and with each listed value that is no decimal number.",
        ),
    ] = True,
    baseline: options.Baseline = None,
    margin: options.Margin = None,
    mix_protocols: options.MixProtocols = False,
    notify: options.Notify = None,
    track: options.Track = [],  # noqa: B006
    tensorboard: options.EventFiles = None,
    json_: options.Json = False,
) -> None:
    """Try settings of a sweep's methods on held-out training images, then train the sweep with the best of them.

    Example: python -m harness tune benchmarks/digits_tuned.yaml --plan

    The file is a sweep file whose entries have `search` and which has a `tune` block:

    \b
    methods:
      student:
      kd: {search: {params.temperature: [2, 4, 8], weights.kd: {log: [0.1, 10]}}}
    tune: {trials: 12}

    Each method with a search gets the same number of trials.
    Trial 0 has the entry's own settings; Optuna proposes those of the others.
    A trial trains every pair, on seeds of the tuning's own and without the held-out images, and is evaluated on these.
    The trial with the highest mean after the last epoch wins; of equal ones, the earliest.
    Then the sweep's seeds are trained with the winning settings, on the whole training set, and evaluated on the test
    set.

    Trials are runs like all others: the same command continues where it was interrupted, and trains nothing twice.
    RESULTS/tuning/NAME.json has all trials.
    RESULTS/tuning/NAME/tuned.yaml is the sweep with the winning settings, for `sweep`, `status` and `report`.

    Exit code: 0 all final runs done, 1 some run failed, 2 wrong input.
    """
    from harness.planning.printed_results import print_results
    from harness.planning.submit import LOCAL, Request, named_anywhere
    from harness.planning.tracking_process import Tracking
    from harness.planning.tuned_sweep import write_tuned_sweep
    from harness.planning.tuning import NotTrained, Tuning, train
    from harness.planning.tuning_budget import budget_lines
    from harness.planning.tuning_notification import TuningNotification
    from harness.planning.tuning_plan import TuningPlan, winning_settings
    from harness.reporting import protocol_guard
    from harness.reporting.tuning import tuning_dict, tuning_notes
    from harness.spec.expand import parse_only
    from harness.store import ownership
    from harness.store.leftovers import remove_leftovers

    if cluster != LOCAL:
        from slurm import profiles

        profile = profiles.load_profile(cluster)
        notify = profile.notify if notify is None else notify
    if notify is not None:
        from slurm.notify_command import check_command

        check_command(notify)
    tracking = Tracking.of(track, tensorboard)
    places = (file, results, data, set_, only, cluster)
    request = Request(*places, max_parallel, None, baseline, margin, tracking=tracking)
    base = request.plan(fetch=not plan)
    changes = protocol_guard.recipe_changes(base.plan)
    protocol_guard.refuse_mixed(base.document.source, base.plan.cells, changes, mix_protocols)
    if baseline is not None:  # a wrong name is reported before anything is trained
        request.contents(base)
    if notify is not None:
        request = replace(request, notification=TuningNotification.of(notify, base, named_anywhere(cluster)))
    tuning = Tuning(TuningPlan.of(base, parse_only(only, base.plan.sweep)), request, retry_failed, check)
    if plan:
        _print_plan(tuning, json_)
        if notify is not None and not json_:
            print(f"when it is done, at the first failure and when it is stuck, this runs: {one_line(notify)}")
        return
    log = tuning.recorded()
    say("\n".join(budget_lines(tuning.plan)))
    if note := ownership.writers_note(base.store.root):
        say(note)
    remove_leftovers(base.store)
    try:
        with tracking.running(base.store):
            log = tuning.run(log)
            final = tuning.plan.final(log)
            tuned = write_tuned_sweep(final, winning_settings(log))
            _print_tuning(tuning, log, tuned, json_, is_last=no_final)
            states, is_done = dict[str, str](), all(map(log.winner, tuning.plan.spaces))
            if not no_final:
                states = train(request, final, retry_failed, final if check else None, "the final runs")
                is_done = set(states.values()) == {"done"}
            if request.notification:
                request.notification.tell_end(log, states, is_done)
            if no_final:
                raise typer.Exit(EXIT_OK if is_done else EXIT_RUN_FAILED)
    except KeyboardInterrupt:
        say("stopped watching; the jobs continue. Run the same command to go on, or `status --cancel` to end them.")
        raise typer.Exit(130) from None
    except NotTrained:
        raise typer.Exit(EXIT_RUN_FAILED) from None
    except UserError as error:
        if request.notification:
            request.notification.tell_error(error)
        raise
    named = results / tuned.relative_to(final.store.root)
    contents = replace(request.contents(final), file=str(named), sets=(), tuning=tuning_notes(log))
    print_results(final, contents, json_, {"tuning": tuning_dict(log), "tuned": str(tuned)})
    raise typer.Exit(EXIT_OK if is_done else EXIT_RUN_FAILED)


def _print_tuning(tuning: "Tuning", log: "TuningLog", tuned: Path, json_: bool, is_last: bool) -> None:
    """Write the tables of a tuning, and print them; as JSON only where no final runs follow."""
    from harness.reporting.tables.printed_table import print_tuning
    from harness.reporting.tuning import tuning_dict, write_tuning

    name, store = log.sweep, tuning.plan.base.store
    write_tuning(log, folder := store.table_folder(name))
    if not json_:
        print_tuning(log, folder)
    elif is_last:
        print(json.dumps({"sweep": name, "tuning": tuning_dict(log), "tuned": str(tuned)}))
    say(f"sweep file with the winning settings: {tuned}")


def _print_plan(tuning: "Tuning", json_: bool) -> None:
    """Print what the tuning would train, and then the final runs; of the settings that win none is known yet."""
    from harness.planning.submit import work_of
    from harness.planning.tuning_budget import budget_dict, budget_lines

    log = tuning.recorded()
    proposals = tuning.next_round(log)
    stages = [tuning.plan.plan_stage(tuning.first_stage(proposals))] if proposals else []
    works = [work_of(tuning.request, planned, tuning.retry_failed) for planned in (*stages, tuning.plan.final(log))]
    if json_:
        names = ("round", "final")[-len(works) :]
        summaries = {name: work.summary() for name, work in zip(names, works, strict=True)}
        print(json.dumps({**budget_dict(tuning.plan), "recorded": len(log.trials), **summaries}))
        return
    print(at_words("\n".join(budget_lines(tuning.plan)), sys.stdout))
    print(f"{plural(len(log.trials), 'trial')} recorded")
    heads = ("the next round:", "the final runs, whichever settings win:")[-len(works) :]
    for head, work in zip(heads, works, strict=True):
        print(at_words(f"{head}\n{work.text()}", sys.stdout))


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(tune)
