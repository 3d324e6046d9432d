"""Invariant 3: a run that is killed anywhere and resumed ends bit for bit like one that was never interrupted."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from harness.training import checkpoint
from tests.support.bench import (
    AUGMENTED_METHODS,
    EPOCHS,
    METHODS,
    STEPS,
    SWEEP,
    USER_METHODS,
    Bench,
    teacher_run,
    until,
)
from tests.support.interruptions import KILLER, killed_at, pack, same_end

SLOW = {"slow": {"use": f"{USER_METHODS}:Sleeps"}}


@pytest.mark.parametrize("case", [1, 2])
def test_killed_at_random_steps(with_teacher: Bench, finished: Bench, case: int) -> None:
    run_ids = pack(with_teacher, **KILLER)
    rng = random.Random(case)
    for _ in range(3):  # fewer steps in all than there are, so that each kill meets a run in training
        killed_at(with_teacher, rng.randrange(EPOCHS * STEPS // 3), *run_ids)
    assert with_teacher.train(*run_ids) == 0
    same_end(with_teacher, finished, *METHODS)
    assert with_teacher.row(run_ids[0])["attempts"] == 4


def test_killed_at_random_moments(with_teacher: Bench, finished: Bench) -> None:
    """Kills from outside come while a job starts, trains, evaluates or writes."""
    run_ids = pack(with_teacher)
    rng = random.Random(0)
    for _ in range(5):
        process = with_teacher.job(*run_ids)
        process.join(rng.uniform(0.1, 1.0))
        process.kill()
        process.join()
    assert with_teacher.train(*run_ids) == 0
    same_end(with_teacher, finished, *METHODS)


def test_optimiser_and_memory_banks_resume(with_teacher: Bench) -> None:
    """All tensors of a checkpoint are the same with and without interruptions before it."""
    at = STEPS + 8
    run_ids = pack(with_teacher)
    checkpoints = {}
    for kind, stops in (("at once", (at,)), ("interrupted", (2, 3, STEPS, at - STEPS - 5))):
        for stop in stops:
            assert with_teacher.train(*run_ids, stop_after=stop) == 0
        for run_id in run_ids:
            folder = with_teacher.store.checkpoints(run_id)
            tensors, state = checkpoint.load_newest(folder) or pytest.fail("no checkpoint")
            assert (state["history"]["epoch"], state["steps"]) == (1, 8)
            checkpoints[kind, run_id] = tensors, state["sums"], state["history"]["curves"]
            shutil.rmtree(folder)
    for method, run_id in zip(METHODS, run_ids, strict=True):
        expected, *expected_sums = checkpoints["at once", run_id]
        tensors, *sums = checkpoints["interrupted", run_id]
        assert sums == expected_sums and tensors.keys() == expected.keys()
        assert any(name.startswith("momentum.") for name in expected)
        assert method != "crd" or {"method.bank_s", "method.bank_t", "method.log_z"} <= expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(tensors[name], tensor), (method, name)


def test_mixed_and_repeated_images_and_views_resume(with_teacher: Bench) -> None:
    """A run ends with the same weights at once in its pack, and stopped in each epoch by itself."""
    with_teacher.sweep = {**SWEEP, "methods": AUGMENTED_METHODS, "seeds": [0]}
    run_ids = {cell.method: cell.run_id for cell in with_teacher.cells().values()}
    assert with_teacher.train(run_ids["own"]) == with_teacher.train(run_ids["kd"], run_ids["dml"]) == 0
    expected = {
        run_id: (with_teacher.weights(run_id), with_teacher.row(run_id)["curves"]) for run_id in run_ids.values()
    }
    for method in ("own", "kd"):
        run_id = run_ids[method]
        with_teacher.store.record(run_id).unlink()
        for steps in (3, STEPS, STEPS + 1):
            assert with_teacher.train(run_id, stop_after=steps) == 0 and not with_teacher.store.record(run_id).exists()
        assert with_teacher.train(run_id) == 0
        assert (with_teacher.weights(run_id), with_teacher.row(run_id)["curves"]) == expected[run_id]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # in a tensor: the file stays readable
    path.write_bytes(content)


def flip_in_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 64
    path.write_bytes(content)


@pytest.fixture(scope="module")
def interrupted(finished: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench killed in the third epoch, with two checkpoints of each run from after the first epoch."""
    bench = Bench(tmp_path_factory.mktemp("interrupted"))
    bench.take(finished, teacher_run(finished))
    killed_at(bench, 2 * STEPS + 3, *pack(bench, **KILLER))
    return bench


@pytest.mark.parametrize("damage", [cut, empty, flip_a_bit, flip_in_header])
def test_a_damaged_checkpoint_is_skipped(
    bench: Bench, interrupted: Bench, finished: Bench, damage: Callable[[Path], None]
) -> None:
    shutil.copytree(interrupted.store.root, bench.store.root)
    run_ids = pack(bench)
    for run_id in run_ids:
        before, newest = sorted(bench.store.checkpoints(run_id).glob("epoch-*"))
        damage(newest)
    assert bench.train(*run_ids) == 0
    same_end(bench, finished, *METHODS)
    log = (bench.folder / "job.log").read_text()
    assert log.count("is damaged") == len(run_ids)
    assert "epoch 1/3" not in log, "the checkpoint before was used"


def test_a_run_without_intact_checkpoint_starts_again(bench: Bench, interrupted: Bench, finished: Bench) -> None:
    shutil.copytree(interrupted.store.root, bench.store.root)
    run_ids = pack(bench)
    for run_id in run_ids:
        for path in bench.store.checkpoints(run_id).glob("epoch-*"):
            flip_a_bit(path)
    assert bench.train(*run_ids) == 0
    same_end(bench, finished, *METHODS)
    assert "epoch 1/3" in (bench.folder / "job.log").read_text()


@pytest.mark.parametrize("lost", ["some", "all"])
def test_another_thread_count_ends_with_the_same_bits(
    bench: Bench, interrupted: Bench, finished: Bench, lost: str
) -> None:
    """The number of threads changes the order of sums, so a run keeps the number that it started with."""
    shutil.copytree(interrupted.store.root, bench.store.root)
    run_ids = pack(bench)
    if lost == "all":
        for run_id in run_ids:
            shutil.rmtree(bench.store.checkpoints(run_id))
    assert bench.train(*run_ids, threads=2) == 0
    same_end(bench, finished, *METHODS)


def test_members_that_started_with_different_thread_counts_keep_theirs(with_teacher: Bench, finished: Bench) -> None:
    student, kd, _, _, _, killer = pack(with_teacher, **KILLER)
    killed_at(with_teacher, STEPS + 1, student, killer)
    with_teacher.store.write_science(kd, with_teacher.plan().plan.runs[kd].science)
    with_teacher.store.add_attempt(kd, log="", pid=0, threads=2)
    assert with_teacher.train(kd, student, threads=2) == 0
    same_end(with_teacher, finished, "student")
    assert [with_teacher.row(k)["threads"] for k in (student, kd)] == [1, 2]


def test_killed_task_and_killed_group_through_the_command(bench: Bench, finished: Bench) -> None:
    """The queue starts a killed task again; if the whole group is killed, the next sweep does."""
    bench.sweep = {**SWEEP, "methods": {**SWEEP["methods"], **SLOW}, "seeds": [0]}
    cells = bench.cells()
    kd = cells["kd", 0].run_id
    (bench.folder / "slow").write_text("0.3")
    sweep = bench.start("sweep")
    until(lambda: bench.store.attempts(kd) and bench.store.progress(kd).get("fraction", 0) > 0.02)
    os.kill(bench.store.attempts(kd)[-1]["pid"], signal.SIGKILL)
    until(lambda: len(bench.store.attempts(kd)) == 2)
    feeder = int(next((bench.store.root / "queues").glob("*.lock")).read_text().split()[0])
    os.killpg(feeder, signal.SIGKILL)
    sweep.kill()
    until(lambda: not bench.store.is_running(kd))
    assert not bench.store.record(kd).exists()
    (bench.folder / "slow").unlink()
    rerun = bench.run("sweep", "--max-parallel", "2")
    assert rerun.returncode == 0, rerun.stderr
    same_end(bench, finished, *METHODS)
    assert bench.row(kd)["attempts"] == 3


def test_adamw_and_lamb_by_step_resume(bench: Bench, tmp_path: Path) -> None:
    """Stopped in a warm-up, between its steps and in the cosine, with micro-batches, clipping and an average."""
    recipe = {"lr": 0.01, "schedule_by": "step", "min_lr": 1e-4, "warmup_epochs": 1, "warmup_lr": 1e-5, "ema": 0.9}
    recipe |= {"decay_norms_and_biases": False, "layer_decay": 0.5, "accumulate": 2, "clip_norm": 1.0}
    methods = {name: {"use": "student", "recipe": {**recipe, "optimizer": name}} for name in ("adamw", "lamb")}
    weights: list[dict[str, bytes]] = []
    at_once = Bench(tmp_path / "at once")
    at_once.folder.mkdir()
    for each, stops in ((at_once, ()), (bench, (3, STEPS - 3, STEPS + 1))):
        shared = {**SWEEP["recipe"], "precision": "bf16"}
        each.sweep = {**SWEEP, "methods": methods, "recipe": shared, "seeds": [0]}
        run_ids = [cell.run_id for cell in each.plan().plan.cells]
        for stop in stops:
            assert each.train(*run_ids, stop_after=stop) == 0
        assert each.train(*run_ids) == 0
        assert all(each.row(run_id)["attempts"] == len(stops) + 1 for run_id in run_ids)
        weights.append({run_id: each.store.student_weights(run_id).read_bytes() for run_id in run_ids})
    at_once.clean_up()
    assert weights[0] == weights[1] and len(set(weights[0].values())) == 2
