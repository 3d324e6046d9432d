"""``python -m harness.status``: the states of a sweep's runs."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.console import options
from harness.console.terminal import at_words, duration, say
from harness.errors import UserError, collected, printable, printable_lines, raise_mistakes, shorten
from harness.phrases import plural
from harness.store.failure_causes import by_cause

if TYPE_CHECKING:
    from harness.planning.plan import Planned
    from harness.spec.tasks import TaskInfo
    from slurm.backend import Backend


def status(
    file: options.SweepFile,
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
            help="Print the latest log of a run: its id, or the start of it, as in the list. Characters that could "
            "command a terminal are printed as escapes, also to a file.",
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

    A done run that diverged is marked. A pending run is shown with SLURM's reason, a running one with its epoch and
    accuracy. On a cluster, a run without a job is shown with the way its last job ended: timed out, preempted, node
    failed, out of memory, cancelled, lost.

    Example: python -m harness status benchmarks/digits_pairs.yaml --watch

    Exit code: 0 also when runs have failed, 2 wrong input.
    """
    from harness.planning.plan import plan_sweep
    from harness.planning.queues import Queues, queue_files
    from slurm import backend, early_ends

    planned = plan_sweep(file, results, data, set_, only)
    planned.say_missing_store()
    early_ends.write_failures(planned.store)
    planned.say_tuned()
    if json_ and (watch or cancel or logs is not None):
        raise UserError("--json goes with the runs' states and with --failures, not with --watch, --cancel or --logs")
    if cancel:
        _cancel(planned, queue_files(planned, alone=True))
    elif logs is not None:
        _print_log(planned, logs)
    elif failures:
        _print_failures(planned, json_)
    elif watch:
        from harness.planning.watch import watch as follow

        try:
            follow(planned, Queues(lambda: _readable(queue_files(planned))), restart=False)
        except KeyboardInterrupt:
            say("stopped watching; the jobs continue")
            raise typer.Exit(130) from None
        say(f"table: {options.command_for('report', file, results, set_, only)}")
    else:
        _print_states(planned, [backend.backend_of(q) for q in _readable(queue_files(planned))], json_)


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


def _print_states(planned: "Planned", backends: "list[Backend]", json_: bool) -> None:
    rows = [_row(planned, backends, run_id, state) for run_id, state in planned.states().items()]
    done = {row["run_id"] for row in rows if row["state"] == "done"}
    diverged = _diverged(planned, done) if done else done
    rows = [row | ({"diverged": True} if row["run_id"] in diverged else {}) for row in rows]
    if json_:
        print(json.dumps(rows))
        return
    width = max((len(row["state"]) for row in rows), default=0)
    for row in rows:
        details = ", ".join(_details(row, planned.info.task))
        head = f"{row['run_id']}  {row['state']:{width}}  "
        print(at_words(printable(f"{head}{row['label']}  {details}".rstrip()), sys.stdout, len(head)))
    count = Counter(row["state"] for row in rows)
    counts = [f"{count[state]} {state}" for state in sorted(count, key=_order)]
    print(", ".join(counts) + (f"; {len(diverged)} of those done diverged" if diverged else ""))


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


def _row(planned: "Planned", backends: "list[Backend]", run_id: str, state: str) -> dict[str, Any]:
    store = planned.store
    row: dict[str, Any] = {"run_id": run_id, "label": planned.plan.runs[run_id].label, "state": state}
    if state == "failed" and (failure := store.failure(run_id)):
        return row | {"kind": failure.kind, "cause": failure.cause}
    if state != "to do":
        return row
    answers = (backend.scheduled(run_id) for backend in backends)
    row["state"], remark = next((a for a in answers if a[0]), ("to do", ""))
    started = len(store.attempts(run_id))
    if store.is_running(run_id):
        from slurm.queue import WAITS_IN_ITS_JOB

        row["state"], remark = ("running", remark) if started else ("pending", WAITS_IN_ITS_JOB)
    if remark:
        row["remark"] = remark
    if row["state"] == "running" and started:
        row |= store.progress(run_id)
    if requeued := started - (row["state"] == "running"):
        row["requeued"] = max(0, requeued)
    return row


def _details(row: dict[str, Any], task: "TaskInfo") -> Iterator[str]:
    if "cause" in row:
        yield row["cause"]
    if "diverged" in row:
        yield "diverged"
    if "epoch" in row:
        stage = "first stage, " if row.get("stage") == "first" else ""
        yield f"{stage}epoch {min(row['epoch'] + 1, row['epochs'])}/{row['epochs']}"
        if (score := row.get(task.score)) is not None:
            yield f"{task.shown} {score:.2f} %"
        if row["seconds_left"] is not None:
            yield f"{duration(row['seconds_left'])} left"
    if "remark" in row:
        yield row["remark"]
    if times := row.get("requeued"):
        yield f"requeued {plural(times, 'time')}"


def _order(state: str) -> int:
    """Return a state's place in the life of a run; interruptions come in the middle."""
    known = ("to do", "pending", "running", "done", "failed")
    return known.index(state) if state in known else 2


def _print_log(planned: "Planned", prefix: str) -> None:
    run_id = planned.store.find(prefix, "--logs", planned.plan.runs)
    attempts, failure = planned.store.attempts(run_id), planned.store.failure(run_id)
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


def _print_failures(planned: "Planned", json_: bool) -> None:
    labels = _trials(planned) | {run_id: run.label for run_id, run in planned.plan.runs.items()}
    ids = planned.store.failed_ids() - planned.store.done_ids()
    failed = [f for k in labels if k in ids and (f := planned.store.failure(k))]
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
