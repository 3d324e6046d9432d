"""``python -m harness.status``: where the runs stand, from the store alone."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import options
from harness.errors import UserError, unknown

if TYPE_CHECKING:
    from harness.planning import Planned
    from harness.store.store import Failure
    from slurm.backend import Backend


def status(
    file: options.SweepFile,
    results: options.Results = Path("results"),
    data: options.Data = None,
    set_: options.Set = [],  # noqa: B006
    only: options.Only = [],  # noqa: B006
    watch: Annotated[bool, typer.Option("--watch", help="Follow the runs until all have ended.")] = False,
    logs: Annotated[
        str | None, typer.Option(metavar="RUN", help="Print the last log of a run (its id, or its start).")
    ] = None,
    failures: Annotated[bool, typer.Option("--failures", help="Print every failure, grouped by cause.")] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="End the sweep's jobs; they resume when it is run again.")
    ] = False,
    json_: options.Json = False,
) -> None:
    """Show the runs of a sweep: done, failed, running with epoch and accuracy, to do."""
    from harness.planning import plan_sweep
    from harness.watch import say
    from slurm import backend
    from slurm.queue import cancelled

    planned = plan_sweep(file, results, data, set_, only)
    store = planned.store
    queues = sorted(store.queue("x").parent.glob(f"{planned.name}-{'[0-9a-f]' * 8}.json"))
    if json_ and (watch or cancel or logs is not None):
        raise UserError("--json goes with the runs' states and with --failures, not with --watch, --cancel or --logs")
    if cancel:
        for q in queues:
            cancelled(q).touch()
        ended = [q for q in queues if backend.of(q).cancel()]
        say(f"ended {len(ended)} queue{'s' * (len(ended) != 1)} and their jobs" if ended else "nothing is running")
    elif logs is not None:
        _print_log(planned, logs)
    elif failures:
        _print_failures(planned, json_)
    elif watch:
        from harness.watch import watch as follow

        if queues:
            follow(planned, queues[-1], restart=False)
    else:
        _print_states(planned, [backend.of(q) for q in queues], json_)


def _print_states(planned: "Planned", backends: "list[Backend]", json_: bool) -> None:
    store, rows = planned.store, []
    for run_id, state in planned.states().items():
        row: dict[str, Any] = {"run_id": run_id, "label": planned.plan.runs[run_id].label, "state": state}
        if state == "to do" and store.is_running(run_id):
            row |= {"state": "running", **store.progress(run_id)}
        elif state == "to do" and (remark := next(filter(None, (b.remark(run_id) for b in backends)), "")):
            row |= {"remark": remark}
        elif state == "failed" and (failure := store.failure(run_id)):
            row |= {"kind": failure.kind, "cause": failure.cause}
        rows.append(row)
    if json_:
        print(json.dumps(rows))
        return
    for row in rows:
        detail = row.get("cause", row.get("remark", ""))
        if row["state"] == "running" and "epoch" in row:
            top1 = f", top-1 {row['top1']:.2f} %" if row["top1"] is not None else ""
            detail = f"epoch {row['epoch'] + 1}/{row['epochs']}{top1}"
        print(f"{row['run_id']}  {row['state']:8} {row['label']}  {detail}".rstrip())
    count = Counter(row["state"] for row in rows)
    print(", ".join(f"{n} {state}" for state, n in sorted(count.items())))


def _print_log(planned: "Planned", prefix: str) -> None:
    matches = [k for k in planned.plan.runs if k.startswith(prefix)]
    if len(matches) != 1:
        raise UserError(f"--logs: {unknown('run', prefix, matches or planned.plan.runs)}")
    attempts = planned.store.attempts(matches[0])
    if not attempts:
        raise UserError(f"--logs {prefix}: this run has not started yet")
    try:
        print(Path(attempts[-1]["log"]).read_text(errors="replace"), end="")
    except OSError as e:
        raise UserError(f"--logs {prefix}: {attempts[-1]['log']}: {e.strerror}") from None


def _print_failures(planned: "Planned", json_: bool) -> None:
    found = [f for k, s in planned.states().items() if s == "failed" and (f := planned.store.failure(k))]
    if json_:
        print(json.dumps([asdict(f) for f in found]))
        return
    causes: dict[tuple[str, str], list[Failure]] = {}
    for failure in found:
        causes.setdefault((failure.kind, failure.cause), []).append(failure)
    print(f"{len(found)} failed, {len(causes)} cause{'s' * (len(causes) != 1)}")
    for (kind, cause), failures in causes.items():
        print(f"\n{len(failures)} x {kind}: {cause}")
        for failure in failures:
            print(f"  {failure.run_id}  {planned.plan.runs[failure.run_id].label}")
        if failures[0].details:
            print("    " + "\n    ".join(failures[0].details.strip().splitlines()[-12:]))
        print(f"  log: {failures[0].log}")


if __name__ == "__main__":
    from harness.cli import run_one

    run_one(status)
