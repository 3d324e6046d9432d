"""Tracking: what TensorBoard, wandb, MLflow and Trackio show of a run that is interrupted, and of one that fails."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.planning.plan import plan_sweep
from harness.reporting.comparison import Contents
from harness.reporting.export.tensorboard import scalars
from harness.store import json_files
from harness.store.live_curves import read_epochs
from harness.store.tuning_log import TuningLog
from harness.tracking.tracked_run import TrackedRun, tracked_runs
from tests.support import tracked
from tests.support.bench import EPOCHS, STEPS, SWEEP, Bench
from tests.support.tracked import Shown

TOOLS = ("tensorboard", "wandb", "mlflow", "trackio")
INSTALLED = [name for name in TOOLS if find_spec(name)]
STOP = 2 * STEPS + 5  # within the third epoch


@dataclass
class Followed:
    """A run and a failed one as each tool shows them: first while the run trains, then after its end."""

    bench: Bench
    run: TrackedRun
    failed: TrackedRun
    before: dict[str, Shown]
    live_epochs: list[int]
    tracking: Path
    events: Path

    def shown(self, tool: str, run: TrackedRun) -> Shown:
        if tool == "tensorboard":
            (place,) = run.folders
            return tracked.tensorboard_run(self.events / place)
        read: Callable[[Path, TrackedRun], Shown] = getattr(tracked, f"{tool}_run")
        return read(self.tracking, run)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    """A run interrupted in its last epoch, followed, resumed from its checkpoint, and followed by another process."""
    bench = Bench(tmp_path_factory.mktemp("followed"), SWEEP | {"methods": {"student": {}, "kd": {}}, "seeds": [0]})
    planned = bench.plan()
    runs = {run.run_id: run for run in tracked_runs(Contents.of(planned.name, planned.plan))}
    cells = bench.cells()
    run, failed = (runs[cells[method, 0].run_id] for method in ("student", "kd"))
    events = bench.folder / "events"
    seen = Followed(bench, run, failed, {}, [], bench.store.tracking, events)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "DO_NOT_TRACK"):
            patch.setenv(name, "true")
        patch.setenv("WANDB_ERROR_REPORTING", "false")
        patch.setenv("TRACKIO_DIR", str(bench.store.tracking / "trackio"))
        assert bench.train(run.run_id, stop_after=STOP) == 0
        seen.live_epochs = [epoch.epoch for epoch in read_epochs(bench.store, run.run_id)]
        with bench.store.live_curves(run.run_id).open("ab") as file:
            file.write(b'\n{"epoch": 3, "values": {"train_ce": 9')  # torn by a kill
        bench.store.write_science(failed.run_id, planned.plan.runs[failed.run_id].science)
        bench.store.write_failure(failed.run_id, "code", "ValueError: no", "", "job.log")
        tracked.follow(bench.store.root, runs.values(), INSTALLED, events)
        seen.before = {tool: seen.shown(tool, run) for tool in INSTALLED}
        assert bench.train(run.run_id) == 0
        tracked.follow(bench.store.root, runs.values(), INSTALLED, events)
        yield seen


@pytest.mark.parametrize("tool", TOOLS)
def test_a_run_is_shown_while_it_trains(followed: Followed, tool: str) -> None:
    pytest.importorskip(tool)
    assert followed.live_epochs == [1, 2] and not followed.bench.store.live_curves(followed.run.run_id).exists()
    before = followed.before[tool]
    assert before.state == "running" and [epoch for epoch, _ in before.curves["test/top1"]] == [1, 2]
    assert before.curves.keys() == {f"train/{name}" for name in ("ce", "total", "lr")} | {
        f"test/{name}" for name in ("top1", "top5", "loss")
    }


@pytest.mark.parametrize("tool", TOOLS)
def test_a_resumed_run_has_each_point_of_its_record_once(followed: Followed, tool: str) -> None:
    pytest.importorskip(tool)
    row, shown = followed.bench.row(followed.run.run_id), followed.shown(tool, followed.run)
    expected: dict[str, list[tuple[int, Any]]] = {}
    for epoch, tag, value in scalars(row):
        expected.setdefault(tag, []).append((epoch, np.float32(value) if tool == "tensorboard" else value))
    assert [epoch for epoch, _ in expected["train/ce"]] == list(range(1, EPOCHS + 1))
    assert shown.curves == expected and shown.state == "done"
    assert shown.settings is not None and {"recipe.lr", "weights.ce", "seed"} <= shown.settings.keys()
    if tool != "tensorboard":  # whose folders name the run
        pair = "digits_net_w8 > digits_net_w4"
        assert shown.names == ("small", pair, f"student / seed 0 / {pair}")
        assert shown.final is not None and shown.final["best_top1"] == row["best_top1"]
        assert shown.final["attempts"] == 2 and shown.final["cost_total_s"] > 0


@pytest.mark.parametrize("tool", TOOLS)
def test_a_failed_run_is_shown_as_failed(followed: Followed, tool: str) -> None:
    pytest.importorskip(tool)
    assert followed.shown(tool, followed.failed).state == "failed"


def test_event_files_lie_where_the_report_writes_them(followed: Followed, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    place = followed.events / "small/digits_net_w8-digits_net_w4/student/seed-0"
    live = list(place.iterdir())
    assert len(live) == 2 and all(path.name.endswith(f".{followed.run.run_id}") for path in live), "one per process"
    before = tracked.tensorboard_run(place)
    (place / "events.out.tfevents.1.0123456789abcdef").write_bytes(b"of a run with other settings")
    (place / "notes").write_text("mine")
    assert followed.bench.call("report", "--tensorboard", followed.events).code == 0
    (exported,) = place.glob("events*")
    assert exported not in live and (place / "notes").exists()
    assert tracked.tensorboard_run(place).curves == before.curves, "not twice"


def test_sweep_tracks_its_runs_and_goes_on_without_a_tool_that_fails(followed: Followed, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    bench = Bench(tmp_path, followed.bench.sweep | {"methods": {"student": {}}})
    bench.take(followed.bench, followed.run.run_id)
    place = tmp_path / "events/small/digits_net_w8-digits_net_w4/student"
    place.mkdir(parents=True)
    (place / "seed-0").write_text("a file in the way")
    result = bench.run("sweep", "--tensorboard", "events")
    assert result.returncode == 0 and "student" in result.stdout
    (said,) = [line for line in result.stderr.splitlines() if line.startswith("tracking stopped")]
    assert "tensorboard: NotADirectoryError" in said
    assert "the runs went on, and the same command tracks what is missing" in said
    (place / "seed-0").unlink()
    result = bench.run("sweep", "--tensorboard", "events")
    assert result.returncode == 0 and "tracking" not in result.stderr
    assert [epoch for epoch, _ in tracked.tensorboard_run(place / "seed-0").curves["test/top1"]] == [1, 2, 3]


def test_tune_tracks_its_trials_and_its_final_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    recipe, searched = {"base": "digits_quick", "epochs": 1}, {"search": {"weights.kd": [0.5, 2]}}
    tune = {"trials": 2, "together": 2, "validation": 100}
    bench.sweep = SWEEP | {"recipe": recipe, "methods": {"student": {}, "kd": searched}, "seeds": 1, "tune": tune}
    result = bench.run("tune", "--no-check", "--track", "mlflow")
    assert result.returncode == 0 and "tracking" not in result.stderr, result.stderr
    log = json_files.read_checked(TuningLog, bench.store.tuning("small"))
    of_tuning = {run_id: f"kd.{trial.number} / seed 1000" for trial in log.trials for run_id in trial.run_ids}
    final = plan_sweep(bench.store.tuned_sweep("small"), bench.store.root)
    of_sweep = {cell.run_id: f"{cell.method} / seed 0" for cell in final.plan.cells}
    assert len(of_tuning) == len(of_sweep) == 2
    for sweep, runs in (("small-tuning", of_tuning), ("small", of_sweep)):
        for run_id, name in runs.items():
            shown = tracked.mlflow_run(bench.store.tracking, TrackedRun(sweep, run_id, "", "", "", 0, ()))
            pair = "digits_net_w8 > digits_net_w4"
            assert shown.state == "done" and shown.names == (sweep, pair, f"{name} / {pair}")
            assert shown.curves == {tag: [(epoch, value)] for epoch, tag, value in scalars(bench.row(run_id))}


def test_mistakes_are_told_before_anything_starts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    for command in ("sweep", "tune"):
        error = bench.call(command, "--track", "wandb").error
        assert error == "--track wandb needs wandb: pip install 'kd-harness[wandb]'"
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    error = bench.call("sweep", "--tensorboard", "events").error
    assert error == "--tensorboard needs tensorboard: pip install 'kd-harness[tensorboard]'"
    assert "'comet' is not one of 'wandb', 'mlflow', 'trackio'" in bench.call("sweep", "--track", "comet").error
    monkeypatch.undo()
    if find_spec("tensorboard"):
        error = bench.call("sweep", "--tensorboard", "events", "--detach").error
        assert error.startswith("--tensorboard follows the runs while the command watches them: leave out --detach")
    assert not bench.store.root.exists()
