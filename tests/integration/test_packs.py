"""Invariant 4: a run ends the same in a pack as by itself, and a member's failure does not affect the others."""

import json
import re
from pathlib import Path

import pytest

from harness.store.schema import FIDELITY_COLUMNS
from tests.support.bench import EPOCHS, METHODS, STEPS, SWEEP, USER_METHODS, Bench
from tests.support.cli import REPO
from tests.support.interruptions import KILLER, killed_at, pack, same_end


def odd(*names: str) -> dict[str, dict[str, str]]:
    """Return methods of user_methods as entries of a sweep file; they come first in their pack."""
    return {name.lower(): {"use": f"{USER_METHODS}:{name}"} for name in names}


def failing_pack(bench: Bench, *names: str) -> dict[str, str]:
    """Return entry -> run_id, the odd methods first: they reach shared tensors before the others do."""
    bench.sweep = {**SWEEP, "methods": {**odd(*names), **SWEEP["methods"]}, "seeds": [0]}
    return {method: cell.run_id for (method, _), cell in bench.cells().items()}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_by_itself_ends_as_in_a_pack_of_five(with_teacher: Bench, finished: Bench, method: str) -> None:
    run_id = finished.cells()[method, 0].run_id
    assert with_teacher.train(run_id) == 0
    assert with_teacher.row(run_id)["pack_size"] == 1 and finished.row(run_id)["pack_size"] == 5
    same_end(with_teacher, finished, method)


def test_a_run_by_itself_through_the_command(with_teacher: Bench, finished: Bench) -> None:
    result = with_teacher.run("sweep", "--only", "method=kd", "--only", "seed=1")
    assert result.returncode == 0, result.stderr
    assert with_teacher.store.done_ids() == {c.run_id for c in with_teacher.cells("method=kd", "seed=1").values()} | {
        finished.cells()["kd", 1].teacher_run
    }
    same_end(with_teacher, finished, "kd", seed=1)


def test_members_at_different_epochs(with_teacher: Bench, finished: Bench) -> None:
    run_ids = pack(with_teacher)
    for run_id, steps in zip(run_ids[1:], (2 * STEPS + 1, STEPS, 7), strict=False):
        assert with_teacher.train(run_id, stop_after=steps) == 0
    assert with_teacher.train(*run_ids) == 0
    log = (with_teacher.folder / "job.log").read_text()
    assert "training 5 runs" in log and f"  {run_ids[1]}  digits_net_w8 > digits_net_w4 / kd / seed 0\n" in log
    line = r"^\d\d:\d\d:\d\d digits_net_w8 > digits_net_w4 / kd / seed 0: epoch 3/3, lr 0\.\d+, loss \d+\.\d{4}, ce .*"
    assert re.search(line + r", kd .*, top-1 \d+\.\d\d %, test_top5 ", log, re.MULTILINE), "of a pack's member"
    same_end(with_teacher, finished, *METHODS)


def test_a_method_sees_the_epoch(with_teacher: Bench) -> None:
    """Epochs count from 1, also if one was interrupted and resumed."""
    run_id = failing_pack(with_teacher, "TellsEpoch")["tellsepoch"]
    assert with_teacher.train(run_id, stop_after=STEPS + 5) == 0
    assert with_teacher.train(run_id) == 0
    curve = [c for c in with_teacher.row(run_id)["curves"] if c["name"] == "train_epoch"]
    assert [(c["epoch"], c["value"]) for c in curve] == [(e, float(e)) for e in range(1, EPOCHS + 1)]


@pytest.mark.parametrize("name", ["Raises", "GivesNaN", "NoSuchTap", "ChangesInPlace", "Drops"])
def test_an_odd_member_leaves_the_others_untouched(with_teacher: Bench, finished: Bench, name: str) -> None:
    run_ids = failing_pack(with_teacher, name)
    (with_teacher.folder / "raise-at").write_text("14")
    assert with_teacher.train(*run_ids.values()) == 0
    same_end(with_teacher, finished, *METHODS)
    run_id = run_ids[name.lower()]
    failure = with_teacher.store.failure(run_id)
    expected = {
        "Raises": "ArithmeticError: this method has a bug",
        "NoSuchTap": "stage99",
        "ChangesInPlace": "place",
    }
    if name in expected:
        assert failure is not None and failure.kind == "code" and not with_teacher.store.record(run_id).exists()
        assert expected[name] in failure.cause
    else:
        assert failure is None
        row = with_teacher.row(run_id)
        assert row["status"] == ("diverged" if name == "GivesNaN" else "done")
        assert {row[column] is None for column in FIDELITY_COLUMNS} == {name == "GivesNaN"}


def test_torchs_own_random_numbers_depend_only_on_the_run(with_teacher: Bench) -> None:
    """A method with dropout ends the same by itself, in a pack, and resumed."""
    run_ids = failing_pack(with_teacher, "Drops")
    drops = run_ids["drops"]
    assert with_teacher.train(drops) == 0
    expected = with_teacher.weights(drops)
    with_teacher.store.record(drops).unlink()
    for path in with_teacher.store.checkpoints(drops).glob("*"):
        path.unlink()
    with_teacher.sweep["methods"] |= KILLER
    killer = with_teacher.cells()["killer", 0].run_id
    killed_at(with_teacher, STEPS + 3, killer, run_ids["rekd"], drops)
    assert with_teacher.train(*run_ids.values()) == 0
    assert with_teacher.weights(drops) == expected


def test_a_failed_and_a_diverged_run_through_the_command(with_teacher: Bench, finished: Bench) -> None:
    """A failure exits with 1 and its cause, and the others finish. NaN is a result. --retry-failed trains again."""
    (with_teacher.folder / "mine.py").write_text(Path(REPO / "tests" / "support" / "user_methods.py").read_text())
    entries = {
        "buggy": {"use": "mine:Raises"},
        "odd": {"use": "mine:GivesNaN"},
        "kd": {},
        "crd": SWEEP["methods"]["crd"],
    }
    with_teacher.sweep = {**SWEEP, "methods": entries, "seeds": [0]}
    (with_teacher.folder / "raise-at").write_text("14")

    first = with_teacher.run("sweep")
    assert first.returncode == 1
    messages = first.stderr
    assert "FAILED: ArithmeticError: this method has a bug" in messages
    assert 'raise ArithmeticError("this method has a bug")' in messages, "the last lines of its traceback"
    assert "mine.py" in messages and "diverged" in messages
    same_end(with_teacher, finished, "kd", "crd")
    states = {label.split(" / ")[1]: row for label, row in with_teacher.states().items() if " > " in label}
    assert {k: row["state"] for k, row in states.items()} == {
        "buggy": "failed", "odd": "done", "kd": "done", "crd": "done"
    }  # fmt: skip
    assert states["buggy"]["cause"] == "ArithmeticError: this method has a bug"
    row = with_teacher.row(states["odd"]["run_id"])
    assert row["status"] == "diverged" and row["last_top1"] is None
    assert [c["epoch"] for c in row["curves"] if c["name"] == "train_total"] == [1]

    runs = {k: row["run_id"] for k, row in states.items()}
    rerun = with_teacher.run("sweep", "--json")
    assert rerun.returncode == 1
    table = {row["method"]: row for row in json.loads(rerun.stdout)["rows"]}
    assert table["odd"]["diverged"] == 1 and table["buggy"]["missing"] == 1
    assert all(len(with_teacher.store.attempts(k)) == 1 for k in runs.values()), "neither is tried again"

    (with_teacher.folder / "raise-at").unlink()
    retried = with_teacher.run("sweep", "--retry-failed")
    assert retried.returncode == 0, retried.stderr
    assert with_teacher.row(runs["buggy"])["status"] == "done"
    assert {k: len(with_teacher.store.attempts(run_id)) for k, run_id in runs.items()} == {
        "buggy": 2, "odd": 1, "kd": 1, "crd": 1
    }  # fmt: skip
