"""Several ranks that train one run: they reach the single process's result, and do not hang when one is lost."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from tests.support.bench import AUGMENTED_METHODS, EPOCHS, METHODS, SWEEP, USER_METHODS, Bench, until
from tests.support.ranks import as_one_process, exit_code, start_ranks, train_ranks


@pytest.mark.parametrize(("world", "methods"), [(2, METHODS), (3, ("student", "crd", "rekd"))])
def test_the_result_of_one_process(with_teacher: Bench, finished: Bench, world: int, methods: tuple[str, ...]) -> None:
    """The last batch of an epoch has 14 images, so that three ranks have unequal numbers."""
    run_ids = {method: finished.cells()[method, 0].run_id for method in methods}
    train_ranks(with_teacher, world, *run_ids.values())
    for method, run_id in run_ids.items():
        got, expected = (load_file(b.store.student_weights(run_id)) for b in (with_teacher, finished))
        assert got.keys() == expected.keys()
        if method == "student":
            for key, value in expected.items():
                torch.testing.assert_close(got[key], value, rtol=1e-5, atol=1e-5, msg=key)
        row, single = with_teacher.row(run_id), finished.row(run_id)
        assert row["processes"] == world and single["processes"] == 1
        as_one_process(row, single, method)
    held = [(with_teacher.folder / f"digests-{rank}").read_text() for rank in range(world)]
    assert len(set(held)) == 1, "weights, banks and momenta are the same in all processes"
    assert len(held[0].splitlines()) == EPOCHS * len(run_ids)
    assert any("method.bank_s" in json.loads(line) for line in held[0].splitlines())


def test_mixed_images_and_views_have_the_result_of_one_process(with_teacher: Bench) -> None:
    """The partner of an image may be another process's."""
    with_teacher.sweep = {**SWEEP, "methods": AUGMENTED_METHODS, "seeds": [0]}
    run_id = with_teacher.cells()["own", 0].run_id
    assert with_teacher.train(run_id) == 0
    single = with_teacher.row(run_id)
    with_teacher.store.record(run_id).unlink()
    train_ranks(with_teacher, 2, run_id)
    as_one_process(with_teacher.row(run_id), single, "own")


def test_a_killed_rank_ends_all_and_they_resume(with_teacher: Bench, finished: Bench) -> None:
    with_teacher.sweep = {**SWEEP, "methods": {"slow": {"use": f"{USER_METHODS}:Sleeps"}}, "seeds": [0]}
    (with_teacher.folder / "slow").write_text("0.02")
    run_id = with_teacher.cells()["slow", 0].run_id
    first, second = start_ranks(with_teacher, 2, run_id)
    until(lambda: any(with_teacher.store.checkpoints(run_id).glob("epoch-*")))
    os.kill(second.pid, signal.SIGKILL)
    assert exit_code(first) != 0
    assert "lost each other" in (with_teacher.folder / "log-0").read_text()
    assert with_teacher.store.failure(run_id) is None, "a lost process is no failure of the run"
    (with_teacher.folder / "slow").unlink()
    train_ranks(with_teacher, 2, run_id)
    assert with_teacher.row(run_id)["attempts"] == 2


def test_a_failure_on_every_rank_is_the_members_own(with_teacher: Bench, finished: Bench) -> None:
    with_teacher.sweep = {**SWEEP, "methods": {"buggy": {"use": f"{USER_METHODS}:Raises"}, "kd": {}}, "seeds": [0]}
    (with_teacher.folder / "raise-at").write_text("14")
    cells = with_teacher.cells()
    train_ranks(with_teacher, 2, cells["buggy", 0].run_id, cells["kd", 0].run_id)
    failure = with_teacher.store.failure(cells["buggy", 0].run_id)
    assert failure and failure.cause == "ArithmeticError: this method has a bug"
    assert with_teacher.row(cells["kd", 0].run_id)["status"] == "done"


def test_a_failure_on_one_rank_ends_all_and_is_reported(with_teacher: Bench, finished: Bench) -> None:
    with_teacher.sweep = {
        **SWEEP,
        "methods": {"buggy": {"use": f"{USER_METHODS}:RaisesInOneProcess"}, "kd": {}},
        "seeds": [0],
    }
    cells = with_teacher.cells()
    processes = start_ranks(with_teacher, 2, cells["buggy", 0].run_id, cells["kd", 0].run_id)
    assert all(exit_code(process) for process in processes)
    failure = with_teacher.store.failure(cells["buggy", 0].run_id)
    assert failure and failure.cause == "ArithmeticError: only here"
    assert with_teacher.store.failure(cells["kd", 0].run_id) is None
