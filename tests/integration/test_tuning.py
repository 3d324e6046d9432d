"""Tuning with real training: interrupted, resumed, and followed by the final runs."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from harness.planning.plan import plan_sweep
from harness.store import json_files, records
from harness.store.tuning_log import TuningLog
from tests.support.bench import SWEEP, Bench, until
from tests.support.cli import run_command

TUNED: dict[str, Any] = {
    **SWEEP,
    "recipe": {"base": "digits_quick", "epochs": 1},
    "methods": {
        "student": {},
        "kd": {"search": {"weights.kd": {"log": [0.1, 10]}}},
        "fitnets": {"params": {"tap": "stage1"}, "search": {"weights.hint": [1, 10]}},
    },
    "seeds": 1,
    "tune": {"trials": 3, "together": 3, "validation": 100},
}


def test_killed_and_called_again_it_trains_nothing_twice_and_no_trial_sees_a_test_image(bench: Bench) -> None:
    bench.sweep = TUNED
    process = bench.start("tune", "--no-check")
    until(lambda: bench.store.done_ids())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    result = bench.run("tune", "--no-check", "--json", "--notify", f"cat >> '{bench.folder}/told'")
    assert result.returncode == 0, result.stderr
    (told,) = (bench.folder / "told").read_text().splitlines()
    assert ": tuning: all done, 6 trials, 4 of 4 final runs done, 0:00:" in told
    value = json.loads(result.stdout)
    log = json_files.read_checked(TuningLog, bench.store.tuning("small"))
    assert [(t.method, t.number, t.state) for t in log.trials] == [
        (method, number, "done") for method in ("kd", "fitnets") for number in range(3)
    ]
    rows = {row["run_id"]: row for row in records.read_records(bench.store, bench.store.done_ids()).to_pylist()}
    trials = {run_id for trial in log.trials for run_id in trial.run_ids}
    (teacher,) = {rows[run_id]["teacher_run"] for run_id in trials}
    for row in (rows[run_id] for run_id in (*trials, teacher)):
        assert (row["train_size"], row["evaluated_on"], row["evaluated_size"]) == (190, "validation", 100)
        assert not [c["name"] for c in row["curves"] if c["name"].startswith("test")]
    assert [t.value for t in log.trials] == [rows[t.run_ids[0]]["last_top1"] for t in log.trials]
    assert all(row["teacher_top1"] == rows[teacher]["last_top1"] for row in (rows[run_id] for run_id in trials))

    planned = plan_sweep(Path(value["tuned"]), bench.store.root)
    assert set(planned.plan.runs) == rows.keys() - trials - {teacher}, "and nothing else was trained"
    assert {rows[run_id]["evaluated_on"] for run_id in planned.plan.runs} == {"test"}
    assert {row["method"] for row in value["rows"]} == TUNED["methods"].keys()
    assert {run_id: len(bench.store.attempts(run_id)) for run_id in rows} == dict.fromkeys(rows, 1)
    assert run_command("verify", "--results", bench.store.root).code == 0
