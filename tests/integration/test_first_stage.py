"""First stages end the same when resumed, in a pack and on several ranks, and are reported."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from harness.planning.run_states import details
from harness.spec.tasks.classification import TASK as CLASSIFICATION
from harness.training import checkpoint
from tests.support.bench import EPOCHS, STEPS, SWEEP, USER_METHODS, Bench, teacher_run
from tests.support.interruptions import killed_at, same_end
from tests.support.ranks import train_ranks

# Different numbers of first epochs; kd has none.
METHODS: dict[str, Any] = {
    "kd": {}, "ab": {"params": {"first_epochs": 2}}, "ft": {"params": {"first_epochs": 1}}
}  # fmt: skip
SWEEP_2 = {**SWEEP, "methods": METHODS, "seeds": [0]}
KILLER = {"killer": {"use": f"{USER_METHODS}:KillsFirst"}}


@pytest.fixture(scope="module")
def staged(finished: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench with one pack of methods with and without a first stage, never interrupted."""
    bench = Bench(tmp_path_factory.mktemp("staged"), SWEEP_2)
    bench.take(finished, teacher_run(finished))
    assert bench.train(*(c.run_id for c in bench.cells().values())) == 0
    return bench


def runs(bench: Bench, **more: Any) -> dict[str, str]:
    """Return entry -> run_id, further methods first."""
    bench.sweep = {**SWEEP_2, "methods": {**more, **METHODS}}
    return {method: cell.run_id for (method, _), cell in bench.cells().items()}


@pytest.mark.parametrize("method", ["ab", "ft"])
def test_a_run_by_itself_ends_as_in_a_pack(with_teacher: Bench, staged: Bench, method: str) -> None:
    assert with_teacher.train(runs(with_teacher)[method]) == 0
    same_end(with_teacher, staged, method)


def test_a_run_without_first_stage_ends_as_in_a_pack_without_one(staged: Bench, finished: Bench) -> None:
    same_end(staged, finished, "kd")


def test_killed_in_the_first_stage_and_resumed(with_teacher: Bench, staged: Bench) -> None:
    """Kills hit the first stage and the main stage. The killing method starts an epoch before the others."""
    run_ids = runs(with_teacher, **KILLER)
    for steps in (STEPS + 7, STEPS, 9, STEPS + 2):
        killed_at(with_teacher, steps, *run_ids.values())
    assert with_teacher.train(*run_ids.values()) == 0
    same_end(with_teacher, staged, *METHODS)
    assert with_teacher.row(run_ids["ab"])["attempts"] == 5


def test_stopped_at_each_edge_of_the_first_stage(with_teacher: Bench, staged: Bench) -> None:
    """Stops come after an epoch's last step, before the epoch is closed, and one step later."""
    run_id = runs(with_teacher)["ab"]
    for steps, reached in ((STEPS, (-2, STEPS)), (1, (-1, 1)), (STEPS - 1, (-1, STEPS)), (1, (0, 1))):
        assert with_teacher.train(run_id, stop_after=steps) == 0
        _, state = checkpoint.load_newest(with_teacher.store.checkpoints(run_id)) or pytest.fail("no checkpoint")
        assert (state["history"]["epoch"], state["steps"]) == reached, "the newest checkpoint is loaded"
    assert with_teacher.train(run_id) == 0
    same_end(with_teacher, staged, "ab")


def test_two_processes(with_teacher: Bench, staged: Bench) -> None:
    run_ids = runs(with_teacher)
    train_ranks(with_teacher, 2, *run_ids.values())
    for method in ("ab", "ft"):
        got, single = ({(c["epoch"], c["name"]): c["value"] for c in b.row(run_ids[method])["curves"]}
                      for b in (with_teacher, staged))  # fmt: skip
        assert got.keys() == single.keys()
        assert any(name.startswith("first") for _, name in single)
        for (epoch, name), value in single.items():  # to rounding, which training amplifies in time
            if epoch <= 1 and not name.startswith("test"):
                allowed = 1e-5 if epoch < 1 else 1e-2
                assert got[epoch, name] == pytest.approx(value, rel=allowed), (method, epoch, name)
    held = [(with_teacher.folder / f"digests-{rank}").read_text() for rank in range(2)]
    assert held[0] == held[1], "the same in both processes, also in the first stage"
    assert len(held[0].splitlines()) == 3 * EPOCHS + 2 + 1


def test_the_record_separates_the_first_stage(staged: Bench) -> None:
    rows = {method: staged.row(run_id) for method, run_id in runs(staged).items()}
    for method, first, term in (("ab", 2, "boundary"), ("ft", 1, "reconstruction")):
        row = rows[method]
        curve = [(c["epoch"], c["value"]) for c in row["curves"] if c["name"] == f"first_{term}"]
        assert [e for e, _ in curve] == list(range(1 - first, 1)) and all(v > 0 for _, v in curve)
        assert {c["epoch"] for c in row["curves"] if not c["name"].startswith("first")} == {1, 2, 3}
        assert row["cost_first_stage_s"] > 0 and row["epochs"] == EPOCHS
    assert rows["ab"]["cost_teacher_s"] == 0 < rows["ft"]["cost_teacher_s"], "ab reads no teacher in its main stage"
    assert rows["kd"]["cost_first_stage_s"] == 0 < rows["kd"]["cost_teacher_s"]
    for row in rows.values():
        parts = [value for name, value in row.items() if name.startswith("cost_") and name != "cost_total_s"]
        assert math.isclose(row["cost_total_s"], sum(parts))
    boundary = [c["value"] for c in rows["ab"]["curves"] if c["name"] == "first_boundary"]
    assert boundary[1] < boundary[0], "training reduces it"


def test_progress_has_the_stage(with_teacher: Bench) -> None:
    run_id = runs(with_teacher)["ab"]
    assert with_teacher.train(run_id, stop_after=STEPS + 3) == 0
    assert re.search(r"first stage, epoch 1/2, lr 0\.\d+, .*boundary ", (with_teacher.folder / "job.log").read_text())
    assert with_teacher.train(run_id, stop_after=1) == 0
    progress = with_teacher.store.progress(run_id)
    assert (progress["stage"], progress["epoch"], progress["epochs"]) == ("first", 1, 2)
    assert 0.2 < progress["fraction"] < 0.3, "16 steps of 60"
    assert next(details(progress, CLASSIFICATION)) == "first stage, epoch 2/2"


def test_the_main_stage_sees_what_it_sees_without_a_first(with_teacher: Bench) -> None:
    entries = {
        name: {"use": f"{USER_METHODS}:{use}", "params": {"name": name}}
        for name, use in (("a", "Notes"), ("b", "NotesFirst"))
    }
    run_ids = runs(with_teacher, **entries)
    assert with_teacher.train(run_ids["a"], run_ids["b"]) == 0
    seen = {name: Path(with_teacher.folder / f"seen-{name}").read_text() for name in entries}
    assert seen["a"] == seen["b"] and len(seen["a"].splitlines()) == EPOCHS * STEPS
    first = [line.split() for line in (with_teacher.folder / "first-b").read_text().splitlines()]
    assert [epoch for epoch, _ in first] == ["-1"] * STEPS + ["0"] * STEPS
    main = [line.split()[0] for line in seen["a"].splitlines()]
    orders = [tuple(i for _, i in first[k : k + STEPS]) for k in (0, STEPS)]
    orders += [tuple(main[k : k + STEPS]) for k in range(0, EPOCHS * STEPS, STEPS)]
    assert len(set(orders)) == 2 + EPOCHS, "each epoch of either stage has an order of its own"


def test_one_that_diverges_in_its_first_stage(with_teacher: Bench, staged: Bench) -> None:
    run_ids = runs(with_teacher, odd={"use": f"{USER_METHODS}:GivesNaNFirst"})
    assert with_teacher.train(*run_ids.values()) == 0
    row = with_teacher.row(run_ids["odd"])
    assert row["status"] == "diverged" and row["last_top1"] is None and row["best_epoch"] is None
    same_end(with_teacher, staged, *METHODS)
