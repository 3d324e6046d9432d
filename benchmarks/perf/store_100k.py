"""Bench of a table and the leaderboard from 100,000 compacted records, against a JSON-lines log in each run's folder.

There is a sweep of 10,001 runs of 240 epochs, and 90 sweeps of 1,001 runs. Our side is `harness.report` for the large
sweep and `harness.leaderboard` for the store. The other side reads the logs of the large sweep (a line of settings, a
line per epoch) with `json` and computes the means over seeds, without a table or a page; its seconds are scaled to all
records. Each command is a process of its own, with start-up.

Then every command runs once, most of them on one sweep of 100,001 runs: its seconds and its peak memory are in the
detail. What takes milliseconds for each run (a bundle's Parquet files, event files) is written for fewer runs.
"""

import csv
import io
import json
import math
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.perf import large_sweep
from benchmarks.perf.measurement import ROOT, emit, in_turn, ratio_of_pairs, run_python, say
from harness.planning.plan import plan_sweep
from harness.reporting.comparison import Contents
from harness.spec.science import Science
from harness.store import generations, records
from harness.store.parts import PartWriter
from harness.store.schema import SCHEMA, SCHEMA_VERSION
from harness.store.store import Store

SMALL_SWEEPS, SMALL_SEEDS, EPOCHS, CURVES = 90, 20, 240, 20
ONE_SWEEP_SEEDS = 2000  # 10 pairs, 5 methods: 100,000 runs
SECONDS, MEGABYTES, TARGET = 3.0, 1000.0, 20.0
COMMAND = """
import sys
from harness.console import app

try:
    app.main()
finally:
    with open("/proc/self/status") as status:
        print(next(line for line in status if line.startswith("VmHWM")), file=sys.stderr)
"""
LOGS = """
import json, os, pathlib, statistics, sys

values = {}
for run in os.scandir(pathlib.Path(sys.argv[1]) / "logs"):
    with open(os.path.join(run.path, "log.jsonl")) as lines:
        settings, *epochs = map(json.loads, lines)
    by = f"{settings['student']} {settings['method']}"
    values.setdefault(by, []).append(epochs[-1]["test_top1"])
print(json.dumps({by: statistics.fmean(top1) for by, top1 in values.items()}))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        say("  writing 100,000 records, and 10,000 logs")
        folder = Path(name)
        file, runs, logged = _write(folder)
        store = ["--results", str(folder / "results")]
        page = folder / "board.html"
        outputs: dict[str, str] = {}
        parts: dict[str, list[tuple[float, float]]] = {"table": [], "leaderboard": []}

        def ours() -> float:
            parts["table"].append(_run(outputs, "report", str(file), *store, "--format", "csv"))
            parts["leaderboard"].append(_run(outputs, "leaderboard", *store, "--out", str(page)))
            return parts["table"][-1][0] + parts["leaderboard"][-1][0]

        def logs() -> float:
            began = time.perf_counter()
            outputs["logs"] = run_python("-c", LOGS, name)
            return (time.perf_counter() - began) * runs / logged

        seconds = in_turn({"ours": ours, "logs": logs}, 3)
        _check(outputs, page, runs)
        page_mb = page.stat().st_size / 1e6
        say("  every command once, most of them on one sweep of 100,001 runs")
        parts |= {name: [cost] for name, cost in _every_command(folder, file).items()}
    ratio, spread = ratio_of_pairs(seconds["logs"], seconds["ours"])
    detail = {
        "runs": runs,
        "seconds": round(min(seconds["ours"]), 3),
        "limit_seconds": SECONDS,
        **{f"seconds_{part}": round(min(took for took, _ in costs), 3) for part, costs in parts.items()},
        **{f"peak_mb_{part}": round(max(mb for _, mb in costs)) for part, costs in parts.items()},
        "limit_mb": MEGABYTES,
        "page_mb": round(page_mb, 1),
        "logs_read": logged,
        "seconds_logs_of_all": round(min(seconds["logs"]), 3),
        **spread,
    }
    emit("store_100k", ratio, TARGET, detail)


def _every_command(folder: Path, of_10k: Path) -> dict[str, tuple[float, float]]:
    """Run each command once; return its seconds and peak megabytes."""
    file, runs, _ = _write(folder / "one", sweeps=1, seeds=ONE_SWEEP_SEEDS, logs=False)
    one, many = (["--results", str(home / "results")] for home in (folder / "one", folder))
    commands = {
        "report_one_sweep": ["report", str(file), *one],
        "report_store": ["report", *many],
        "leaderboard_one_sweep": ["leaderboard", *one],
        "status": ["status", str(file), *one],
        "status_json": ["status", str(file), *one, "--json"],
        "plan": ["sweep", str(file), *one, "--plan"],
        "out": ["report", str(file), *one, "--out", str(folder / "tables")],
        "sweep": ["sweep", str(file), *one],  # writes the store's tables, as "out" does
        "sweep_again": ["sweep", str(file), *one],
        "verify": ["verify", *one],
        "figures_10k": ["report", str(of_10k), *many, "--figures", str(folder / "figures")],
        "bundle_10k": ["report", str(of_10k), *many, "--bundle", str(folder / "bundle.zip")],
        "tensorboard_50": ["report", str(of_10k), *many, "--only", "seed=0", "--tensorboard", str(folder / "events")],
        "compact": ["compact", *one, "--grace", "0"],  # else it waits for readers
    }
    costs = {}
    for name, command in commands.items():
        if name == "compact":
            _loosen(Store(folder / "one" / "results"), folder)
        costs[name] = _run({}, *command)
        say(f"  {name}: {costs[name][0]:.1f} s, {costs[name][1]:.0f} MB")
    assert runs == 100_001
    return costs


def _loosen(store: Store, folder: Path) -> None:
    """Add the records of a further sweep of 1,001 runs, a file each, as jobs write them."""
    plan = plan_sweep(large_sweep.write_sweep(folder, EPOCHS, SMALL_SEEDS), store.root, sets=["recipe.lr=0.3"]).plan
    for i, run in enumerate(plan.runs.values()):
        points = large_sweep.curves(run.science, i)
        row = large_sweep.row(run.run_id, run.science, i, points)
        records.write_record(store, {name: value for name, value in row.items() if name != "schema_version"})


def _run(outputs: dict[str, str], command: str, *args: str) -> tuple[float, float]:
    """Run a command; return its seconds and peak megabytes."""
    began = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", COMMAND, command, *args], cwd=ROOT, capture_output=True, text=True, check=True
    )
    took = time.perf_counter() - began
    outputs[command] = result.stdout
    return took, int(result.stderr.split()[-2]) * 1024 / 1e6


def _check(outputs: dict[str, str], page: Path, runs: int) -> None:
    """Assert that all sides have read the same."""
    logs = json.loads(outputs["logs"])
    rows = list(csv.DictReader(io.StringIO(outputs["report"])))
    means = {f"{row['student']} {row['method']}": float(row["last_top1_mean"]) for row in rows}
    assert len(means) == len(rows) == 50
    assert all(math.isclose(mean, logs[by], rel_tol=1e-9) for by, mean in means.items())
    assert f'"runs":{runs},' in page.read_text()


def _write(
    folder: Path, sweeps: int = 1 + SMALL_SWEEPS, seeds: int = large_sweep.SEEDS, logs: bool = True
) -> tuple[Path, int, int]:
    """Write the compacted store and the logs; return the large sweep's file, the numbers of records and of logs."""
    folder.mkdir(exist_ok=True)
    file, store = large_sweep.write_sweep(folder, EPOCHS, seeds), Store(folder / "results")
    generation = store.compact / "000001"
    part, logged = PartWriter(generation, "cifar100"), 0
    for number in range(sweeps):
        large = number == sweeps // 2
        sets = [] if large else [f"recipe.lr={0.1 + 0.001 * number:.3f}", f"seeds={SMALL_SEEDS}"]
        plan = plan_sweep(file, store.root, sets=sets).plan
        runs = list(plan.runs.values())
        curves = _Curves()
        for at in range(0, len(runs), 2000):
            some = list(enumerate(runs[at : at + 2000], at))
            rows = [large_sweep.row(run.run_id, run.science, i, []) for i, run in some]
            finished = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number)
            for (i, _), row in zip(some, rows, strict=True):
                row["finished_at"] = finished + timedelta(seconds=i)
            which = [curves.of(run.science, i) for i, run in some]
            table = pa.Table.from_pylist(rows, schema=SCHEMA)
            part.add(table.set_column(SCHEMA.get_field_index("curves"), "curves", curves.array().take(which)))
            if large and logs:
                logged += len(rows)
                for row, k in zip(rows, which, strict=True):
                    _write_log(folder / "logs" / row["run_id"], row, curves.lines(k))
        name = file.stem if sweeps == 1 else f"sweep_{number}"
        Contents.of(name, plan).write(store.table_folder(name))
    closed = part.close()
    generations.write_index(generation, SCHEMA_VERSION, {part.name: closed})
    return file, len(closed.run_ids), logged


class _Curves:
    """A few curves that all runs of a sweep share: inventing them is slow."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int], int] = {}
        self._all: list[list[dict[str, Any]]] = []
        self._lines: dict[int, list[str]] = {}

    def of(self, science: Science, i: int) -> int:
        key = (science.method.use, i % CURVES)
        if key not in self._numbers:
            self._numbers[key] = len(self._all)
            self._all.append(large_sweep.curves(science, i % CURVES))
        return self._numbers[key]

    def array(self) -> pa.Array:
        return pa.array(self._all, SCHEMA.field("curves").type)

    def lines(self, number: int) -> list[str]:
        """Return the lines of a log without the last epoch's."""
        if number not in self._lines:
            epochs: dict[int, dict[str, float]] = {}
            for point in self._all[number]:
                epochs.setdefault(point["epoch"], {"epoch": point["epoch"]})[point["name"]] = point["value"]
            self._lines[number] = [json.dumps(values) for values in epochs.values()][:-1]
        return self._lines[number]


def _write_log(folder: Path, row: dict[str, Any], epochs: list[str]) -> None:
    settings = {key: row[key] for key in ("run_id", "dataset", "student", "teacher", "method", "seed")}
    settings["config"] = json.loads(row["science"])
    last = {"epoch": EPOCHS, "test_top1": row["last_top1"]}
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("\n".join([json.dumps(settings), *epochs, json.dumps(last)]) + "\n")


if __name__ == "__main__":
    main()
