"""A table and a summary from 100,000 records, compacted, against one JSON-lines log in each run's folder.

Ten sweeps of 10,001 runs of 240 epochs. Our side: `harness.report` of one of them, then from all records the means over
seeds of every (dataset, teacher, student, method). The other side, for one of the sweeps: reads each run's log (a line
of settings, a line per epoch) with `json` and makes the same means, without a table; ten times its seconds count. Each
in a process of its own, start-up included.
"""

import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.perf import tenthousand
from benchmarks.perf.common import emit, in_turn, ratio_of_pairs, run_python, say
from harness.planning import plan_sweep
from harness.reporting.comparison import Contents
from harness.store import generations
from harness.store.parts import Part
from harness.store.schema import SCHEMA, SCHEMA_VERSION
from harness.store.store import Store

SWEEPS, EPOCHS, CURVES = 10, 240, 20
SECONDS, MEGABYTES, TARGET = 3.0, 1000.0, 20.0
OURS = """
import contextlib, json, os, pathlib, resource, sys
import harness
from harness.report import report

results = pathlib.Path(sys.argv[1]) / "results"
with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
    report(results=results)
by = ["dataset", "teacher", "student", "method"]
runs = harness.open_store(results).runs([*by, "last_top1"])
means = runs.group_by(by).aggregate([("last_top1", "mean")]).to_pylist()
means = {" ".join(str(row[k]) for k in by): row["last_top1_mean"] for row in means}
"""
LOGS = """
import json, os, pathlib, resource, statistics, sys

values = {}
for run in os.scandir(pathlib.Path(sys.argv[1]) / "logs"):
    with open(os.path.join(run.path, "log.jsonl")) as lines:
        settings, *epochs = map(json.loads, lines)
    by = " ".join(str(settings[k]) for k in ("dataset", "teacher", "student", "method"))
    values.setdefault(by, []).append(epochs[-1]["test_top1"])
means = {by: statistics.fmean(found) for by, found in values.items()}
"""
SAY = """
peak_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
print(json.dumps({"means": means, "peak_mb": peak_mb}))
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        say("  writing 100,000 records, and 10,000 logs")
        runs, logged = _write(Path(name))
        found: dict[str, dict[str, Any]] = {}

        def side(which: str, program: str, scale: float) -> float:
            began = time.perf_counter()
            text = run_python("-c", program + SAY, name)
            took = time.perf_counter() - began
            found[which] = json.loads(text)
            return took * scale

        sides = {"ours": lambda: side("ours", OURS, 1), "logs": lambda: side("logs", LOGS, runs / logged)}
        seconds = in_turn(sides, 3)
    ratio, spread = ratio_of_pairs(seconds["logs"], seconds["ours"])
    ours, logs = found["ours"]["means"], found["logs"]["means"]
    assert ours.keys() == logs.keys() and all(math.isclose(ours[key], logs[key], rel_tol=1e-9) for key in ours)
    detail = {
        "runs": runs,
        "seconds": round(min(seconds["ours"]), 3),
        "limit_seconds": SECONDS,
        "peak_mb": found["ours"]["peak_mb"],
        "limit_mb": MEGABYTES,
        "logs_read": logged,
        "seconds_logs_of_all": round(min(seconds["logs"]), 3),
        **spread,
    }
    emit("store_100k", ratio, TARGET, detail)


def _write(folder: Path) -> tuple[int, int]:
    """The compacted store and the logs; how many of each."""
    file, store = tenthousand.write_sweep(folder, EPOCHS), Store(folder / "results")
    generation = store.compact / "000001"
    part, logged = Part(generation, "cifar100"), 0
    for number in range(SWEEPS):
        planned = plan_sweep(file, store.root, sets=[f"recipe.lr={0.01 * (number + 1):.2f}"])
        runs = list(planned.plan.runs.values())
        curves = _Curves()
        for at in range(0, len(runs), 2000):
            some = list(enumerate(runs[at : at + 2000], at))
            rows = [tenthousand.row(run.run_id, run.science, i, []) for i, run in some]
            which = [curves.of(run.science, i) for i, run in some]
            table = pa.Table.from_pylist(rows, schema=SCHEMA)
            part.add(table.set_column(SCHEMA.get_field_index("curves"), "curves", curves.array().take(which)))
            if number == 0:
                Contents.of("sweep", planned.plan).write(store.table_folder("sweep"))
                logged += len(rows)
                for row, k in zip(rows, which, strict=True):
                    _write_log(folder / "logs" / row["run_id"], row, curves.lines(k))
    run_ids = part.close()
    index = {"schema_version": SCHEMA_VERSION, "parts": {part.name: run_ids}}
    (generation / generations.INDEX).write_text(json.dumps(index))
    return len(run_ids), logged


class _Curves:
    """Few different ones, shared by all runs of a sweep: made-up ones are slow to make."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, int], int] = {}
        self._all: list[list[dict[str, Any]]] = []
        self._lines: dict[int, list[str]] = {}

    def of(self, science: dict[str, Any], i: int) -> int:
        key = (science["method"]["use"], i % CURVES)
        if key not in self._numbers:
            self._numbers[key] = len(self._all)
            self._all.append(tenthousand.curves(science, i % CURVES))
        return self._numbers[key]

    def array(self) -> pa.Array:
        return pa.array(self._all, SCHEMA.field("curves").type)

    def lines(self, number: int) -> list[str]:
        """Of a log, but for the last epoch's."""
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
