"""The follower of runs: what it shows a tool and when, and tools that fail."""

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.errors import UserError
from harness.planning.tracking_process import Tracking
from harness.store import checksums, live_curves
from harness.store.live_curves import add_epoch, read_epochs
from harness.store.locks import Lock
from harness.store.store import Store
from harness.tracking import mlflow_tracker
from harness.tracking.follower import Follower
from harness.tracking.tracked_run import Key, Point, RunFacts, State, TrackedRun
from harness.tracking.wandb_tracker import WeightsAndBiases
from tests.support.sciences import make_science


@dataclass
class Notebook:
    """A tool that notes what it is told; it raises in the method that ``fails`` names."""

    notes: list[object] = field(default_factory=list)
    held: set[Key] | None = field(default_factory=set)
    fails: str = ""

    def begin(self, run: TrackedRun, facts: RunFacts) -> set[Key] | None:
        self._note("begin", facts.state)
        return self.held

    def add(self, run: TrackedRun, points: Iterable[Point]) -> None:
        self._note("add", [(p.epoch, p.value) for p in points if p.tag == "test/top1"])

    def end(self, run: TrackedRun, facts: RunFacts) -> None:
        self._note("end", (facts.state, facts.cause))

    def _note(self, method: str, note: object) -> None:
        if method == self.fails:
            raise RuntimeError(f"{method}: no space")
        self.notes.append((method, note))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def started(store: Store, tools: dict[str, Notebook]) -> tuple[str, Follower]:
    """Return a run that has trained an epoch, and a process that follows it."""
    of_run = make_science("digits_net_w4")
    store.write_science(of_run.run_id, of_run)
    add_epoch(store, of_run.run_id, 1, {"test_top1": 10.0})
    follower = Follower(store)
    for name, tool in tools.items():
        follower.add_tool(name, lambda tool=tool: tool)  # type: ignore[misc]
    follower.follow([TrackedRun("small", of_run.run_id, "kd / seed 0 / a > b", "a > b", "kd", 0, ())])
    return of_run.run_id, follower


def test_a_round_shows_only_what_is_new(store: Store) -> None:
    tool = Notebook()
    run_id, follower = started(store, {"tool": tool})
    for _ in range(2):
        follower.round()
    assert tool.notes == [("begin", State.RUNNING), ("add", [(1, 10.0)])]
    add_epoch(store, run_id, 2, {"test_top1": float("nan")})
    add_epoch(store, run_id, 1, {"test_top1": 11.0})  # trained again after an interruption
    add_epoch(store, run_id, 2, {"test_top1": 20.0})
    follower.round()
    follower.close()
    assert tool.notes[2:] == [("add", [(2, 20.0)]), ("end", (State.RUNNING, ""))]


def test_a_failed_run_that_is_tried_again_begins_again(store: Store) -> None:
    tool = Notebook()
    run_id, follower = started(store, {"tool": tool})
    store.write_failure(run_id, "code", "ValueError: no", "", "log")
    for _ in range(2):
        follower.round()
    assert tool.notes == [("begin", State.FAILED), ("add", [(1, 10.0)]), ("end", (State.FAILED, "ValueError: no"))]
    store.archive_failure(run_id)
    tool.held = {(1, "test/top1"), (1, "train/lr")}
    follower.round()
    assert tool.notes[3:] == [("begin", State.RUNNING)]


def test_a_run_of_which_a_tool_has_all_is_left_alone(store: Store) -> None:
    tool = Notebook(held=None)
    run_id, follower = started(store, {"tool": tool})
    store.write_failure(run_id, "code", "ValueError: no", "", "log")
    for _ in range(2):
        follower.round()
    follower.close()
    assert tool.notes == [("begin", State.FAILED)]


@pytest.mark.parametrize("method", ["begin", "add", "end"])
def test_a_tool_that_raises_is_told_once_and_the_others_go_on(
    store: Store, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, tool = Notebook(fails=method), Notebook()
    run_id, follower = started(store, {"broken": broken, "tool": tool})
    follower.round()
    store.write_failure(run_id, "code", "ValueError: no", "", "log")
    for _ in range(2):
        follower.round()
    follower.close()
    assert capsys.readouterr().out == f"broken: RuntimeError: {method}: no space\n"
    assert follower.given_up == ["broken"] and tool.notes[-1] == ("end", (State.FAILED, "ValueError: no"))


def test_two_processes_do_not_show_one_sweep_in_one_tool(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = Notebook(), Notebook()
    _, follower = started(store, {"first": first, "second": second})
    with Lock(store.tracking_lock("first", "small")) as acquired:
        assert acquired
        follower.round()
        _, late = started(store, {"first": Notebook()})
        late.round()
        late.close()
    assert capsys.readouterr().out == "first: another process tracks small already\n" and late.given_up == ["first"]
    shown = [("begin", State.RUNNING), ("add", [(1, 10.0)])]
    assert (first.notes, second.notes) == ([], shown)
    follower.round()
    assert (first.notes, second.notes) == (shown, shown), "once the other has ended, all that it has missed"


def test_lines_of_epochs_that_are_damaged_are_left_out(store: Store) -> None:
    run_id, _ = started(store, {})
    path = store.live_curves(run_id)
    whole = path.read_bytes()
    other = json.dumps({**json.loads(whole), "epoch": 7}).encode()
    path.write_bytes(other + b"\n\0\0\n[]\n{}" + whole + b'\n{"epoch": 2, "va')
    add_epoch(store, run_id, 3, {"test_top1": float("inf")})
    assert [(e.epoch, e.values["test_top1"]) for e in read_epochs(store, run_id)] == [(1, 10.0), (3, float("inf"))]


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (lambda path, other: path.symlink_to(other), "cannot be read: Too many levels of symbolic links; left out"),
        (lambda path, other: os.mkfifo(path), ""),
        (lambda path, other: path.write_bytes(bytes(200) + other.read_bytes()), "larger than 0 MiB; the rest"),
        (lambda path, other: path.write_text(_line(epoch=10**30)), ""),
    ],
    ids=["link", "pipe", "huge", "far epoch"],
)
def test_a_planted_file_in_the_place_of_epochs_is_left_out(
    store: Store,
    plant: Callable[[Path, Path], object],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_id, _ = started(store, {})
    path = store.live_curves(run_id)
    path.rename(other := path.with_name("other"))
    content = other.read_bytes()
    plant(path, other)
    monkeypatch.setattr(live_curves, "LONGEST", 150)
    assert read_epochs(store, run_id) == [] and said in capsys.readouterr().err
    if not path.is_file() or path.is_symlink():
        add_epoch(store, run_id, 2, {"test_top1": 1.0})
        assert "curves.jsonl: cannot be written" in capsys.readouterr().err and other.read_bytes() == content


def _line(**values: object) -> str:
    return json.dumps(checksums.seal_value({"epoch": 1, "values": {"test_top1": 1.0}, "at": 1.0, **values}))


@pytest.mark.parametrize("tag", ["train/cé→(x)", "train/../../b", "train//a", "train/" + "t" * 300])
def test_mlflow_takes_every_name_of_a_term_and_knows_it_again(tmp_path: Path, tag: str) -> None:
    pytest.importorskip("mlflow")
    from mlflow.utils.validation import _validate_metric_name

    name = mlflow_tracker.metric_name(tag)
    _validate_metric_name(name)
    assert name.startswith("train/") and mlflow_tracker.metric_name("train/ce") == "train/ce"


def test_mlflows_database_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def client(uri: str) -> None:
        """Make a database's tables one by one, unless it has all."""
        database = Path(uri.removeprefix("sqlite:///"))
        if not database.exists():
            database.write_text("half")
            if kills:
                raise KeyboardInterrupt
            database.write_text("whole")
        assert database.read_text() == "whole"

    kills = ["a kill"]
    monkeypatch.setitem(sys.modules, "mlflow.tracking", SimpleNamespace(MlflowClient=client))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        mlflow_tracker.make(tmp_path)
    kills.clear()
    mlflow_tracker.make(tmp_path)


def test_places_that_a_tool_cannot_write_to_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.planning.tracking_process.find_spec", lambda name: True)
    (tmp_path / "events").touch()
    with pytest.raises(UserError, match="--tensorboard .*events: is a file; expected a folder"):
        Tracking.of((), tmp_path / "events")
    monkeypatch.setitem(sys.modules, "mlflow.tracking", SimpleNamespace(MlflowClient=pytest.fail))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace())  # type: ignore[arg-type]
    for sign in "?#%":
        with pytest.raises(ValueError, match="MLflow takes no"):
            mlflow_tracker.make(tmp_path / sign)


def test_wandb_shows_a_run_in_each_sweep_that_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(dir: str, project: str, id: str, **_: object) -> SimpleNamespace:
        folder = Path(dir) / "wandb" / f"offline-run-20260101_000000-{id}" / "files"
        folder.mkdir(parents=True)
        begun.append(project)
        nothing = lambda *args, **options: None  # noqa: E731
        return SimpleNamespace(dir=folder, summary={}, define_metric=nothing, finish=nothing)

    begun: list[str] = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Settings=dict))  # type: ignore[arg-type]
    tracker = WeightsAndBiases(tmp_path)
    facts = RunFacts(make_science("digits_net_w4"), 1.0, (), State.DONE)
    for sweep in ("one", "two", "one"):
        run = TrackedRun(sweep, "0" * 16, "kd", "a > b", "kd", 0, ())
        if tracker.begin(run, facts) is not None:
            tracker.end(run, facts)
    assert begun == ["one", "two"]


def test_a_tracking_that_cannot_start_is_told_and_the_sweep_goes_on(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.tracking.touch()
    with Tracking(("mlflow",)).running(store):
        pass
    assert "tracking not started: [Errno 17] File exists" in capsys.readouterr().err


def test_a_killed_tracking_is_told_as_such(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import os; print('INFO a table'); os.kill(os.getpid(), 9)"
    monkeypatch.setattr("slurm.module_command.module_command", lambda *args: [sys.executable, "-Suc", script])
    with Tracking(("mlflow",)).running(store):
        pass
    assert "tracking stopped: its process was ended by signal 9; the runs went on" in capsys.readouterr().err


def test_no_run_ends_because_its_epochs_cannot_be_noted(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run_id, _ = started(store, {})
    store.live_curves(run_id).unlink()
    store.live_curves(run_id).mkdir()
    add_epoch(store, run_id, 2, {"test_top1": 1.0})
    assert "curves.jsonl: cannot be written" in capsys.readouterr().err
    assert read_epochs(store, run_id) == []
