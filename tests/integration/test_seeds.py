"""Jobs of several seeds: each pack ends as if it were alone, and its failures and interruptions are its own."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.bench import EPOCHS, STEPS, SWEEP, USER_METHODS, Bench, teacher_run, train_job, until
from tests.support.cli import PATIENCE
from tests.support.interruptions import same_end
from tests.support.ranks import as_one_process, train_ranks

METHODS = ("kd", "crd")
SEEDS = (0, 1)
IN_TURN = pytest.mark.parametrize("in_turn", [False, True])


def two_packs(bench: Bench, **more: object) -> dict[tuple[str, int], str]:
    """Return (method, seed) -> run_id of two seeds; further methods come first."""
    bench.sweep = {**SWEEP, "methods": {**more, **{m: SWEEP["methods"][m] for m in METHODS}}, "seeds": list(SEEDS)}
    return {key: cell.run_id for key, cell in bench.cells().items()}


def log(bench: Bench) -> str:
    return (bench.folder / "job.log").read_text()


@IN_TURN
def test_packs_of_two_seeds_end_as_in_jobs_of_their_own(with_teacher: Bench, finished: Bench, in_turn: bool) -> None:
    runs = two_packs(with_teacher)
    assert with_teacher.train(*runs.values(), in_turn=in_turn) == 0
    for seed in SEEDS:
        same_end(with_teacher, finished, *METHODS, seed=seed)
    rows = {key: with_teacher.row(run_id) for key, run_id in runs.items()}
    assert {row["pack_size"] for row in rows.values()} == {len(METHODS)}
    assert log(with_teacher).count("teacher digits_net_w8:") == 1, "loaded and evaluated once"
    of_seed_0 = [seed == str(SEEDS[0]) for seed in re.findall(r" / seed (\d): epoch ", log(with_teacher))]
    assert len(of_seed_0) == len(SEEDS) * len(METHODS) * EPOCHS
    assert of_seed_0 == sorted(of_seed_0, reverse=True) if not in_turn else of_seed_0[:4] == [True, True, False, False]


@IN_TURN
def test_each_seed_has_its_own_cached_logits(with_teacher: Bench, in_turn: bool) -> None:
    with_teacher.sweep = {**SWEEP, "recipe": {**SWEEP["recipe"], "teacher_top_k": 3}, "methods": {"kd": {}}}
    runs = [with_teacher.cells()["kd", seed].run_id for seed in SEEDS]
    weights = []
    for jobs in ((runs,), ([runs[0]], [runs[1]])):
        for job in jobs:
            assert with_teacher.train(*job, in_turn=in_turn) == 0
        weights.append([with_teacher.weights(run_id) for run_id in runs])
        for run_id in runs:
            with_teacher.store.record(run_id).unlink()
    assert weights[0] == weights[1]
    assert len(list((with_teacher.store.root / "logits").iterdir())) == len(SEEDS)


@IN_TURN
def test_no_second_is_counted_twice(with_teacher: Bench, in_turn: bool) -> None:
    runs = two_packs(with_teacher)
    assert with_teacher.train(*runs.values(), in_turn=in_turn) == 0
    rows = [with_teacher.row(run_id) for run_id in runs.values()]
    (started,) = {row["started_at"] for row in rows}
    whole = (max(row["finished_at"] for row in rows) - started).total_seconds()
    assert sum(row["cost_total_s"] for row in rows) < whole


@IN_TURN
def test_a_failing_member_leaves_the_others_of_both_seeds(with_teacher: Bench, finished: Bench, in_turn: bool) -> None:
    runs = two_packs(with_teacher, bad={"use": f"{USER_METHODS}:Raises"})
    (with_teacher.folder / "raise-at").write_text("14")
    assert with_teacher.train(*runs.values(), in_turn=in_turn) == 0
    assert with_teacher.store.failed_ids() == {runs["bad", seed] for seed in SEEDS}
    for seed in SEEDS:
        same_end(with_teacher, finished, *METHODS, seed=seed)


def _train_without_data_of_seed_0(*arguments: Any) -> None:
    from harness.data.load.tensors import TensorLoader

    epoch = TensorLoader.epoch

    def broken(self: TensorLoader, number: int, *more: Any) -> Iterator[Any]:
        for i, batch in enumerate(epoch(self, number, *more)):
            if (self.seed, number, i) == (0, 1, 3):
                raise OSError("the disk is gone")
            yield batch

    TensorLoader.epoch = broken  # type: ignore[method-assign, assignment]
    train_job(*arguments)


@IN_TURN
def test_a_failing_pack_leaves_that_of_the_other_seed(with_teacher: Bench, finished: Bench, in_turn: bool) -> None:
    runs = two_packs(with_teacher)
    assert with_teacher.train(*runs.values(), in_turn=in_turn, train=_train_without_data_of_seed_0) == 0
    same_end(with_teacher, finished, *METHODS, seed=1)
    for method in METHODS:
        failure = with_teacher.store.failure(runs[method, 0])
        assert failure and failure.cause == "OSError: the disk is gone" and "the disk is gone" in failure.details


@pytest.mark.parametrize(
    ("in_turn", "stops"), [(False, (STEPS + 3, EPOCHS * STEPS)), (True, (7, 2 * STEPS + 1)), (True, (1,))]
)
def test_an_interrupted_job_resumes_every_pack(
    with_teacher: Bench, finished: Bench, in_turn: bool, stops: tuple[int, ...]
) -> None:
    """In sequence the first stop comes in the first pack, the next in the second; in turn each comes in both."""
    runs = two_packs(with_teacher)
    for stop in stops:
        assert with_teacher.train(*runs.values(), in_turn=in_turn, stop_after=stop) == 0
        begun = [k for k in runs.values() if with_teacher.store.attempts(k) and k not in with_teacher.store.done_ids()]
        assert len(begun) == len(METHODS) * (2 if in_turn and stop > 1 else 1)
        assert all(any(with_teacher.store.checkpoints(k).glob("epoch-*")) for k in begun), "every pack in training"
    assert with_teacher.train(*runs.values(), in_turn=in_turn) == 0
    for seed in SEEDS:
        same_end(with_teacher, finished, *METHODS, seed=seed)
    assert len(with_teacher.store.attempts(runs["kd", 0])) == (2 if not in_turn else len(stops) + 1)


def _train_with_little_memory(*arguments: Any) -> None:
    import weakref

    from harness.training.member import Member

    members: list[weakref.ref[Member]] = []
    build = Member.__init__

    def noted(self: Member, *args: Any, **kwargs: Any) -> None:
        if len(members) == len(METHODS) and any(member() is not None for member in members):
            os._exit(3)
        members.append(weakref.ref(self))
        build(self, *args, **kwargs)

    Member.__init__ = noted  # type: ignore[method-assign]
    train_job(*arguments)


def test_a_pack_is_gone_when_the_next_one_begins(with_teacher: Bench) -> None:
    """So a job of several seeds needs no more memory than one of a single seed."""
    runs = two_packs(with_teacher)
    assert with_teacher.train(*runs.values(), train=_train_with_little_memory) == 0
    assert set(runs.values()) <= with_teacher.store.done_ids()


def test_jobs_of_several_processes_train_several_seeds(with_teacher: Bench, finished: Bench, tmp_path: Path) -> None:
    runs = [two_packs(with_teacher)["kd", seed] for seed in SEEDS]
    train_ranks(with_teacher, 2, *runs)
    alone = Bench(tmp_path / "alone")
    alone.folder.mkdir()
    alone.take(finished, teacher_run(finished))
    two_packs(alone)
    try:
        train_ranks(alone, 2, runs[1])
        assert with_teacher.weights(runs[1]) == alone.weights(runs[1])
    finally:
        alone.clean_up()
    for run_id in runs:
        assert with_teacher.row(run_id)["processes"] == 2
        as_one_process(with_teacher.row(run_id), finished.row(run_id), "kd")


def test_a_sweep_with_jobs_of_two_packs(with_teacher: Bench, finished: Bench) -> None:
    with_teacher.sweep = {**SWEEP, "methods": {"kd": {}}, "seeds": [0, 1, 2]}
    options = ("--max-parallel", "1", "--packs-per-job", "2")
    document = json.loads(with_teacher.call("sweep", *options, "--plan", "--json").out)
    assert (document["packs"], document["jobs"], document["jobs_at_once"]) == (3, 2, 1)
    result = with_teacher.run("sweep", *options)
    assert result.returncode == 0, result.stderr
    assert "3 packs in 2 jobs, 1 job at a time" in result.stderr
    rows = {seed: with_teacher.row(with_teacher.cells()["kd", seed].run_id) for seed in (0, 1, 2)}
    for seed in rows:
        same_end(with_teacher, finished, "kd", seed=seed)
    assert len({row["started_at"] for row in rows.values()}) == 2, "processes"
    assert rows[0]["started_at"] == rows[1]["started_at"]


def test_a_sweep_joins_seeds_of_which_enough_is_known(finished: Bench, bench: Bench) -> None:
    """Its jobs still fill the places, and run ids stay the same."""
    shutil.copytree(finished.store.root, bench.store.root)
    methods = {"student": {}, "kd": {}}
    bench.sweep = {**SWEEP, "methods": methods, "seeds": [0, 1, 2, 3, 4, 5, 6]}  # of which three are done
    alone = json.loads(bench.call("sweep", "--max-parallel", "2", "--packs-per-job", "1", "--plan", "--json").out)
    joined = json.loads(bench.call("sweep", "--max-parallel", "2", "--plan", "--json").out)
    assert (alone["packs"], alone["jobs"], joined["packs"], joined["jobs"]) == (4, 4, 4, 2)
    assert joined["run_ids"] == alone["run_ids"]
    for figure in ("elapsed_s", "device_s"):
        assert joined["estimate"][figure]["mid"] < alone["estimate"][figure]["mid"]
    assert "4 packs in 2 jobs, 2 jobs at a time" in bench.call("sweep", "--max-parallel", "2", "--plan").out
    assert "4 packs, 4 jobs at a time" in bench.call("sweep", "--max-parallel", "4", "--plan").out


def test_a_run_that_its_job_has_not_come_to_is_pending(bench: Bench) -> None:
    bench.sweep = {**SWEEP, "methods": {"slow": {"use": f"{USER_METHODS}:Sleeps"}}, "seeds": list(SEEDS)}
    (bench.folder / "slow").write_text("0.2")
    runs = [cell.run_id for cell in bench.cells().values()]
    job = bench.job(*runs)
    until(lambda: bench.store.progress(runs[0]))
    rows = {row["run_id"]: row for row in json.loads(bench.call("status", "--json").out)}
    assert [rows[k]["state"] for k in runs] == ["running", "pending"]
    assert rows[runs[1]]["remark"] == "waits for other seeds of its job"
    (bench.folder / "slow").write_text("0")
    job.join(PATIENCE)
    assert bench.store.done_ids() == set(runs)
