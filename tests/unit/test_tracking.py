"""The follower of runs: what it shows a tool and when, and tools that fail."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.store.live_curves import add_epoch, read_epochs
from harness.store.locks import Lock
from harness.store.store import Store
from harness.tracking.follower import Follower
from harness.tracking.tracked_run import Key, Point, RunFacts, State, TrackedRun
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
    with Lock(store.tracking_lock("first", "small")) as acquired:
        assert acquired
        _, follower = started(store, {"first": Notebook(), "second": Notebook()})
    assert list(follower.tools) == ["second"]
    assert capsys.readouterr().out == "first: another process tracks small already\n"


def test_lines_of_epochs_that_are_damaged_are_left_out(store: Store) -> None:
    run_id, _ = started(store, {})
    path = store.live_curves(run_id)
    whole = path.read_bytes()
    other = json.dumps({**json.loads(whole), "epoch": 7}).encode()
    path.write_bytes(other + b"\n\0\0\n[]\n{}" + whole + b'\n{"epoch": 2, "va')
    add_epoch(store, run_id, 3, {"test_top1": float("inf")})
    assert [(e.epoch, e.values["test_top1"]) for e in read_epochs(store, run_id)] == [(1, 10.0), (3, float("inf"))]


def test_no_run_ends_because_its_epochs_cannot_be_noted(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    run_id, _ = started(store, {})
    store.live_curves(run_id).unlink()
    store.live_curves(run_id).mkdir()
    add_epoch(store, run_id, 2, {"test_top1": 1.0})
    assert "curves.jsonl: cannot be written" in capsys.readouterr().err
    assert read_epochs(store, run_id) == []
