"""Resume a store that an earlier version left in the middle of a pack, without any loss."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.store import records
from harness.store.store import Store
from harness.training import checkpoint
from tests.support.cli import REPO, process

STORED = REPO / "tests" / "data" / "earlier_store"
RUN_IDS: dict[str, str] = json.loads((STORED / "run_ids.json").read_text())  # label -> run_id in that version
TEACHER = RUN_IDS["teacher digits_net_w8 / seed 0"]  # the student of seed 0 as well
FAILED = "digits_net_w8 > digits_net_w8 / broken / seed 0"
INTERRUPTED = {
    method: RUN_IDS[f"digits_net_w8 > digits_net_w8 / {method} / seed 1"] for method in ("student", "kd", "fitnets")
}
OF_FIRST_REKD = {label for label in RUN_IDS if "/ rekd /" in label}  # its version 1, which is no longer trained


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED, tmp_path / "home"))


def harness(home: Path, command: str, *args: str, code: int = 0) -> str:
    environment = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": f"{REPO}:{home}"}
    result = process("-m", f"harness.{command}", "sweep.yaml", *args, env=environment, cwd=home)
    assert result.code == code, result
    return result.out


def curves(history: dict[str, Any]) -> dict[tuple[str, int], float]:
    return {(name, epoch): value for epoch, name, value in history["curves"]}


def test_status_and_report_read_it(home: Path) -> None:
    rows = {row["label"]: row for row in json.loads(harness(home, "status", "--json"))}
    assert rows.keys() == RUN_IDS.keys()
    assert {label for label, row in rows.items() if row["run_id"] != RUN_IDS[label]} == OF_FIRST_REKD
    states = {label: row["state"] for label, row in rows.items()}
    assert states[FAILED] == "failed" and rows[FAILED]["cause"] == "ArithmeticError: this method has a bug"
    assert [RUN_IDS[label] for label, state in states.items() if state == "done"] == [TEACHER]
    recorded = records.read_records(Store(home / "results"), [TEACHER]).to_pylist()[0]
    table = harness(home, "report")
    assert f"{recorded['last_top1']:.2f}" in table and "Without a record: 9 of 10 runs: student (1 of 2), " in table


def test_interrupted_runs_resume_from_their_checkpoints(home: Path) -> None:
    store = Store(home / "results")
    record = store.record(TEACHER).read_bytes()
    before = {}
    for run_id in INTERRUPTED.values():
        newest = checkpoint.load_newest(store.checkpoints(run_id))
        assert newest and newest[1]["history"]["epoch"] == 1 and len(store.attempts(run_id)) == 2
        before[run_id] = curves(newest[1]["history"])
    harness(home, "sweep", "--only", "seed=1", "--only", f"method={','.join(INTERRUPTED)}")
    for run_id in INTERRUPTED.values():
        row = records.read_records(store, [run_id]).to_pylist()[0]
        assert row["status"] == "done" and row["attempts"] == 3
        log = Path(store.attempts(run_id)[-1]["log"]).read_text()
        assert f"{run_id} " in log and "epoch 1/4" not in log, "its first epoch was trained again"
        after = {(c["name"], c["epoch"]): c["value"] for c in row["curves"]}
        assert len(before[run_id]) >= 4 and before[run_id].items() <= after.items(), "epochs of the first attempt"
        assert {epoch for name, epoch in after if name == "train_total"} == {1, 2, 3, 4}
    assert store.record(TEACHER).read_bytes() == record
    assert store.failed_ids() == {RUN_IDS[FAILED]}, "a failure stays until it is retried"
