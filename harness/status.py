"""``python -m harness.status``: the states of a sweep's runs, or of all that runs in a store."""

import json
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING, Annotated

import typer

from harness.console import options
from harness.console.terminal import at_words, say
from harness.errors import UserError, collected, printable, printable_lines, raise_mistakes, shorten
from harness.phrases import plural
from harness.store.failure_causes import by_cause

if TYPE_CHECKING:
    from harness.planning.plan import Planned
    from harness.planning.run_states import RunStates
    from harness.store.store import Store


def status(
    file: Annotated[
        Path | None, typer.Argument(help="A sweep file (default: all that runs or waits in the store).")
    ] = None,
    results: options.Results = Path("results"),
    data: options.Data = None,
    set_: options.Set = [],  # noqa: B006
    only: options.Only = [],  # noqa: B006
    watch: Annotated[
        bool, typer.Option("--watch", help="Follow the runs until all have ended; Ctrl-C leaves them running.")
    ] = False,
    logs: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Print the latest log of a run: its id, or the start of it, as in the list; no file is needed. "
            "Characters that could command a terminal are printed as escapes, also to a file.",
        ),
    ] = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="Print every failed run, trials too, with traceback and log, by cause.")
    ] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="End the sweep's jobs; `sweep FILE` resumes them from their checkpoints.")
    ] = False,
    json_: options.Json = False,
) -> None:
    """Show the state of every run of a sweep: to do, pending, running, done or failed.

    Without a file, show all that runs or waits in the store (--results), by sweep: also runs of a file that has been
    edited since, and of other selections.

    A done run that diverged is marked. A pending run is shown with SLURM's reason, a running one with its epoch and
    accuracy. On a cluster, a run without a job is shown with the way its last job ended: timed out, preempted, node
    failed, out of memory, cancelled, lost.

    Example: python -m harness status benchmarks/digits_pairs.yaml --watch

    Exit code: 0 also when runs have failed, 2 wrong input.
    """
    if json_ and (watch or cancel or logs is not None):
        raise UserError("--json goes with the runs' states and with --failures, not with --watch, --cancel or --logs")
    if file is None:
        _of_store(results, data, set_, only, watch, logs, failures, cancel, json_)
        return
    from harness.planning.plan import plan_sweep
    from harness.planning.queues import Queues, open_queue, queue_files
    from harness.planning.store_sweeps import note_of_other_runs
    from slurm import early_ends

    planned = plan_sweep(file, results, data, set_, only)
    planned.say_missing_store()
    early_ends.write_failures(planned.store)
    planned.say_tuned()
    command = options.command_for("status", None, results)
    if not (only or cancel or failures or logs is not None) and (note := note_of_other_runs(planned, command)):
        say(note)
    if cancel:
        _cancel(planned, queue_files(planned, alone=True))
    elif logs is not None:
        _print_log(planned.store, logs, planned.plan.runs)
    elif failures:
        labels = _trials(planned) | {run_id: run.label for run_id, run in planned.plan.runs.items()}
        _print_failures(planned.store, labels, json_)
    elif watch:
        from harness.planning.watch import watch as follow

        try:
            follow(planned, Queues(lambda: _readable(queue_files(planned))), restart=False)
        except KeyboardInterrupt:
            _stop_watching()
        say(f"table: {options.command_for('report', file, results, set_, only)}")
    else:
        from harness.planning.run_states import RunStates
        from slurm.known_jobs import KnownJobs

        known_jobs = KnownJobs()
        opened = [open_queue(path, known_jobs) for path in _readable(queue_files(planned))]
        _print_states(planned, RunStates(planned.store, opened), json_)


def _of_store(
    results: Path, data: Path | None, set_: list[str], only: list[str], watch: bool, logs: str | None, failures: bool,
    cancel: bool, json_: bool,
) -> None:  # fmt: skip
    """Show what runs or waits in a store, whatever sweep it belongs to.

    Raises:
        UserError: there is no such store, or an option is about a sweep file.
    """
    from harness.planning.store_sweeps import StoreSweeps, overview
    from harness.store.store import Store

    if cancel:
        raise UserError("--cancel ends the jobs of one sweep: name its file; `status` without a file lists what runs")
    for option, value in (("--set", set_), ("--only", only), ("--data", data)):
        if value:
            raise UserError(f"{option} is about a sweep file: name one, or leave {option} out")
    store = Store.existing(results)
    if logs is not None:
        _print_log(store, logs, store.ordered_ids())
    elif failures:
        from harness.planning.store_sweeps import labels_of_runs

        _print_failures(store, labels_of_runs(store, store.failed_ids()), json_)
    elif watch:
        from harness.planning.store_watch import watch_store

        try:
            watch_store(store)
        except KeyboardInterrupt:
            _stop_watching()
    elif json_:
        print(json.dumps([sweep.to_json() for sweep in StoreSweeps(store).look()]))
    else:
        for text, hang in overview(StoreSweeps(store).look()):
            print(at_words(text, sys.stdout, hang))


def _stop_watching() -> None:
    say("stopped watching; the jobs continue")
    raise typer.Exit(130) from None


def _readable(queues: list[Path]) -> list[Path]:
    """Return the queues without those of other users that are closed or damaged, which are named.

    Raises:
        UserError: a queue of this user is.
    """
    from harness.store import json_files, ownership
    from slurm.queue import Queue

    readable = []
    for queue_file in queues:
        try:
            Queue.read(queue_file)
        except UserError as e:
            if not ownership.other_owner(queue_file):
                raise
            json_files.print_note(f"{e}; left out")
        else:
            readable.append(queue_file)
    return readable


def _cancel(planned: "Planned", queues: list[Path]) -> None:
    """End the jobs of this user's queues; name those that are left to others.

    Raises:
        UserError: a queue cannot be cancelled from here. Nothing is then left that would keep its jobs from restarts.
    """
    from harness.store import ownership
    from slurm import backend
    from slurm.queue import cancelled_file

    if note := ownership.writers_note(planned.store.root):
        say(note)
    ended, refused = 0, list[UserError]()
    for queue_file in queues:
        if owner := ownership.other_owner(queue_file):
            say(f"{queue_file}: the queue of user {owner}, who alone can cancel it")
            continue
        mark = cancelled_file(queue_file)
        marked = mark.exists()
        mark.touch()  # before the end, after which whoever watches the sweep would start the jobs again
        with collected(refused):
            try:
                ended += backend.backend_of(queue_file).cancel()
            except BaseException:
                if not marked:
                    mark.unlink(missing_ok=True)
                raise
    if ended or not refused:
        say(f"ended the jobs of {plural(ended, 'queue')}" if ended else _nothing_ended(planned, queues))
    raise_mistakes(refused)


def _nothing_ended(planned: "Planned", queues: list[Path]) -> str:
    store, states = planned.store, planned.states()
    named = store.queues(planned.sweep_name, with_selections=True)
    if others := [path for path in named if path not in queues and _is_training(planned, path)]:
        return (
            f"nothing is running that trains these runs alone; {', '.join(map(str, others))}: trains others too, of "
            "another selection or of the file before a change, with which `status --cancel` ends them"
        )
    running = [k for k, state in states.items() if state == "to do" and store.is_running(k)]
    if not running:
        return "nothing is running"
    hosts = {shorten(attempt["host"]) for k in running for attempt in store.attempts(k)[-1:]}
    on = f" on {', '.join(sorted(hosts))}" if hosts else ""
    return f"nothing of yours is running here; {plural(len(running), 'run')} in training{on}"


def _is_training(planned: "Planned", queue_file: Path) -> bool:
    from slurm.queue import Queue

    with suppress(UserError):
        return any(map(planned.store.is_running, Queue.read(queue_file).run_ids))
    return False


def _print_states(planned: "Planned", states: "RunStates", json_: bool) -> None:
    from harness.planning.run_states import count_states, counts_text, row_texts
    from slurm.excluded_nodes import excluded_nodes_text

    runs = planned.plan.runs
    rows = [states.row(run_id, runs[run_id].label, state) for run_id, state in planned.states().items()]
    done = {row["run_id"] for row in rows if row["state"] == "done"}
    diverged = _diverged(planned, done) if done else done
    rows = [row | ({"diverged": True} if row["run_id"] in diverged else {}) for row in rows]
    if json_:
        print(json.dumps(rows))
        return
    for text, hang in row_texts(rows, planned.info.task):
        print(at_words(text, sys.stdout, hang))
    print(counts_text(count_states(rows)) + (f"; {len(diverged)} of those done diverged" if diverged else ""))
    if note := excluded_nodes_text(opened.path for opened in states.queues):
        say(note)


def _diverged(planned: "Planned", done: set[str]) -> set[str]:
    """Return the runs that diverged. Where many records are files of their own, their last notes of progress say it."""
    from harness.store import compaction, records  # waits for pyarrow

    loose = done & planned.store.loose_ids()
    noted = loose if len(loose) > compaction.MANY_FILES else set()
    diverged = {k for k in noted if (p := planned.store.progress(k)) and p.get(planned.info.task.score) is None}
    with suppress(UserError):  # whoever reads the table is told
        rows = records.read_records(planned.store, done - noted, ("run_id", "status")).to_pylist()
        diverged |= {row["run_id"] for row in rows if row["status"] == "diverged"}
    return diverged


def _print_log(store: "Store", prefix: str, run_ids: Collection[str]) -> None:
    run_id = store.find(prefix, "--logs", run_ids)
    attempts, failure = store.attempts(run_id), store.failure(run_id)
    latest = attempts[-1]["log"] if attempts else ""
    if failure and failure.kind != "teacher" and failure.log:  # its job may have ended before an attempt
        latest = failure.log
    if not latest:
        raise UserError(f"--logs {prefix}: this run has not started yet")
    try:
        with Path(latest).open(errors="replace") as log:
            copyfileobj(log, sys.stdout)
    except OSError as e:
        raise UserError(f"--logs {prefix}: {latest}: {e.strerror}") from None


def _print_failures(store: "Store", labels: Mapping[str, str], json_: bool) -> None:
    ids = store.failed_ids() - store.done_ids()
    failed = [f for k in labels if k in ids and (f := store.failure(k))]
    if json_:
        print(json.dumps([asdict(f) for f in failed]))
        return
    causes = by_cause(failed)
    print(f"{len(failed)} failed, {plural(len(causes), 'cause')}")
    for failures in causes:
        cause = printable(f"{failures[0].kind}: {failures[0].cause}")
        print("\n" + at_words(f"{len(failures)} x {cause}", sys.stdout))
        for failure in failures:
            text = f"  {failure.run_id}  {printable(labels[failure.run_id])}"
            print(at_words(text, sys.stdout, len(failure.run_id) + 2))
        if failures[0].details:
            details = "\n    ".join(printable_lines(failures[0].details).strip().split("\n")[-12:])
            print(at_words(f"    {details}", sys.stdout))
        print(f"  log: {printable(failures[0].log)}")


def _trials(planned: "Planned") -> dict[str, str]:
    """Return the runs of the sweep's tuning with what they are: trials of its log, and runs of its queues."""
    from harness.store.tuning_log import read_log
    from slurm.queue import Queue

    if not planned.plan.sweep.tune:
        return {}
    labels: dict[str, str] = {}
    for queue_file in _readable(planned.store.queues(planned.tuning_name)):
        for job in Queue.read(queue_file).jobs:
            pair = f"{job.teacher} > {job.student}" if job.teacher else job.student
            labels |= {run.run_id: f"tuning: {pair} / {run.method}" for run in job.runs}
    with suppress(FileNotFoundError):
        for trial in read_log(planned.store, planned.name).trials:
            labels |= dict.fromkeys(trial.run_ids, f"tuning: trial {trial.number} of {trial.method}")
    return labels


if __name__ == "__main__":
    from harness.console.app import run_command

    run_command(status)
