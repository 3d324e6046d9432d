"""Methods that take the teacher's classifier (SimKD) or let the teacher learn (DML), trained, saved and resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.store.schema import FIDELITY_COLUMNS
from tests.support.bench import EPOCHS, STEPS, SWEEP, USER_METHODS, Bench, teacher_run
from tests.support.cli import run_command
from tests.support.interruptions import killed_at, same_end
from tests.support.ranks import as_one_process, train_ranks

METHODS: dict[str, Any] = {
    "kd": {},
    "simkd": {},
    "dml": {},
    "dml_teacher": {"use": "dml", "params": {"start": "teacher"}},
}
SWEEP_2 = {**SWEEP, "methods": METHODS, "seeds": [0]}


@pytest.fixture(scope="module")
def trained(finished: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Train one pack without interruption."""
    bench = Bench(tmp_path_factory.mktemp("otherwise"), SWEEP_2)
    bench.take(finished, teacher_run(finished))
    assert bench.train(*runs(bench).values()) == 0
    return bench


def runs(bench: Bench, **more: Any) -> dict[str, str]:
    bench.sweep = {**SWEEP_2, "methods": {**more, **METHODS}}
    return {method: cell.run_id for (method, _), cell in bench.cells().items()}


def curve(row: dict[str, Any], name: str) -> list[float]:
    return [c["value"] for c in row["curves"] if c["name"] == name]


@pytest.mark.parametrize("method", ["simkd", "dml", "dml_teacher"])
def test_a_run_by_itself_ends_as_in_a_pack(with_teacher: Bench, trained: Bench, method: str) -> None:
    assert with_teacher.train(runs(with_teacher)[method]) == 0
    same_end(with_teacher, trained, method)


def test_the_teacher_that_others_share_does_not_learn(trained: Bench, finished: Bench) -> None:
    same_end(trained, finished, "kd")


def test_killed_and_resumed(with_teacher: Bench, trained: Bench) -> None:
    run_ids = runs(with_teacher, killer={"use": f"{USER_METHODS}:Kills"})
    for steps in (STEPS + 7, 11):
        killed_at(with_teacher, steps, *run_ids.values())
    assert with_teacher.train(*run_ids.values()) == 0
    same_end(with_teacher, trained, *METHODS)


def test_two_processes(with_teacher: Bench, trained: Bench) -> None:
    run_ids = runs(with_teacher)
    train_ranks(with_teacher, 2, *run_ids.values())
    for method in ("simkd", "dml", "dml_teacher"):
        as_one_process(with_teacher.row(run_ids[method]), trained.row(run_ids[method]), method)
    held = [(with_teacher.folder / f"digests-{rank}").read_text() for rank in range(2)]
    assert held[0] == held[1] and len(held[0].splitlines()) == EPOCHS * len(METHODS)
    assert any("peer.fc.weight" in json.loads(line) for line in held[0].splitlines())


def test_the_peer_learns_and_is_thrown_away(trained: Bench) -> None:
    rows = {method: trained.row(run_id) for method, run_id in runs(trained).items()}
    scratch, with_teacher = (curve(rows[m], "test_peer_top1") for m in ("dml", "dml_teacher"))
    assert len(scratch) == len(with_teacher) == EPOCHS
    assert scratch[-1] > scratch[0] and with_teacher[0] > scratch[0], (
        "one begins where the teacher is, one from nothing"
    )
    assert with_teacher[0] != rows["dml_teacher"]["teacher_top1"], "it goes on learning"
    assert not curve(rows["kd"], "test_peer_top1")
    assert rows["kd"]["last_agreement"] is not None and rows["simkd"]["train_agreement"] is not None
    for method in ("dml", "dml_teacher"):
        compared = {k for k in FIDELITY_COLUMNS if rows[method][k] is not None}
        assert compared == {"last_ece", "train_top1", "train_ece"}, "its teacher is no fixed reference"
        tensors = load_file(trained.store.student_weights(rows[method]["run_id"]))
        assert tensors.keys() == load_file(trained.store.student_weights(rows["kd"]["run_id"])).keys()


def test_the_method_is_part_of_simkds_model(trained: Bench, tmp_path: Path) -> None:
    run_ids = runs(trained)
    row, kd = trained.row(run_ids["simkd"]), trained.row(run_ids["kd"])
    tensors = load_file(trained.store.student_weights(run_ids["simkd"]))
    teacher = load_file(trained.store.student_weights(row["teacher_run"]))
    assert torch.equal(tensors["method.classifier_weight"], teacher["fc.weight"])
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert row["evaluated_parameters"] == sum(t.numel() for k, t in tensors.items() if not k.endswith(statistics))
    assert row["evaluated_parameters"] > row["student_parameters"] == kd["student_parameters"]
    assert kd["evaluated_parameters"] == kd["student_parameters"]
    own = tmp_path / "own.safetensors"
    save_file({k.removeprefix("student."): t for k, t in tensors.items() if k.startswith("student.")}, own)
    args = ("--dataset", "digits", "--model", "digits_net_w4", "--weights", own, "--json")
    loss = json.loads(run_command("evaluate", *args).out)["loss"]
    assert loss != pytest.approx(row["last_loss"], rel=1e-3), (
        "the classifier that learns nothing is not the one evaluated"
    )


@pytest.mark.parametrize("method", METHODS)
def test_what_a_run_saved_gives_its_record(trained: Bench, method: str) -> None:
    run_id = runs(trained)[method]
    args = ("--run", run_id[:9], "--json", "--results", trained.store.root.resolve())
    document = json.loads(run_command("evaluate", *args).out)
    row = trained.row(run_id)
    assert (document["run_id"], document["top1"], document["top5"]) == (run_id, row["last_top1"], row["last_top5"])
    for metric in ("loss", "ece"):
        assert document[metric] == pytest.approx(row[f"last_{metric}"], rel=1e-6)
