"""`sweep --until-decided` through the command line, with real training."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from harness.planning.plan import plan_sweep
from tests.support.bench import SWEEP, USER_METHODS, Bench, until
from tests.support.cli import run_command

CLOSE: dict[str, Any] = {  # one epoch does not separate these
    **SWEEP,
    "recipe": {"base": "digits_quick", "epochs": 1},
    "methods": {"student": {}, "kd": {}, "dkd": {}},
    "seeds": [0, 1],
}
DECIDE = ("--until-decided", "--max-seeds", "3", "--margin", "0")


def written(bench: Bench) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in bench.store.records.iterdir()}


def test_seeds_are_added_up_to_the_limit_and_stored(bench: Bench) -> None:
    bench.sweep = CLOSE
    result = bench.run("sweep", *DECIDE)
    assert result.returncode == 0, result.stderr
    assert "undecided, each tested at 2.5 % in each of 2 looks:" in result.stderr
    assert "so seeds are added:\n  digits_net_w8 > digits_net_w4: student: 2\n" in result.stderr
    assert "still undecided with 3 seeds" in result.stderr
    plan = bench.plan().plan
    assert {(c.method, c.seed) for c in plan.cells} == {(m, s) for m in CLOSE["methods"] for s in (0, 1, 2)}

    report = bench.run("report").stdout
    assert result.stdout.startswith(report)
    assert "Seeds that --until-decided added: digits_net_w8 > digits_net_w4, student: seeds 2; " in report
    assert run_command("verify", "--results", bench.folder / "results").code == 0

    before = written(bench)
    rerun = bench.run("sweep", *DECIDE, "--json")
    assert rerun.returncode == 0 and "so seeds are added" not in rerun.stderr
    assert written(bench) == before, "nothing is trained again"
    undecided = json.loads(rerun.stdout)["undecided"]
    assert undecided and all(not c["decided"] and c["difference"]["n"] == 3 for c in undecided)

    bench.sweep = {**CLOSE, "seeds": 3, "name": "listed"}
    bench.command("sweep", file="listed.yaml")
    listed = plan_sweep(bench.folder / "listed.yaml", bench.folder / "results").plan
    assert set(plan.runs) == set(listed.runs), "the runs that the file would name had it listed their seeds"


def test_killed_while_seeds_are_added_it_goes_on(bench: Bench) -> None:
    bench.sweep = CLOSE
    process = bench.start("sweep", *DECIDE)
    until(bench.store.added_seeds("small").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = written(bench)
    assert len(before) < 10
    result = bench.run("sweep", *DECIDE)
    assert result.returncode == 0, result.stderr
    assert "so seeds are added" not in result.stderr, "they had been"
    after = written(bench)
    assert len(after) == 10 and {p: after[p] for p in before} == before


def test_a_failed_run_stops_the_adding(bench: Bench) -> None:
    bench.sweep = {**CLOSE, "methods": {"student": {}, "fails": {"use": f"{USER_METHODS}:Raises"}}}
    (bench.folder / "raise-at").write_text("2")
    result = bench.run("sweep", *DECIDE)
    assert result.returncode == 1, result.stderr
    assert "some runs have no record; seeds are added only when all have one" in result.stderr
    assert not bench.store.added_seeds("small").exists()
