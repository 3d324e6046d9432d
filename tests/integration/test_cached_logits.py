"""``teacher_top_k``: the first run of a pair and seed computes the teacher's logits, later ones read them."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.bench import EPOCHS, SWEEP, Bench

HOT = {"use": "kd", "params": {"temperature": 8}}
CACHED: dict[str, Any] = {
    **SWEEP,
    "recipe": {**SWEEP["recipe"], "teacher_top_k": 4},
    "methods": {**SWEEP["methods"], "hot": HOT},
    "seeds": [0],
}


@pytest.fixture
def cached(with_teacher: Bench) -> dict[str, str]:
    """Return method -> run_id of a sweep that caches logits."""
    with_teacher.sweep = CACHED
    return {method: cell.run_id for (method, _), cell in with_teacher.cells().items()}


def files(bench: Bench) -> list[Path]:
    return sorted((bench.store.root / "logits").glob("*/*"))


def test_methods_that_read_more_of_the_teacher_are_the_same_runs_without_it(
    cached: dict[str, str], finished: Bench
) -> None:
    plain = {method: cell.run_id for (method, seed), cell in finished.cells().items() if seed == 0}
    assert {m for m in plain if cached[m] != plain[m]} == {"kd"}


def test_a_later_run_reads_them_and_ends_with_the_same_bits(with_teacher: Bench, cached: dict[str, str]) -> None:
    assert with_teacher.train(cached["hot"]) == 0
    expected = with_teacher.weights(cached["hot"])
    written = {file: file.stat().st_mtime_ns for file in files(with_teacher)}
    assert len(written) == EPOCHS
    for path in (with_teacher.store.run(cached["hot"]), with_teacher.store.record(cached["hot"])):
        path.rename(path.with_name(path.name + ".aside"))

    assert with_teacher.train(cached["kd"], cached["hot"]) == 0
    assert with_teacher.weights(cached["hot"]) == expected
    assert {file: file.stat().st_mtime_ns for file in files(with_teacher)} == written, (
        "they were read, not computed again"
    )


def test_another_teachers_logits_fail_the_run_and_are_removed(with_teacher: Bench, cached: dict[str, str]) -> None:
    assert with_teacher.train(cached["hot"]) == 0
    wrong = files(with_teacher)[1]
    tensors = load_file(wrong)
    save_file({**tensors, "values": tensors["values"].flip(0).contiguous()}, wrong)
    assert with_teacher.train(cached["kd"]) == 0
    failure = with_teacher.store.failure(cached["kd"])
    assert failure and failure.kind == "data" and "differs from the teacher's logits" in failure.cause
    assert wrong not in files(with_teacher)
    with_teacher.store.archive_failure(cached["kd"])
    assert with_teacher.train(cached["kd"]) == 0 and with_teacher.row(cached["kd"])["status"] == "done"
