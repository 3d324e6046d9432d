"""``teacher_top_k``: the first run of a pair and seed computes the teacher's logits, later ones read them."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.bench import EPOCHS, SWEEP, Bench

HOT = {"use": "kd", "params": {"temperature": 8}}
KEPT: dict[str, Any] = {
    **SWEEP,
    "recipe": {**SWEEP["recipe"], "teacher_top_k": 4},
    "methods": {**SWEEP["methods"], "hot": HOT},
    "seeds": [0],
}


@pytest.fixture
def kept(taught: Bench) -> dict[str, str]:
    """method -> run_id of a sweep that keeps logits."""
    taught.sweep = KEPT
    return {method: cell.run_id for (method, _), cell in taught.cells().items()}


def files(bench: Bench) -> list[Path]:
    return sorted((bench.store.root / "logits").glob("*/*"))


def test_methods_that_read_more_of_the_teacher_are_the_same_runs_without_it(
    kept: dict[str, str], finished: Bench
) -> None:
    plain = {method: cell.run_id for (method, seed), cell in finished.cells().items() if seed == 0}
    assert {m for m in plain if kept[m] != plain[m]} == {"kd"}


def test_a_later_run_reads_them_and_ends_with_the_same_bits(taught: Bench, kept: dict[str, str]) -> None:
    assert taught.train(kept["hot"]) == 0
    alone = taught.weights(kept["hot"])
    made = {file: file.stat().st_mtime_ns for file in files(taught)}
    assert len(made) == EPOCHS
    for path in (taught.store.run(kept["hot"]), taught.store.record(kept["hot"])):
        path.rename(path.with_name(path.name + ".aside"))

    assert taught.train(kept["kd"], kept["hot"]) == 0
    assert taught.weights(kept["hot"]) == alone
    assert {file: file.stat().st_mtime_ns for file in files(taught)} == made, "they were read, not computed again"


def test_what_another_teacher_said_fails_the_run_and_is_removed(taught: Bench, kept: dict[str, str]) -> None:
    assert taught.train(kept["hot"]) == 0
    wrong = files(taught)[1]
    tensors = load_file(wrong)
    save_file({**tensors, "values": tensors["values"].flip(0).contiguous()}, wrong)
    assert taught.train(kept["kd"]) == 0
    failure = taught.store.failure(kept["kd"])
    assert failure and failure.kind == "data" and "differs from the teacher's logits" in failure.cause
    assert wrong not in files(taught)
    taught.store.archive_failure(kept["kd"])
    assert taught.train(kept["kd"]) == 0 and taught.row(kept["kd"])["status"] == "done"
